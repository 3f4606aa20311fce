"""Splitting and coalescing against scapy, which builds every packet again from its fields."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Raw

from pywg.datapath.offload import NO_OFFLOAD, Coalescer, split_untrusted, sum_words
from pywg.errors import BadPacket
from pywg.tun.base import TunOffload

ALL = TunOffload(vnet_hdr=True, tso=True, uso=True)
FIN, PSH, ACK, ECE, CWR = 0x01, 0x08, 0x10, 0x40, 0x80


def vnet_hdr(*fields):
    """flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; those left out are 0."""
    return struct.pack("=BBHHHH", *fields, *[0] * (6 - len(fields)))


def network(version, **fields):
    if version == 4:
        names = {"ident": "id", "df": "flags", "hops": "ttl", "tos": "tos"}
        return IP(
            src="192.0.2.1",
            dst="198.51.100.7",
            **{names[k]: 2 * v if k == "df" else v for k, v in fields.items()},
        )
    names = {"hops": "hlim", "tos": "tc"}
    return IPv6(
        src="2001:db8::1", dst="2001:db8:1::7", **{names[k]: v for k, v in fields.items() if k in names}
    )


def straightforward_words(data):
    padded = bytes(data) + bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@st.composite
def super_packets(draw):
    """A frame that the kernel might hand over, and scapy's segments of it."""
    version = draw(st.sampled_from([4, 6]))
    size = draw(st.integers(1, 9000))
    gso_size = draw(st.integers(max(1, size // 40), 2000))
    data = random.Random(draw(st.integers(0, 99))).randbytes(size)
    ident = draw(st.integers(0, 0xFFFF))
    ip = network(version, hops=draw(st.integers(1, 255)), tos=draw(st.integers(0, 255)))
    between = IPv6ExtHdrDestOpt() if version == 6 and draw(st.booleans()) else None
    ip_length = len(ip / between) if between else len(ip)
    pieces = [data[at : at + gso_size] for at in range(0, size, gso_size)]
    tcp = draw(st.booleans())
    if tcp:
        flags = ACK | draw(st.sampled_from([0, PSH, FIN, PSH | FIN, ECE, CWR, CWR | PSH]))
        sequence = draw(st.integers(0, 0xFFFFFFFF))
        options = draw(st.sampled_from([[], [("Timestamp", (7, 9)), ("NOP", None), ("NOP", None)]]))
        head = TCP(sport=4, dport=5, seq=sequence, ack=77, flags=flags, window=99, options=options)
        offset = 16
    else:
        head = UDP(sport=4, dport=5)
        offset = 6
    expected = []
    for number, piece in enumerate(pieces):
        own_ip, own_head = ip.copy(), head.copy()
        if version == 4:
            own_ip.id = (ident + number) & 0xFFFF
        if tcp:
            own_head.seq = (sequence + number * gso_size) & 0xFFFFFFFF
            own_head.flags = (
                flags & ~(0 if number == len(pieces) - 1 else PSH | FIN) & ~(CWR if number else 0)
            )
        layers = own_ip / between / own_head if between else own_ip / own_head
        expected.append(bytes(layers / Raw(piece)))
    if version == 4:
        ip.id = ident
    whole = bytes((ip / between / head if between else ip / head) / Raw(data))
    kind = (1 if version == 4 else 4) if tcp else 5
    return vnet_hdr(1, kind, 0, gso_size, ip_length, offset) + whole, expected


@st.composite
def flows(draw):
    """Packets of a few flows, mixed: data in sequence, pure ACKs, gaps, odd sizes, bad checksums."""
    packets = []
    positions = {}
    for _ in range(draw(st.integers(1, 25))):
        version = draw(st.sampled_from([4, 4, 6]))
        port = draw(st.integers(1, 2))
        tcp = draw(st.integers(0, 2)) > 0
        size = draw(st.sampled_from([100, 100, 100, 100, 40, 101, 0]))
        sequence, ident = positions.get((version, port, tcp), (0xFFFFFF00, 0xFFFE))
        positions[version, port, tcp] = ((sequence + size) & 0xFFFFFFFF, (ident + 1) & 0xFFFF)
        ip = network(version, ident=ident)
        data = Raw(random.Random(len(packets)).randbytes(size))
        if tcp:
            flags = ACK | draw(st.sampled_from([0, 0, 0, 0, PSH, FIN, CWR, 0x04]))
            ack = draw(st.sampled_from([5, 5, 5, 5, 6]))
            packet = bytearray(bytes(ip / TCP(sport=port, seq=sequence, ack=ack, flags=flags) / data))
        else:
            packet = bytearray(bytes(ip / UDP(sport=port) / data))
        if draw(st.integers(0, 15)) == 0:
            packet[-1] ^= 1
        packets.append(bytes(packet))
    return packets


def tcp_run(count, size=1000, version=4, **changes):
    return [
        bytes(
            network(version, ident=10 + number)
            / TCP(sport=1, dport=2, seq=5 + number * size, ack=9, flags=ACK, **changes)
            / Raw(bytes([number]) * size)
        )
        for number in range(count)
    ]


def joined(frames):
    return [b"".join(bytes(part) for part in frame) for frame in frames]


def split_all(frames):
    return [packet for frame in frames for packet in split_untrusted(frame)]


@given(st.binary(max_size=4000))
def test_sum_of_words_is_the_sum_of_words(data):
    assert sum_words(data) % 0xFFFF == straightforward_words(data) % 0xFFFF


def test_sum_of_words_of_the_longest_packet_and_of_ones_only():
    data = b"\xff" * 65535
    assert sum_words(data) % 0xFFFF == straightforward_words(data) % 0xFFFF


@settings(deadline=None, max_examples=50)
@given(super_packets())
def test_split_gives_the_packets_that_scapy_builds(case):
    frame, expected = case
    assert split_untrusted(frame) == expected


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("layer", [TCP(sport=3, dport=4), UDP(sport=3, dport=4)])
@pytest.mark.parametrize("size", [0, 1, 2, 1399, 1400])
def test_a_begun_checksum_is_completed(version, layer, size):
    complete = bytes(network(version) / layer / Raw(b"\xa5" * size))
    start = 20 if version == 4 else 40
    offset = 16 if isinstance(layer, TCP) else 6
    addresses = complete[12:20] if version == 4 else complete[8:40]
    pseudo = addresses + struct.pack(">HH", 6 if isinstance(layer, TCP) else 17, len(complete) - start)
    begun = bytearray(complete)
    struct.pack_into(">H", begun, start + offset, straightforward_words(pseudo))
    assert split_untrusted(vnet_hdr(1, 0, 0, 0, start, offset) + begun) == [complete]


def test_a_udp_checksum_of_zero_is_sent_as_ffff():
    packet = bytes(network(4) / UDP(sport=3, dport=4) / Raw(b"\0\0"))
    at = straightforward_words(packet[12:20] + struct.pack(">HH", 17, 10) + packet[20:26] + bytes(2))
    packet = packet[:28] + struct.pack(">H", 0xFFFF - at)
    begun = struct.pack(">H", straightforward_words(packet[12:20] + struct.pack(">HH", 17, 10)))
    [completed] = split_untrusted(vnet_hdr(1, 0, 0, 0, 20, 6) + packet[:26] + begun + packet[28:])
    assert completed[26:28] == b"\xff\xff"


def test_a_complete_packet_is_passed_on_untouched():
    packet = bytes(network(4) / TCP() / Raw(b"x"))
    assert split_untrusted(vnet_hdr() + packet) == [packet]


@settings(max_examples=300)
@given(
    st.binary(max_size=200),
    st.tuples(*[st.sampled_from(v) for v in ([0, 1, 2], [0, 1, 3, 4, 5, 0x81, 0x84])]),
    st.tuples(*[st.sampled_from([0, 1, 6, 16, 20, 40, 199, 65535]) for _ in range(4)]),
    st.sampled_from(
        [b"", b"\x45", b"\x60", b"\x4f", bytes(tcp_run(1)[0][:40]), bytes(tcp_run(1, version=6)[0][:60])]
    ),
)
def test_garbage_is_a_bad_packet_or_packets(rest, first, numbers, beginning):
    try:
        packets = split_untrusted(vnet_hdr(*first, *numbers) + beginning + rest)
    except BadPacket:
        return
    assert packets


@given(st.binary(max_size=120))
def test_short_garbage_is_a_bad_packet_or_packets(frame):
    try:
        packets = split_untrusted(frame)
    except BadPacket:
        return
    assert packets


@settings(deadline=None, max_examples=50)
@given(super_packets(), st.data())
def test_a_damaged_super_packet_is_a_bad_packet_or_packets(case, data):
    frame = bytearray(case[0])
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, min(len(frame), 80) - 1))] = data.draw(st.integers(0, 255))
    try:
        packets = split_untrusted(bytes(frame[: data.draw(st.integers(0, len(frame)))]))
    except BadPacket:
        return
    assert packets


