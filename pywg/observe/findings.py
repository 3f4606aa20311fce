"""The registry of findings: what may be wrong with a tunnel, each with a stable code, and what hides what.

`checks*.py` and `counted.py` find them; `pywg doctor`, `show`, metrics, the daemon's log and the documents
read them here. The registry's order is that of likelihood, by which findings are told.
docs/reference/findings.md explains every code.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Any

PAGE = "reference/findings"


class Severity(enum.Enum):
    """How bad it is, the worst first: it does not work, it may not work, good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One thing that may be found.

    summary: what it is, without what was seen. causes: codes of findings that explain this one; while one of
    them is told of the same peer, or of the interface, this one is not. lasts: seconds that it must have
    lasted before it is told, where it is known how long it has.
    """

    code: str
    severity: Severity
    summary: str
    causes: tuple[str, ...] = ()
    lasts: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    seen: a sentence with what was seen. do: commands, or lines for a file, as a person would type them; text
    that is neither begins with `# `. peer: its public key in base64, None for the interface; name: what
    people call it. lasted: seconds, None when it is not known. severity: None for the registry's.
    """

    code: str
    seen: str
    do: tuple[str, ...] = ()
    peer: str | None = None
    name: str | None = None
    lasted: float | None = None
    severity: Severity | None = None

    @property
    def kind(self) -> Kind:
        """Its entry in the registry."""
        return KINDS[self.code]

    @property
    def weight(self) -> Severity:
        """Its own severity, else the registry's."""
        return self.severity or self.kind.severity

    def to_json(self) -> dict[str, Any]:
        """As `pywg doctor --json` has it."""
        return {
            "code": self.code,
            "severity": self.weight.value,
            "summary": self.kind.summary,
            "seen": self.seen,
            "do": list(self.do),
            "peer": self.peer,
            "name": self.name,
            "lasted": self.lasted,
            "page": f"{PAGE}#{self.code}",
        }


_NOT_THERE = ("not-up", "daemon-gone", "not-readable")
_OFF = (*_NOT_THERE, "interface-down", "no-private-key")
_KEYS = ("other-does-not-know-us", "other-is-unknown", "same-key", "own-key-as-peer")
_NO_WAY = ("name-not-resolved", "no-route", "route-loop", "not-sent", "unreachable", "dropped-on-arrival")

