"""The IP headers of inner packets: what routing, length checks and ECN need, and ICMP errors about them.

Packets come from the tunnel device or from a peer, and both may hand in anything; nothing is taken from a
packet before its length allows it. Addresses are packed: 4 or 16 bytes.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

from pywg.errors import BadPacket, DropReason

Buffer: TypeAlias = bytes | bytearray | memoryview

IPV4_HEADER_SIZE: Final = 20
IPV6_HEADER_SIZE: Final = 40

NOT_ECT: Final = 0
ECT_1: Final = 1
ECT_0: Final = 2
CE: Final = 3

# RFC 6040, figure 4: what the inner header carries on from the inner (row) and outer (column) codepoints
# that arrived; None: drop, since congestion was met and the flow cannot be told.
#            outer: Not-ECT ECT(1)   ECT(0)   CE
_ECN_ON_ARRIVAL: Final[tuple[tuple[int | None, ...], ...]] = (
    (NOT_ECT, NOT_ECT, NOT_ECT, None),
    (ECT_1, ECT_1, ECT_1, CE),
    (ECT_0, ECT_1, ECT_0, CE),
    (CE, CE, CE, CE),
)

_ICMP: Final = 1
_ICMPV6: Final = 58
_ICMP_ERRORS: Final = frozenset({3, 4, 5, 11, 12})  # RFC 1122, section 3.2.2
_ICMPV6_REDIRECT: Final = 137
_ICMPV6_FIRST_INFORMATION: Final = 128  # types below are errors
_ICMP_SIZE_LIMIT: Final = 576  # RFC 1812, section 4.3.2.3
_ICMPV6_SIZE_LIMIT: Final = 1280  # RFC 4443, section 2.4 (c)
_TOS_OF_ERRORS: Final = 0xC0  # RFC 1812, section 4.3.2.5: internetwork control
_HOP_LIMIT: Final = 64

_HOP_BY_HOP: Final = 0
_ROUTING: Final = 43
_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_DESTINATION_OPTIONS: Final = 60


def header_untrusted(packet: Buffer) -> tuple[bytes, bytes, int]:
    """Source, destination and length (bytes, header included) of the packet that `packet` begins with.

    The length is what the header says: `packet` may be longer, since plaintexts are padded, never shorter.
    Raises BadPacket (NOT_AN_IP_PACKET).
    """
    size = len(packet)
    version = packet[0] >> 4 if size else 0
    if version == 4 and size >= IPV4_HEADER_SIZE:
        length = packet[2] << 8 | packet[3]
        if IPV4_HEADER_SIZE <= length <= size:
            return bytes(packet[12:16]), bytes(packet[16:20]), length
    elif version == 6 and size >= IPV6_HEADER_SIZE:
        length = IPV6_HEADER_SIZE + (packet[4] << 8 | packet[5])
        if length <= size:
            return bytes(packet[8:24]), bytes(packet[24:40]), length
    raise BadPacket(DropReason.NOT_AN_IP_PACKET)


def source_and_destination_untrusted(packet: Buffer) -> tuple[bytes, bytes]:
    """The packed addresses. Raises BadPacket (NOT_AN_IP_PACKET), also when the packet is cut short."""
    source, destination, _ = header_untrusted(packet)
    return source, destination


def ecn(packet: Buffer) -> int:
    """The ECN codepoint, 0 to 3, of a packet whose header was checked."""
    return packet[1] & 3 if packet[0] >> 4 == 4 else packet[1] >> 4 & 3


def ecn_on_arrival(inner: int, outer: int) -> int | None:
    """The codepoint that leaves the tunnel, or None: drop the packet (RFC 6040, section 4.2)."""
    return _ECN_ON_ARRIVAL[inner][outer]


def set_ecn(packet: bytearray | memoryview, codepoint: int) -> None:
    """Write the ECN codepoint into a packet whose header was checked, and keep an IPv4 checksum right."""
    if packet[0] >> 4 == 6:
        packet[1] = packet[1] & 0xCF | codepoint << 4
        return
    old = packet[1]
    new = old & 0xFC | codepoint
    packet[1] = new
    # RFC 1624, equation 3, for the one word that changed; its upper byte cancels out.
    total = (0xFFFF - (packet[10] << 8 | packet[11])) + (0xFFFF - old) + new
    total = (total & 0xFFFF) + (total >> 16)
    total = 0xFFFF - (total & 0xFFFF) - (total >> 16)
    packet[10] = total >> 8
    packet[11] = total & 0xFF


def internet_checksum(data: Buffer) -> int:
    """The checksum of RFC 1071 over `data`, as it goes into a header (big-endian, 16 bits)."""
    total = int.from_bytes(data, "big") << 8 * (len(data) % 2)
    # The one's complement sum of 16-bit words is the number modulo 0xFFFF; it is zero only for zeros.
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))


def pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """What checksums of TCP, UDP and ICMPv6 cover first (RFC 9293, 3.1 for IPv4; RFC 8200, 8.1 for IPv6)."""
    if len(source) == 4:
        return source + destination + struct.pack("!xBH", protocol, length)
    return source + destination + struct.pack("!IxxxB", length, protocol)


def unreachable(packet: Buffer) -> bytes | None:
    """An ICMP or ICMPv6 error that tells the packet's source that its destination cannot be reached.

    "Host unreachable" (RFC 792, type 3 code 1) or "address unreachable" (RFC 4443, type 1 code 3). It
    comes from the packet's destination, so that it fits through a reverse path filter, and quotes as much of
    the packet as 576 bytes (IPv4) or 1280 (IPv6) leave room for. None when the packet must not be answered:
    it is cut short, an ICMP error, a fragment but the first, or not between two single hosts.
    """
    try:
        source, destination, length = header_untrusted(packet)
    except BadPacket:
        return None
    packet = bytes(packet[:length])
    if len(source) == 4:
        if not _may_be_answered_ipv4(packet, source, destination):
            return None
        return _icmp_unreachable(packet, source, destination)
    if not _may_be_answered_ipv6(packet, source, destination):
        return None
    return _icmpv6_unreachable(packet, source, destination)


def _may_be_answered_ipv4(packet: bytes, source: bytes, destination: bytes) -> bool:
    """RFC 1122, section 3.2.2."""
    for address in (source, destination):
        if (
            address[0] in (0, 127) or address[0] >= 224
        ):  # this network, loopback, multicast, class E, broadcast
            return False
    header_size = (packet[0] & 0x0F) * 4
    fragment_offset = (packet[6] << 8 | packet[7]) & 0x1FFF
    if header_size < IPV4_HEADER_SIZE or header_size > len(packet) or fragment_offset:
        return False
    if packet[9] != _ICMP:
        return True
    return len(packet) > header_size and packet[header_size] not in _ICMP_ERRORS


def _may_be_answered_ipv6(packet: bytes, source: bytes, destination: bytes) -> bool:
    """RFC 4443, section 2.4 (e); the upper-layer header is looked for behind the extension headers."""
    for address in (source, destination):
        if address[0] == 0xFF or int.from_bytes(address) <= 1:  # multicast, unspecified, loopback
            return False
    header = packet[6]
    offset = IPV6_HEADER_SIZE
    while header in (_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS, _AUTHENTICATION, _FRAGMENT):
        if offset + 8 > len(packet):
            return False
        if header == _FRAGMENT:
            if (packet[offset + 2] << 8 | packet[offset + 3]) & 0xFFF8:
                return False
            size = 8
        elif header == _AUTHENTICATION:
            size = (packet[offset + 1] + 2) * 4
        else:
            size = (packet[offset + 1] + 1) * 8
        header = packet[offset]
        offset += size
    if header != _ICMPV6:
        return True
    if offset >= len(packet):
        return False
    return packet[offset] >= _ICMPV6_FIRST_INFORMATION and packet[offset] != _ICMPV6_REDIRECT


def _icmp_unreachable(packet: bytes, source: bytes, destination: bytes) -> bytes:
    message = bytearray(struct.pack("!BBHI", 3, 1, 0, 0))
    message += packet[: _ICMP_SIZE_LIMIT - IPV4_HEADER_SIZE - len(message)]
    struct.pack_into("!H", message, 2, internet_checksum(message))
    header = bytearray(
        struct.pack(
            "!BBHHHBBH4s4s",
            0x45,
            _TOS_OF_ERRORS,
            IPV4_HEADER_SIZE + len(message),
            0,
            0x4000,  # don't fragment; so the identification may be zero (RFC 6864)
            _HOP_LIMIT,
            _ICMP,
            0,
            destination,
            source,
        )
    )
    struct.pack_into("!H", header, 10, internet_checksum(header))
    return bytes(header + message)


def _icmpv6_unreachable(packet: bytes, source: bytes, destination: bytes) -> bytes:
    message = bytearray(struct.pack("!BBHI", 1, 3, 0, 0))
    message += packet[: _ICMPV6_SIZE_LIMIT - IPV6_HEADER_SIZE - len(message)]
    pseudo = pseudo_header(destination, source, _ICMPV6, len(message))
    struct.pack_into("!H", message, 2, internet_checksum(pseudo + message))
    header = struct.pack("!IHBB16s16s", 6 << 28, len(message), _ICMPV6, _HOP_LIMIT, destination, source)
    return header + bytes(message)