@settings(deadline=None, max_examples=50)
@given(flows())
def test_coalesced_packets_split_again_into_the_same_bytes(packets):
    frames = joined(Coalescer(ALL).frames(packets))
    assert sorted(split_all(frames)) == sorted(packets)


@settings(deadline=None, max_examples=50)
@given(flows())
def test_packets_of_a_flow_stay_in_order(packets):
    def flow(packet):
        return packet[12:24] + packet[9:10] if packet[0] >> 4 == 4 else packet[6:7] + packet[8:44]

    after = split_all(joined(Coalescer(ALL).frames(packets)))
    for key in {flow(packet) for packet in packets}:
        assert [p for p in after if flow(p) == key] == [p for p in packets if flow(p) == key]


@settings(deadline=None, max_examples=50)
@given(super_packets())
def test_what_was_split_is_put_together_again(case):
    frame, segments = case
    frames = joined(Coalescer(ALL).frames([bytearray(packet) for packet in segments]))
    assert split_all(frames) == segments
    if may_be_one(segments):
        assert [whole[10:] for whole in frames] == [begun(frame[10:])]


def may_be_one(segments):
    """No extension header, no CWR, and no TCP checksum that has two right values."""
    transport = 20 if segments[0][0] >> 4 == 4 else 40
    protocol = segments[0][9 if transport == 20 else 6]
    if protocol == 17:
        return len(segments) > 1
    return (
        protocol == 6
        and len(segments) > 1
        and not segments[0][transport + 13] & CWR
        and all(packet[transport + 16 : transport + 18] != b"\xff\xff" for packet in segments)
    )


