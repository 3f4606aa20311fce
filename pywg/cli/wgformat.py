"""What `wg` prints, to the byte: a device for people, for scripts, as a configuration file; and our JSON.

Nothing is read or written here but strings; colours are left in, see `without_colours`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wire.endpoint import Endpoint

JSON_VERSION = 1
"""Raised only when something that programs rely on goes away or changes its meaning; additions do not."""

_RESET, _BOLD = "\x1b[0m", "\x1b[1m"
_RED, _GREEN, _YELLOW, _CYAN = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[36m"
_COLOUR = re.compile(r"\x1b\[[^A-Za-z]*[A-Za-z]")

_UNITS = (("year", 365 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))

_NONE = "(none)"


def without_colours(text: str) -> str:
    """The same text for what is no terminal."""
    return _COLOUR.sub("", text)


# --- Parts. -----------------------------------------------------------------------------------------------


def endpoint_text(endpoint: Endpoint | None) -> str:
    """`192.0.2.1:51820`, `[2001:db8::1]:51820`, or `(none)`."""
    if endpoint is None:
        return _NONE
    host = socket.inet_ntop(endpoint.family, socket.inet_pton(endpoint.family, endpoint.host))
    return str(endpoint).replace(endpoint.host, host, 1)


def duration_text(seconds: int) -> str:
    """`1 hour, 2 minutes`; parts that are zero are left out, so 0 is nothing at all."""
    parts = []
    for unit, length in _UNITS:
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count} {_CYAN}{unit}{'' if count == 1 else 's'}{_RESET}")
    return ", ".join(parts)


def bytes_text(count: int) -> str:
    """`1023 B`, `1.00 KiB`, ... up to TiB."""
    if count < 1024:
        return f"{count} {_CYAN}B{_RESET}"
    power = min(4, (count.bit_length() - 1) // 10)
    return f"{count / 1024**power:.2f} {_CYAN}{' KMGT'[power]}iB{_RESET}"


def ago_text(then: int, now: int) -> str:
    """How long ago a handshake was; both in whole seconds of the wall clock."""
    if then == now:
        return "Now"
    if then > now:
        return f"({_RED}System clock wound backward; connection problems may ensue.{_RESET})"
    return f"{duration_text(now - then)} ago"


def mark_text(mark: int) -> str:
    """`0x10` or `off`."""
    return f"{mark:#x}" if mark else "off"


def key_text(key: PrivateKey | PresharedKey | None) -> str:
    """Base64, or `(none)`."""
    return _NONE if key is None or key.is_zero else key.base64


def _own_public_key(device: DeviceSnapshot) -> str:
    return _NONE if device.private_key is None else device.private_key.public_key.base64


# --- For people. ------------------------------------------------------------------------------------------


def pretty(name: str, device: DeviceSnapshot, now: int, *, hide_keys: bool) -> str:
    """`wg show` of one interface, with colours. now: whole seconds of the wall clock."""
    lines = [f"{_RESET}{_GREEN}{_BOLD}interface{_RESET}: {_GREEN}{name}{_RESET}"]
    if device.private_key is not None:
        lines.append(_field("public key", device.private_key.public_key.base64))
        lines.append(_field("private key", "(hidden)" if hide_keys else device.private_key.base64))
    if device.listen_port:
        lines.append(_field("listening port", str(device.listen_port)))
    if device.fwmark:
        lines.append(_field("fwmark", f"{device.fwmark:#x}"))
    for peer in sorted(device.peers, key=_by_handshake):
        lines.append("")
        lines.extend(_pretty_peer(peer, now, hide_keys))
    return "\n".join(lines) + "\n"


def _by_handshake(peer: PeerSnapshot) -> int:
    """The latest handshake first; those who never had one last, in their order."""
    return -peer.last_handshake_ns


def _field(name: str, value: str) -> str:
    return f"  {_BOLD}{name}{_RESET}: {value}"


def _pretty_peer(peer: PeerSnapshot, now: int, hide_keys: bool) -> Iterator[str]:
    yield f"{_YELLOW}{_BOLD}peer{_RESET}: {_YELLOW}{peer.public_key.base64}{_RESET}"
    if not peer.preshared_key.is_zero:
        yield _field("preshared key", "(hidden)" if hide_keys else peer.preshared_key.base64)
    if peer.endpoint is not None:
        yield _field("endpoint", endpoint_text(peer.endpoint))
    slash = f"{_CYAN}/{_RESET}"
    networks = (str(network).replace("/", slash) for network in peer.allowed_ips)
    yield _field("allowed ips", ", ".join(networks) or _NONE)
    if handshake := _seconds(peer):
        yield _field("latest handshake", ago_text(handshake, now))
    if peer.rx_bytes or peer.tx_bytes:
        carried = f"{bytes_text(peer.rx_bytes)} received, {bytes_text(peer.tx_bytes)} sent"
        yield _field("transfer", carried)
    if peer.persistent_keepalive_interval:
        every = duration_text(peer.persistent_keepalive_interval)
        yield _field("persistent keepalive", f"every {every}")


def _seconds(peer: PeerSnapshot) -> int:
    return peer.last_handshake_ns // 1_000_000_000


# --- For scripts. -----------------------------------------------------------------------------------------


def dump(device: DeviceSnapshot) -> Iterator[Sequence[str]]:
    """`wg show IFACE dump`: one row for the interface, then one for each peer; columns go apart by tabs."""
    yield (
        key_text(device.private_key),
        _own_public_key(device),
        str(device.listen_port),
        mark_text(device.fwmark),
    )
    for peer in device.peers:
        yield (
            peer.public_key.base64,
            key_text(peer.preshared_key),
            endpoint_text(peer.endpoint),
            ",".join(map(str, peer.allowed_ips)) or _NONE,
            str(_seconds(peer)),
            str(peer.rx_bytes),
            str(peer.tx_bytes),
            _keepalive_text(peer),
        )


def _keepalive_text(peer: PeerSnapshot) -> str:
    return str(peer.persistent_keepalive_interval or "off")


def _per_peer(*columns: Callable[[PeerSnapshot], str]) -> Callable[[DeviceSnapshot], Iterator[Sequence[str]]]:
    """Rows of a peer's public key and these columns."""

    def rows(device: DeviceSnapshot) -> Iterator[Sequence[str]]:
        for peer in device.peers:
            yield (peer.public_key.base64, *(column(peer) for column in columns))

    return rows


