"""The kernel's WireGuard, through generic netlink with pyroute2: the same values as those of the UAPI client.

pyroute2's own WireGuard class knows neither replacing peers nor the zone of a link-local endpoint nor changes
that need several messages, so only its transport and its encoding are used. Source: linux/wireguard.h.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import pathlib
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.errors import PywgError, remedy
from pywg.host.rtnetlink import Rtnetlink
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.uapi.error import UapiError
from pywg.uapi.format import AllowedIpChange, DeviceChange, PeerChange
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

FAMILY = "wireguard"

_NAME_LIMIT = 15
_ROOM = 8192
"""Bytes of changes in one message: well below a netlink attribute's 64 KiB and the kernel's buffer."""
_PEER_COST, _ALLOWED_IP_COST = 160, 48  # bytes, at most

_GET_DEVICE, _SET_DEVICE = 0, 1
_REPLACE_PEERS = 1
_REMOVE_ME, _REPLACE_ALLOWED_IPS, _UPDATE_ONLY = 1, 2, 4
_ALLOWED_IP_REMOVE_ME = 1

_SOCKADDR_IN = struct.Struct("=H2s4s8x")
_SOCKADDR_IN6 = struct.Struct("=H2s4x16sI")
_TIMESPEC = struct.Struct("=qq")


def exists() -> bool:
    """Whether this kernel has WireGuard loaded or built in; when it cannot be told, it may have."""
    modules = pathlib.Path("/sys/module")
    return sys.platform == "linux" and ((modules / FAMILY).is_dir() or not modules.is_dir())


def is_loaded() -> bool:
    """Whether this kernel certainly has WireGuard."""
    return (pathlib.Path("/sys/module") / FAMILY).is_dir()


def make_interface(interface: str) -> None:
    """Make a device of the kernel's WireGuard, which is loaded if need be. Raises PywgError."""
    try:
        with Rtnetlink() as netlink:
            netlink.make_link(interface, FAMILY)
    except OSError as error:
        hint = "is its module installed? `modprobe wireguard`; `--backend userspace` does without"
        reason = os.strerror(error.errno or errno.EIO)
        raise PywgError(f"the kernel makes no WireGuard interface {interface}: {reason}; {hint}") from None


def list_interfaces() -> list[str]:
    """The kernel's WireGuard interfaces in this network namespace, in its order. Raises UapiError."""
    if not exists():
        return []
    try:
        with Rtnetlink() as netlink:
            return [link.name for link in netlink.links() if link.kind == FAMILY]
    except OSError as error:
        number = error.errno or errno.EIO
        raise UapiError(number, f"{os.strerror(number)}{remedy(number)}") from None


def get(interface: str) -> DeviceSnapshot:
    """The device with its peers, in the kernel's order. Raises UapiError."""
    device = DeviceSnapshot()
    peers: list[PeerSnapshot] = []
    for message in _request(interface, [{"cmd": _GET_DEVICE, "attrs": []}], dump=True):
        if (private_key := message.get_attr("WGDEVICE_A_PRIVATE_KEY")) is not None:
            device.private_key = PrivateKey(private_key)
        device.listen_port = message.get_attr("WGDEVICE_A_LISTEN_PORT", device.listen_port)
        device.fwmark = message.get_attr("WGDEVICE_A_FWMARK", device.fwmark)
        for attributes in message.get_attr("WGDEVICE_A_PEERS", ()):
            peer = _read_peer(attributes)
            if peers and peers[-1].public_key == peer.public_key:  # goes on from the message before
                peers[-1].allowed_ips = [*peers[-1].allowed_ips, *peer.allowed_ips]
            else:
                peers.append(peer)
    device.peers = peers
    return device


def apply(interface: str, change: DeviceChange) -> None:
    """Change the device, in as many messages as it takes. Raises UapiError; earlier messages stay applied."""
    for _ in _request(interface, _messages(change), dump=False):
        pass


# --- Reading. ---------------------------------------------------------------------------------------------