def begun(packet):
    """The packet with only the pseudo-header in its checksum field, as the kernel expects it."""
    transport = 20 if packet[0] >> 4 == 4 else 40
    protocol = packet[9 if transport == 20 else 6]
    addresses = packet[12:20] if transport == 20 else packet[8:40]
    pseudo = addresses + struct.pack(">HH", protocol, len(packet) - transport)
    at = transport + (16 if protocol == 6 else 6)
    return packet[:at] + struct.pack(">H", straightforward_words(pseudo)) + packet[at + 2 :]


@pytest.mark.parametrize("version", [4, 6])
def test_segments_in_sequence_become_one_frame(version):
    frames = list(Coalescer(ALL).frames(tcp_run(5, version=version)))
    assert len(frames) == 1
    transport = 20 if version == 4 else 40
    header = bytes(frames[0][0])
    assert struct.unpack_from("=BBHHHH", header) == (
        1,
        1 if version == 4 else 4,
        transport + 20,
        1000,
        transport,
        16,
    )
    assert [bytes(part) for part in frames[0][1:]] == [bytes([n]) * 1000 for n in range(5)]


def test_datagrams_of_a_flow_become_one_frame_the_last_one_shorter():
    packets = [
        bytes(network(4, ident=n) / UDP(sport=1) / Raw(b"x" * (500 if n < 3 else 20))) for n in range(4)
    ]
    assert [len(frame) for frame in Coalescer(ALL).frames(packets)] == [5]


def test_no_datagram_joins_behind_a_shorter_one():
    packets = [
        bytes(network(4, ident=n) / UDP(sport=1) / Raw(b"x" * (50 if n == 1 else 500))) for n in range(4)
    ]
    assert [len(frame) for frame in Coalescer(ALL).frames(packets)] == [3, 3]


