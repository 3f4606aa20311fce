"""The four messages of the protocol (paper, section 5.4): their layouts as tables, written and read.

Reading takes any bytes and either gives a message or raises BadPacket; it checks sizes, the type and the
reserved bytes, and nothing that needs a key. All numbers are little-endian.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from pywg.errors import BadPacket, DropReason
from pywg.wire.endpoint import Endpoint

Buffer: TypeAlias = bytes | bytearray | memoryview

TYPE_INITIATION: Final = 1
TYPE_RESPONSE: Final = 2
TYPE_COOKIE_REPLY: Final = 3
TYPE_DATA: Final = 4


class Field(NamedTuple):
    """One field of a message: its name in the dataclass below, and its format as `struct` writes it."""

    name: str
    format: str


# The type is one byte and three reserved zeros: read together, a number of 32 bits.
LAYOUTS: Final[Mapping[int, tuple[Field, ...]]] = MappingProxyType(
    {
        TYPE_INITIATION: (
            Field("type", "I"),
            Field("sender", "I"),
            Field("ephemeral", "32s"),
            Field("static", "48s"),
            Field("timestamp", "28s"),
            Field("mac1", "16s"),
            Field("mac2", "16s"),
        ),
        TYPE_RESPONSE: (
            Field("type", "I"),
            Field("sender", "I"),
            Field("receiver", "I"),
            Field("ephemeral", "32s"),
            Field("nothing", "16s"),
            Field("mac1", "16s"),
            Field("mac2", "16s"),
        ),
        TYPE_COOKIE_REPLY: (
            Field("type", "I"),
            Field("receiver", "I"),
            Field("nonce", "24s"),
            Field("cookie", "32s"),
        ),
        TYPE_DATA: (
            Field("type", "I"),
            Field("receiver", "I"),
            Field("counter", "Q"),
            # and the ciphertext to the end
        ),
    }
)


def _struct(message_type: int) -> struct.Struct:
    return struct.Struct("<" + "".join(field.format for field in LAYOUTS[message_type]))


_INITIATION: Final = _struct(TYPE_INITIATION)
_RESPONSE: Final = _struct(TYPE_RESPONSE)
_COOKIE_REPLY: Final = _struct(TYPE_COOKIE_REPLY)
DATA_HEADER: Final = _struct(TYPE_DATA)
"""Packs and unpacks (type, receiver, counter), the 16 bytes before a data message's ciphertext."""

INITIATION_SIZE: Final = _INITIATION.size
RESPONSE_SIZE: Final = _RESPONSE.size
COOKIE_REPLY_SIZE: Final = _COOKIE_REPLY.size
DATA_HEADER_SIZE: Final = DATA_HEADER.size
TAG_SIZE: Final = 16
DATA_OVERHEAD: Final = DATA_HEADER_SIZE + TAG_SIZE
"""What a data message adds to its plaintext; also the size of a keepalive, the smallest there is."""
MACS_SIZE: Final = 32
"""MAC1 and MAC2 together, at the end of initiations and responses."""
NO_MAC: Final = bytes(16)

MESSAGE_SIZES: Final[Mapping[int, int]] = MappingProxyType(
    {
        TYPE_INITIATION: INITIATION_SIZE,
        TYPE_RESPONSE: RESPONSE_SIZE,
        TYPE_COOKIE_REPLY: COOKIE_REPLY_SIZE,
    }
)
"""The exact sizes of the handshake messages, by type."""


def _pack(layout: struct.Struct, message_type: int, fields: tuple[int | bytes, ...]) -> bytes:
    """Pack, and insist on the lengths, which `struct` would make fit."""
    packed = layout.pack(message_type, *fields)
    if layout.unpack(packed) != (message_type, *fields):
        raise ValueError(f"a field of a message of type {message_type} has the wrong length")
    return packed


