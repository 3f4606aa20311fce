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
_FIN, _SYN, _RST, _PSH, _ACK, _URG, _ECE, _CWR = (1 << bit for bit in range(8))
_LAST_ONLY = _FIN | _PSH
_NEVER_MERGED = _SYN | _RST | _URG | _CWR
_IPV6_EXTENSIONS = frozenset({0, 43, 60})  # hop-by-hop options, routing, destination options
_LONGEST_HEADERS = 40 + 60
_MAX_UDP_SEGMENTS = 64
_MAX_PARTS = 512  # writev takes 1024

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
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
        self._protocols = ({_TCP} if offload.tso else set()) | ({_UDP} if offload.uso else set())

    def frames(self, packets: Sequence[Buffer]) -> Iterable[Frame]:
        """The frames to write (each in parts, see `Tun.write`) for IP packets whose lengths are right."""
        if not self._vnet_hdr:
            return [(packet,) for packet in packets]
        if len(packets) < 2 or not self._protocols:
            return [(NO_OFFLOAD, packet) for packet in packets]
        groups: list[_Group] = []
        latest: dict[bytes, _Group] = {}
        for packet in packets:
            segment = _Segment.of(packet, self._protocols)
            if segment is None:
                latest.clear()  # a fragment, say: it may belong to any flow, and nothing is to overtake it
                groups.append(_Group(packet, None))
                continue
            group = latest.get(segment.flow)
            if group is None or not group.take(segment):
                group = _Group(packet, segment)
                groups.append(group)
                latest[segment.flow] = group
        return [group.frame() for group in groups]


class _Segment:
    """One packet that may be put together with others.

    flow: addresses and ports. alike: what must be the same in each packet of a group, other than that.
    """

    __slots__ = (
        "alike",
        "flags",
        "flow",
        "head",
        "identification",
        "packet",
        "payload",
        "protocol",
        "sequence",
        "size",
    )

    def __init__(self, packet: Buffer, head: bytes, protocol: int, transport: int) -> None:
        self.packet = packet
        self.head = head
        self.protocol = protocol
        ipv4 = transport == 20
        self.flow = head[12:24] if ipv4 else head[8:44]
        self.identification = head[4] << 8 | head[5] if ipv4 else 0
        network = head[:2] + head[6:9] if ipv4 else head[:4] + head[7:8]
        if protocol == _TCP:
            self.payload = min(transport + (head[transport + 12] >> 4) * 4, len(packet))
            self.sequence = _U32.unpack_from(head, transport + 4)[0]
            flags = head[transport + 13]
            self.flags = flags
            self.alike = (
                network
                + bytes((protocol, flags & _ECE))
                + head[transport + 8 : transport + 13]
                + head[transport + 14 : transport + 16]
                + head[transport + 18 : self.payload]
            )
        else:
            self.payload = transport + _UDP_HEADER
            self.sequence = self.flags = 0
            self.alike = network + bytes((protocol,))
        self.size = len(packet) - self.payload

    @classmethod
    def of(cls, packet: Buffer, protocols: set[int]) -> _Segment | None:
        """None when it is not TCP or UDP right behind a plain IP header, whole and with matching lengths."""
        size = len(packet)
        if size < 28:
            return None
        head = bytes(packet[:_LONGEST_HEADERS])
        if head[0] == 0x45:
            protocol = head[9]
            if head[2] << 8 | head[3] != size or head[6] & 0xBF or head[7]:
                return None
            transport = 20
        elif head[0] >> 4 == 6 and size >= 48:
            protocol = head[6]
            if (head[4] << 8 | head[5]) + 40 != size:
                return None
            transport = 40
        else:
            return None
        if protocol not in protocols or size < transport + (20 if protocol == _TCP else _UDP_HEADER):
            return None
        return cls(packet, head, protocol, transport)

    def may_join(self) -> bool:
        """Whether it may be part of a super-packet at all: has data, nothing unusual, and right checksums."""
        head = self.head
        transport = 20 if head[0] == 0x45 else 40
        data_at = self.payload
        if self.size <= 0 or data_at < transport + (20 if self.protocol == _TCP else _UDP_HEADER):
            return False
        length = len(self.packet) - transport
        at = transport + _CSUM_OFFSET[self.protocol]
        field = head[at] << 8 | head[at + 1]
        if self.protocol == _TCP:
            # 0xFFFF is right where 0 is, but would come back as 0.
            if self.flags & (_ACK | _NEVER_MERGED) != _ACK or field == 0xFFFF:
                return False
        elif field == 0 or head[transport + 4] << 8 | head[transport + 5] != length:
            return False
        if transport == 20:
            if head[10:12] == b"\xff\xff" or sum_words(head[:20]):
                return False
            addresses = head[12:20]
        else:
            addresses = head[8:40]
        return (
            sum_words(addresses) + self.protocol + length + sum_words(memoryview(self.packet)[transport:])
        ) % 0xFFFF == 0