def _read_peer(attributes: Any) -> PeerSnapshot:
    seconds, nanoseconds = _TIMESPEC.unpack(
        attributes.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME", bytes(_TIMESPEC.size))
    )
    return PeerSnapshot(
        PublicKey(attributes.get_attr("WGPEER_A_PUBLIC_KEY")),
        PresharedKey(attributes.get_attr("WGPEER_A_PRESHARED_KEY", bytes(32))),
        _read_endpoint(attributes.get_attr("WGPEER_A_ENDPOINT", b"")),
        seconds * 1_000_000_000 + nanoseconds,
        attributes.get_attr("WGPEER_A_RX_BYTES", 0),
        attributes.get_attr("WGPEER_A_TX_BYTES", 0),
        attributes.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", 0),
        [_read_network(entry) for entry in attributes.get_attr("WGPEER_A_ALLOWEDIPS", ())],
    )


def _read_network(entry: Any) -> Network:
    address = entry.get_attr("WGALLOWEDIP_A_IPADDR")
    return Network.of(address, entry.get_attr("WGALLOWEDIP_A_CIDR_MASK"))


def _read_endpoint(data: bytes) -> Endpoint | None:
    if len(data) == _SOCKADDR_IN.size:
        _, port, address = _SOCKADDR_IN.unpack(data)
        return Endpoint(str(ipaddress.IPv4Address(address)), int.from_bytes(port, "big"))
    if len(data) == _SOCKADDR_IN6.size:
        _, port, address, scope_id = _SOCKADDR_IN6.unpack(data)
        return Endpoint(str(ipaddress.IPv6Address(address)), int.from_bytes(port, "big"), scope_id)
    return None


# --- Writing. ---------------------------------------------------------------------------------------------


def _messages(change: DeviceChange) -> Iterator[dict[str, Any]]:
    """Messages of at most about _ROOM bytes; a peer with many allowed IPs goes on in the next one."""
    attributes: list[tuple[str, Any]] = []
    if change.private_key is not None:
        attributes.append(("WGDEVICE_A_PRIVATE_KEY", bytes(change.private_key)))
    if change.listen_port is not None:
        attributes.append(("WGDEVICE_A_LISTEN_PORT", change.listen_port))
    if change.fwmark is not None:
        attributes.append(("WGDEVICE_A_FWMARK", change.fwmark))
    if change.replace_peers:
        attributes.append(("WGDEVICE_A_FLAGS", _REPLACE_PEERS))
    peers: list[dict[str, Any]] = []
    room = _ROOM
    for peer in change.peers:
        allowed_ips = iter(peer.allowed_ips)
        first = True
        more = True
        while more:
            if room < _PEER_COST + _ALLOWED_IP_COST:
                yield {"cmd": _SET_DEVICE, "attrs": [*attributes, ("WGDEVICE_A_PEERS", peers)]}
                attributes, peers, room = [], [], _ROOM
            room -= _PEER_COST
            entries: list[dict[str, Any]] = []
            more = False
            for allowed_ip in allowed_ips:
                entries.append(_allowed_ip_attributes(allowed_ip))
                room -= _ALLOWED_IP_COST
                if room < _ALLOWED_IP_COST:
                    more = True
                    break
            peers.append({"attrs": [*_peer_attributes(peer, first), ("WGPEER_A_ALLOWEDIPS", entries)]})
            first = False
    if peers:
        attributes.append(("WGDEVICE_A_PEERS", peers))
    yield {"cmd": _SET_DEVICE, "attrs": attributes}


def _peer_attributes(peer: PeerChange, first: bool) -> Iterator[tuple[str, Any]]:
    """All that is to be changed; in a message that only goes on with allowed IPs, which peer it is."""
    yield "WGPEER_A_PUBLIC_KEY", bytes(peer.public_key)
    flags = (_REMOVE_ME if peer.remove else 0) | (_UPDATE_ONLY if peer.update_only else 0)
    if first:
        flags |= _REPLACE_ALLOWED_IPS if peer.replace_allowed_ips else 0
    if flags:
        yield "WGPEER_A_FLAGS", flags
    if not first:
        return
    if peer.preshared_key is not None:
        yield "WGPEER_A_PRESHARED_KEY", bytes(peer.preshared_key)
    if peer.endpoint is not None:
        yield "WGPEER_A_ENDPOINT", _sockaddr(peer.endpoint)
    if peer.persistent_keepalive_interval is not None:
        yield "WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", peer.persistent_keepalive_interval


def _allowed_ip_attributes(change: AllowedIpChange) -> dict[str, Any]:
    network = change.network
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    attributes: list[tuple[str, Any]] = [
        ("WGALLOWEDIP_A_FAMILY", int(family)),
        ("WGALLOWEDIP_A_IPADDR", network.address),
        ("WGALLOWEDIP_A_CIDR_MASK", network.prefixlen),
    ]
    if change.remove:
        attributes.append(("WGALLOWEDIP_A_FLAGS", _ALLOWED_IP_REMOVE_ME))
    return {"attrs": attributes}


