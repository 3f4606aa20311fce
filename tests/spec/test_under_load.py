"""Floods of handshake messages: cookies on both sides, the rate limit behind them, and what stays bounded.

WireGuard paper, sections 5.3 and 5.4.7.
"""

from __future__ import annotations

import pytest

from pywg.errors import DropReason
from pywg.wire.endpoint import Endpoint
from tests.spec.world import COOKIE_REPLY, DATA, INITIATION, RESPONSE, Host, Puppet, World

COOKIE_LIFETIME = 120
HANDSHAKE_QUEUE = 1024


def flood(world: World, bob: Host, puppet: Puppet, number: int = 200) -> None:
    """Send one initiation of the puppet's to bob so many times at once."""
    initiation = puppet.initiation(bob)
    for _ in range(number):
        world.network.transmit(initiation, puppet.endpoint, bob.endpoint)
    world.run()


def loaded(seed: int = 0) -> tuple[World, Host, Puppet]:
    """A host that is under load, and a puppet that has a cookie for it."""
    world = World(seed)
    bob, puppet = world.host_and_puppet()
    flood(world, bob, puppet)
    puppet.take_cookie(puppet.take(COOKIE_REPLY)[-1])
    return world, bob, puppet


def test_128_queued_handshake_messages_are_load_and_127_are_not() -> None:
    for number, load in ((127, False), (128, True)):
        world = World()
        bob, puppet = world.host_and_puppet()
        flood(world, bob, puppet, number)
        assert bool(puppet.take(COOKIE_REPLY)) is load


def test_load_stays_for_one_second() -> None:
    world, bob, puppet = loaded()
    puppet.jar = None
    world.run(0.999)
    puppet.send(bob, puppet.initiation(bob))
    assert [datagram[0] for datagram in puppet.take()] == [COOKIE_REPLY]
    world.run(0.001)
    puppet.jar = None
    puppet.send(bob, puppet.initiation(bob))
    assert [datagram[0] for datagram in puppet.take()] == [RESPONSE]


def test_under_load_an_initiation_without_a_cookie_gets_a_cookie_reply_and_nothing_else() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    flood(world, bob, puppet, 300)
    kinds = [datagram[0] for datagram in puppet.take()]
    assert set(kinds[:173]) == {COOKIE_REPLY}
    assert kinds.count(RESPONSE) == 0
    assert bob.keypair(puppet) is None


def test_under_load_an_initiation_with_the_cookie_is_answered() -> None:
    _, bob, puppet = loaded()
    puppet.send(bob, puppet.initiation(bob))
    assert [datagram[0] for datagram in puppet.take()] == [RESPONSE]


def test_under_load_a_response_too_needs_the_cookie() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    other = Puppet(world, "198.51.100.8", ["10.0.0.8"])
    bob.add_peer(other)
    bob.send(puppet)
    world.run()
    (initiation,) = puppet.take(INITIATION)
    flood(world, bob, other)
    response, _ = puppet.respond(bob, initiation)
    puppet.send(bob, response)
    (reply,) = puppet.take()
    assert reply[0] == COOKIE_REPLY
    puppet.take_cookie(reply)
    again, session = puppet.respond(bob, initiation)
    puppet.send(bob, again)
    (datagram,) = puppet.take(DATA)
    assert session.open(datagram)[28:33] == b"hello"


def test_under_load_data_flows_as_ever() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    other = Puppet(world, "198.51.100.8", ["10.0.0.8"])
    bob.add_peer(other)
    session = puppet.connect(bob)
    initiation = other.initiation(bob)
    for number in range(600):
        world.network.transmit(initiation, other.endpoint, bob.endpoint)
        if number % 10 == 0:
            world.network.transmit(session.seal(puppet.packet_to(bob)), puppet.endpoint, bob.endpoint)
    world.run()
    assert len(bob.received()) == 60


def test_the_cookie_of_another_address_does_not_serve() -> None:
    _, bob, puppet = loaded()
    before = bob.drops[DropReason.UNDER_LOAD]
    puppet.send(bob, puppet.initiation(bob), source=Endpoint("203.0.113.5", 51820))
    assert bob.drops[DropReason.UNDER_LOAD] == before + 1


def test_an_initiator_stamps_its_next_initiation_with_the_cookie_it_got() -> None:
    world = World()
    alice, bob = world.pair()
    noise = Puppet(world, "198.51.100.8", ["10.0.0.8"])
    bob.add_peer(noise)
    junk = noise.initiation(bob)

    def keep_loaded() -> None:
        for _ in range(200):
            world.network.transmit(junk, noise.endpoint, bob.endpoint)

    alice.send(bob)
    for _ in range(12):
        keep_loaded()
        world.run(0.5)
    first, second = world.sent(INITIATION, by=alice)
    assert first.data[-16:] == bytes(16)
    assert second.data[-16:] != bytes(16)
    assert second.due - first.due >= 5
    assert bob.payloads() == [b"hello"]


def test_a_received_cookie_serves_for_120_seconds() -> None:
    for age, stamped in ((COOKIE_LIFETIME - 1, True), (COOKIE_LIFETIME, False)):
        world = World()
        bob, puppet = world.host_and_puppet()
        bob.send(puppet)
        world.run()
        (initiation,) = puppet.take(INITIATION)
        reply = cookie_reply(puppet, bob, initiation, world.now)
        puppet.send(bob, reply)
        world.sleep(age)
        bob.send(puppet)
        world.run()
        (later,) = puppet.take(INITIATION)
        assert (later[-16:] != bytes(16)) is stamped