@dataclasses.dataclass(frozen=True, slots=True)
class Initiation:
    """Type 1, initiator to responder: 32, 48, 28 bytes of Noise, and two MACs of 16."""

    sender: int
    ephemeral: bytes
    static: bytes
    timestamp: bytes
    mac1: bytes = NO_MAC
    mac2: bytes = NO_MAC

    def encode(self) -> bytes:
        """The 148 bytes of the message. Raises ValueError when a field has the wrong length."""
        return _pack(
            _INITIATION,
            TYPE_INITIATION,
            (self.sender, self.ephemeral, self.static, self.timestamp, self.mac1, self.mac2),
        )

    def encode_without_macs(self) -> bytes:
        """The first 116 bytes, which the MACs are to follow."""
        return self.encode()[:-MACS_SIZE]


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """Type 2, responder to initiator: 32 and 16 bytes of Noise, and two MACs of 16."""

    sender: int
    receiver: int
    ephemeral: bytes
    nothing: bytes
    mac1: bytes = NO_MAC
    mac2: bytes = NO_MAC

    def encode(self) -> bytes:
        """The 92 bytes of the message. Raises ValueError when a field has the wrong length."""
        return _pack(
            _RESPONSE,
            TYPE_RESPONSE,
            (self.sender, self.receiver, self.ephemeral, self.nothing, self.mac1, self.mac2),
        )

    def encode_without_macs(self) -> bytes:
        """The first 60 bytes, which the MACs are to follow."""
        return self.encode()[:-MACS_SIZE]


@dataclasses.dataclass(frozen=True, slots=True)
class CookieReply:
    """Type 3, to the sender of a handshake message under load: a nonce of 24 bytes, a sealed cookie of 32."""

    receiver: int
    nonce: bytes
    cookie: bytes

    def encode(self) -> bytes:
        """The 64 bytes of the message. Raises ValueError when a field has the wrong length."""
        return _pack(_COOKIE_REPLY, TYPE_COOKIE_REPLY, (self.receiver, self.nonce, self.cookie))


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """Type 4: an inner packet, padded and sealed; the ciphertext ends with its tag of 16 bytes."""

    receiver: int
    counter: int
    ciphertext: memoryview

    def encode(self) -> bytes:
        """The message, 16 bytes and the ciphertext."""
        return DATA_HEADER.pack(TYPE_DATA, self.receiver, self.counter) + self.ciphertext


Message: TypeAlias = Initiation | Response | CookieReply | Data


def parse_untrusted(datagram: Buffer) -> Message:
    """Read one datagram. The ciphertext of a data message is a view into it, not a copy.

    Raises BadPacket: EMPTY; TRUNCATED (shorter than its type's size, or than a type); UNKNOWN_TYPE;
    RESERVED_BITS (of a known type, the three bytes after it are not zeros); OVERSIZED (a handshake message
    longer than its size). Data messages may have any size from 32 on.
    """
    size = len(datagram)
    if size < 4:
        raise BadPacket(DropReason.TRUNCATED if size else DropReason.EMPTY)
    message_type = datagram[0]
    if message_type not in LAYOUTS:
        raise BadPacket(DropReason.UNKNOWN_TYPE)
    if datagram[1] or datagram[2] or datagram[3]:
        raise BadPacket(DropReason.RESERVED_BITS)
    if message_type == TYPE_DATA:
        if size < DATA_OVERHEAD:
            raise BadPacket(DropReason.TRUNCATED)
        _, receiver, counter = DATA_HEADER.unpack_from(datagram)
        return Data(receiver, counter, memoryview(datagram)[DATA_HEADER_SIZE:])
    if size != MESSAGE_SIZES[message_type]:
        short = size < MESSAGE_SIZES[message_type]
        raise BadPacket(DropReason.TRUNCATED if short else DropReason.OVERSIZED)
    if message_type == TYPE_INITIATION:
        return Initiation(*_INITIATION.unpack(datagram)[1:])
    if message_type == TYPE_RESPONSE:
        return Response(*_RESPONSE.unpack(datagram)[1:])
    return CookieReply(*_COOKIE_REPLY.unpack(datagram)[1:])


def shared_with(message: Buffer, source: Endpoint) -> bytes:
    """Whose share of a queue this handshake message takes: that of its source.

    Nothing proves who sent a cookie reply, which has no MAC1: all of them take one share, so that a flood of
    them leaves room for what proves more.
    """
    return b"cookie replies" if message[:1] == b"\x03" else source.source()