class _Group:
    """One packet, or several that will be one frame."""

    __slots__ = ("_first", "_joinable", "_last_flags", "_packet", "_payloads", "_same_id", "_size")

    def __init__(self, packet: Buffer, first: _Segment | None) -> None:
        self._packet = packet
        self._first = first
        self._joinable: bool | None = None  # None: not looked at, a packet that stays alone need not be
        self._payloads: list[Buffer] = []
        self._size = len(packet)
        self._same_id = False
        self._last_flags = 0

    def take(self, segment: _Segment) -> bool:
        """Append the segment if it continues what is here."""
        first = self._first
        if first is None or self._joinable is False or segment.alike != first.alike:
            return False
        count = len(self._payloads) or 1
        if first.protocol == _TCP:
            if segment.sequence != (first.sequence + self._size - first.payload) & 0xFFFFFFFF:
                return False
            if self._joinable is None and first.flags & _LAST_ONLY:
                return False
        elif count >= _MAX_UDP_SEGMENTS:
            return False
        if segment.size > first.size or self._size + segment.size > 0xFFFF or count >= _MAX_PARTS:
            return False
        if first.head[0] == 0x45 and not self._id_follows(segment, count):
            return False
        if self._joinable is None:
            self._joinable = first.may_join()
        if not self._joinable or not segment.may_join():
            return False
        if not self._payloads:
            self._payloads.append(memoryview(self._packet)[first.payload :])
        self._payloads.append(memoryview(segment.packet)[segment.payload :])
        self._size += segment.size
        self._last_flags = segment.flags & _LAST_ONLY
        if segment.size < first.size or self._last_flags:
            self._joinable = False  # this one must be the last
        return True

    def _id_follows(self, segment: _Segment, count: int) -> bool:
        """Identifications count up; or stay the same, where fragments are forbidden and nobody needs them."""
        first = self._first
        assert first is not None
        if count == 1:
            self._same_id = bool(first.head[6] & 0x40) and segment.identification == first.identification
        expected = first.identification if self._same_id else (first.identification + count) & 0xFFFF
        return segment.identification == expected

    def frame(self) -> Frame:
        """What to write."""
        first = self._first
        if first is None or not self._payloads:
            return (NO_OFFLOAD, self._packet)
        header = bytearray(first.head[: first.payload])
        if header[0] == 0x45:
            transport, addresses, kind = 20, header[12:20], GSO_TCPV4
            _U16.pack_into(header, 2, self._size)
            header[10:12] = b"\0\0"
            _U16.pack_into(header, 10, -sum_words(header[:20]) % 0xFFFF)
        else:
            transport, addresses, kind = 40, header[8:40], GSO_TCPV6
            _U16.pack_into(header, 4, self._size - 40)
        length = self._size - transport
        if first.protocol == _TCP:
            header[transport + 13] |= self._last_flags
        else:
            kind = GSO_UDP_L4
            _U16.pack_into(header, transport + 4, length)
        begun = (sum_words(addresses) + first.protocol + length) % 0xFFFF or 0xFFFF
        offset = _CSUM_OFFSET[first.protocol]
        _U16.pack_into(header, transport + offset, begun)
        offload = VNET_HDR.pack(NEEDS_CSUM, kind, first.payload, first.size, transport, offset)
        return [offload + header, *self._payloads]
