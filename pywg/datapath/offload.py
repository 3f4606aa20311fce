"""Super-packets: what the kernel hands over as one is split, what it may take as one is put together.

Frames are IP packets behind a virtio_net_hdr (`linux/virtio_net.h`, native byte order). Splitting does what
the kernel's segmentation does, coalescing what its GRO does: neither changes what either end can see.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from pywg.errors import BadPacket, DropReason
from pywg.tun.base import TunOffload

Buffer: TypeAlias = bytes | bytearray | memoryview
Frame: TypeAlias = Sequence[Buffer]

VNET_HDR = struct.Struct("=BBHHHH")
"""virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset."""

NO_OFFLOAD = bytes(VNET_HDR.size)
"""The virtio_net_hdr of a packet that is complete as it stands."""

NEEDS_CSUM = 1
GSO_NONE = 0
GSO_TCPV4 = 1
GSO_TCPV6 = 4
GSO_UDP_L4 = 5
_GSO_ECN = 0x80

_TCP = 6
_UDP = 17
_CSUM_OFFSET = {_TCP: 16, _UDP: 6}
_UDP_HEADER = 8
_FIN, _SYN, _RST, _PSH, _ACK, _URG, _, _CWR = (1 << bit for bit in range(8))
_LAST_ONLY = _FIN | _PSH
_NEVER_MERGED = _SYN | _RST | _URG | _CWR
_IPV6_EXTENSIONS = frozenset({0, 43, 60})  # hop-by-hop options, routing, destination options
_LONGEST_HEADERS = 40 + 60
_MAX_UDP_SEGMENTS = 64
_MAX_PARTS = 512  # writev takes 1024

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_TCP_FIELDS = struct.Struct(">xxxxIxxxxxB")  # sequence number, flags
_SUM_BYTES = 1440
_FOLDS = tuple((bits, (1 << bits) - 1) for bits in (5760, 2880, 1440, 720))


def sum_words(data: Buffer) -> int:
    """The sum of big-endian 16-bit words modulo 65535; an odd last byte counts as a word's upper half.

    Reads little-endian and folds before the division, which is twice as fast as the obvious way.
    """
    if len(data) <= _SUM_BYTES:
        number = int.from_bytes(data, "little")
    else:
        starts = range(0, len(data), _SUM_BYTES)
        number = sum(int.from_bytes(data[start : start + _SUM_BYTES], "little") for start in starts)
    if len(data) > 256:
        for bits, mask in _FOLDS:
            number = (number >> bits) + (number & mask)
    swapped = number % 0xFFFF
    return (swapped & 0xFF) << 8 | swapped >> 8


# --- Splitting. -------------------------------------------------------------------------------------------


def split_untrusted(frame: bytes) -> list[bytes]:
    """The complete IP packets in one frame from the tunnel device, in order, all checksums right.

    frame: a virtio_net_hdr and a packet, perhaps a TCP or UDP super-packet. Raises BadPacket when the two do
    not fit each other.
    """
    if len(frame) < VNET_HDR.size + 20:
        raise BadPacket(DropReason.TRUNCATED)
    flags, gso_type, _, gso_size, csum_start, csum_offset = VNET_HDR.unpack_from(frame)
    packet = frame[VNET_HDR.size :]
    if gso_type == GSO_NONE:
        if not flags & NEEDS_CSUM:
            return [packet]
        return [_complete_checksum(packet, csum_start, csum_offset)]
    kind = gso_type & ~_GSO_ECN
    version = packet[0] >> 4
    if (kind, version) in {(GSO_TCPV4, 4), (GSO_TCPV6, 6)}:
        protocol = _TCP
    elif kind == GSO_UDP_L4 and version in {4, 6}:
        protocol = _UDP
    else:
        raise BadPacket(DropReason.BAD_OFFLOAD)
    transport = _transport_offset(packet, protocol)
    if flags & NEEDS_CSUM and (csum_start, csum_offset) != (transport, _CSUM_OFFSET[protocol]):
        raise BadPacket(DropReason.BAD_OFFLOAD)
    payload = transport + _transport_header_length(packet, transport, protocol)
    if gso_size == 0 or payload >= len(packet):
        raise BadPacket(DropReason.BAD_OFFLOAD)
    return _segments(packet, protocol, transport, payload, gso_size)


def _complete_checksum(packet: bytes, start: int, offset: int) -> bytes:
    """Replace the sum that the kernel began at `start + offset` by the checksum from `start` on."""
    at = start + offset
    if at + 2 > len(packet):
        raise BadPacket(DropReason.BAD_OFFLOAD)
    checksum = -sum_words(memoryview(packet)[start:]) % 0xFFFF or 0xFFFF
    # The field's own begun sum is part of that, as it must be; 0 is never sent, it means "none" for UDP.
    return b"".join((packet[:at], _U16.pack(checksum), packet[at + 2 :]))


def _transport_offset(packet: bytes, protocol: int) -> int:
    """Where the transport header begins, `protocol` having been told."""
    if packet[0] >> 4 == 4:
        offset = (packet[0] & 15) * 4
        if offset < 20 or packet[9] != protocol:
            raise BadPacket(DropReason.BAD_OFFLOAD)
        return offset
    if len(packet) < 40:
        raise BadPacket(DropReason.TRUNCATED)
    following, offset = packet[6], 40
    while following in _IPV6_EXTENSIONS:
        if offset + 8 > len(packet):
            raise BadPacket(DropReason.TRUNCATED)
        following, offset = packet[offset], offset + 8 * (packet[offset + 1] + 1)
    if following != protocol:
        raise BadPacket(DropReason.BAD_OFFLOAD)
    return offset


def _transport_header_length(packet: bytes, transport: int, protocol: int) -> int:
    if protocol == _UDP:
        length = _UDP_HEADER
    else:
        if transport + 20 > len(packet):
            raise BadPacket(DropReason.TRUNCATED)
        length = (packet[transport + 12] >> 4) * 4
        if length < 20:
            raise BadPacket(DropReason.BAD_OFFLOAD)
    if transport + length > len(packet):
        raise BadPacket(DropReason.TRUNCATED)
    return length


def _segments(packet: bytes, protocol: int, transport: int, payload: int, gso_size: int) -> list[bytes]:
    """Offsets were checked: headers up to `payload` lie within the packet, and at least one byte follows."""
    header = bytearray(packet[:payload])
    ipv4 = header[0] >> 4 == 4
    if ipv4:
        header[2:4] = header[10:12] = b"\0\0"  # length, checksum
        identification = _U16.unpack_from(header, 4)[0]
        header[4:6] = b"\0\0"
        ip_sum = sum_words(header[:transport])
        addresses = header[12:20]
    else:
        identification = ip_sum = 0
        addresses = header[8:40]
    checksum_at = transport + _CSUM_OFFSET[protocol]
    _U16.pack_into(header, checksum_at, 0)
    first_sequence = tcp_flags = 0
    if protocol == _TCP:
        first_sequence = _U32.unpack_from(header, transport + 4)[0]
        tcp_flags = header[transport + 13]
        header[transport + 4 : transport + 8] = bytes(4)
        header[transport + 13] = 0
    else:
        _U16.pack_into(header, transport + 4, 0)
    fixed_sum = sum_words(addresses) + protocol + sum_words(header[transport:])

    view = memoryview(packet)
    segments = []
    for number, start in enumerate(range(payload, len(packet), gso_size)):
        data = view[start : start + gso_size]
        last = start + gso_size >= len(packet)
        if ipv4:
            length = payload + len(data)
            own_id = (identification + number) & 0xFFFF
            _U16.pack_into(header, 2, length)
            _U16.pack_into(header, 4, own_id)
            _U16.pack_into(header, 10, -(ip_sum + length + own_id) % 0xFFFF)
        else:
            _U16.pack_into(header, 4, payload + len(data) - 40)
        length = payload - transport + len(data)
        total = fixed_sum + length + sum_words(data)
        if protocol == _TCP:
            sequence = (first_sequence + start - payload) & 0xFFFFFFFF
            flags = tcp_flags & ~((0 if last else _LAST_ONLY) | (_CWR if number else 0))
            _U32.pack_into(header, transport + 4, sequence)
            header[transport + 13] = flags
            total += (sequence >> 16) + (sequence & 0xFFFF) + flags
            checksum = -total % 0xFFFF
        else:
            _U16.pack_into(header, transport + 4, length)
            checksum = -(total + length) % 0xFFFF or 0xFFFF
        _U16.pack_into(header, checksum_at, checksum)
        segments.append(b"".join((header, data)))
    return segments


# --- Coalescing. ------------------------------------------------------------------------------------------


class Coalescer:
    """Puts the packets of a burst together where the tunnel device takes super-packets.

    Packets of one flow stay in order; those that are not put together are passed on untouched.
    """

    def __init__(self, offload: TunOffload) -> None:
        self._vnet_hdr = offload.vnet_hdr
        self._shapes = {
            shape.first_bytes: shape
            for shape in _SHAPES
            if (offload.tso if shape.protocol == _TCP else offload.uso)
        }

    def frames(self, packets: Sequence[Buffer]) -> Iterable[Frame]:
        """The frames to write (each in parts, see `Tun.write`) for IP packets whose lengths are right."""
        if not self._vnet_hdr:
            return [(packet,) for packet in packets]
        if len(packets) < 2 or not self._shapes:
            return [(NO_OFFLOAD, packet) for packet in packets]
        groups: list[_Group] = []
        latest: dict[bytes, _Group] = {}
        for packet in packets:
            head = bytes(packet[:_LONGEST_HEADERS])
            shape = _shape_of(head, self._shapes)
            if shape is None:
                latest.clear()  # a fragment, say: it may belong to any flow, and nothing is to overtake it
                groups.append(_Group(packet, head, None))
                continue
            flow = head[shape.flow]
            group = latest.get(flow)
            if group is None or not group.take(packet, head):
                group = latest[flow] = _Group(packet, head, shape)
                groups.append(group)
        return [group.frame() for group in groups]


class _Shape:
    """Where things are in packets of one IP version and protocol, with nothing between the two headers.

    masks: by length of both headers, ones where packets of one frame must be alike.
    """

    def __init__(self, version: int, protocol: int, gso_type: int) -> None:
        self.protocol = protocol
        self.gso_type = gso_type
        self.transport = transport = 20 if version == 4 else 40
        self.first_bytes = (0x45 if version == 4 else 6, protocol)
        self.addresses = slice(12, 20) if version == 4 else slice(8, 40)
        self.flow = slice(12, 24) if version == 4 else slice(8, 44)
        self.length_at, self.length_less = (2, 0) if version == 4 else (4, 40)
        self.checksum_at = transport + _CSUM_OFFSET[protocol]
        differing = [2, 3, 4, 5, 10, 11] if version == 4 else [4, 5]
        if protocol == _TCP:
            differing += [transport + at for at in (4, 5, 6, 7, 16, 17)]
        else:
            differing += [transport + at for at in (4, 5, 6, 7)]
        self.masks = {}
        for length in (
            range(transport + 20, transport + 61, 4) if protocol == _TCP else [transport + _UDP_HEADER]
        ):
            mask = bytearray(b"\xff" * length)
            for at in differing:
                mask[at] = 0
            if protocol == _TCP:
                mask[transport + 13] &= ~_LAST_ONLY
            self.masks[length] = int.from_bytes(mask, "big")

    def data_at(self, head: bytes) -> int:
        """Length of both headers; TCP's is what the packet says."""
        return self.transport + (
            _UDP_HEADER if self.protocol == _UDP else head[self.transport + 12] >> 4 << 2
        )


