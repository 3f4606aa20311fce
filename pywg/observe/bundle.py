"""Writes what was found, and in what, for somebody else: keys, names and addresses made anonymous.

The same key, name or address has the same pseudonym throughout, and addresses keep their kind (private,
public, link-local), so that one can still see what belongs together. Secret keys are never put in.
"""

from __future__ import annotations

import ipaddress
import json
import platform
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pywg import __version__
from pywg.config import files
from pywg.config.positions import value_of
from pywg.datapath import describe
from pywg.observe.checks import Subject
from pywg.observe.findings import Finding

VERSION = 1

_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])")
_KEPT = {"0.0.0.0", "::", "127.0.0.1", "::1"}  # noqa: S104  they say nothing of anybody


class Pseudonyms:
    """Hands them out, and puts them in the places of what they stand for."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """names: of hosts and people, wherever they may stand."""
        self._given: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._names = sorted({name for name in names if name}, key=len, reverse=True)
        for name in self._names:
            self._stand_in("name", name)

    def text(self, text: str) -> str:
        """A text without what would tell who it is about."""
        text = _KEY.sub(lambda match: self._stand_in("key", match[0]), text)
        for key, given in list(self._given.items()):
            if given.startswith("key-"):
                text = text.replace(f"{key[:8]}…", given)
        for name in self._names:
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", self._given[name], text)
        text = _IPV6.sub(lambda match: self._address(match[0]), text)
        return _IPV4.sub(lambda match: self._address(match[0]), text)

    def value(self, value: Any) -> Any:
        """The same for everything in a value that JSON has."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def _address(self, text: str) -> str:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return text
        if str(address) in _KEPT:
            return text
        kind = "link-local" if address.is_link_local else "public" if address.is_global else "private"
        return self._stand_in(f"{kind}-ipv{address.version}", str(address))

    def _stand_in(self, kind: str, text: str) -> str:
        if text not in self._given:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._given[text] = f"{kind}-{self._counts[kind]}"
        return self._given[text]


def write_bundle(path: str, results: Sequence[tuple[Subject, Sequence[Finding]]]) -> None:
    """Write the report, a JSON file that only its owner may read. Raises PywgError."""
    pseudonyms = Pseudonyms(name for subject, _ in results for name in _names(subject))
    value = {
        "version": VERSION,
        "pywg": __version__,
        "datapath": describe(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "tunnels": [_tunnel(subject, findings) for subject, findings in results],
    }
    files.write_text(path, json.dumps(pseudonyms.value(value), indent=1) + "\n")


def _tunnel(subject: Subject, findings: Sequence[Finding]) -> dict[str, Any]:
    watched = subject.watched
    return {
        "interface": "(an interface)" if subject.interface in subject.names.values() else subject.interface,
        "findings": [finding.to_json() for finding in findings],
        "file": None if subject.config is None else _file(subject),
        "peers": [
            {
                "public_key": str(peer.public_key),
                "endpoint": None if peer.endpoint is None else str(peer.endpoint),
                "allowed_ips": [str(network) for network in peer.allowed_ips],
                "persistent_keepalive": peer.persistent_keepalive_interval,
            }
            for peer in (subject.device.peers if subject.device is not None else ())
        ],
        "statistics_before": watched.before,
        "statistics_after": watched.after,
        "events": watched.events,
        "handshake_messages_left": watched.left,
        "handshake_messages_arrived": watched.arrived,
        "kernel_counters": {name: value for name, value in watched.counters.items() if value},
        "seconds": watched.seconds,
    }


def _file(subject: Subject) -> dict[str, Any]:
    """What of a file matters, without keys but public ones and without hooks, which may say anything."""
    assert subject.config is not None
    section = subject.config.interface
    table = value_of(section.table)
    return {
        "addresses": [str(address.value) for address in section.addresses],
        "listen_port": value_of(section.listen_port),
        "mtu": value_of(section.mtu),
        "fwmark": value_of(section.fwmark),
        "table": table,
        "dns": [str(server.value) for server in section.dns_servers],
        "has_hooks": bool(section.pre_up or section.post_up or section.pre_down or section.post_down),
        "peers": [
            {
                "public_key": peer.public_key.value.base64,
                "has_preshared_key": peer.preshared_key is not None,
                "endpoint": str(value_of(peer.endpoint) or ""),
                "allowed_ips": [str(entry.value.network) for entry in peer.allowed_ips],
            }
            for peer in subject.peers_of_file()
        ],
    }


def _names(subject: Subject) -> list[str]:
    """Of peers, of hosts in endpoints, and of files."""
    hosts = [
        name.value.host
        for peer in (*subject.peers_of_file(), *(subject.other.peers if subject.other is not None else ()))
        for name in (peer.endpoint, *peer.more_endpoints)
        if name is not None and not re.fullmatch(r"[0-9.]+|.*:.*", name.value.host)
    ]
    return [*subject.names.values(), *hosts, *filter(None, (subject.path, subject.other_path))]
