"""The little of nftables that the firewall of a default route needs, straight over netlink: no `nft` program.

pyroute2 has messages of nftables, but hears no errors of a transaction and encodes `fib` wrongly. One batch
is one transaction: all of it is done or nothing. Source: linux/netfilter/nf_tables.h, nfnetlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable, Sequence

from pywg.errors import PywgError
from pywg.tun.netlink import NLMSGHDR, attribute

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 2, 3, 6
_GET_TABLE = 1
_REQUEST, _ACK, _CREATE, _APPEND = 1, 4, 0x400, 0x800
_ERROR = 2
_NESTED = 0x8000
_TIMEOUT = 10.0

_FAMILY_HEADER = struct.Struct("!BBH")
_I32 = struct.Struct("=i")

FAMILIES = {4: 2, 6: 10}
"""nftables' number for `ip` and `ip6`."""

PREROUTING, POSTROUTING = 0, 4
EQUAL, NOT_EQUAL = 0, 1
ADDRESS_LOCAL = 2

_META_MARK, _META_IIFNAME, _META_L4PROTO = 3, 6, 16
_CT_MARK = 3
_FIB_SOURCE, _FIB_ADDRESS_TYPE = 1, 3
_NETWORK_HEADER = 1


class NftError(PywgError):
    """nftables refused something, or is not here; `number` is the errno."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"nftables: {os.strerror(number)}")


def is_here() -> bool:
    """Whether this kernel has nftables, loaded on demand; it may be that it does not let us ask."""
    try:
        _exchange([_message(_SUBSYSTEM << 8 | _GET_TABLE, _REQUEST | _ACK, 4, 1, _text(1, "pywg"))], last=1)
    except NftError as error:
        return error.number in (errno.ENOENT, errno.EPERM)
    return True


def apply(version: int, table: str, changes: Iterable[tuple[int, int, bytes]]) -> None:
    """Make a table anew with what `changes` put into it (see `chain` and `rule`). Raises NftError."""
    name = _text(1, table)
    begin = [(_NEW_TABLE, _CREATE, name), (_DELETE_TABLE, 0, name), (_NEW_TABLE, _CREATE, name)]
    _transact(version, [*begin, *changes])


def delete(version: int, table: str) -> bool:
    """Delete a table with all that is in it; returns whether there was one. Raises NftError."""
    try:
        _transact(version, [(_DELETE_TABLE, 0, _text(1, table))])
    except NftError as error:
        if error.number == errno.ENOENT:
            return False
        raise
    return True


def exists(version: int, table: str) -> bool:
    """Whether there is such a table; false where there is no nftables."""
    with contextlib.suppress(NftError):
        message = _message(
            _SUBSYSTEM << 8 | _GET_TABLE, _REQUEST | _ACK, FAMILIES[version], 1, _text(1, table)
        )
        _exchange([message], last=1)
        return True
    return False


def chain(table: str, name: str, hook: int, priority: int) -> tuple[int, int, bytes]:
    """A chain that sees packets at a hook."""
    where = _number(1, hook) + _number(2, priority & 0xFFFFFFFF)
    return _NEW_CHAIN, _CREATE, _text(1, table) + _text(3, name) + _nested(4, where) + _text(7, "filter")


def rule(table: str, chain_name: str, expressions: Sequence[bytes]) -> tuple[int, int, bytes]:
    """A rule at a chain's end; every expression is run until one does not match."""
    content = b"".join(_nested(1, expression) for expression in expressions)
    return _NEW_RULE, _CREATE | _APPEND, _text(1, table) + _text(2, chain_name) + _nested(4, content)


# --- Expressions, all on register 1. ----------------------------------------------------------------------


def iifname(comparison: int, name: str) -> list[bytes]:
    """The interface that a packet arrived on."""
    return [_load("meta", _META_IIFNAME), _compare(comparison, os.fsencode(name).ljust(16, b"\0"))]


def destination(version: int, packed: bytes) -> list[bytes]:
    """The packet's destination address is this one."""
    offset = 16 if version == 4 else 24
    load = _number(1, 1) + _number(2, _NETWORK_HEADER) + _number(3, offset) + _number(4, len(packed))
    return [_expression("payload", load), _compare(EQUAL, packed)]


