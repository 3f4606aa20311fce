"""Whatever arrives: never an exception out of a turn, never a lost session, each drop counted by its reason.

Memory stays bounded whatever is sent; the bounds of handshake floods are in test_under_load.py.
"""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pywg.errors import DropReason
from pywg.wire.endpoint import Endpoint
from tests.spec.world import (
    COOKIE_REPLY,
    DATA,
    INITIATION,
    RESPONSE,
    Host,
    Puppet,
    PuppetSession,
    World,
    udp_packet,
)

FORGER = Endpoint("203.0.113.66", 666)


@dataclasses.dataclass
class Scene:
    """A host in a session with a puppet, with one of its own initiations to another puppet under way."""

    world: World
    bob: Host
    puppet: Puppet
    session: PuppetSession
    samples: dict[int, bytes]
    """One valid message to bob of each type that was not delivered."""

    def drops_of(self, datagram: bytes, source: Endpoint = FORGER) -> dict[DropReason, int]:
        before = self.bob.drops
        self.puppet.send(self.bob, datagram, source=source)
        return dict(self.bob.drops - before)

    def assert_alive(self) -> None:
        self.bob.received()
        self.puppet.take()
        self.puppet.send(self.bob, self.session.seal(self.puppet.packet_to(self.bob, b"alive?")))
        assert self.bob.payloads() == [b"alive?"]
        self.bob.send(self.puppet, b"alive!")
        self.world.run()
        (datagram,) = self.puppet.take(DATA)
        assert self.session.open(datagram)[28:34] == b"alive!"


def scene(seed: int = 0) -> Scene:
    world = World(seed)
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    other = Puppet(world, "198.51.100.8", ["10.0.0.8"])
    bob.add_peer(other)
    bob.send(other)
    world.run(0.1)
    response, _ = other.respond(bob, other.take(INITIATION)[0])
    samples = {
        INITIATION: puppet.initiation(bob),
        RESPONSE: response,
        COOKIE_REPLY: b"\3\0\0\0" + response[8:12] + bytes(56),
        DATA: session.seal(puppet.packet_to(bob), 1000),
    }
    return Scene(world, bob, puppet, session, samples)


@pytest.mark.parametrize("kind", [INITIATION, RESPONSE, COOKIE_REPLY, DATA])
def test_a_truncated_message_is_dropped_as_such(kind: int) -> None:
    it = scene()
    whole = it.samples[kind]
    for size in range(len(whole)):
        drops = it.drops_of(whole[:size])
        if size == 0:
            assert drops == {DropReason.EMPTY: 1}
        elif kind == DATA and size >= 32:
            assert drops == {DropReason.BAD_TAG: 1}
        else:
            assert drops == {DropReason.TRUNCATED: 1}
    it.assert_alive()


@pytest.mark.parametrize("kind", [INITIATION, RESPONSE, COOKIE_REPLY])
@pytest.mark.parametrize("more", [1, 16, 1400, 60_000])
def test_an_oversized_handshake_message_is_dropped_as_such(kind: int, more: int) -> None:
    it = scene()
    assert it.drops_of(it.samples[kind] + bytes(more)) == {DropReason.OVERSIZED: 1}
    it.assert_alive()


@pytest.mark.parametrize("more", [1, 16, 60_000])
def test_an_oversized_data_message_has_a_bad_tag(more: int) -> None:
    it = scene()
    assert it.drops_of(it.samples[DATA] + bytes(more)) == {DropReason.BAD_TAG: 1}
    it.assert_alive()


@pytest.mark.parametrize("kind", [0, 5, 6, 127, 128, 255])
@pytest.mark.parametrize("size", [4, 32, 64, 92, 148, 1500])
def test_a_message_of_another_type_is_dropped_as_such(kind: int, size: int) -> None:
    it = scene()
    assert it.drops_of(bytes([kind]) + bytes(size - 1)) == {DropReason.UNKNOWN_TYPE: 1}


