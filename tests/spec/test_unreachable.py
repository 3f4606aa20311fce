"""What a program in front of the tunnel device is told when its packets cannot be sent: ICMP and ICMPv6.

The kernel does so when there is no peer or no endpoint; here also when the handshake gave up. All three are
limited in rate, per unreachable destination.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pywg.errors import DropReason
from pywg.wire.endpoint import Endpoint
from tests.spec.world import INITIATION, Host, World, udp_packet

FAMILIES = pytest.mark.parametrize(
    ("source", "destination"), [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")], ids=["IPv4", "IPv6"]
)
NOWHERE = pytest.mark.parametrize(
    ("source", "destination"), [("10.0.0.1", "10.77.0.1"), ("fd00::1", "fd77::1")], ids=["IPv4", "IPv6"]
)


def assert_unreachable(error: bytes, packet: bytes) -> None:
    """Host unreachable, or address unreachable, about this packet, from its destination to its source."""
    if packet[0] >> 4 == 4:
        assert error[12:16] == packet[16:20]
        assert error[16:20] == packet[12:16]
        assert (error[9], error[20], error[21]) == (1, 3, 1)
        assert error[28:] == packet
    else:
        assert error[8:24] == packet[24:40]
        assert error[24:40] == packet[8:24]
        assert (error[6], error[40], error[41]) == (58, 1, 3)
        assert error[48:] == packet


@NOWHERE
def test_a_packet_that_no_allowed_ip_covers_is_answered_with_unreachable(
    source: str, destination: str
) -> None:
    world = World()
    alice, _ = world.pair()
    packet = udp_packet(source, destination, b"hello")
    alice.tun.deliver(packet)
    world.run()
    (error,) = alice.received()
    assert_unreachable(error, packet)
    assert alice.drops == {DropReason.NO_ROUTE: 1}


@FAMILIES
def test_a_packet_for_a_peer_without_an_endpoint_is_answered_with_unreachable(
    source: str, destination: str
) -> None:
    world = World()
    alice = world.host("alice", "192.0.2.1", ["10.0.0.1"])
    bob = world.host("bob", "192.0.2.2", ["10.0.0.2", "fd00::2"])
    alice.add_peer(bob, endpoint=False)
    packet = udp_packet(source, destination, b"hello")
    alice.tun.deliver(packet)
    world.run()
    (error,) = alice.received()
    assert_unreachable(error, packet)
    assert alice.drops == {DropReason.NO_ENDPOINT: 1}


@FAMILIES
def test_packets_of_a_handshake_that_gave_up_are_answered_with_unreachable(
    source: str, destination: str
) -> None:
    world = World()
    alice, _ = world.pair()
    world.cut()
    packet = udp_packet(source, destination, b"hello")
    alice.tun.deliver(packet)
    world.run(89)
    assert alice.received() == []
    world.run(10)
    (error,) = alice.received()
    assert_unreachable(error, packet)
    assert alice.drops == {DropReason.HANDSHAKE_GAVE_UP: 1}


def test_whoever_keeps_sending_is_told_after_90_seconds_and_gets_through_once_the_peer_answers() -> None:
    world = World()
    alice, bob = world.pair()
    world.cut()
    for second in range(90):
        alice.send(bob)
        world.run(1)
        assert alice.received() == [], f"after {second} s"
    errors = 0
    for _ in range(10):
        alice.send(bob)
        world.run(1)
        errors += len(alice.received())
    assert errors >= 5
    world.heal()
    world.run(6)
    alice.send(bob)
    world.run(1)
    assert bob.received()


def no_route(alice: Host, bob: Host) -> tuple[str, float]:
    return "10.77.0.1", 0.0


def no_endpoint(alice: Host, bob: Host) -> tuple[str, float]:
    alice.engine.remove_peer(alice.peer(bob))
    alice.add_peer(bob, endpoint=False)
    return bob.inner, 0.0


def gave_up(alice: Host, bob: Host) -> tuple[str, float]:
    alice.world.cut()
    return bob.inner, 100.0


@pytest.mark.parametrize("cause", [no_route, no_endpoint, gave_up])
def test_unreachables_are_limited_in_rate(cause: Callable[[Host, Host], tuple[str, float]]) -> None:
    world = World()
    alice, bob = world.pair()
    destination, wait = cause(alice, bob)
    for _ in range(100):
        alice.tun.deliver(udp_packet(alice.inner, destination))
    world.run(wait)
    assert len(alice.received()) == 5
    assert alice.drops.total() == 100
    world.run(1)
    alice.tun.deliver(udp_packet(alice.inner, destination))
    world.run(wait)
    assert len(alice.received()) == 1


def test_the_rate_is_limited_per_destination() -> None:
    world = World()
    alice, _ = world.pair()
    for last in (1, 2):
        for _ in range(8):
            alice.tun.deliver(udp_packet(alice.inner, f"10.77.0.{last}"))
    world.run()
    assert len(alice.received()) == 10


def test_icmp_errors_are_not_answered_with_icmp_errors() -> None:
    world = World()
    alice, _ = world.pair()
    alice.tun.deliver(udp_packet("10.0.0.1", "10.77.0.1"))
    world.run()
    (error,) = alice.received()
    alice.tun.deliver(error[:12] + error[16:20] + error[12:16] + error[20:])
    world.run()
    assert alice.received() == []
    assert alice.drops == {DropReason.NO_ROUTE: 2}


def test_a_peer_is_reached_as_soon_as_its_endpoint_is_known() -> None:
    world = World()
    alice = world.host("alice", "192.0.2.1", "10.0.0.1")
    bob = world.host("bob", "192.0.2.2", "10.0.0.2")
    bob.add_peer(alice)
    peer = alice.add_peer(bob, endpoint=False)
    alice.send(bob)
    world.run(1)
    assert len(alice.received()) == 1
    alice.engine.set_endpoint(peer, Endpoint("192.0.2.2", 51820))
    alice.engine.commit()
    world.connect(alice, bob)


def test_without_packets_giving_up_is_silent() -> None:
    world = World()
    alice, _ = world.pair(keepalive=25)
    world.cut()
    world.run(300)
    assert alice.received() == []
    assert len(world.sent(INITIATION)) > 40