_SHAPES = (
    _Shape(4, _TCP, GSO_TCPV4),
    _Shape(6, _TCP, GSO_TCPV6),
    _Shape(4, _UDP, GSO_UDP_L4),
    _Shape(6, _UDP, GSO_UDP_L4),
)


def _shape_of(head: bytes, shapes: dict[tuple[int, int], _Shape]) -> _Shape | None:
    """None when it is not TCP or UDP with at least its shortest header right behind a plain IP header."""
    size = len(head)
    if size < 28:
        return None
    if head[0] == 0x45:
        shape = shapes.get((0x45, head[9]))
        if head[6] & 0xBF or head[7]:
            return None
    elif head[0] >> 4 == 6:
        shape = shapes.get((6, head[6]))
    else:
        return None
    if shape is None or size < shape.transport + (20 if shape.protocol == _TCP else _UDP_HEADER):
        return None
    return shape


class _Group:
    """One packet, or several that will be one frame."""

    __slots__ = (
        "_alike",
        "_data_at",
        "_head",
        "_last_flags",
        "_mask",
        "_next_sequence",
        "_open",
        "_packet",
        "_parts",
        "_pseudo_sum",
        "_same_id",
        "_segment_size",
        "_shape",
        "_size",
    )

    def __init__(self, packet: Buffer, head: bytes, shape: _Shape | None) -> None:
        self._packet = packet
        self._head = head
        self._shape = shape
        self._open = shape is not None
        self._parts: list[Buffer] = []
        # Set by _begin, which most packets that stay alone never see.
        self._data_at: int
        self._mask: int
        self._alike: int
        self._size: int
        self._segment_size: int
        self._next_sequence: int
        self._pseudo_sum: int
        self._same_id: bool
        self._last_flags: int

    def take(self, packet: Buffer, head: bytes) -> bool:
        """Append the packet, of the same flow, if it continues what is here."""
        shape = self._shape
        if not self._open or shape is None or (not self._parts and not self._begin(shape)):
            return False
        data_at = self._data_at
        size = len(packet) - data_at
        if (
            not 0 < size <= self._segment_size
            or int.from_bytes(head[:data_at], "big") & self._mask != self._alike
        ):
            return False
        count = len(self._parts) or 1
        flags = 0
        if shape.protocol == _TCP:
            sequence, flags = _TCP_FIELDS.unpack_from(head, shape.transport)
            flags &= _LAST_ONLY
            if sequence != self._next_sequence or count >= _MAX_PARTS:
                return False
        elif count >= _MAX_UDP_SEGMENTS:
            return False
        if self._size + size > 0xFFFF or not self._id_follows(head, count):
            return False
        if not _is_right(packet, head, shape, self._pseudo_sum):
            return False
        if count == 1:
            self._parts.append(memoryview(self._packet)[data_at:])
        self._parts.append(memoryview(packet)[data_at:])
        self._size += size
        self._next_sequence = (self._next_sequence + size) & 0xFFFFFFFF
        self._last_flags = flags
        self._open = not flags and size == self._segment_size
        return True

    def _begin(self, shape: _Shape) -> bool:
        """Look at the first packet, now that a second one may join it. False: nothing ever joins this one."""
        head, packet = self._head, self._packet
        data_at = shape.data_at(head)
        mask = shape.masks.get(data_at)
        self._open = False
        if mask is None or len(packet) <= data_at:
            return False
        if shape.protocol == _TCP:
            sequence, flags = _TCP_FIELDS.unpack_from(head, shape.transport)
            if flags & (_ACK | _NEVER_MERGED | _LAST_ONLY) != _ACK:
                return False
            self._next_sequence = (sequence + len(packet) - data_at) & 0xFFFFFFFF
        else:
            self._next_sequence = 0
        self._pseudo_sum = sum_words(head[shape.addresses]) + shape.protocol
        if not _is_right(packet, head, shape, self._pseudo_sum):
            return False
        self._data_at = data_at
        self._mask = mask
        self._alike = int.from_bytes(head[:data_at], "big") & mask
        self._size = len(packet)
        self._segment_size = self._size - data_at
        self._same_id = False
        self._last_flags = 0
        self._open = True
        return True

    def _id_follows(self, head: bytes, count: int) -> bool:
        """Identifications count up; or stay the same, where fragments are forbidden and nobody needs them."""
        if head[0] != 0x45:
            return True
        first = self._head
        if count == 1:
            self._same_id = bool(first[6] & 0x40) and head[4:6] == first[4:6]
        expected = (first[4] << 8 | first[5]) + (0 if self._same_id else count)
        return head[4] << 8 | head[5] == expected & 0xFFFF

    def frame(self) -> Frame:
        """What to write."""
        shape = self._shape
        if shape is None or not self._parts:
            return (NO_OFFLOAD, self._packet)
        header = bytearray(self._head[: self._data_at])
        _U16.pack_into(header, shape.length_at, self._size - shape.length_less)
        if header[0] == 0x45:
            header[10:12] = b"\0\0"
            _U16.pack_into(header, 10, -sum_words(header[:20]) % 0xFFFF)
        length = self._size - shape.transport
        if shape.protocol == _TCP:
            header[shape.transport + 13] |= self._last_flags
        else:
            _U16.pack_into(header, shape.transport + 4, length)
        _U16.pack_into(header, shape.checksum_at, (self._pseudo_sum + length) % 0xFFFF or 0xFFFF)
        offload = VNET_HDR.pack(
            NEEDS_CSUM,
            shape.gso_type,
            self._data_at,
            self._segment_size,
            shape.transport,
            _CSUM_OFFSET[shape.protocol],
        )
        return [offload + header, *self._parts]


def _is_right(packet: Buffer, head: bytes, shape: _Shape, pseudo_sum: int) -> bool:
    """Whether lengths and checksums of the packet are what splitting a super-packet would make them."""
    size = len(packet)
    if _U16.unpack_from(head, shape.length_at)[0] != size - shape.length_less:
        return False
    length = size - shape.transport
    checksum = _U16.unpack_from(head, shape.checksum_at)[0]
    if shape.protocol == _TCP:
        if checksum == 0xFFFF:  # as right as 0, but would come back as 0
            return False
    elif checksum == 0 or _U16.unpack_from(head, shape.transport + 4)[0] != length:
        return False
    if head[0] == 0x45:
        if head[10:12] == b"\xff\xff" or int.from_bytes(head[:20], "big") % 0xFFFF:
            return False
        covered = packet  # the IP header's own sum was just seen to be zero
    else:
        covered = memoryview(packet)[shape.transport :]
    return (sum_words(covered) + pseudo_sum + length) % 0xFFFF == 0
