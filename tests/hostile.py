"""Inner packets that an authenticated but hostile peer sends, to mislead joining of segments or our checks.

Used against both data paths (tests/spec) and against the daemon before a real kernel (tests/system).
"""

from __future__ import annotations

import dataclasses
import itertools
import struct
from collections.abc import Callable, Iterator

from pywg.errors import DropReason
from tests.twins import checksummed, packet

SIZE = 200
TIMESTAMP = b"\1\1\x08\x0a" + bytes(8)

Make = Callable[[str, str], list[bytes]]


@dataclasses.dataclass(frozen=True, slots=True)
class Trick:
    """Packets that are a peer's to send, and have to come out as they are and in order.

    may_join: some of them are neighbours that may be put together.
    """

    name: str
    packets: Make
    may_join: bool = True


def stream(source: str, destination: str, protocol: int, count: int = 6, **options: object) -> list[bytes]:
    """Neighbours of one flow that may be joined."""
    return [
        packet(
            source,
            destination,
            bytes([number]) * SIZE,
            **{  # type: ignore[arg-type]
                "protocol": protocol,
                "sequence": 1000 + number * SIZE,
                "identification": number,
                "options": TIMESTAMP if protocol == 6 else b"",
                **options,
            },
        )
        for number in range(count)
    ]


def _both(change: Callable[[list[bytes], int], list[bytes]]) -> Make:
    """The change made to a TCP stream, and to a UDP one."""

    def make(source: str, destination: str) -> list[bytes]:
        return [
            one for protocol in (6, 17) for one in change(stream(source, destination, protocol), protocol)
        ]

    return make


def _edited(index: int, edit: Callable[[bytearray, int], object], *, right: bool = True) -> Make:
    """One packet in mid flow is changed; its checksums are made right again, or not."""

    def change(packets: list[bytes], protocol: int) -> list[bytes]:
        changed = bytearray(packets[index])
        edit(changed, 20 if changed[0] >> 4 == 4 else 40)
        packets[index] = checksummed(changed) if right else bytes(changed)
        return packets

    return _both(change)


def _set(
    at: int, value: int, *, transport: bool = False, xor: bool = False
) -> Callable[[bytearray, int], None]:
    def edit(data: bytearray, start: int) -> None:
        place = at + (start if transport else 0)
        data[place] = data[place] ^ value if xor else value

    return edit


def _flag(flag: int) -> Make:
    return lambda source, destination: [
        packet(
            source,
            destination,
            bytes([number]) * SIZE,
            protocol=6,
            sequence=number * SIZE,
            flags=0x10 | (flag if number == 2 else 0),
            identification=number,
        )
        for number in range(6)
    ]


def _sequences(*numbers: int) -> Make:
    return lambda source, destination: [
        packet(source, destination, bytes([i]) * SIZE, protocol=6, sequence=n & 0xFFFFFFFF, identification=i)
        for i, n in enumerate(numbers)
    ]


def _sizes(*sizes: int) -> Make:
    """A flow whose segments change their size."""

    def make(source: str, destination: str) -> list[bytes]:
        starts = list(itertools.accumulate(sizes, initial=0))
        return [
            packet(
                source, destination, bytes([i]) * size, protocol=protocol, sequence=start, identification=i
            )
            for protocol in (6, 17)
            for i, (size, start) in enumerate(zip(sizes, starts, strict=False))
        ]

    return make


def _field(name: str, *values: int) -> Make:
    def make(source: str, destination: str) -> list[bytes]:
        return [
            packet(
                source,
                destination,
                bytes([i]) * SIZE,
                protocol=protocol,
                sequence=i * SIZE,
                **{"identification": i, name: value},  # type: ignore[arg-type]
            )
            for protocol in (6, 17)
            for i, value in enumerate(values)
        ]

    return make


def _spoil_ipv4_checksum(data: bytearray, start: int) -> None:
    if start == 20:
        data[10] ^= 0x55