def source_type(comparison: int, kind: int) -> list[bytes]:
    """What the routing table takes the source address for."""
    load = _number(1, 1) + _number(2, _FIB_ADDRESS_TYPE) + _number(3, _FIB_SOURCE)
    return [_expression("fib", load), _compare(comparison, struct.pack("=I", kind))]


def udp() -> list[bytes]:
    """It is a UDP packet."""
    return [_load("meta", _META_L4PROTO), _compare(EQUAL, bytes([socket.IPPROTO_UDP]))]


def marked(mark: int) -> list[bytes]:
    """The packet has this mark."""
    return [_load("meta", _META_MARK), _compare(EQUAL, struct.pack("=I", mark))]


def save_mark() -> list[bytes]:
    """The connection gets the packet's mark."""
    return [_load("meta", _META_MARK), _expression("ct", _number(2, _CT_MARK) + _number(4, 1))]


def restore_mark() -> list[bytes]:
    """The packet gets the connection's mark."""
    return [_load("ct", _CT_MARK), _expression("meta", _number(2, _META_MARK) + _number(3, 1))]


def drop() -> list[bytes]:
    """The packet is dropped."""
    return [_expression("immediate", _number(1, 0) + _nested(2, _nested(2, _number(1, 0))))]


def _load(kind: str, key: int) -> bytes:
    return _expression(kind, _number(1, 1) + _number(2, key))


def _compare(comparison: int, value: bytes) -> bytes:
    return _expression("cmp", _number(1, 1) + _number(2, comparison) + _nested(3, attribute(1, value)))


def _expression(name: str, content: bytes) -> bytes:
    return _text(1, name) + _nested(2, content)


# --- Netlink. ---------------------------------------------------------------------------------------------


def _transact(version: int, changes: Sequence[tuple[int, int, bytes]]) -> None:
    batch = [_message(_BATCH_BEGIN, _REQUEST, 0, 0)]
    for number, (kind, flags, content) in enumerate(changes, 1):
        header = (_SUBSYSTEM << 8 | kind, flags | _REQUEST | _ACK, FAMILIES[version])
        batch.append(_message(*header, number, content))
    batch.append(_message(_BATCH_END, _REQUEST, 0, len(changes) + 1))
    _exchange(batch, last=len(changes))


def _exchange(messages: Sequence[bytes], last: int) -> None:
    """Send messages and wait until the one numbered `last` was taken. Raises NftError for one refused."""
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        ) as kernel:
            kernel.bind((0, 0))
            kernel.settimeout(_TIMEOUT)
            kernel.send(b"".join(messages))
            while True:
                for kind, number, content in _received(kernel.recv(1 << 16)):
                    if kind != _ERROR:
                        continue
                    if error := _error_in(content):
                        raise NftError(error)
                    if number == last:
                        return
    except TimeoutError:
        raise NftError(errno.ETIMEDOUT) from None
    except OSError as error:
        raise NftError(error.errno or errno.EIO) from None


def _error_in(content: bytes) -> int:
    """What an error message says; 0: taken."""
    return -_I32.unpack_from(content)[0] if len(content) >= _I32.size else errno.EIO


def _received(data: bytes) -> Iterable[tuple[int, int, bytes]]:
    while len(data) >= NLMSGHDR.size:
        length, kind, _, number, _ = NLMSGHDR.unpack_from(data)
        if length < NLMSGHDR.size:
            return
        yield kind, number, data[NLMSGHDR.size : length]
        data = data[(length + 3) & ~3 :]


def _message(kind: int, flags: int, family: int, number: int, content: bytes = b"") -> bytes:
    body = _FAMILY_HEADER.pack(family, 0, _SUBSYSTEM) + content
    return NLMSGHDR.pack(NLMSGHDR.size + len(body), kind, flags, number, 0) + body


def _nested(kind: int, content: bytes) -> bytes:
    return attribute(kind | _NESTED, content)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, "big"))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, os.fsencode(value) + b"\0")