FIELDS: dict[str, Callable[[DeviceSnapshot], Iterator[Sequence[str]]]] = {
    "public-key": lambda device: iter([[_own_public_key(device)]]),
    "private-key": lambda device: iter([[key_text(device.private_key)]]),
    "listen-port": lambda device: iter([[str(device.listen_port)]]),
    "fwmark": lambda device: iter([[mark_text(device.fwmark)]]),
    "peers": _per_peer(),
    "preshared-keys": _per_peer(lambda peer: key_text(peer.preshared_key)),
    "endpoints": _per_peer(lambda peer: endpoint_text(peer.endpoint)),
    "allowed-ips": _per_peer(lambda peer: " ".join(map(str, peer.allowed_ips)) or _NONE),
    "latest-handshakes": _per_peer(lambda peer: str(_seconds(peer))),
    "transfer": _per_peer(lambda peer: str(peer.rx_bytes), lambda peer: str(peer.tx_bytes)),
    "persistent-keepalive": _per_peer(_keepalive_text),
    "dump": dump,
}
"""What `wg show IFACE FIELD` knows, in the order of its usage line; each makes rows of columns."""


def showconf(device: DeviceSnapshot) -> str:
    """`wg showconf`: the interface and its peers as a configuration file. It holds the private key."""
    lines = ["[Interface]"]
    if device.listen_port:
        lines.append(f"ListenPort = {device.listen_port}")
    if device.fwmark:
        lines.append(f"FwMark = {device.fwmark:#x}")
    if device.private_key is not None:
        lines.append(f"PrivateKey = {device.private_key.base64}")
    lines.append("")
    sections = []
    for peer in device.peers:
        section = ["[Peer]", f"PublicKey = {peer.public_key.base64}"]
        if not peer.preshared_key.is_zero:
            section.append(f"PresharedKey = {peer.preshared_key.base64}")
        if peer.allowed_ips:
            section.append(f"AllowedIPs = {', '.join(map(str, peer.allowed_ips))}")
        if peer.endpoint is not None:
            section.append(f"Endpoint = {endpoint_text(peer.endpoint)}")
        if peer.persistent_keepalive_interval:
            section.append(f"PersistentKeepalive = {peer.persistent_keepalive_interval}")
        sections.append("".join(f"{line}\n" for line in section))
    return "".join(f"{line}\n" for line in lines) + "\n".join(sections)


# --- For programs. ----------------------------------------------------------------------------------------


def json_value(
    devices: Sequence[tuple[str, DeviceSnapshot]],
    *,
    hide_keys: bool,
    names: Callable[[str], Mapping[PublicKey, str]] = lambda _: {},
    findings: Callable[[str], Sequence[Mapping[str, Any]]] = lambda _: (),
) -> dict[str, Any]:
    """What `pywg show --json` prints; its fields are documented there.

    names: of an interface's peers. findings: what is wrong with an interface, as far as counts alone tell.
    """
    return {
        "version": JSON_VERSION,
        "interfaces": [
            {**_json_device(name, device, hide_keys, names(name)), "findings": list(findings(name))}
            for name, device in devices
        ],
    }


def _json_device(
    name: str, device: DeviceSnapshot, hide_keys: bool, names: Mapping[PublicKey, str]
) -> dict[str, Any]:
    key = device.private_key
    value: dict[str, Any] = {
        "name": name,
        "public_key": None if key is None else key.public_key.base64,
        "has_private_key": key is not None,
    }
    if key is not None and not hide_keys:
        value["private_key"] = key.base64
    value["listen_port"] = device.listen_port or None
    value["fwmark"] = device.fwmark or None
    value["peers"] = [_json_peer(peer, hide_keys, names) for peer in sorted(device.peers, key=_by_handshake)]
    return value


def _json_peer(peer: PeerSnapshot, hide_keys: bool, names: Mapping[PublicKey, str]) -> dict[str, Any]:
    has_preshared_key = not peer.preshared_key.is_zero
    value: dict[str, Any] = {
        "public_key": peer.public_key.base64,
        "name": names.get(peer.public_key),
        "has_preshared_key": has_preshared_key,
    }
    if has_preshared_key and not hide_keys:
        value["preshared_key"] = peer.preshared_key.base64
    value["endpoint"] = None if peer.endpoint is None else endpoint_text(peer.endpoint)
    value["allowed_ips"] = [str(network) for network in peer.allowed_ips]
    value["latest_handshake"] = _seconds(peer) or None
    value["rx_bytes"] = peer.rx_bytes
    value["tx_bytes"] = peer.tx_bytes
    value["persistent_keepalive"] = peer.persistent_keepalive_interval or None
    return value