def _sockaddr(endpoint: Endpoint) -> bytes:
    port = endpoint.port.to_bytes(2, "big")
    address = socket.inet_pton(endpoint.family, endpoint.host)
    if endpoint.family == socket.AF_INET:
        return _SOCKADDR_IN.pack(endpoint.family, port, address)
    return _SOCKADDR_IN6.pack(endpoint.family, port, address, endpoint.scope_id)


# --- Netlink. ---------------------------------------------------------------------------------------------


def _request(interface: str, messages: Any, *, dump: bool) -> Iterator[Any]:
    """Send messages to the kernel's WireGuard one after the other and give what it answers."""
    name = os.fsencode(interface)
    if len(name) > _NAME_LIMIT:
        raise UapiError(errno.ENAMETOOLONG, f"'{interface}' is longer than an interface's name can be")
    if not exists():
        raise UapiError(errno.ENODEV, os.strerror(errno.ENODEV))
    from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.generic import GenericNetlinkSocket

    message_class = _message_class()
    try:
        with GenericNetlinkSocket() as kernel:
            kernel.bind(FAMILY, message_class)
            for content in messages:
                message = message_class()
                message["cmd"], message["version"] = content["cmd"], 1
                message["attrs"] = [("WGDEVICE_A_IFNAME", interface), *content["attrs"]]
                flags = NLM_F_REQUEST | (NLM_F_DUMP if dump else NLM_F_ACK)
                yield from kernel.nlm_request(message, msg_type=kernel.prid, msg_flags=flags)
    except NetlinkError as error:
        raise UapiError(error.code, os.strerror(error.code)) from None


def _message_class() -> Any:
    """The layout of messages; keys, addresses, times are bytes. Made late, as pyroute2 is imported late."""
    from pyroute2.netlink import NLA_F_NESTED, genlmsg, nla

    class AllowedIp(nla):  # type: ignore[misc]
        nla_flags = NLA_F_NESTED
        prefix = "WGALLOWEDIP_A_"
        nla_map = (
            ("WGALLOWEDIP_A_UNSPEC", "none"),
            ("WGALLOWEDIP_A_FAMILY", "uint16"),
            ("WGALLOWEDIP_A_IPADDR", "cdata"),
            ("WGALLOWEDIP_A_CIDR_MASK", "uint8"),
            ("WGALLOWEDIP_A_FLAGS", "uint32"),
        )

    class Peer(nla):  # type: ignore[misc]
        nla_flags = NLA_F_NESTED
        prefix = "WGPEER_A_"
        nla_map = (
            ("WGPEER_A_UNSPEC", "none"),
            ("WGPEER_A_PUBLIC_KEY", "cdata"),
            ("WGPEER_A_PRESHARED_KEY", "cdata"),
            ("WGPEER_A_FLAGS", "uint32"),
            ("WGPEER_A_ENDPOINT", "cdata"),
            ("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", "uint16"),
            ("WGPEER_A_LAST_HANDSHAKE_TIME", "cdata"),
            ("WGPEER_A_RX_BYTES", "uint64"),
            ("WGPEER_A_TX_BYTES", "uint64"),
            ("WGPEER_A_ALLOWEDIPS", "*allowed_ip"),
            ("WGPEER_A_PROTOCOL_VERSION", "uint32"),
        )
        allowed_ip = AllowedIp

    class Message(genlmsg):  # type: ignore[misc]
        prefix = "WGDEVICE_A_"
        nla_map = (
            ("WGDEVICE_A_UNSPEC", "none"),
            ("WGDEVICE_A_IFINDEX", "uint32"),
            ("WGDEVICE_A_IFNAME", "asciiz"),
            ("WGDEVICE_A_PRIVATE_KEY", "cdata"),
            ("WGDEVICE_A_PUBLIC_KEY", "cdata"),
            ("WGDEVICE_A_FLAGS", "uint32"),
            ("WGDEVICE_A_LISTEN_PORT", "uint16"),
            ("WGDEVICE_A_FWMARK", "uint32"),
            ("WGDEVICE_A_PEERS", "*peer"),
        )
        peer = Peer

    return Message
