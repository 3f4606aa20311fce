"""Networks that lose, repeat, reorder, delay and corrupt: what comes out of a tunnel went in, and once."""

from __future__ import annotations

import pytest

from pywg.bind.memory import Fault, corruption, delay, duplication, loss, reordering
from tests.spec.world import INITIATION, RESPONSE, Host, World

REKEY_TIMEOUT = 5.0
JITTER = 0.334

NETWORKS: dict[str, list[Fault]] = {
    "lossy": [loss(0.2)],
    "repeating": [duplication(0.5)],
    "reordering": [delay(0.05, 0.05), reordering(0.2, 0.3)],
    "corrupting": [corruption(0.2)],
    "all of it": [loss(0.1), duplication(0.2), corruption(0.1), delay(0.1, 0.08), reordering(0.1, 0.5)],
}
SEEDS = range(3)


def stream(world: World, a: Host, b: Host, number: int, pace: float) -> tuple[list[bytes], list[bytes]]:
    """Send a stream each way; returns what was sent each way, in order."""
    there = [b"there %d" % n for n in range(number)]
    back = [b"back %d" % n for n in range(number)]
    for one, other in zip(there, back, strict=True):
        a.send(b, one)
        b.send(a, other)
        world.run(pace)
    world.run(2)
    return there, back


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("network", NETWORKS)
def test_no_packet_is_delivered_twice_or_altered(network: str, seed: int) -> None:
    world = World(seed)
    alice, bob = world.pair()
    world.network.faults.extend(NETWORKS[network])
    there, back = stream(world, alice, bob, 400, 1.0)
    for arrived, sent in ((bob.payloads(), there), (alice.payloads(), back)):
        assert len(arrived) == len(set(arrived))
        assert set(arrived) <= set(sent)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("network", ["repeating", "reordering"])
def test_where_nothing_is_lost_the_whole_stream_comes_through(network: str, seed: int) -> None:
    world = World(seed)
    alice, bob = world.pair()
    world.network.faults.extend(NETWORKS[network])
    there, back = stream(world, alice, bob, 400, 1.0)
    assert sorted(bob.payloads()) == sorted(there)
    assert sorted(alice.payloads()) == sorted(back)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("network", ["lossy", "corrupting", "all of it"])
def test_what_the_network_lets_through_comes_through(network: str, seed: int) -> None:
    """No more is lost inside than the network loses outside, a handshake's retry now and then aside."""
    world = World(seed)
    alice, bob = world.pair()
    world.network.faults.extend(NETWORKS[network])
    there, back = stream(world, alice, bob, 600, 0.5)
    for arrived, sent in ((bob.payloads(), there), (alice.payloads(), back)):
        assert len(arrived) >= 0.7 * len(sent)


@pytest.mark.parametrize("seed", range(10))
def test_a_session_begins_within_some_retries_when_a_third_of_everything_is_lost(seed: int) -> None:
    world = World(seed)
    alice, bob = world.pair()
    world.network.faults.append(loss(1 / 3))
    for number in range(80):
        alice.send(bob, b"%d" % number)
        world.run(1)
    assert len(bob.payloads()) > 10


@pytest.mark.parametrize("round_trip", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cut_for", [3, 17, 60, 89, 200, 1000])
def test_after_a_partition_heals_packets_flow_within_rekey_timeout_and_jitter_and_round_trip(
    cut_for: int, seed: int, round_trip: float
) -> None:
    world = World(seed)
    alice, bob = world.pair()
    world.network.faults.append(delay(round_trip / 2))
    alice.send(bob)
    world.run(30)
    world.cut()
    for _ in range(cut_for):
        alice.send(bob)
        bob.send(alice)
        world.run(1)
    world.heal()
    for host in (alice, bob):
        host.received()
    healed = world.now
    arrival: dict[str, float] = {}
    while len(arrival) < 2:
        alice.send(bob)
        bob.send(alice)
        world.run(0.05)
        for host in (alice, bob):
            if host.received():
                arrival.setdefault(host.name, world.now - healed)
        assert world.now - healed < 20
    assert max(arrival.values()) <= REKEY_TIMEOUT + JITTER + 1.5 * round_trip + 0.05


def test_a_partition_shorter_than_the_timers_costs_no_handshake() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(20)
    world.cut()
    for _ in range(10):
        alice.send(bob)
        world.run(1)
    world.heal()
    alice.send(bob, b"again")
    world.run(1)
    assert bob.payloads() == [b"again"]
    assert len(world.sent(INITIATION)) == 1


@pytest.mark.parametrize("direction", ["to bob", "to alice"])
def test_a_path_that_is_open_one_way_only_makes_no_session(direction: str) -> None:
    world = World()
    alice, bob = world.pair()
    blocked = bob.endpoint if direction == "to bob" else alice.endpoint
    world.lost = lambda flight: flight.destination == blocked
    for _ in range(60):
        alice.send(bob)
        bob.send(alice)
        world.run(1)
    assert alice.received() == bob.received() == []
    assert len(world.sent(INITIATION, by=alice)) == 12
    world.heal()
    world.run(6)
    assert alice.received()
    assert bob.received()
    assert len(world.sent(RESPONSE)) < 30


def test_a_run_can_be_replayed_byte_for_byte() -> None:
    def play() -> list[tuple[float, bytes]]:
        world = World(7)
        alice, bob = world.pair(keepalive=13)
        world.network.faults.extend(NETWORKS["all of it"])
        stream(world, alice, bob, 100, 2.0)
        return [(flight.due, flight.data) for flight in world.flights]

    assert play() == play()
