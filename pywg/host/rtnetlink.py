"""Routing netlink for the tool: one request after the other, and what the kernel answers, in types.

pyroute2 knows all of this and much more, but importing it takes longer than all the rest of `pywg up`.
When the kernel has no memory for an answer, nobody knows whether the change was made: it is asked once more.
Source: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h, linux/fib_rules.h.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple, Self

from pywg.config.model import InterfaceAddress
from pywg.tun.netlink import IFINFOMSG, NLMSGHDR, attribute, attributes
from pywg.wire.network import Network

NEW_LINK, DELETE_LINK, _GET_LINK = 16, 17, 18
NEW_ADDRESS, DELETE_ADDRESS, _GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DELETE_ROUTE, _GET_ROUTE = 24, 25, 26
NEW_RULE, DELETE_RULE, _GET_RULE = 32, 33, 34

UNICAST = 1
"""RTN_UNICAST: the kind of route that leads to an interface."""

BOOT = 3
"""RTPROT_BOOT: routes that `ip route add` and we add, in contrast to those that come with addresses."""

LINK_SCOPE, ANY_SCOPE = 253, 255
"""RT_SCOPE_LINK, and RT_SCOPE_NOWHERE, which a deletion takes for any."""

_REQUEST, _ACK, _DUMP, _NEW = 1, 4, 0x300, 0x600  # the last: NLM_F_CREATE and NLM_F_EXCL
_DUMP_INTERRUPTED = 0x10
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_BUFFER = 1 << 16
_TIMEOUT = 10.0
_DUMPS_IN_A_ROW = 10

_IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 4, 18, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_PREFSRC, _RTA_METRICS, _RTA_TABLE, _RTA_MARK = 1, 4, 7, 8, 15, 16
_RTAX_MTU = 2
_IFF_UP = 1
_LARGEST_SMALL_TABLE = 255

_IFADDRMSG = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBxxBBBBI")
_U32 = struct.Struct("=I")
_I32 = struct.Struct("=i")


class RefusedError(OSError):
    """The kernel's no, in contrast to an answer that did not come."""


class Link(NamedTuple):
    """An interface. mtu: bytes. kind: "" for most hardware, else as in `ip link add type`."""

    name: str
    mtu: int
    kind: str


class Route(NamedTuple):
    """A route. kind: UNICAST and so on. interface: its number; None where it leads to none, or to several.

    source: the address that packets get. mtu: the route's own in bytes, if it has one.
    """

    network: Network
    kind: int
    table: int
    protocol: int
    interface: int | None
    source: str | None
    mtu: int | None


class RuleMessage(NamedTuple):
    """A policy rule as it comes: its action, its flags, and its attributes by number."""

    action: int
    flags: int
    attributes: Mapping[int, bytes]

    def number(self, kind: int) -> int | None:
        """An attribute that is a number; None without it."""
        return _number(self.attributes, kind)


