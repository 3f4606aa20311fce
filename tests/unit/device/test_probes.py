"""What a device tells its probes, and in which order."""

from __future__ import annotations

from collections import Counter

from pywg.device.peer import Peer
from pywg.errors import DropReason
from tests.spec.world import RESPONSE, Host, World


class Recorder:
    """Probes that keep what they hear."""

    def __init__(self, host: Host) -> None:
        self.told: list[tuple[object, ...]] = []
        self.indices: list[int] = []
        self.drops: Counter[tuple[DropReason, bool]] = Counter()
        host.device.probes = self

    def handshake_begin(self, peer: Peer, initiator: bool) -> None:
        self.told.append(("begin", peer.public_key, initiator))

    def handshake_end(self, peer: Peer, initiator: bool) -> None:
        self.told.append(("end", peer.public_key, initiator))

    def handshake_give_up(self, peer: Peer) -> None:
        self.told.append(("give up", peer.public_key))

    def session_install(self, peer: Peer, local_index: int, initiator: bool) -> None:
        self.told.append(("install", peer.public_key, initiator))
        self.indices.append(local_index)

    def session_retire(self, peer: Peer, local_index: int) -> None:
        self.told.append(("retire", peer.public_key))
        self.indices.remove(local_index)

    def drop(self, reason: DropReason, count: int, outgoing: bool) -> None:
        self.drops[reason, outgoing] += count


def test_a_handshake_is_told_on_both_sides_in_its_order() -> None:
    world = World(seed=1)
    alice, bob = world.pair()
    at_alice, at_bob = Recorder(alice), Recorder(bob)
    alice.send(bob, b"hello")
    world.run(1.0)
    a, b = alice.public_key, bob.public_key
    assert at_alice.told == [("begin", b, True), ("install", b, True), ("end", b, True)]
    assert at_bob.told == [("begin", a, False), ("install", a, False), ("end", a, False)]


def test_a_session_is_retired_under_the_index_that_it_was_installed_with() -> None:
    world = World(seed=2)
    alice, bob = world.pair()
    recorder = Recorder(alice)
    alice.send(bob, b"hello")
    world.run(1.0)
    (index,) = recorder.indices
    assert alice.device.peer(bob.public_key).keypairs.current.local_index == index
    alice.device.remove_peer(alice.peer(bob))
    assert recorder.told[-1] == ("retire", bob.public_key)
    assert not recorder.indices


def test_giving_up_is_told_and_so_are_the_packets_that_waited() -> None:
    world = World(seed=3)
    alice, bob = world.pair()
    recorder = Recorder(alice)
    world.lose(RESPONSE)
    for _ in range(3):
        alice.send(bob, b"hello")
    world.run(100.0)
    assert recorder.told[-1] == ("give up", bob.public_key)
    assert recorder.drops[DropReason.HANDSHAKE_GAVE_UP, True] == 3


def test_the_drops_of_the_control_plane_are_those_that_it_counts() -> None:
    world = World(seed=4)
    alice, bob = world.pair()
    recorder = Recorder(bob)
    alice.send(bob, b"hello")
    world.run(1.0)
    alice.device.remove_peer(alice.peer(bob))
    alice.add_peer(bob)
    bob.device.remove_peer(bob.peer(alice))
    alice.send(bob, b"hello")
    world.run(30.0)
    assert bob.device.drops[DropReason.UNKNOWN_PEER] > 1
    assert recorder.drops == {(reason, False): count for reason, count in bob.device.drops.items()}