_REGISTRY = (
    Kind("config-mistakes", Severity.ERROR, "the configuration file has mistakes"),
    Kind("not-up", Severity.ERROR, "the interface does not exist", ("config-mistakes", "daemon-gone")),
    Kind("daemon-gone", Severity.ERROR, "the daemon ended without `pywg down`"),
    Kind("not-readable", Severity.ERROR, "the interface cannot be read"),
    Kind("other-namespace", Severity.WARNING, "the interface is in another network namespace", _NOT_THERE),
    Kind("interface-down", Severity.ERROR, "the interface is down", _NOT_THERE),
    Kind("no-private-key", Severity.ERROR, "the interface has no private key", _NOT_THERE),
    Kind("own-key-as-peer", Severity.ERROR, "a peer has the key of this host itself"),
    Kind("same-key", Severity.ERROR, "two hosts or interfaces have the same private key"),
    Kind("other-does-not-know-us", Severity.ERROR, "the other file has no peer with our public key"),
    Kind("other-is-unknown", Severity.ERROR, "our file has no peer with the other's public key"),
    Kind("preshared-key-differs", Severity.ERROR, "the two ends have different preshared keys"),
    Kind("port-differs", Severity.ERROR, "an endpoint's port is not the one that is listened on"),
    Kind("name-not-resolved", Severity.ERROR, "the endpoint's name has no address"),
    Kind("no-route", Severity.ERROR, "there is no route to the endpoint"),
    Kind("route-loop", Severity.ERROR, "the route to the endpoint leads into the tunnel itself"),
    Kind(
        "not-sent",
        Severity.ERROR,
        "datagrams to the endpoint do not leave this host",
        (*_OFF, "no-route", "route-loop", "unreachable"),
    ),
    Kind(
        "unreachable",
        Severity.ERROR,
        "a router or the endpoint says that it cannot be reached",
        ("no-route", "route-loop"),
    ),
    Kind("reverse-path-filter", Severity.ERROR, "the kernel drops what comes from the tunnel or the peer"),
    Kind(
        "dropped-on-arrival",
        Severity.ERROR,
        "the peer's datagrams reach this host, but not the daemon",
        (*_OFF, "reverse-path-filter"),
    ),
    Kind("name-moved", Severity.WARNING, "the endpoint's name has another address by now", _NOT_THERE),
    Kind("peer-has-another-key", Severity.ERROR, "a peer speaks to us with a key that we do not know", _OFF),
    Kind("other-key-for-us", Severity.ERROR, "somebody speaks to us with another public key for us", _OFF),
    Kind("clock-went-back", Severity.ERROR, "the peer's clock is behind what it was", _OFF),
    Kind("clock-behind", Severity.ERROR, "the clock of this host is behind what it was"),
    Kind(
        "session-unconfirmed",
        Severity.ERROR,
        "the peer begins handshakes and makes nothing of our answers",
        (*_OFF, *_KEYS, *_NO_WAY, "preshared-key-differs"),
    ),
    Kind(
        "nat-mapping-lost",
        Severity.WARNING,
        "the peer has called before and cannot be reached where it was",
        (*_OFF, *_KEYS, *_NO_WAY, "preshared-key-differs", "peer-has-another-key", "session-unconfirmed"),
    ),
    Kind(
        "handshake-unanswered",
        Severity.ERROR,
        "initiations leave and nobody answers",
        (
            *(*_OFF, *_KEYS, *_NO_WAY, "preshared-key-differs", "port-differs", "reverse-path-filter"),
            *("peer-has-another-key", "other-key-for-us", "session-unconfirmed", "nat-mapping-lost"),
            *("clock-behind", "name-moved"),
        ),
        lasts=1.0,
    ),
    Kind("address-not-allowed", Severity.ERROR, "allowed IPs of one end miss an address of the other"),
    Kind("same-address", Severity.ERROR, "both ends have the same address in the tunnel"),
    Kind("allowed-ips-twice", Severity.ERROR, "two peers are given the same allowed IPs"),
    Kind(
        "source-not-allowed",
        Severity.ERROR,
        "a peer sends from addresses that it may not use",
        ("same-address",),
    ),
    Kind("no-address", Severity.ERROR, "the interface has no address", (*_NOT_THERE, "interface-down")),
    Kind(
        "not-routed",
        Severity.ERROR,
        "allowed IPs are not routed into the tunnel",
        (*_NOT_THERE, "interface-down", "no-address"),
    ),
    Kind("forwarding-off", Severity.ERROR, "packets for other hosts arrive and are not forwarded"),
    Kind("mtu-too-large", Severity.ERROR, "large packets do not come through the tunnel"),
    Kind(
        "data-unanswered",
        Severity.WARNING,
        "the handshake completes, but a ping through the tunnel has no answer",
        (
            *("source-not-allowed", "address-not-allowed", "same-address", "allowed-ips-twice", "no-address"),
            *("not-routed", "nat-mapping-lost", "reverse-path-filter", "same-key", "dropped-on-arrival"),
        ),
    ),
    Kind("no-allowed-ip", Severity.WARNING, "packets for addresses that no peer has"),
    Kind("endpoint-flaps", Severity.WARNING, "a peer is heard from two places in turn", ("same-key",)),
    Kind("stranger", Severity.WARNING, "somebody with an unknown key begins handshakes", _KEYS),
    Kind("under-load", Severity.WARNING, "more handshakes come than can be answered"),
    Kind("no-endpoint", Severity.WARNING, "neither end can begin", _NOT_THERE),
    Kind("file-differs", Severity.WARNING, "the file and the running interface differ", _NOT_THERE),
    Kind("check-failed", Severity.WARNING, "a check could not be made"),
    Kind("keepalive-off", Severity.NOTE, "behind NAT without keepalives"),
    Kind("not-pywgd", Severity.NOTE, "another program runs the interface, and tells less"),
)

KINDS: Mapping[str, Kind] = {kind.code: kind for kind in _REGISTRY}
"""Every kind by its code, the likely ones first."""

_SEVERITIES = list(Severity)
_ORDER = {code: place for place, code in enumerate(KINDS)}


def settle(found: Iterable[Finding]) -> list[Finding]:
    """What is told of what was found: causes without their consequences, the worst and likeliest first.

    A finding hides its consequences of the same peer; one of the interface hides those of every peer.
    Notes hide nothing, nor does what is told with less weight than its kind has: it may not be the cause.
    """
    lasting = [f for f in dict.fromkeys(found) if f.lasted is None or f.lasted >= f.kind.lasts]
    hiding = [
        f
        for f in lasting
        if f.weight is not Severity.NOTE and _SEVERITIES.index(f.weight) <= _SEVERITIES.index(f.kind.severity)
    ]
    interface_wide = {f.code for f in hiding if f.peer is None}
    of_peer = {(f.code, f.peer) for f in hiding}

    def is_hidden(finding: Finding) -> bool:
        return any(
            cause in interface_wide or (cause, finding.peer) in of_peer
            for cause in finding.kind.causes
            if cause != finding.code
        )

    def place(finding: Finding) -> tuple[int, int, str]:
        return _SEVERITIES.index(finding.weight), _ORDER[finding.code], finding.name or finding.peer or ""

    return sorted((f for f in lasting if not is_hidden(f)), key=place)


def short_key(key: str) -> str:
    """The first and the last four letters of a public key in base64, as logs have them."""
    return f"{key[:4]}…{key[39:43]}"


def short(peer: str, name: str | None) -> str:
    """What a sentence calls a peer: its name, or the beginning of its public key in base64."""
    return name or f"{peer[:8]}…"