@pytest.mark.parametrize("kind", [INITIATION, RESPONSE, COOKIE_REPLY, DATA])
def test_reserved_bits_are_not_ours_to_ignore(kind: int) -> None:
    it = scene()
    for bit in range(8, 32):
        datagram = bytearray(it.samples[kind])
        datagram[bit // 8] ^= 1 << bit % 8
        assert it.drops_of(bytes(datagram)) == {DropReason.RESERVED_BITS: 1}
    it.assert_alive()


@pytest.mark.parametrize("kind", [INITIATION, RESPONSE, COOKIE_REPLY, DATA])
def test_a_message_with_any_bit_flipped_is_dropped(kind: int) -> None:
    it = scene()
    whole = it.samples[kind]
    without_mac2 = len(whole) - (16 if kind in (INITIATION, RESPONSE) else 0)
    chance = random.Random(kind)
    for bit in sorted(chance.sample(range(32, 8 * without_mac2), 250)):
        datagram = bytearray(whole)
        datagram[bit // 8] ^= 1 << bit % 8
        drops = it.drops_of(bytes(datagram))
        assert sum(drops.values()) == 1, bit
        if kind in (INITIATION, RESPONSE):
            assert drops == {DropReason.BAD_MAC1: 1}
        else:
            assert set(drops) <= {DropReason.BAD_TAG, DropReason.UNKNOWN_INDEX, DropReason.UNEXPECTED}
    it.assert_alive()


def test_an_initiation_with_bits_flipped_under_a_right_mac1_is_dropped() -> None:
    """Mac1 needs only the public key, so a forger can make it."""
    it = scene()
    plain = it.samples[INITIATION][:116]
    for bit in range(64, 8 * 116, 11):
        datagram = bytearray(plain)
        datagram[bit // 8] ^= 1 << bit % 8
        drops = it.drops_of(it.puppet.stamp(it.bob, bytes(datagram)))
        # The top bit of an X25519 public key is not part of the number, but of what was said.
        assert drops in ({DropReason.BAD_TAG: 1}, {DropReason.BAD_KEY: 1})
    it.assert_alive()


def test_a_response_with_bits_flipped_under_a_right_mac1_is_dropped_and_the_true_one_still_taken() -> None:
    it = scene()
    plain = it.samples[RESPONSE][:60]
    for bit in range(64, 8 * 60, 7):
        datagram = bytearray(plain)
        datagram[bit // 8] ^= 1 << bit % 8
        assert sum(it.drops_of(it.puppet.stamp(it.bob, bytes(datagram))).values()) == 1
    assert it.drops_of(it.samples[RESPONSE]) == {}
    it.assert_alive()


def test_a_replayed_message_of_every_type_is_dropped() -> None:
    it = scene()
    expected = {
        INITIATION: DropReason.OLD_TIMESTAMP,
        RESPONSE: DropReason.UNEXPECTED,
        DATA: DropReason.REPLAYED,
    }
    for kind, reason in expected.items():
        assert it.drops_of(it.samples[kind], it.puppet.endpoint) == {}
        it.world.run(0.1)
        assert it.drops_of(it.samples[kind]) == {reason: 1}
    it.assert_alive()


def test_every_counter_is_taken_once_in_whatever_order() -> None:
    it = scene()
    counters = list(range(1, 8000))
    random.Random(1).shuffle(counters)
    messages = {
        counter: it.session.seal(udp_packet("10.0.0.7", "10.0.0.2", b"%d" % counter), counter)
        for counter in counters[:1500]
    }
    order = list(messages) * 2
    random.Random(2).shuffle(order)
    for counter in order:
        it.world.network.transmit(messages[counter], it.puppet.endpoint, it.bob.endpoint)
    it.world.run()
    assert sorted(it.bob.payloads()) == sorted(b"%d" % counter for counter in messages)
    assert it.bob.drops == {DropReason.REPLAYED: 1500}


def test_data_for_an_index_that_nobody_has_is_dropped() -> None:
    it = scene()
    chance = random.Random(3)
    for _ in range(200):
        datagram = b"\4\0\0\0" + chance.randbytes(4) + bytes(8) + chance.randbytes(48)
        assert it.drops_of(datagram) == {DropReason.UNKNOWN_INDEX: 1}


def test_responses_and_cookie_replies_for_an_index_that_nobody_has_are_dropped() -> None:
    it = scene()
    chance = random.Random(4)
    for _ in range(50):
        response = b"\2\0\0\0" + chance.randbytes(56)
        assert it.drops_of(it.puppet.stamp(it.bob, response)) == {DropReason.UNKNOWN_INDEX: 1}
        assert it.drops_of(b"\3\0\0\0" + chance.randbytes(60)) == {DropReason.UNKNOWN_INDEX: 1}
    it.assert_alive()


def test_a_response_to_the_index_of_a_session_is_dropped() -> None:
    it = scene()
    response = b"\2\0\0\0" + bytes(4) + it.session.receiver.to_bytes(4, "little") + bytes(48)
    assert it.drops_of(it.puppet.stamp(it.bob, response)) == {DropReason.UNEXPECTED: 1}
    it.assert_alive()


def test_a_cookie_reply_to_nothing_is_dropped() -> None:
    it = scene()
    cookie = b"\3\0\0\0" + it.session.receiver.to_bytes(4, "little") + bytes(56)
    assert it.drops_of(cookie) == {DropReason.BAD_TAG: 1}
    it.assert_alive()


@pytest.mark.parametrize(
    "plaintext",
    [
        b"\0",
        bytes(16),
        b"E" + bytes(15),
        b"\x45\0\0\x10" + bytes(28),
        b"\x45\0\xff\xff" + bytes(28),
        b"\x60" + bytes(31),
        b"\x60\0\0\0\xff\xff" + bytes(58),
        b"\x7f" * 64,
    ],
    ids=[
        "one zero",
        "zeros",
        "short IPv4",
        "IPv4 length below 20",
        "IPv4 length past the end",
        "short IPv6",
        "IPv6 length past the end",
        "version 7",
    ],
)
def test_what_is_sealed_but_no_ip_packet_does_not_come_out(plaintext: bytes) -> None:
    it = scene()
    assert it.drops_of(it.session.seal(plaintext), it.puppet.endpoint) == {DropReason.NOT_AN_IP_PACKET: 1}
    assert it.bob.received() == []
    it.assert_alive()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0", b"\4\0\0\0"]))
def test_any_bytes_are_counted_once(data: bytes, head: bytes) -> None:
    it = scene()
    assert sum(it.drops_of(head + data).values()) == 1


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_sealed_bytes_are_a_packet_or_counted(plaintext: bytes) -> None:
    it = scene()
    it.bob.received()
    drops = it.drops_of(it.session.seal(plaintext), it.puppet.endpoint)
    assert sum(drops.values()) + len(it.bob.received()) == (1 if plaintext else 0)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000))
def test_any_frame_from_the_tunnel_device_is_sent_or_counted(frame: bytes) -> None:
    it = scene()
    it.puppet.take()
    it.bob.received()
    before = it.bob.drops.total()
    it.bob.tun.deliver(frame)
    it.world.run()
    assert it.bob.drops.total() - before + len(it.puppet.take(DATA)) == 1


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_change_to_a_valid_message_leaves_the_session_alive(data: st.DataObject) -> None:
    it = scene()
    kind = data.draw(st.sampled_from([INITIATION, RESPONSE, COOKIE_REPLY, DATA]))
    datagram = bytearray(it.samples[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(datagram) - 1))
        datagram[place] = data.draw(st.integers(0, 255))
    it.puppet.send(it.bob, bytes(datagram), source=FORGER)
    it.world.run(1)
    it.session = it.puppet.connect(it.bob)  # for the message may have come out unchanged, a new initiation
    it.assert_alive()


def test_a_flood_of_unknown_indices_leaves_no_memory_behind() -> None:
    import gc
    import tracemalloc

    it = scene()
    chance = random.Random(5)

    def flood(number: int) -> None:
        for _ in range(number):
            datagram = b"\4\0\0\0" + chance.randbytes(4) + bytes(40)
            it.world.network.transmit(
                datagram, Endpoint("203.0.113.1", chance.randrange(65536)), it.bob.endpoint
            )
        it.world.run()
        it.world.flights.clear()

    flood(2000)
    gc.collect()
    tracemalloc.start()
    flood(4000)
    gc.collect()  # what other tests have left to it would count here
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after < 100_000
    it.assert_alive()


def test_handshakes_that_never_complete_leave_no_memory_behind() -> None:
    it = scene()
    for _ in range(500):
        it.world.run(0.03)
        it.puppet.send(it.bob, it.puppet.initiation(it.bob))
    assert len(it.bob.datapath.installed()) <= 3
    assert len(it.puppet.take(RESPONSE)) == 500
    it.assert_alive()
