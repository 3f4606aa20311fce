"""What becomes of the packets inside: padding, congestion marks (RFC 6040), counters and order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pywg.errors import DropReason
from pywg.wire import ip
from tests.spec.world import DATA, Host, Puppet, PuppetSession, World, udp_packet

ECN = {"Not-ECT": 0, "ECT(1)": 1, "ECT(0)": 2, "CE": 3}
# RFC 6040, figure 4: what leaves the tunnel, by inner codepoint, for each outer one. None: dropped.
ARRIVAL: dict[str, dict[str, str | None]] = {
    "Not-ECT": {"Not-ECT": "Not-ECT", "ECT(0)": "Not-ECT", "ECT(1)": "Not-ECT", "CE": None},
    "ECT(0)": {"Not-ECT": "ECT(0)", "ECT(0)": "ECT(0)", "ECT(1)": "ECT(1)", "CE": "CE"},
    "ECT(1)": {"Not-ECT": "ECT(1)", "ECT(0)": "ECT(1)", "ECT(1)": "ECT(1)", "CE": "CE"},
    "CE": {"Not-ECT": "CE", "ECT(0)": "CE", "ECT(1)": "CE", "CE": "CE"},
}


def connected() -> tuple[World, Host, Puppet, PuppetSession]:
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    puppet.take()
    return world, bob, puppet, session


# --- Padding. ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 29, 31, 32, 33, 47, 48, 1000, 1399, 1408])
def test_packets_are_padded_with_zeros_to_a_multiple_of_16(size: int) -> None:
    world, bob, puppet, session = connected()
    packet = bob.send(puppet, bytes(size - 28))
    world.run()
    (datagram,) = puppet.take(DATA)
    plaintext = session.open(datagram)
    assert len(plaintext) % 16 == 0
    assert len(plaintext) - size < 16
    assert plaintext == packet + bytes(len(plaintext) - size)


@pytest.mark.parametrize(("size", "padded"), [(1408, 1408), (1409, 1420), (1419, 1420), (1420, 1420)])
def test_padding_never_passes_the_mtu(size: int, padded: int) -> None:
    world, bob, puppet, session = connected()
    bob.send(puppet, bytes(size - 28))
    world.run()
    (datagram,) = puppet.take(DATA)
    assert len(session.open(datagram)) == padded


def test_the_padding_limit_follows_the_mtu() -> None:
    world, bob, puppet, session = connected()
    for mtu in (1300, 9000, 1280):
        bob.tun.set_state(mtu=mtu)
        bob.engine.follow_tun()
        bob.send(puppet, bytes(mtu - 1 - 28))
        world.run()
        (datagram,) = puppet.take(DATA)
        assert len(session.open(datagram)) == mtu


def test_a_packet_larger_than_the_mtu_is_sent_as_it_is() -> None:
    world, bob, puppet, session = connected()
    bob.send(puppet, bytes(1501 - 28))
    world.run()
    (datagram,) = puppet.take(DATA)
    assert len(session.open(datagram)) == 1501


def test_padding_is_taken_off_on_arrival() -> None:
    _, bob, puppet, session = connected()
    packet = puppet.packet_to(bob, b"x")
    puppet.send(bob, session.seal(packet + bytes(100)))
    assert bob.received() == [packet]


# --- ECN. -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "addresses", [("10.0.0.2", "10.0.0.7"), ("fd00::2", "fd00::7")], ids=["IPv4", "IPv6"]
)
@pytest.mark.parametrize("name", ECN)
def test_the_ecn_codepoint_is_copied_to_the_outer_header(name: str, addresses: tuple[str, str]) -> None:
    world, bob, _, _ = connected()
    bob.tun.deliver(udp_packet(*addresses, ecn=ECN[name]))
    world.run()
    assert world.sent(DATA, by=bob)[-1].tos == ECN[name]


def test_the_dscp_of_data_is_not_copied_to_the_outer_header() -> None:
    world, bob, puppet, _ = connected()
    packet = bytearray(udp_packet(bob.inner, puppet.inner))
    packet[1] = 0xB8 | ECN["ECT(0)"]
    bob.tun.deliver(bytes(packet))
    world.run()
    assert world.sent(DATA, by=bob)[-1].tos == ECN["ECT(0)"]


@pytest.mark.parametrize(
    "addresses", [("10.0.0.7", "10.0.0.2"), ("fd00::7", "fd00::2")], ids=["IPv4", "IPv6"]
)
@pytest.mark.parametrize("inner", ECN)
@pytest.mark.parametrize("outer", ECN)
def test_the_outer_ecn_codepoint_is_combined_with_the_inner_one_on_arrival(
    outer: str, inner: str, addresses: tuple[str, str]
) -> None:
    _, bob, puppet, session = connected()
    packet = udp_packet(*addresses, b"hello", ecn=ECN[inner])
    puppet.send(bob, session.seal(packet), tos=0xB8 | ECN[outer])
    expected = ARRIVAL[inner][outer]
    if expected is None:
        assert bob.received() == []
        assert bob.drops == {DropReason.ECN: 1}
    else:
        assert bob.received() == [udp_packet(*addresses, b"hello", ecn=ECN[expected])]


def test_packets_with_different_ecn_codepoints_keep_their_order() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    payloads = [b"%d" % number for number in range(40)]
    for number, payload in enumerate(payloads):
        alice.send(bob, payload, ecn=number * 7 // 3 % 4)
    world.run()
    packets = bob.received()
    assert [packet[28:] for packet in packets] == payloads
    assert [ip.ecn(packet) for packet in packets] == [number * 7 // 3 % 4 for number in range(40)]


# --- Counters and order. ----------------------------------------------------------------------------------


def test_counters_begin_at_zero_and_go_up_by_one() -> None:
    world, bob, puppet, session = connected()
    for _ in range(300):
        bob.send(puppet)
    world.run()
    datagrams = puppet.take(DATA)
    assert [int.from_bytes(datagram[8:16], "little") for datagram in datagrams] == list(range(300))
    assert all(session.open(datagram) for datagram in datagrams)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=1392), max_size=200))
def test_packets_come_out_as_they_went_in(payloads: list[bytes]) -> None:
    world = World()
    alice, bob = world.pair()
    packets = [alice.send(bob, payload) for payload in payloads[-128:]]
    world.run()
    assert bob.received() == packets


def test_packets_for_several_peers_each_go_to_theirs() -> None:
    world = World()
    alice = world.host("alice", "192.0.2.1", "10.0.0.1")
    others = [world.host(f"host{n}", f"192.0.2.{n}", f"10.0.0.{n}") for n in range(2, 22)]
    for other in others:
        alice.add_peer(other)
        other.add_peer(alice)
    for number in range(5):
        for other in others:
            alice.send(other, b"%d to %s" % (number, other.name.encode()))
    world.run()
    for other in others:
        assert other.payloads() == [b"%d to %s" % (number, other.name.encode()) for number in range(5)]


def test_a_packet_s_destination_is_routed_by_longest_prefix() -> None:
    world = World()
    alice = world.host("alice", "192.0.2.1", "10.0.0.1")
    near = world.host("near", "192.0.2.2", "10.1.2.3")
    far = world.host("far", "192.0.2.3", "10.1.9.9")
    alice.add_peer(far, allowed=["10.0.0.0/8", "::/0"])
    alice.add_peer(near, allowed=["10.1.2.0/24"])
    for other in (near, far):
        other.add_peer(alice)
    alice.send(near, b"near")
    alice.send(far, b"far")
    world.run()
    assert near.payloads() == [b"near"]
    assert far.payloads() == [b"far"]


def test_what_is_no_ip_packet_is_not_sent() -> None:
    world, bob, puppet, _ = connected()
    for frame in (
        b"",
        b"\0",
        b"\x45" + bytes(10),
        b"\x60" + bytes(20),
        b"\x70" + bytes(60),
        b"\x45" + bytes(30),
    ):
        bob.tun.deliver(frame)
    world.run()
    assert puppet.take() == []
    assert bob.drops == {DropReason.NOT_AN_IP_PACKET: 6}
