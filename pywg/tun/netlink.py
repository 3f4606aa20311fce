"""The little of rtnetlink that the daemon needs: hearing that links changed, and reading one link's state.

It reaches into other network namespaces through their numbers (nsid), so a tunnel device that was moved away
is still followed while our sockets stay where they were born. See rtnetlink(7) and `linux/net_namespace.h`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct

from pywg.tun.base import TunState

_SOL_NETLINK = 270
_NETLINK_LISTEN_ALL_NSID = 8
_RTMGRP_LINK = 1
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV4_ROUTE = 0x40
_RTMGRP_IPV6_IFADDR = 0x100
_RTMGRP_IPV6_ROUTE = 0x400
_NLMSG_ERROR = 2
_NLM_F_REQUEST = 1
_RTM_NEWLINK = 16
_RTM_GETLINK = 18
_RTM_NEWNSID = 88
_RTM_GETNSID = 90
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_TARGET_NETNSID = 46
_NETNSA_NSID = 1
_NETNSA_FD = 3
_IFF_UP = 1

_READS_IN_A_ROW = 1000

NLMSGHDR = struct.Struct("=IHHII")
IFINFOMSG = struct.Struct("=BxHiII")
_RTGENMSG = struct.Struct("=Bxxx")
_RTATTR = struct.Struct("=HH")
_I32 = struct.Struct("=i")


def open_link_events() -> socket.socket:
    """A non-blocking socket, readable when a link changed, here or in a namespace that we have a number for.

    Raises OSError where the system has no rtnetlink.
    """
    events = _open_events(_RTMGRP_LINK)
    with contextlib.suppress(OSError):  # needs CAP_NET_BROADCAST; without: our own namespace only
        events.setsockopt(_SOL_NETLINK, _NETLINK_LISTEN_ALL_NSID, 1)
    return events


def open_route_events() -> socket.socket:
    """A non-blocking socket, readable when a route of our own namespace changed.

    Raises OSError where the system has no rtnetlink.
    """
    return _open_events(_RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_ROUTE)


def open_network_events() -> socket.socket:
    """A non-blocking socket, readable when a link, an address or a route of our own namespace changed.

    Raises OSError where the system has no rtnetlink.
    """
    addresses = _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR
    return _open_events(_RTMGRP_LINK | addresses | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_ROUTE)


def _open_events(groups: int) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        sock.setblocking(False)
        sock.bind((0, groups))
    except BaseException:
        sock.close()
        raise
    return sock


def drain(events: socket.socket) -> None:
    """Read and forget what waits; if it is very much, the socket stays readable."""
    for _ in range(_READS_IN_A_ROW):
        try:
            events.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:  # ENOBUFS: more came than fits; whoever asks for the state misses nothing
            if error.errno != errno.ENOBUFS:
                return


def link_state_elsewhere(name: str, namespace: int) -> TunState | None:
    """State of the link `name` in the network namespace that the descriptor `namespace` stands for.

    None when that cannot be found out (no such link, no right to look there, an old kernel).
    """
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        ) as sock:
            sock.bind((0, 0))
            sock.settimeout(1.0)
            nsid = _nsid(sock, namespace)
            if nsid is None:
                return None
            body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            body += attribute(_IFLA_TARGET_NETNSID, _I32.pack(nsid))
            body += attribute(_IFLA_IFNAME, os.fsencode(name) + b"\0")
            reply = _ask(sock, _RTM_GETLINK, body)
    except OSError:
        return None
    return None if reply is None else parse_link_message(reply)


def parse_link_message(message: bytes) -> TunState | None:
    """State in one RTM_NEWLINK message, its header included; None when it is something else."""
    start = NLMSGHDR.size + IFINFOMSG.size
    if len(message) < start or NLMSGHDR.unpack_from(message)[1] != _RTM_NEWLINK:
        return None
    flags = IFINFOMSG.unpack_from(message, NLMSGHDR.size)[3]
    mtu = attributes(message, start).get(_IFLA_MTU, b"")
    return TunState(_I32.unpack(mtu)[0], bool(flags & _IFF_UP)) if len(mtu) == _I32.size else None


def _nsid(sock: socket.socket, namespace: int) -> int | None:
    """Our number for that namespace, given now if it had none."""
    body = _RTGENMSG.pack(socket.AF_UNSPEC) + attribute(_NETNSA_FD, _I32.pack(namespace))
    number = _number_in(_ask(sock, _RTM_GETNSID, body))
    if number is None:
        _ask(sock, _RTM_NEWNSID, body + attribute(_NETNSA_NSID, _I32.pack(-1)))
        number = _number_in(_ask(sock, _RTM_GETNSID, body))
    return number


def _number_in(reply: bytes | None) -> int | None:
    if reply is None:
        return None
    value = attributes(reply, NLMSGHDR.size + _RTGENMSG.size).get(_NETNSA_NSID, b"")
    number = int(_I32.unpack(value)[0]) if len(value) == _I32.size else -1
    return number if number >= 0 else None


def _ask(sock: socket.socket, kind: int, body: bytes) -> bytes | None:
    """The first message that answers; None for an error or an acknowledgement."""
    flags = _NLM_F_REQUEST | (4 if kind == _RTM_NEWNSID else 0)  # 4: NLM_F_ACK, or nothing would answer
    sock.send(NLMSGHDR.pack(NLMSGHDR.size + len(body), kind, flags, 1, 0) + body)
    reply = sock.recv(65536)
    if len(reply) < NLMSGHDR.size or NLMSGHDR.unpack_from(reply)[1] == _NLMSG_ERROR:
        return None
    return reply


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, with what fills it up to a multiple of four bytes."""
    return _RTATTR.pack(_RTATTR.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(message: bytes, at: int) -> dict[int, bytes]:
    """The attributes from there to a message's end, by number; what is cut off is left out."""
    found: dict[int, bytes] = {}
    while at + _RTATTR.size <= len(message):
        length, kind = _RTATTR.unpack_from(message, at)
        if length < _RTATTR.size:
            break
        found[kind & 0x3FFF] = message[at + _RTATTR.size : at + length]
        at += (length + 3) & ~3
    return found
