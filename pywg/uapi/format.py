"""The text of the cross-platform configuration protocol: `key=value` lines, both ways.

Parsing is of hostile text: every function here takes any string and either gives a typed value or raises
`UapiError`. Sockets are in `client.py` and `server.py`. Source: https://www.wireguard.com/xplatform/ and
wireguard-go's behaviour, whose errno values are kept.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.errors import PywgError
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.uapi.error import UapiError
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

MAX_LINE = 65_535
"""Bytes of a line, without its newline; wireguard-go's limit."""

UNKNOWN_ERROR = 55
"""wireguard-go's number for what has none of its own."""

Key = TypeVar("Key", PrivateKey, PublicKey, PresharedKey)


class AllowedIpChange(NamedTuple):
    """Give one network to the peer, or with `remove` take it away."""

    network: Network
    remove: bool = False


@dataclasses.dataclass(slots=True)
class PeerChange:
    """What to change of one peer; None and empty mean: leave as it is.

    preshared_key: `PresharedKey.ZERO` takes it away.
    update_only: ignore the change when the peer does not exist. remove: forget the peer.
    replace_allowed_ips: take away all allowed IPs before `allowed_ips` is applied, in order.
    """

    public_key: PublicKey
    remove: bool = False
    update_only: bool = False
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive_interval: int | None = None
    replace_allowed_ips: bool = False
    allowed_ips: Sequence[AllowedIpChange] = ()


@dataclasses.dataclass(slots=True)
class DeviceChange:
    """What to change of a device; None and empty mean: leave as it is.

    private_key: all zeros take it away. listen_port 0: any free port. fwmark 0: none.
    replace_peers: forget all peers before `peers` is applied.
    """

    private_key: PrivateKey | None = None
    listen_port: int | None = None
    fwmark: int | None = None
    replace_peers: bool = False
    peers: Sequence[PeerChange] = ()


# --- Values. ----------------------------------------------------------------------------------------------


def split_line(line: str) -> tuple[str, str]:
    """`key=value` into its two parts; raises UapiError (EPROTO) when there is no `=`."""
    key, equals, value = line.partition("=")
    if not equals:
        raise UapiError(errno.EPROTO, "a line is not of the form key=value")  # it may hold a key: not shown
    return key, value


def parse_key(kind: type[Key], key: str, value: str) -> Key:
    """A key of 32 bytes from 64 hexadecimal digits."""
    try:
        return kind.from_hex(value)
    except PywgError as error:
        raise UapiError(errno.EINVAL, f"{key}: {error}") from None


def parse_unsigned(key: str, value: str, bits: int) -> int:
    """A decimal number without sign that fits into so many bits."""
    if not (value.isascii() and value.isdigit()) or len(value) > 64 or int(value) >= 1 << bits:
        raise UapiError(
            errno.EINVAL, f"{key} is '{_shorten(value)}', not a number from 0 to {(1 << bits) - 1}"
        )
    return int(value)


def parse_true(key: str, value: str) -> None:
    """The word `true`; nothing else may stand behind a flag."""
    if value != "true":
        raise UapiError(errno.EINVAL, f"{key} is '{_shorten(value)}'; only 'true' may stand there")


def parse_endpoint(key: str, value: str) -> Endpoint:
    """A numeric address and port, as `Endpoint.parse` takes it."""
    if len(value) > 128:
        raise UapiError(errno.EINVAL, f"{key} is longer than any address: '{_shorten(value)}'")
    try:
        return Endpoint.parse(value)
    except PywgError as error:
        raise UapiError(errno.EINVAL, f"{key}: {error}") from None


def parse_network(key: str, value: str) -> Network:
    """An address and a prefix length; bits behind the prefix are dropped."""
    try:
        return Network.parse(value)
    except ValueError as error:
        raise UapiError(errno.EINVAL, f"{key} is '{_shorten(value)}', {error}") from None


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


# --- set=1: what a client writes. -------------------------------------------------------------------------


def format_set(change: DeviceChange) -> Iterator[str]:
    """The lines, without newlines, between `set=1` and the blank line."""
    if change.private_key is not None:
        yield f"private_key={change.private_key.hex}"
    if change.listen_port is not None:
        yield f"listen_port={change.listen_port}"
    if change.fwmark is not None:
        yield f"fwmark={change.fwmark}"
    if change.replace_peers:
        yield "replace_peers=true"
    for peer in change.peers:
        yield f"public_key={peer.public_key.hex}"
        if peer.update_only:
            yield "update_only=true"
        if peer.remove:
            yield "remove=true"
            continue
        if peer.preshared_key is not None:
            yield f"preshared_key={peer.preshared_key.hex}"
        if peer.endpoint is not None:
            yield f"endpoint={peer.endpoint}"
        if peer.persistent_keepalive_interval is not None:
            yield f"persistent_keepalive_interval={peer.persistent_keepalive_interval}"
        if peer.replace_allowed_ips:
            yield "replace_allowed_ips=true"
        for network, remove in peer.allowed_ips:
            yield f"allowed_ip={'-' if remove else ''}{network}"