def _flow_label(data: bytearray, start: int) -> None:
    if start == 40:
        data[3] ^= 1
    else:
        data[1] ^= 0x10


def _with_extensions(packets: list[bytes], protocol: int) -> list[bytes]:
    """IPv4 options, or IPv6 extension headers, on every second packet."""
    changed = []
    for number, one in enumerate(packets):
        if number % 2 == 0:
            changed.append(one)
        elif one[0] >> 4 == 4:
            longer = bytearray(one[:20] + b"\1\1\1\0" + one[20:])
            longer[0] = 0x46
            struct.pack_into("!H", longer, 2, len(longer))
            longer[10:12] = bytes(2)
            total = sum(struct.unpack_from("!12H", longer))
            total = (total & 0xFFFF) + (total >> 16)
            struct.pack_into("!H", longer, 10, ~(total + (total >> 16)) & 0xFFFF)
            changed.append(bytes(longer))
        else:
            longer = bytearray(one[:40] + bytes([protocol, 0, 1, 4, 0, 0, 0, 0]) + one[40:])
            longer[6] = 60  # destination options: one PadN
            struct.pack_into("!H", longer, 4, len(longer) - 40)
            changed.append(bytes(longer))
    return changed


def _fragments(packets: list[bytes], protocol: int) -> list[bytes]:
    """Fragments of which the first looks like a neighbour, amid a flow."""
    middle = packets[2]
    if middle[0] >> 4 == 4:
        first, second = bytearray(middle[: 20 + 104]), bytearray(middle[:20] + middle[20 + 104 :])
        for piece, offset in ((first, 0x2000), (second, 104 // 8)):
            struct.pack_into("!HHH", piece, 2, len(piece), 77, offset)
            piece[10:12] = bytes(2)
            total = sum(struct.unpack_from("!10H", piece))
            total = (total & 0xFFFF) + (total >> 16)
            struct.pack_into("!H", piece, 10, ~(total + (total >> 16)) & 0xFFFF)
    else:
        body = middle[40:]
        first = bytearray(middle[:40] + struct.pack("!BBHI", protocol, 0, 1, 77) + body[:104])
        second = bytearray(middle[:40] + struct.pack("!BBHI", protocol, 0, 104, 77) + body[104:])
        for piece in (first, second):
            piece[6] = 44
            struct.pack_into("!H", piece, 4, len(piece) - 40)
    return [*packets[:2], bytes(first), bytes(second), *packets[3:]]


def _alternating(source: str, destination: str) -> list[bytes]:
    pairs = zip(stream(source, destination, 6), stream(source, destination, 17), strict=True)
    return [one for pair in pairs for one in pair]


TRICKS = [
    Trick("none", _both(lambda packets, _: packets)),
    Trick("wrong transport checksum", _edited(2, _set(16, 0xFF, transport=True, xor=True), right=False)),
    Trick("wrong payload", _edited(3, _set(100, 0xFF, transport=True, xor=True), right=False)),
    Trick("wrong IPv4 checksum", _edited(2, _spoil_ipv4_checksum, right=False)),
    Trick("zero UDP checksum", lambda a, b: [_without_checksum(p) for p in stream(a, b, 17)], may_join=False),
    Trick("UDP length that lies short", _edited(2, _set(5, 0x10, transport=True), right=False)),
    Trick("TCP header length past the end", _edited(2, _set(12, 0xF0, transport=True))),
    Trick("TCP header length too short", _edited(2, _set(12, 0x40, transport=True))),
    Trick("TCP options differ", _edited(2, _set(30, 0x55, transport=True, xor=True))),
    Trick("FIN in mid flow", _flag(0x01)),
    Trick("SYN in mid flow", _flag(0x02)),
    Trick("RST in mid flow", _flag(0x04)),
    Trick("PSH in mid flow", _flag(0x08)),
    Trick("URG in mid flow", _flag(0x20)),
    Trick("ECE in mid flow", _flag(0x40)),
    Trick("CWR in mid flow", _flag(0x80)),
    Trick("overlapping sequence numbers", _sequences(0, 200, 300, 500, 500, 700)),
    Trick("sequence numbers backwards", _sequences(1000, 800, 600, 400, 200, 0), may_join=False),
    Trick("sequence numbers wrap", _sequences(-400, -200, 0, 200)),
    Trick("sequence numbers jump", _sequences(0, 2**31, 2**31 + 200, 7), may_join=True),
    Trick("segments without payload", _sizes(0, 0, 200, 0, 200, 0, 0)),
    Trick("segments that grow", _sizes(100, 200, 300, 400), may_join=False),
    Trick("segments that shrink", _sizes(400, 300, 200, 100)),
    Trick("segments of one byte", _sizes(*[1] * 40)),
    Trick("segments that change their size", _sizes(200, 200, 100, 200, 200, 300, 300, 1)),
    Trick("TTL differs", _field("ttl", 64, 64, 63, 64, 64)),
    Trick("TTL of each its own", _field("ttl", *range(2, 10)), may_join=False),
    Trick("TOS differs", _field("tos", 0, 0, 0xB8, 0, 0)),
    Trick("ECN differs", _field("tos", 2, 2, 3, 2, 2)),
    Trick("identifications jump", _field("identification", 5, 9, 2, 2, 65535, 0)),
    Trick("acknowledgements differ", _field("acknowledgement", 1, 2, 3, 4)),
    Trick("flow label differs", _edited(2, _flow_label)),
    Trick("options and extension headers between", _both(_with_extensions)),
    Trick("fragments between", _both(_fragments)),
    Trick("don't-fragment differs", _field("fragment", 0x4000, 0, 0x4000, 0, 0)),
    Trick("reserved flag", _field("fragment", 0x8000, 0x8000, 0xC000)),
    Trick("flows take turns", _alternating),
]  # fmt: skip


def _without_checksum(whole: bytes) -> bytes:
    start = 20 if whole[0] >> 4 == 4 else 40
    return whole[: start + 6] + bytes(2) + whole[start + 8 :]


def never(source: str, destination: str) -> list[tuple[DropReason, bytes]]:
    """Packets that must not come out, and what they are counted as."""
    whole = packet(source, destination, bytes(100), protocol=17)
    v4 = whole[0] >> 4 == 4
    strangers = ["192.168.0.1", "10.2.0.1", destination, "255.255.255.255", "127.0.0.1", "0.0.0.0"]
    if not v4:
        strangers = ["fd09::1", "fd02::1", destination, "ff02::1", "::1", "::", "::ffff:10.1.0.1"]

    def longer() -> Iterator[bytes]:
        for length in (len(whole) + 1, 0xFFFF):
            lying = bytearray(whole + bytes(-len(whole) % 16))[: len(whole)]
            struct.pack_into("!H", lying, 2 if v4 else 4, min(length + 15 - (0 if v4 else 40), 0xFFFF))
            yield bytes(lying)

    def shapes() -> Iterator[bytes]:
        yield b"\0"
        yield whole[:19] if v4 else whole[:39]
        yield from longer()
        for version in (0, 5, 7, 15):
            yield bytes([version << 4 | whole[0] & 15]) + whole[1:]
        yield bytes([(6 if v4 else 4) << 4 | 5]) + bytes(15)
        if v4:
            for length in (0, 1, 19):
                yield whole[:2] + struct.pack("!H", length) + whole[4:]

    spoofed = [
        (DropReason.SOURCE_NOT_ALLOWED, packet(stranger, destination, bytes(50), protocol=protocol))
        for stranger in strangers
        for protocol in (6, 17)
    ]
    return spoofed + [(DropReason.NOT_AN_IP_PACKET, shape) for shape in shapes()]
