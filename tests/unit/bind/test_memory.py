"""The fake network: what it does to datagrams, and that it does the same again from the same seed."""

from __future__ import annotations

import errno
import random

import pytest

from pywg.bind import memory
from pywg.bind.memory import Fault, MemoryBind, MemoryNetwork, Nat
from pywg.errors import PywgError
from pywg.wire.endpoint import Endpoint, LocalAddress

LEFT, RIGHT = ["192.0.2.1", "2001:db8::1"], ["192.0.2.2", "2001:db8::2"]


def received(bind: MemoryBind) -> list[bytes]:
    datagrams = []
    while (got := bind.receive()) is not None:
        size = max(got.segment_size, 1)
        datagrams += [bytes(got.data[at : at + size]) for at in range(0, max(len(got.data), 1), size)]
    return datagrams


def run(seed: int, *faults: Fault) -> tuple[list[bytes], list[bytes]]:
    """What was sent (1000 datagrams, one a millisecond) and what had arrived an hour later."""
    network = MemoryNetwork(seed, faults)
    left, right = MemoryBind(network, LEFT), MemoryBind(network, RIGHT)
    sent = [number.to_bytes(4, "big") for number in range(1000)]
    for number, datagram in enumerate(sent):
        network.advance(number / 1000)
        left.send([datagram], right.endpoint(), 0)
    network.advance(3600)
    return sent, received(right)


@pytest.mark.parametrize("family", [0, 1])
def test_a_datagram_arrives_with_its_source_and_can_be_answered(family: int) -> None:
    network = MemoryNetwork()
    left, right = MemoryBind(network, LEFT, 51820), MemoryBind(network, RIGHT)
    left.send([b"question"], Endpoint(RIGHT[family], right.port), 0x88)
    network.advance(0)
    got = right.receive()
    assert got is not None
    assert (bytes(got.data), got.segment_size, got.tos) == (b"question", 8, 0x88)
    assert got.endpoint == Endpoint(LEFT[family], 51820)
    assert got.endpoint.local == LocalAddress(RIGHT[family], 1)
    right.send([b"answer"], got.endpoint, 0)
    network.advance(0)
    assert received(left) == [b"answer"]


def test_nothing_arrives_before_its_time() -> None:
    network = MemoryNetwork(faults=[memory.delay(0.05)])
    left, right = MemoryBind(network, LEFT), MemoryBind(network, RIGHT)
    network.advance(10)
    left.send([b"x"], right.endpoint(), 0)
    assert network.next_delivery() == pytest.approx(10.05)
    assert network.advance(10.04) == 0
    assert received(right) == []
    assert network.advance(10.06) == 1
    assert received(right) == [b"x"]
    assert network.next_delivery() is None


def test_without_faults_everything_arrives_in_order() -> None:
    sent, arrived = run(1)
    assert arrived == sent


def test_loss_loses_about_as_many_as_it_says() -> None:
    sent, arrived = run(1, memory.loss(0.3))
    assert 600 < len(arrived) < 800
    assert arrived == [datagram for datagram in sent if datagram in set(arrived)]


def test_duplication_repeats_about_as_many_as_it_says() -> None:
    sent, arrived = run(1, memory.duplication(0.2))
    assert 1120 < len(arrived) < 1280
    assert set(arrived) == set(sent)


def test_reordering_lets_later_ones_overtake() -> None:
    sent, arrived = run(1, memory.reordering(0.1, 0.0035))
    assert arrived != sent
    assert sorted(arrived) == sent
    late = [arrived.index(datagram) - number for number, datagram in enumerate(sent)]
    assert max(late) == 3


def test_jitter_reorders() -> None:
    sent, arrived = run(1, memory.delay(0.05, jitter=0.01))
    assert arrived != sent
    assert sorted(arrived) == sent


def test_corruption_flips_one_bit() -> None:
    sent, arrived = run(1, memory.corruption(0.5))
    flipped = [
        (int.from_bytes(before, "big") ^ int.from_bytes(after, "big")).bit_count()
        for before, after in zip(sent, arrived, strict=True)
    ]
    assert set(flipped) == {0, 1}
    assert 400 < sum(flipped) < 600


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    faults = [memory.loss(0.2), memory.duplication(0.2), memory.delay(0.1, 0.1), memory.corruption(0.2)]
    assert run(7, *faults) == run(7, *faults)
    assert run(7, *faults) != run(8, *faults)


def test_a_fault_of_the_tests_own_decides_datagram_by_datagram() -> None:
    network = MemoryNetwork()
    left, right = MemoryBind(network, LEFT), MemoryBind(network, RIGHT)
    network.faults.append(lambda flight, chance: () if flight.data == b"b" else (flight,))
    left.send([b"a", b"b", b"c"], right.endpoint(), 0)
    network.advance(0)
    assert received(right) == [b"a", b"c"]
    assert network.counts["lost"] == 1


def test_datagrams_of_equal_size_from_one_source_come_together() -> None:
    network = MemoryNetwork()
    left, right = MemoryBind(network, LEFT), MemoryBind(network, RIGHT)
    left.send([b"aaaa", b"bbbb", b"cc", b"dddd", b"", b"e"], right.endpoint(), 0)
    network.advance(0)
    groups = []
    while (got := right.receive()) is not None:
        groups.append((bytes(got.data), got.segment_size))
    assert groups == [(b"aaaabbbbcc", 4), (b"dddd", 4), (b"", 0), (b"e", 1)]