class Rtnetlink:
    """A socket to the kernel of the network namespace that we are in; a context manager.

    All methods raise OSError: RefusedError for what the kernel refuses.
    """

    def __init__(self) -> None:
        self._kernel = _open()
        self._sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._kernel.close()

    # --- Links. -------------------------------------------------------------------------------------------

    def links(self) -> list[Link]:
        """All interfaces."""
        return [_link(message) for message in self._dump(_GET_LINK, IFINFOMSG.pack(0, 0, 0, 0, 0))]

    def link(self, index: int) -> Link:
        """One interface by its number."""
        return _link(self._ask(_GET_LINK, IFINFOMSG.pack(0, 0, index, 0, 0)))

    def make_link(self, name: str, kind: str) -> None:
        """Make an interface of a kind, whose module the kernel loads if need be."""
        info = attribute(_IFLA_LINKINFO | _NESTED, attribute(_IFLA_INFO_KIND, kind.encode()))
        body = IFINFOMSG.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, os.fsencode(name) + b"\0") + info
        self._exchange(NEW_LINK, _ACK | _NEW, body)

    def set_link(self, index: int, mtu: int, *, up: bool = False) -> None:
        """Set the MTU in bytes, and the interface up if that is wanted too."""
        flags = _IFF_UP if up else 0
        body = IFINFOMSG.pack(0, 0, index, flags, flags) + attribute(_IFLA_MTU, _U32.pack(mtu))
        self._exchange(NEW_LINK, _ACK, body)

    def delete_link(self, index: int) -> None:
        """Delete the interface."""
        self._exchange(DELETE_LINK, _ACK, IFINFOMSG.pack(0, 0, index, 0, 0))

    # --- Addresses. ---------------------------------------------------------------------------------------

    def addresses(self, index: int) -> list[InterfaceAddress]:
        """An interface's addresses with their prefix lengths, in the kernel's order."""
        found = []
        for message in self._dump(_GET_ADDRESS, _IFADDRMSG.pack(0, 0, 0, 0, 0)):
            _, prefixlen, _, _, owner = _IFADDRMSG.unpack_from(message, NLMSGHDR.size)
            values = attributes(message, NLMSGHDR.size + _IFADDRMSG.size)
            address = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
            if owner == index and address is not None:
                found.append(ipaddress.ip_interface((address, prefixlen)))
        return found

    def change_address(self, kind: int, index: int, address: InterfaceAddress) -> None:
        """Give an address to an interface, or take it away. kind: NEW_ADDRESS or DELETE_ADDRESS."""
        body = _IFADDRMSG.pack(_family(address.version), address.network.prefixlen, 0, 0, index)
        body += attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
        self._exchange(kind, _ACK | (_NEW if kind == NEW_ADDRESS else 0), body)

    # --- Routes. ------------------------------------------------------------------------------------------

    def routes(self, version: int) -> list[Route]:
        """The routes of all tables, of IP version 4 or 6."""
        return [_route(message) for message in self._dump_family(_GET_ROUTE, version)]

    def route_to(self, host: str, mark: int = 0) -> Route:
        """The route that a packet to an address takes, with a mark (0: none)."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        address = socket.inet_pton(family, host)
        body = _RTMSG.pack(family, len(address) * 8, 0, 0, 0, 0, 0) + attribute(_RTA_DST, address)
        return _route(self._ask(_GET_ROUTE, body + (attribute(_RTA_MARK, _U32.pack(mark)) if mark else b"")))

    def add_route(self, index: int, network: Network, table: int) -> None:
        """Route a network through an interface."""
        scope = LINK_SCOPE if network.version == 4 else 0
        self._exchange(NEW_ROUTE, _ACK | _NEW, _route_body(index, network, table, scope, UNICAST))

    def delete_route(self, index: int, network: Network, table: int) -> None:
        """Delete a route through an interface that was added by hand, of any scope."""
        self._exchange(DELETE_ROUTE, _ACK, _route_body(index, network, table, ANY_SCOPE, 0))

    # --- Policy rules. ------------------------------------------------------------------------------------

    def rules(self, version: int) -> list[RuleMessage]:
        """The policy rules of IP version 4 or 6, in the order in which the kernel asks them."""
        found = []
        for message in self._dump_family(_GET_RULE, version):
            *_, action, flags = _RTMSG.unpack_from(message, NLMSGHDR.size)
            found.append(RuleMessage(action, flags, attributes(message, NLMSGHDR.size + _RTMSG.size)))
        return found

    def change_rule(
        self, kind: int, version: int, action: int, flags: int, values: Mapping[int, int]
    ) -> None:
        """Add or delete a rule with these attributes. kind: NEW_RULE or DELETE_RULE."""
        body = _RTMSG.pack(_family(version), 0, 0, 0, 0, action, flags)
        body += b"".join(attribute(number, _U32.pack(value)) for number, value in values.items())
        self._exchange(kind, _ACK | (_NEW if kind == NEW_RULE else 0), body)

    # --- Messages. ----------------------------------------------------------------------------------------

    def _ask(self, kind: int, body: bytes) -> bytes:
        answers, _ = self._exchange(kind, _ACK, body)
        if not answers:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return answers[0]

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        """All that there is; anew when it changed meanwhile."""
        for _ in range(_DUMPS_IN_A_ROW):
            answers, is_whole = self._exchange(kind, _DUMP, body)
            if is_whole:
                break
        return answers

    def _dump_family(self, kind: int, version: int) -> list[bytes]:
        """Those of one IP version; a kernel without it tells of others."""
        family = _family(version)
        messages = self._dump(kind, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0))
        return [message for message in messages if message[NLMSGHDR.size] == family]

    def _exchange(self, kind: int, flags: int, body: bytes) -> tuple[list[bytes], bool]:
        """As `_ask_once`; without an answer once more, on a new socket: the old one may be busy with that."""
        try:
            return self._ask_once(kind, flags, body)
        except RefusedError:
            raise
        except OSError:
            new = _open()
            self.close()
            self._kernel = new
        try:
            return self._ask_once(kind, flags, body)
        except RefusedError as error:
            if flags & _NEW == _NEW and error.errno == errno.EEXIST:
                return [], True  # it was added the first time
            raise

    def _ask_once(self, kind: int, flags: int, body: bytes) -> tuple[list[bytes], bool]:
        """Send one message; returns what answers it, and whether nothing changed while that was made."""
        self._sent += 1
        header = NLMSGHDR.pack(NLMSGHDR.size + len(body), kind, flags | _REQUEST, self._sent, 0)
        self._kernel.send(header + body)
        answers: list[bytes] = []
        is_whole = True
        try:
            while True:
                data = self._kernel.recv(_BUFFER)
                while len(data) >= NLMSGHDR.size:
                    length, answer, answer_flags, number, _ = NLMSGHDR.unpack_from(data)
                    message, data = data[:length], data[max(length, NLMSGHDR.size) + 3 & ~3 :]
                    if number != self._sent:  # of a request that was given up
                        continue
                    is_whole = is_whole and not answer_flags & _DUMP_INTERRUPTED
                    if answer not in (_ERROR, _DONE):
                        answers.append(message)
                        continue
                    if code := -_I32.unpack_from(message, NLMSGHDR.size)[0]:
                        raise RefusedError(code, os.strerror(code))
                    return answers, is_whole
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


def _open() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    try:
        kernel.bind((0, 0))
        kernel.settimeout(_TIMEOUT)
    except BaseException:
        kernel.close()
        raise
    return kernel


def _link(message: bytes) -> Link:
    values = attributes(message, NLMSGHDR.size + IFINFOMSG.size)
    info = attributes(values.get(_IFLA_LINKINFO, b""), 0)
    return Link(
        os.fsdecode(values.get(_IFLA_IFNAME, b"").rstrip(b"\0")),
        _number(values, _IFLA_MTU) or 0,
        info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"),
    )


def _route(message: bytes) -> Route:
    family, length, table, protocol, _, kind, _ = _RTMSG.unpack_from(message, NLMSGHDR.size)
    values = attributes(message, NLMSGHDR.size + _RTMSG.size)
    nowhere = bytes(4 if family == socket.AF_INET else 16)
    source = values.get(_RTA_PREFSRC)
    return Route(
        Network.of(values.get(_RTA_DST, nowhere), length),
        kind,
        _number(values, _RTA_TABLE) or table,
        protocol,
        _number(values, _RTA_OIF),
        None if source is None else socket.inet_ntop(family, source),
        _number(attributes(values.get(_RTA_METRICS, b""), 0), _RTAX_MTU),
    )


def _route_body(index: int, network: Network, table: int, scope: int, kind: int) -> bytes:
    family, small = _family(network.version), table if table <= _LARGEST_SMALL_TABLE else 0
    body = _RTMSG.pack(family, network.prefixlen, small, BOOT, scope, kind, 0)
    body += attribute(_RTA_TABLE, _U32.pack(table)) + attribute(_RTA_OIF, _U32.pack(index))
    return body + attribute(_RTA_DST, network.address)


def _number(values: Mapping[int, bytes], kind: int) -> int | None:
    value = values.get(kind)
    return None if value is None else int.from_bytes(value, sys.byteorder)


def _family(version: int) -> socket.AddressFamily:
    return socket.AF_INET if version == 4 else socket.AF_INET6
