"""What a device tells whoever watches, and what it counts when nobody does."""

from pywg.device.events import Event, EventKind
from pywg.device.statistics import PeerStatistics
from pywg.errors import DropReason
from pywg.noise.keys import PresharedKey
from tests.spec.world import Host, World


def watched(host: Host) -> list[Event]:
    events: list[Event] = []
    host.engine.watch(events.append)
    return events


def kinds(events: list[Event]) -> list[EventKind]:
    return [event.kind for event in events]


def statistics(host: Host) -> PeerStatistics:
    (peer,) = host.engine.statistics().peers
    return peer


def test_a_handshake_is_told_on_both_sides() -> None:
    world = World(seed=1)
    alice, bob = world.pair()
    at_alice, at_bob = watched(alice), watched(bob)
    alice.send(bob, b"hello")
    world.run(1.0)
    assert kinds(at_alice) == [EventKind.INITIATION_SENT, EventKind.RESPONSE_RECEIVED]
    assert kinds(at_bob) == [EventKind.RESPONSE_SENT, EventKind.SESSION_CONFIRMED]
    assert at_alice[0].peer == bob.public_key
    assert at_alice[0].endpoint == bob.endpoint


def test_handshakes_and_packets_are_counted_though_nobody_watches() -> None:
    world = World(seed=2)
    alice, bob = world.pair()
    for _ in range(3):
        alice.send(bob, b"hello")
        world.run(1.0)
    here, there = statistics(alice), statistics(bob)
    assert (here.initiations_sent, here.completed) == (1, 1)
    assert (there.initiations_received, there.completed) == (1, 1)
    assert here.tx_packets == there.rx_packets == 3
    assert here.round_trip is not None
    assert 0 <= here.round_trip < 1
    assert here.session_age is not None


def test_an_endpoint_that_moves_is_told_with_both_places() -> None:
    world = World(seed=3)
    alice, bob = world.pair()
    alice.send(bob, b"hello")
    world.run(1.0)
    events, before = watched(bob), str(alice.endpoint)
    alice.engine.set_listen_port(4242)
    alice.engine.commit()
    alice.send(bob, b"from elsewhere")
    world.run(1.0)
    (moved,) = [event for event in events if event.kind is EventKind.ENDPOINT_MOVED]
    assert moved.text == f"endpoint moved from {before} to {alice.endpoint}"
    assert moved.detail == before


def test_another_preshared_key_is_told_where_it_is_noticed() -> None:
    world = World(seed=4)
    alice, bob = world.pair()
    (peer,) = alice.device.peers()
    alice.engine.set_preshared_key(peer, PresharedKey(bytes(range(32))))
    events = watched(alice)
    alice.send(bob, b"hello")
    world.run(1.0)
    (refused,) = [event for event in events if event.kind is EventKind.HANDSHAKE_REFUSED]
    assert refused.detail == DropReason.BAD_TAG.value
    assert statistics(alice).refused == {"bad-tag": 1}
    assert statistics(alice).completed == 0


def test_a_stranger_is_told_with_its_key() -> None:
    world = World(seed=5)
    alice, bob = world.pair()
    (peer,) = bob.device.peers()
    bob.engine.remove_peer(peer)
    bob.engine.commit()
    events = watched(bob)
    alice.send(bob, b"hello")
    world.run(1.0)
    (stranger,) = [event for event in events if event.kind is EventKind.STRANGER]
    assert stranger.peer == alice.public_key
    assert stranger.endpoint == alice.endpoint


def test_giving_up_is_told_and_counted() -> None:
    world = World(seed=6)
    alice, bob = world.pair()
    bob.asleep = True
    events = watched(alice)
    alice.send(bob, b"hello")
    world.run(100.0)
    assert EventKind.HANDSHAKE_GAVE_UP in kinds(events)
    assert statistics(alice).gave_up == 1


def test_whoever_has_left_is_told_nothing() -> None:
    world = World(seed=7)
    alice, bob = world.pair()
    events: list[Event] = []
    leave = alice.engine.watch(events.append)
    leave()
    alice.send(bob, b"hello")
    world.run(1.0)
    assert events == []
    assert alice.device.watcher is None