@pytest.mark.parametrize("group", [True, False])
def test_grouping_changes_no_datagram(group: bool) -> None:
    network = MemoryNetwork()
    left = MemoryBind(network, LEFT)
    right = MemoryBind(network, RIGHT, group=group)
    chance = random.Random(3)
    sent = [chance.randbytes(chance.choice([0, 5, 5, 5, 9, 1400])) for _ in range(500)]
    left.send(sent, right.endpoint(), 0)
    network.advance(0)
    assert received(right) == sent


def test_a_full_socket_takes_as_many_as_it_has_room_for() -> None:
    network = MemoryNetwork()
    left, right = MemoryBind(network, LEFT), MemoryBind(network, RIGHT)
    left.room = 2
    assert left.send([b"a", b"b", b"c"], right.endpoint(), 0) == 2
    assert left.send([b"c"], right.endpoint(), 0) == 0
    left.room = None
    assert left.send([b"c"], right.endpoint(), 0) == 1
    network.advance(0)
    assert received(right) == [b"a", b"b", b"c"]


def test_a_bind_without_a_family_refuses_to_send_to_it() -> None:
    network = MemoryNetwork()
    left = MemoryBind(network, "192.0.2.1")
    with pytest.raises(OSError, match="2001:db8::2") as caught:
        left.send([b"x"], Endpoint("2001:db8::2", 1), 0)
    assert caught.value.errno == errno.EAFNOSUPPORT


def test_a_host_that_moved_sends_from_its_new_address_and_gets_nothing_at_the_old() -> None:
    network = MemoryNetwork()
    left, right = MemoryBind(network, LEFT), MemoryBind(network, RIGHT)
    old = left.endpoint()
    left.move("198.51.100.9")
    right.send([b"lost"], old, 0)
    left.send([b"x"], right.endpoint(), 0)
    network.advance(0)
    got = right.receive()
    assert got is not None
    assert got.endpoint == Endpoint("198.51.100.9", left.port)
    assert received(left) == []
    assert network.counts["unreachable"] == 1


def test_an_address_is_bound_once() -> None:
    network = MemoryNetwork()
    bind = MemoryBind(network, LEFT, 51820)
    with pytest.raises(PywgError, match=r"51820 of 192\.0\.2\.1 is in use"):
        MemoryBind(network, LEFT, 51820)
    bind.close()
    MemoryBind(network, LEFT, 51820)


def test_waiting_datagrams_are_bounded() -> None:
    network = MemoryNetwork()
    left, right = MemoryBind(network, LEFT), MemoryBind(network, RIGHT)
    left.send([b"x"] * (memory.INBOX_LIMIT + 10), right.endpoint(), 0)
    network.advance(0)
    assert len(received(right)) == memory.INBOX_LIMIT
    assert network.counts["overflow"] == 10


class TestNat:
    """A host behind a translation that forgets after two seconds."""

    def setup_method(self) -> None:
        self.network = MemoryNetwork()
        self.nat = Nat(["10.0.0.1", "10.0.0.2"], "203.0.113.1", timeout=2.0)
        self.network.nats.append(self.nat)
        self.inside = MemoryBind(self.network, "10.0.0.1", 51820)
        self.outside = MemoryBind(self.network, "192.0.2.2", 51820)

    def seen(self, now: float) -> Endpoint:
        """Send one datagram from inside and say where it seems to come from."""
        self.network.advance(now)
        self.inside.send([b"x"], self.outside.endpoint(), 0)
        self.network.advance(now)
        got = self.outside.receive()
        assert got is not None
        return got.endpoint

    def reached(self, endpoint: Endpoint, now: float) -> bool:
        """Whether a datagram from outside gets in."""
        self.network.advance(now)
        self.outside.send([b"y"], endpoint, 0)
        self.network.advance(now)
        return received(self.inside) == [b"y"]

    def test_the_outside_sees_the_public_address_and_can_answer(self) -> None:
        seen = self.seen(0)
        assert seen.host == "203.0.113.1"
        assert self.reached(seen, 1.9)

    def test_an_entry_is_forgotten_when_it_is_not_used(self) -> None:
        seen = self.seen(0)
        assert not self.reached(seen, 2.0)
        assert self.seen(2.0) != seen

    def test_an_entry_in_use_stays(self) -> None:
        seen = self.seen(0)
        assert self.reached(seen, 1.5)
        assert self.reached(seen, 3.0)
        assert self.seen(4.5) == seen

    def test_a_rebinding_changes_the_port_and_forgets_the_old(self) -> None:
        before = self.seen(0)
        self.nat.rebind()
        after = self.seen(0.1)
        assert after.host == before.host
        assert after.port != before.port
        assert not self.reached(before, 0.2)
        assert self.reached(after, 0.2)

    def test_a_stranger_does_not_get_in(self) -> None:
        seen = self.seen(0)
        stranger = MemoryBind(self.network, "192.0.2.3", 51820)
        stranger.send([b"z"], seen, 0)
        self.network.advance(0.1)
        assert received(self.inside) == []
        assert self.network.counts["blocked"] == 1

    def test_neighbours_inside_reach_each_other_untranslated(self) -> None:
        neighbour = MemoryBind(self.network, "10.0.0.2", 51820)
        self.inside.send([b"n"], neighbour.endpoint(), 0)
        self.network.advance(0)
        got = neighbour.receive()
        assert got is not None
        assert got.endpoint == Endpoint("10.0.0.1", 51820)