def cookie_reply(puppet: Puppet, host: Host, message: bytes, now: float) -> bytes:
    """The puppet's cookie for a handshake message of the host's."""
    from pywg.noise import cookie
    from pywg.wire import messages

    checker = cookie.CookieChecker(puppet.public_key, puppet.randbytes)
    nonce, sealed = checker.create_reply(message, host.endpoint.packed(), now)
    return messages.CookieReply(int.from_bytes(message[4:8], "little"), nonce, sealed).encode()


def test_the_secret_behind_cookies_changes_after_120_seconds() -> None:
    for age, answer in ((COOKIE_LIFETIME - 1, RESPONSE), (COOKIE_LIFETIME, COOKIE_REPLY)):
        world, bob, puppet = loaded()
        world.run(age)
        other = Puppet(world, "198.51.100.8", ["10.0.0.8"])
        bob.add_peer(other)
        junk = other.initiation(bob)
        for _ in range(128):
            world.network.transmit(junk, other.endpoint, bob.endpoint)
        puppet.take()
        jar = puppet.jar
        assert jar is not None
        jar._cookie_born = world.now  # the puppet keeps its cookie for longer than it should
        puppet.send(bob, puppet.initiation(bob))
        assert [datagram[0] for datagram in puppet.take()] == [answer]


def test_with_a_cookie_20_messages_a_second_pass_in_bursts_of_5() -> None:
    world, bob, puppet = loaded()
    puppet.take()
    initiations = [puppet.initiation(bob) for _ in range(10)]
    for initiation in initiations:
        puppet.send(bob, initiation)
    assert bob.drops[DropReason.RATE_LIMITED] == 5
    world.run(0.051)
    for _ in range(2):
        puppet.send(bob, puppet.initiation(bob))
    assert bob.drops[DropReason.RATE_LIMITED] == 6


def test_the_rate_limit_counts_an_ipv6_64_as_one_source() -> None:
    world = World()
    bob = world.host("bob", "2001:db8::2", ["10.0.0.2"])
    puppets = [Puppet(world, f"2001:db8:7::{number}", [f"10.0.1.{number}"]) for number in range(1, 9)]
    stranger = Puppet(world, "2001:db8:8::1", ["10.0.2.1"])
    for puppet in (*puppets, stranger):
        bob.add_peer(puppet)
    flood(world, bob, stranger)
    for puppet in (*puppets, stranger):
        puppet.send(bob, puppet.initiation(bob))
        puppet.take_cookie(puppet.take(COOKIE_REPLY)[-1])
    world.run(0.9)
    for puppet in (*puppets, stranger):
        puppet.send(bob, puppet.initiation(bob))
    assert [len(puppet.take(RESPONSE)) for puppet in puppets] == [1] * 5 + [0] * 3
    assert len(stranger.take(RESPONSE)) == 1


def test_no_more_than_1024_handshake_messages_wait() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    initiation = puppet.initiation(bob)
    for number in range(1500):
        bob.device.receive(initiation, Endpoint(f"203.0.113.{number % 10}", 1000))
    assert bob.drops[DropReason.QUEUE_FULL] == 1500 - HANDSHAKE_QUEUE
    world.run()
    assert bob.drops[DropReason.UNDER_LOAD] > 0
    assert not bob.device.has_work()


@pytest.mark.parametrize(
    "flooders", [["203.0.113.1"], [f"2001:db8:0:1::{number:x}" for number in range(1, 400)]]
)
def test_a_flood_from_one_source_leaves_a_quarter_of_the_queue_taken_and_room_for_others(
    flooders: list[str],
) -> None:
    """A source is an IPv4 address, or a /64."""
    world = World()
    bob, puppet = world.host_and_puppet()
    stranger = Puppet(world, "198.51.100.9", ["10.0.3.1"])
    initiation = stranger.initiation(bob)
    for number in range(5000):
        flooder = Endpoint(flooders[number % len(flooders)], 1000 + number % 7)
        bob.device.receive(initiation, flooder)
    assert bob.drops[DropReason.QUEUE_FULL] == 5000 - HANDSHAKE_QUEUE // 4
    bob.device.receive(puppet.initiation(bob), puppet.endpoint)
    world.run()
    assert len(puppet.take(COOKIE_REPLY)) == 1
    assert not bob.device.has_work()


def test_a_flood_with_wrong_mac1_never_reaches_the_control_plane() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    initiation = bytearray(puppet.initiation(bob))
    initiation[-32] ^= 1
    for _ in range(2000):
        world.network.transmit(bytes(initiation), puppet.endpoint, bob.endpoint)
    world.run()
    assert bob.drops == {DropReason.BAD_MAC1: 2000}
    assert puppet.take() == []


@pytest.mark.parametrize("number", [5000])
def test_a_flood_of_initiations_leaves_nothing_behind(number: int) -> None:
    """From strangers, each with its own key: no index, no peer, no bucket for longer than a second."""
    world = World()
    bob, _ = world.host_and_puppet()
    stranger = Puppet(world, "203.0.113.1", ["10.0.3.1"])
    initiation = stranger.initiation(bob)
    before = bob.device.next_timeout()
    for port in range(number):
        world.network.transmit(initiation, Endpoint("203.0.113.1", 1024 + port), bob.endpoint)
    world.run()
    assert bob.device.next_timeout() == before
    assert bob.drops.total() == number
    world.run(2)
    session_puppet = Puppet(world, "198.51.100.9", ["10.0.0.9"])
    bob.add_peer(session_puppet)
    session = session_puppet.connect(bob)
    session_puppet.send(bob, session.seal(session_puppet.packet_to(bob)))
    assert bob.payloads() == [b"hello"]
