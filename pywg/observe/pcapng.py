"""Captures as pcapng files: two interfaces, one for inner packets and one for outer datagrams.

The form is that of draft-ietf-opsawg-pcapng: section header, interface descriptions, enhanced packets with
direction and comments, and the secrets that Wireshark decrypts WireGuard with.
"""

from __future__ import annotations

import socket
import struct
import time

from pywg import __version__
from pywg.datapath.tap import Tapped
from pywg.wire import ip
from pywg.wire.endpoint import Endpoint

INNER, OUTER = 0, 1
"""The interfaces of a file, by number."""

_SECTION, _INTERFACE, _STATISTICS, _PACKET, _SECRETS = 0x0A0D0D0A, 1, 5, 6, 0xA
_LINKTYPE_RAW = 101
_WIREGUARD_KEY_LOG = 0x57474B4C
_END, _COMMENT, _APPLICATION, _NAME, _RESOLUTION, _FLAGS = 0, 1, 4, 2, 9, 2
_IFDROP = 5
_NANOSECONDS = 9
_INBOUND, _OUTBOUND = 1, 2
_UDP = 17
_ANY = {socket.AF_INET: bytes(4), socket.AF_INET6: bytes(16)}


def header(interface: str, snaplen: int) -> bytes:
    """The beginning of a file."""
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    section += _options((_APPLICATION, f"pywg {__version__}".encode()))
    blocks = [_block(_SECTION, section)]
    for name in (interface, f"{interface} (datagrams)"):
        fields = struct.pack("<HHI", _LINKTYPE_RAW, 0, snaplen)
        options = _options((_NAME, name.encode()), (_RESOLUTION, bytes([_NANOSECONDS])))
        blocks.append(_block(_INTERFACE, fields + options))
    return b"".join(blocks)


def packet(tapped: Tapped, port: int) -> bytes:
    """One packet; port: ours. A datagram gets IP and UDP headers much like those that it has on the wire."""
    data, length = tapped.data, tapped.length
    if tapped.endpoint is not None:
        before = _headers(tapped.endpoint, port, tapped.outgoing, length, data)
        data, length = before + data, length + len(before)
    options = [(_FLAGS, struct.pack("<I", _OUTBOUND if tapped.outgoing else _INBOUND))]
    if tapped.dropped is not None:
        options.append((_COMMENT, f"dropped: {tapped.dropped.value}".encode()))
    number = INNER if tapped.inner else OUTER
    fields = struct.pack(
        "<IIIII", number, tapped.at >> 32, tapped.at & 0xFFFFFFFF, len(data), max(length, len(data))
    )
    return _block(_PACKET, fields + _padded(data) + _options(*options))


def secrets(lines: str) -> bytes:
    """A part of a key log; it has to stand before the packets that it opens."""
    data = lines.encode()
    return _block(_SECRETS, struct.pack("<II", _WIREGUARD_KEY_LOG, len(data)) + _padded(data))


def lost(count: int) -> bytes:
    """So many packets more found no room."""
    now = time.time_ns()
    fields = struct.pack("<III", INNER, now >> 32, now & 0xFFFFFFFF)
    return _block(_STATISTICS, fields + _options((_IFDROP, struct.pack("<Q", count))))


def _headers(endpoint: Endpoint, port: int, outgoing: bool, length: int, data: bytes) -> bytes:
    """IP and UDP. The local address is zeros where the system chooses it and we do not know it."""
    theirs = socket.inet_pton(endpoint.family, endpoint.host)
    ours = _ANY[endpoint.family]
    if endpoint.local is not None:
        ours = socket.inet_pton(endpoint.family, endpoint.local.host)
    source, destination = (ours, theirs) if outgoing else (theirs, ours)
    ports = (port, endpoint.port) if outgoing else (endpoint.port, port)
    udp_length = 8 + length
    udp = struct.pack("!HHHH", *ports, udp_length & 0xFFFF, 0)
    if endpoint.family == socket.AF_INET:  # where a UDP checksum may be left out
        head = struct.pack("!BBHHHBBH", 0x45, 0, (20 + udp_length) & 0xFFFF, 0, 0x4000, 64, _UDP, 0)
        checksum = ip.internet_checksum(head + source + destination)
        return head[:10] + checksum.to_bytes(2, "big") + source + destination + udp
    if len(data) == length:
        pseudo = ip.pseudo_header(source, destination, _UDP, udp_length)
        checksum = ip.internet_checksum(pseudo + udp + data) or 0xFFFF
        udp = udp[:6] + checksum.to_bytes(2, "big")
    return struct.pack("!IHBB", 6 << 28, udp_length & 0xFFFF, _UDP, 64) + source + destination + udp


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length


def _options(*options: tuple[int, bytes]) -> bytes:
    return b"".join(
        struct.pack("<HH", code, len(value)) + _padded(value) for code, value in (*options, (_END, b""))
    )


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