# --- get=1: what a daemon answers. ------------------------------------------------------------------------


def format_get(device: DeviceSnapshot) -> Iterator[str]:
    """The answer to `get=1` up to `errno`, in wireguard-go's order: lines without their last newlines.

    What is said of a peer, but for its allowed IPs, comes as one: a hub has ten thousand of them.
    """
    if device.private_key is not None:
        yield f"private_key={device.private_key.hex}"
    if device.listen_port:
        yield f"listen_port={device.listen_port}"
    if device.fwmark:
        yield f"fwmark={device.fwmark}"
    for peer in device.peers:
        endpoint = "" if peer.endpoint is None else f"endpoint={peer.endpoint}\n"
        seconds, nanoseconds = divmod(peer.last_handshake_ns, 1_000_000_000)
        yield (
            f"public_key={peer.public_key.hex}\n"
            f"preshared_key={peer.preshared_key.hex}\n"
            f"protocol_version=1\n{endpoint}"
            f"last_handshake_time_sec={seconds}\n"
            f"last_handshake_time_nsec={nanoseconds}\n"
            f"tx_bytes={peer.tx_bytes}\n"
            f"rx_bytes={peer.rx_bytes}\n"
            f"persistent_keepalive_interval={peer.persistent_keepalive_interval}"
        )
        for network in peer.allowed_ips:
            yield f"allowed_ip={network}"


def parse_get(lines: Iterable[str]) -> DeviceSnapshot:
    """The answer to `get=1`, up to and without its blank line. Keys that are not known are passed over.

    Raises UapiError when a value is malformed, when the daemon reports an error, or `errno` is missing.
    """
    device = DeviceSnapshot()
    peers: list[PeerSnapshot] = []
    networks: list[Network] = []
    peer: PeerSnapshot | None = None
    status: int | None = None
    for line in lines:
        key, value = split_line(line)
        if key == "errno":
            status = _parse_errno(value)
        elif key == "public_key":
            networks = []
            peer = PeerSnapshot(parse_key(PublicKey, key, value), allowed_ips=networks)
            peers.append(peer)
        elif peer is None:
            _read_device_line(device, key, value)
        elif key == "allowed_ip":
            networks.append(parse_network(key, value))
        else:
            _read_peer_line(peer, key, value)
    if status is None:
        raise UapiError(errno.EPROTO, "the answer ended before its errno")
    raise_for_status(status)
    device.peers = peers
    return device


def _read_device_line(device: DeviceSnapshot, key: str, value: str) -> None:
    match key:
        case "private_key":
            private_key = parse_key(PrivateKey, key, value)
            device.private_key = None if private_key.is_zero else private_key
        case "listen_port":
            device.listen_port = parse_unsigned(key, value, 16)
        case "fwmark":
            device.fwmark = parse_unsigned(key, value, 32)


def _read_peer_line(peer: PeerSnapshot, key: str, value: str) -> None:
    match key:
        case "preshared_key":
            peer.preshared_key = parse_key(PresharedKey, key, value)
        case "endpoint":
            peer.endpoint = _parse_foreign_endpoint(key, value)
        case "last_handshake_time_sec":
            peer.last_handshake_ns += parse_unsigned(key, value, 63) * 1_000_000_000
        case "last_handshake_time_nsec":
            peer.last_handshake_ns += parse_unsigned(key, value, 63)
        case "rx_bytes":
            peer.rx_bytes = parse_unsigned(key, value, 64)
        case "tx_bytes":
            peer.tx_bytes = parse_unsigned(key, value, 64)
        case "persistent_keepalive_interval":
            peer.persistent_keepalive_interval = parse_unsigned(key, value, 16)


def _parse_foreign_endpoint(key: str, value: str) -> Endpoint:
    """A daemon in another network namespace may name a zone that does not exist here; it is left out then."""
    try:
        return parse_endpoint(key, value)
    except UapiError:
        before, percent, after = value.partition("%")
        if not percent:
            raise
        return parse_endpoint(key, before + after[after.find("]") :])


# --- errno: how both end. ---------------------------------------------------------------------------------


def parse_status(lines: Iterable[str]) -> None:
    """The answer to `set=1`, up to and without its blank line; raises UapiError when it reports a failure."""
    status: int | None = None
    for line in lines:
        key, value = split_line(line)
        if key == "errno":
            status = _parse_errno(value)
    if status is None:
        raise UapiError(errno.EPROTO, "the answer ended before its errno")
    raise_for_status(status)


def raise_for_status(status: int) -> None:
    """Raise UapiError unless 0. wireguard-go reports negative numbers, boringtun positive ones."""
    number = abs(status)
    if number == UNKNOWN_ERROR:
        raise UapiError(number, "the daemon failed without saying why; its log may")
    if number:
        raise UapiError(number, os.strerror(number))


def _parse_errno(value: str) -> int:
    return parse_unsigned("errno", value.removeprefix("-"), 31)
