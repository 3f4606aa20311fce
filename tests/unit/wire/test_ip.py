"""Inner packets: any bytes whatever, ECN, checksums against a plain reference, ICMP errors read by scapy."""

import ipaddress
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, ICMPerror, IPerror, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_Redirect,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    in6_chksum,
)
from scapy.layers.ipsec import AH
from scapy.packet import Packet, Raw

from pywg.errors import BadPacket, DropReason
from pywg.wire import ip

V4: Any = {"src": "10.1.0.1", "dst": "10.2.0.2"}
V6: Any = {"src": "2001:db8:1::1", "dst": "2001:db8:2::2"}
CODEPOINTS = st.integers(0, 3)
PADDING = st.integers(0, 15).map(bytes)

IPV4_PACKETS = st.builds(
    lambda tos, ident, payload, options: bytes(
        IP(**V4, tos=tos, id=ident, options=[IPOption_NOP()] * options) / UDP(sport=1, dport=2) / payload
    ),
    st.integers(0, 255),
    st.integers(0, 65535),
    st.binary(max_size=60),
    st.integers(0, 40),
)
IPV6_PACKETS = st.builds(
    lambda tc, flow, payload: bytes(IPv6(**V6, tc=tc, fl=flow) / UDP(sport=1, dport=2) / payload),
    st.integers(0, 255),
    st.integers(0, 2**20 - 1),
    st.binary(max_size=60),
)
PACKETS = IPV4_PACKETS | IPV6_PACKETS


def likely(version: int, first: int, rest: bytes) -> bytes:
    """Any bytes, but with a version and a length that pass the first checks."""
    packet = bytearray([version << 4 | first]) + rest
    length = len(packet) if version == 4 else max(len(packet) - 40, 0)
    at = 2 if version == 4 else 4
    packet[at : at + 2] = length.to_bytes(2, "big")
    return bytes(packet)