@pytest.mark.parametrize(
    "second",
    [
        {"ack": 10},
        {"window": 4},
        {"seq": 1006},
        {"flags": ACK | ECE},
        {"flags": ACK | CWR},
        {"flags": ACK | 0x20},
        {"flags": 0},
        {"options": [("NOP", None)] * 4},
        {"urgptr": 1},
        {"sport": 3},
        {"chksum": 1},
    ],
)
def test_segments_that_disagree_stay_apart(second):
    fields = {"sport": 1, "dport": 2, "seq": 1005, "ack": 9, "flags": ACK} | second
    other = bytes(network(4, ident=11) / TCP(**fields) / Raw(bytes(1000)))
    packets = [tcp_run(1)[0], other]
    assert joined(Coalescer(ALL).frames(packets)) == [NO_OFFLOAD + packet for packet in packets]


@pytest.mark.parametrize("second", [{"hops": 3}, {"tos": 1}, {"df": 1}, {"ident": 12}])
def test_ip_headers_that_disagree_keep_segments_apart(second):
    ip = network(4, **({"ident": 11} | second))
    packets = [
        tcp_run(1)[0],
        bytes(ip / TCP(sport=1, dport=2, seq=1005, ack=9, flags=ACK) / Raw(bytes(1000))),
    ]
    assert joined(Coalescer(ALL).frames(packets)) == [NO_OFFLOAD + packet for packet in packets]


def test_push_ends_a_frame():
    packets = [
        *tcp_run(2),
        bytes(
            network(4, ident=12) / TCP(sport=1, dport=2, seq=2005, ack=9, flags=ACK | PSH) / Raw(bytes(1000))
        ),
        bytes(network(4, ident=13) / TCP(sport=1, dport=2, seq=3005, ack=9, flags=ACK) / Raw(bytes(1000))),
    ]
    frames = Coalescer(ALL).frames(packets)
    assert [len(frame) for frame in frames] == [4, 2]
    assert split_all(joined(frames)) == packets


def test_unfragmentable_packets_with_one_identification_are_put_together():
    packets = [
        bytes(network(4, ident=0, df=1) / TCP(sport=1, seq=n * 100, flags=ACK) / Raw(bytes(100)))
        for n in range(3)
    ]
    assert [len(frame) for frame in Coalescer(ALL).frames(packets)] == [4]


def test_a_super_packet_never_exceeds_the_longest_ip_packet():
    packets = tcp_run(100, size=1400)
    frames = joined(Coalescer(ALL).frames(packets))
    assert [len(frame) - 10 for frame in frames] == [64440, 64440, 11240]
    assert split_all(frames) == packets


def test_a_fragment_keeps_its_place():
    fragment = bytes(IP(src="192.0.2.1", dst="198.51.100.7", flags=1, proto=6) / Raw(tcp_run(1)[0][20:60]))
    first, second = tcp_run(2)
    frames = joined(Coalescer(ALL).frames([first, fragment, second]))
    assert frames == [NO_OFFLOAD + packet for packet in (first, fragment, second)]


def test_nothing_is_put_together_for_a_device_that_takes_no_super_packets():
    packets = tcp_run(3)
    assert list(Coalescer(TunOffload()).frames(packets)) == [(packet,) for packet in packets]
    plain = Coalescer(TunOffload(vnet_hdr=True)).frames(packets)
    assert list(plain) == [(NO_OFFLOAD, packet) for packet in packets]


def test_datagrams_stay_apart_where_only_tcp_is_taken():
    packets = [bytes(network(4, ident=n) / UDP(sport=1) / Raw(b"x" * 500)) for n in range(3)]
    frames = Coalescer(TunOffload(vnet_hdr=True, tso=True)).frames(packets)
    assert list(frames) == [(NO_OFFLOAD, packet) for packet in packets]


@given(st.lists(st.binary(min_size=1, max_size=120), max_size=5))
def test_no_packet_breaks_coalescing(packets):
    assert split_lengths(Coalescer(ALL).frames(packets)) == sorted(len(packet) for packet in packets)


def split_lengths(frames):
    return sorted(sum(len(part) for part in frame) - 10 for frame in frames)
