"""Two clocks: the wall clock, which may jump, and the one that counts also while the machine sleeps."""

from __future__ import annotations

import pytest

from pywg.bind.memory import delay
from tests.spec.world import INITIATION, Host, World

HOUR = 3600.0


@pytest.mark.parametrize("seconds", [1, HOUR, 365 * 24 * HOUR])
def test_a_wall_clock_that_goes_backwards_keeps_no_handshake_from_completing(seconds: float) -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    alice.wall_offset_ns -= int(seconds * 1e9)
    for _ in range(5):
        world.run(200)
        world.connect(alice, bob)
    assert len(world.sent(INITIATION)) == 6


def test_a_wall_clock_that_stands_still_keeps_no_handshake_from_completing() -> None:
    world = World()
    alice, bob = world.pair()
    for _ in range(5):
        alice.wall_offset_ns = -int(world.now * 1e9)
        world.connect(alice, bob)
        world.run(200)
    assert len(world.sent(INITIATION)) == 5


def test_the_wall_clock_moves_no_timer() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    alice.wall_offset_ns += 10**18
    bob.wall_offset_ns -= 10**18
    start = world.now
    world.run(30)
    assert world.keepalives() == [start + 10]


@pytest.mark.parametrize("hours", [1, 8, 1000])
def test_after_suspension_keys_are_dead_and_the_next_packet_makes_a_new_handshake(hours: int) -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(30)
    world.sleep(hours * HOUR)
    alice.send(bob, b"good morning")
    world.run()
    assert bob.payloads() == [b"good morning"]
    assert len(world.sent(INITIATION)) == 2


def test_after_suspension_of_one_side_only_it_begins_anew_as_well() -> None:
    world = World()
    alice, bob = world.pair()
    carol = world.host("carol", "192.0.2.3", "10.0.0.3")
    bob.add_peer(carol)
    carol.add_peer(bob)
    world.connect(alice, bob)
    alice.asleep = True
    for _ in range(40):
        world.run(100)
        world.connect(carol, bob)
    bob.send(alice, b"to one who sleeps")
    world.run(3)
    alice.asleep = False
    alice.send(bob, b"good morning")
    world.run()
    assert bob.payloads() == [b"good morning"]
    assert alice.payloads() == [b"to one who sleeps"]


def test_after_suspension_persistent_keepalives_bring_the_session_back_by_themselves() -> None:
    world = World()
    alice, bob = world.pair(keepalive=25)
    world.run(60)
    world.sleep(8 * HOUR)
    woken = world.now
    world.run()
    assert world.times(INITIATION, since=woken) == [woken]
    bob.send(alice)
    world.run()
    assert alice.payloads() == [b"hello"]


def test_a_handshake_under_way_survives_the_wiping_of_old_keys() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    wiped = world.now + 540
    world.run(539)
    world.lost = lambda flight: world.now < wiped
    alice.send(bob, b"just then")
    world.network.faults.append(delay(0.7))
    world.run(0.5)
    world.heal()
    world.run(8)
    assert bob.payloads() == [b"just then"]


def test_a_response_that_arrives_as_old_keys_are_wiped_is_taken() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(539.5)
    world.network.faults.append(delay(0.7))
    alice.send(bob, b"just then")
    world.run(3)
    assert bob.payloads() == [b"just then"]
    assert len(world.sent(INITIATION)) == 2


def test_after_suspension_for_three_times_reject_after_time_no_key_is_left() -> None:
    """WireGuard paper, section 6.3: also when nothing is sent afterwards."""
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    before = sessions(alice, bob)
    assert before
    world.sleep(3 * 180 + 1)
    world.run()
    assert not before & sessions(alice, bob)


def sessions(*hosts: Host) -> set[int]:
    """Those whose keys are still on a data path."""
    return {index for host in hosts for index in host.datapath._live}