HOSTILE = st.binary(max_size=100) | st.builds(
    likely, st.sampled_from([4, 6]), st.integers(0, 15), st.binary(min_size=6, max_size=120)
)


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def plain_checksum(data: bytes) -> int:
    """RFC 1071, word for word."""
    total = 0
    for position in range(0, len(data), 2):
        total += int.from_bytes(data[position : position + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


class TestHeader:
    @given(PACKETS, PADDING)
    def test_addresses_and_length_are_read_and_padding_is_not_counted(
        self, packet: bytes, padding: bytes
    ) -> None:
        expected = V4 if packet[0] >> 4 == 4 else V6
        source, destination = packed(expected["src"]), packed(expected["dst"])
        assert ip.header_untrusted(packet + padding) == (source, destination, len(packet))
        assert ip.header_untrusted(memoryview(packet + padding)) == (source, destination, len(packet))
        assert ip.source_and_destination_untrusted(packet + padding) == (source, destination)
        assert ip.header_untrusted(packet + padding)[2] == len(packet)

    @given(PACKETS)
    def test_a_packet_cut_anywhere_is_none(self, packet: bytes) -> None:
        for size in range(len(packet)):
            with pytest.raises(BadPacket) as caught:
                ip.header_untrusted(packet[:size])
            assert caught.value.reason is DropReason.NOT_AN_IP_PACKET

    @pytest.mark.parametrize("version", [0, 1, 2, 3, 5, *range(7, 16)])
    def test_other_versions_are_none(self, version: int) -> None:
        with pytest.raises(BadPacket):
            ip.header_untrusted(bytes([version << 4]) + bytes(99))

    def test_an_ipv4_length_below_its_header_is_none(self) -> None:
        packet = bytearray(bytes(IP(**V4) / UDP()))
        for length in range(20):
            packet[2:4] = length.to_bytes(2, "big")
            with pytest.raises(BadPacket):
                ip.header_untrusted(packet)

    @given(HOSTILE)
    def test_any_bytes_are_a_packet_or_give_the_reason(self, packet: bytes) -> None:
        try:
            header = ip.header_untrusted(packet)
        except BadPacket as caught:
            header, reason = None, caught.reason
        if header is not None:
            source, destination, length = header
            assert len(source) == len(destination) == (4 if packet[0] >> 4 == 4 else 16)
            assert 20 <= length <= len(packet)
        else:
            assert reason is DropReason.NOT_AN_IP_PACKET


class TestEcn:
    # RFC 6040, figure 4, by name: rows are inner codepoints, columns outer ones, None is "drop".
    # NAMES are in the order of their numbers (RFC 3168).
    NAMES: ClassVar[tuple[str, ...]] = (
        "Not-ECT",
        "ECT(1)",
        "ECT(0)",
        "CE",
    )  # in the order of their numbers, RFC 3168
    FIGURE: ClassVar[dict[str, dict[str, str | None]]] = {
        "Not-ECT": {"Not-ECT": "Not-ECT", "ECT(0)": "Not-ECT", "ECT(1)": "Not-ECT", "CE": None},
        "ECT(0)": {"Not-ECT": "ECT(0)", "ECT(0)": "ECT(0)", "ECT(1)": "ECT(1)", "CE": "CE"},
        "ECT(1)": {"Not-ECT": "ECT(1)", "ECT(0)": "ECT(1)", "ECT(1)": "ECT(1)", "CE": "CE"},
        "CE": {"Not-ECT": "CE", "ECT(0)": "CE", "ECT(1)": "CE", "CE": "CE"},
    }

    @pytest.mark.parametrize("inner", range(4))
    @pytest.mark.parametrize("outer", range(4))
    def test_arrival_is_rfc_6040_s_figure(self, inner: int, outer: int) -> None:
        result = ip.ecn_on_arrival(inner, outer)
        name = None if result is None else self.NAMES[result]
        assert name == self.FIGURE[self.NAMES[inner]][self.NAMES[outer]]

    @given(PACKETS)
    def test_it_is_read_from_the_header(self, packet: bytes) -> None:
        expected = IP(packet).tos & 3 if packet[0] >> 4 == 4 else IPv6(packet).tc & 3
        assert ip.ecn(packet) == expected

    @given(PACKETS, CODEPOINTS)
    def test_writing_it_changes_nothing_else_and_keeps_the_checksum(
        self, packet: bytes, codepoint: int
    ) -> None:
        changed = bytearray(packet)
        ip.set_ecn(changed, codepoint)
        assert ip.ecn(changed) == codepoint
        expected: Any
        if packet[0] >> 4 == 4:
            expected = IP(packet)
            expected.tos = expected.tos & 0xFC | codepoint
            del expected.chksum
        else:
            expected = IPv6(packet)
            expected.tc = expected.tc & 0xFC | codepoint
        assert bytes(changed) == bytes(expected)

    @pytest.mark.parametrize("checksum", [0x0000, 0x0001, 0xFFFE])
    @pytest.mark.parametrize("codepoint", range(4))
    def test_a_checksum_at_the_edge_is_kept_right(self, checksum: int, codepoint: int) -> None:
        packet = bytearray(bytes(IP(**V4, id=0, tos=1))[:20])
        packet[10:12] = bytes(2)
        # Choose the identification so that the header's sum is what the checksum wants.
        missing = (0xFFFF - checksum - (0xFFFF - plain_checksum(bytes(packet)))) % 0xFFFF
        packet[4:6] = missing.to_bytes(2, "big")
        packet[10:12] = plain_checksum(bytes(packet)).to_bytes(2, "big")
        assert int.from_bytes(packet[10:12], "big") == checksum
        ip.set_ecn(packet, codepoint)
        unsummed = packet[:10] + bytes(2) + packet[12:]
        assert int.from_bytes(packet[10:12], "big") == plain_checksum(bytes(unsummed))


class TestChecksum:
    @given(st.binary(max_size=300) | st.integers(0, 40).map(lambda n: b"\xff" * n))
    def test_it_is_the_plain_sum(self, data: bytes) -> None:
        assert ip.internet_checksum(data) == plain_checksum(data)

    @given(PACKETS)
    def test_with_the_pseudo_header_it_verifies_udp(self, packet: bytes) -> None:
        source, destination, _ = ip.header_untrusted(packet)
        start = (packet[0] & 15) * 4 if len(source) == 4 else 40
        datagram = packet[start:]
        pseudo = ip.pseudo_header(source, destination, 17, len(datagram))
        assert plain_checksum(pseudo + datagram) == 0
        assert ip.internet_checksum(pseudo + datagram) == 0


def answer(packet: Packet | bytes) -> bytes:
    result = ip.unreachable(bytes(packet))
    assert result is not None
    return result


class TestUnreachable:
    @pytest.mark.parametrize("size", [0, 1, 100, 520, 521, 1372])
    def test_ipv4_gets_host_unreachable_with_576_bytes_at_most(self, size: int) -> None:
        packet = bytes(IP(**V4, tos=0x2E) / UDP(sport=5, dport=7) / bytes(size))
        raw = answer(packet)
        error = IP(raw)
        assert (error.src, error.dst) == (V4["dst"], V4["src"])
        assert (error[ICMP].type, error[ICMP].code) == (3, 1)
        assert error.len == len(raw) == min(28 + len(packet), 576)
        assert raw[24:28] == bytes(4)
        assert raw[28:] == packet[:548]
        assert (error[IPerror].src, error[IPerror].dst) == (V4["src"], V4["dst"])
        assert plain_checksum(raw[:20]) == plain_checksum(raw[20:]) == 0

    @pytest.mark.parametrize("size", [0, 1, 100, 1184, 1185, 1372])
    def test_ipv6_gets_address_unreachable_with_1280_bytes_at_most(self, size: int) -> None:
        packet = bytes(IPv6(**V6) / UDP(sport=5, dport=7) / bytes(size))
        raw = answer(packet)
        error = IPv6(raw)
        assert (error.src, error.dst, error.nh) == (V6["dst"], V6["src"], 58)
        message = error[ICMPv6DestUnreach]
        assert (message.type, message.code, message.length, message.unused) == (1, 3, 0, 0)
        assert len(raw) == error.plen + 40 == min(48 + len(packet), 1280)
        assert raw[48:] == packet[:1232]
        assert in6_chksum(58, error, raw[40:]) == 0  # type: ignore[no-untyped-call]

    @pytest.mark.parametrize("base", [IP(**V4), IPv6(**V6)])
    def test_padding_is_not_quoted(self, base: Packet) -> None:
        packet = bytes(base / UDP(sport=5, dport=7) / b"data")
        assert answer(packet + bytes(12)) == answer(packet)

    @pytest.mark.parametrize(
        "packet",
        [
            IP(**V4) / TCP(),
            IP(**V4, options=[IPOption_NOP()] * 4) / ICMP(type=8),
            IP(**V4) / ICMP(type=0),
            IP(**V4, flags="MF") / UDP() / bytes(8),
            IP(src="10.1.0.1", dst="223.255.255.255") / UDP(),
            IPv6(**V6) / TCP(),
            IPv6(**V6) / ICMPv6EchoRequest(),
            IPv6(**V6, nh=59),
            IPv6(**V6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(),
            IPv6(**V6) / IPv6ExtHdrRouting(addresses=["2001:db8::3"]) / ICMPv6EchoRequest(),
            IPv6(**V6) / IPv6ExtHdrFragment(offset=0, m=1) / ICMPv6EchoRequest(),
            IPv6(**V6) / AH(nh=58, payloadlen=4, icv=bytes(12)) / ICMPv6EchoRequest(),
            IPv6(src="fe80::1", dst="fe80::2") / UDP(),
        ],
        ids=lambda packet: packet.summary(),
    )
    def test_these_are_answered(self, packet: Packet) -> None:
        error = answer(packet)
        assert (IP(error)[ICMP].type if error[0] >> 4 == 4 else IPv6(error)[ICMPv6DestUnreach].type) in (1, 3)
        assert error.endswith(bytes(packet))

    @pytest.mark.parametrize(
        "packet",
        [
            *(IP(**V4) / ICMP(type=number) / IPerror() / ICMPerror() for number in (3, 4, 5, 11, 12)),
            *(IP(**V4, options=[IPOption_NOP()] * 4) / ICMP(type=3),),
            IP(**V4, proto=1),
            IP(**V4, frag=1) / UDP(),
            IP(**V4, frag=8191, flags="MF") / Raw(bytes(8)),
            IP(src="0.0.0.0", dst=V4["dst"]) / UDP(),
            IP(src="127.0.0.1", dst=V4["dst"]) / UDP(),
            IP(src="224.0.0.1", dst=V4["dst"]) / UDP(),
            IP(src="255.255.255.255", dst=V4["dst"]) / UDP(),
            IP(src=V4["src"], dst="239.255.255.250") / UDP(),
            IP(src=V4["src"], dst="255.255.255.255") / UDP(),
            IP(src=V4["src"], dst="0.0.0.0") / UDP(),
            IPv6(**V6) / ICMPv6DestUnreach() / IPv6(),
            IPv6(**V6) / ICMPv6PacketTooBig() / IPv6(),
            IPv6(**V6) / ICMPv6ND_Redirect(),
            IPv6(**V6, nh=58),
            IPv6(**V6) / IPv6ExtHdrHopByHop() / ICMPv6DestUnreach(),
            IPv6(**V6) / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting() / ICMPv6DestUnreach(),
            IPv6(**V6) / IPv6ExtHdrFragment(offset=0, m=1) / ICMPv6DestUnreach(),
            IPv6(**V6) / AH(nh=58, payloadlen=4, icv=bytes(12)) / ICMPv6DestUnreach(),
            IPv6(**V6) / IPv6ExtHdrFragment(offset=1) / UDP(),
            IPv6(**V6, nh=0) / Raw(b"\x3b\x00\x00"),
            IPv6(src="::", dst=V6["dst"]) / UDP(),
            IPv6(src="::1", dst=V6["dst"]) / UDP(),
            IPv6(src="ff02::1", dst=V6["dst"]) / UDP(),
            IPv6(src=V6["src"], dst="ff02::fb") / UDP(),
            IPv6(src=V6["src"], dst="::") / UDP(),
        ],
        ids=lambda packet: packet.summary(),
    )
    def test_these_must_not_be_answered(self, packet: Packet) -> None:
        assert ip.header_untrusted(bytes(packet))  # it is a whole packet; that is not the reason
        assert ip.unreachable(bytes(packet)) is None

    @pytest.mark.parametrize("words", [0, 4, 8])
    def test_a_header_length_that_cannot_be_is_not_answered(self, words: int) -> None:
        packet = bytearray(bytes(IP(**V4) / UDP()))
        packet[0] = 0x40 | words
        assert ip.unreachable(packet) is None

    @pytest.mark.parametrize("base", [IP(**V4), IPv6(**V6)])
    def test_a_truncated_packet_is_not_answered(self, base: Packet) -> None:
        assert ip.unreachable(bytes(base / UDP() / bytes(50))[:-1]) is None

    @given(PACKETS)
    def test_an_error_is_never_answered_with_an_error(self, packet: bytes) -> None:
        assert ip.unreachable(answer(packet)) is None

    @given(HOSTILE)
    def test_any_bytes_get_a_packet_or_nothing(self, packet: bytes) -> None:
        error = ip.unreachable(packet)
        if error is not None:
            source, destination, length = ip.header_untrusted(packet)
            assert ip.header_untrusted(error) == (destination, source, len(error))
            assert error[48 if len(source) == 16 else 28 :] == packet[:length]
