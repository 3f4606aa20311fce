"""What new implementations get wrong again and again, each as a test that ours does not.

The table in README.md says which test stands for which mistake.
"""

from __future__ import annotations

import itertools

import pytest

from pywg.errors import BadPacket, DropReason, PywgError
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wire import messages
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network
from tests.spec.world import COOKIE_REPLY, DATA, INITIATION, RESPONSE, Puppet, World, udp_packet

LOW_ORDER = [bytes(32), b"\1" + bytes(31), bytes.fromhex("ecff" + 29 * "ff" + "7f")]


def test_a_keepalive_is_not_answered_with_a_keepalive() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(300)
    assert len(world.keepalives()) == 1


def test_the_passive_keepalive_is_timed_from_the_first_data_since_we_sent() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    start = world.now
    for _ in range(9):
        world.run(1)
        alice.send(bob)
    world.run(30)
    assert world.keepalives(by=bob)[0] == start + 10


def test_whatever_we_send_stands_for_the_passive_keepalive() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(9)
    bob.send(alice)
    world.run(60)
    assert world.keepalives(by=bob) == []


def test_data_that_arrives_while_we_send_is_still_acknowledged() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(30)
    bob.send(alice)
    bob.engine.turn()
    alice.send(bob)
    start = world.now
    world.run(15)
    assert world.keepalives(by=alice, since=start) == [start + 10]


def test_data_sent_with_the_response_in_hand_is_watched_for_an_answer() -> None:
    world = World()
    alice, bob = world.pair()
    world.lose(DATA)
    alice.send(bob)
    start = world.now
    world.run(16)
    assert 15 <= world.times(INITIATION)[1] - start <= 15.334


def test_a_changed_preshared_key_is_used_by_the_next_handshake() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(30)
    psk = PresharedKey(world.chance.randbytes(32))
    alice.engine.set_preshared_key(alice.peer(bob), psk)
    alice.send(bob, b"the old session stays")
    world.run()
    assert bob.payloads() == [b"the old session stays"]
    world.sleep(200)
    alice.send(bob, b"with one side changed")
    world.run(20)
    assert bob.payloads() == []
    assert alice.drops[DropReason.BAD_TAG] > 0
    bob.engine.set_preshared_key(bob.peer(alice), psk)
    world.run(6)
    assert bob.payloads() == [b"with one side changed"]


def test_the_source_is_checked_by_the_most_specific_allowed_ip() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    other = Puppet(world, "198.51.100.8", ["10.0.0.128/25", "fd00::8000/113"])
    bob.engine.clear_allowed_ips(bob.peer(puppet))
    for network in ("10.0.0.0/24", "fd00::/64"):
        bob.engine.add_allowed_ips(bob.peer(puppet), [network_of(network)])
    bob.add_peer(other)
    session = puppet.connect(bob)
    for source in ("10.0.0.127", "10.0.0.128", "10.0.1.0"):
        puppet.send(bob, session.seal(udp_packet(source, "10.0.0.2", source.encode())))
    for source in ("fd00::7fff", "fd00::8000", "fd01::"):
        puppet.send(bob, session.seal(udp_packet(source, "fd00::2", source.encode())))
    assert bob.payloads() == [b"10.0.0.127", b"fd00::7fff"]
    assert bob.drops[DropReason.SOURCE_NOT_ALLOWED] == 4


def network_of(text: str) -> Network:
    return Network.parse(text)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 31, 149, 1500, 9000, 65_507])
@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_an_oversized_or_empty_datagram_is_counted_and_nothing_else(kind: int, size: int) -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    before = bob.drops.total()
    puppet.send(bob, (bytes([kind, 0, 0, 0]) + bytes(size))[:size])
    assert bob.drops.total() == before + 1
    puppet.send(bob, session.seal(puppet.packet_to(bob)))
    assert bob.payloads() == [b"hello"]


def test_without_ipv6_on_the_host_ipv4_works() -> None:
    world = World()
    alice, bob = world.pair()  # neither has an outer IPv6 address
    carol = Puppet(world, "2001:db8::7", ["10.0.0.7"])
    alice.add_peer(carol)
    alice.send(carol)
    world.connect(alice, bob)
    world.run(3)
    assert alice.drops[DropReason.SEND_FAILED] == 1


def test_receiver_indices_cannot_be_predicted() -> None:
    """They come from the random source, 32 bits each: with another source, all are others."""
    seen: set[int] = set()
    differences: set[int] = set()
    for seed in range(40):
        world = World(seed)
        bob, puppet = world.host_and_puppet()
        indices = []
        for _ in range(10):
            puppet.send(bob, puppet.initiation(bob))
            (response,) = puppet.take(RESPONSE)
            indices.append(int.from_bytes(response[4:8], "little"))
            world.run(1)
        differences.update(later - earlier for earlier, later in itertools.pairwise(indices))
        seen.update(indices)
    assert len(seen) == 400
    assert len(differences) == 360
    for bit in range(32):
        ones = sum(index >> bit & 1 for index in seen)
        assert 120 < ones < 280


def test_the_cookie_is_bound_to_the_address_and_the_port() -> None:
    for source in (Endpoint("198.51.100.7", 4000), Endpoint("198.51.100.9", 51820)):
        world = World()
        bob, puppet = world.host_and_puppet()
        for _ in range(200):
            world.network.transmit(puppet.initiation(bob), puppet.endpoint, bob.endpoint)
        world.run()
        puppet.take_cookie(puppet.take(COOKIE_REPLY)[-1])
        puppet.send(bob, puppet.initiation(bob), source=source)
        assert bob.drops[DropReason.UNDER_LOAD] == 201
        puppet.send(bob, puppet.initiation(bob))
        assert len(puppet.take(RESPONSE)) == 1


def test_a_cookie_reply_does_not_move_the_endpoint() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    bob.send(puppet)
    world.run()
    (initiation,) = puppet.take(INITIATION)
    from pywg.noise import cookie

    checker = cookie.CookieChecker(puppet.public_key, puppet.randbytes)
    nonce, sealed = checker.create_reply(initiation, puppet.endpoint.packed(), world.now)
    reply = messages.CookieReply(int.from_bytes(initiation[4:8], "little"), nonce, sealed).encode()
    puppet.send(bob, reply, source=Endpoint("203.0.113.66", 666))
    assert bob.drops.total() == 0
    assert bob.peer(puppet).endpoint == puppet.endpoint


def test_nothing_moves_the_endpoint_before_it_is_authenticated() -> None:
    elsewhere = Endpoint("203.0.113.66", 666)
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    replayed = session.seal(puppet.packet_to(bob))
    puppet.send(bob, replayed)
    old_initiation = puppet.initiation(bob, timestamp_ns=0)
    bob.send(puppet)
    world.run(20)
    initiation = puppet.initiation(bob)
    for datagram in (
        replayed,
        session.seal(b"", 9)[:-1] + b"\0",
        old_initiation,
        initiation[:90] + bytes([initiation[90] ^ 1]) + initiation[91:],
        messages.Response(1, session.receiver, bytes(32), bytes(16)).encode(),
        messages.CookieReply(session.receiver, bytes(24), bytes(32)).encode(),
        bytes(100),
    ):
        puppet.send(bob, datagram, source=elsewhere)
    assert bob.drops.total() == 7
    assert bob.peer(puppet).endpoint == puppet.endpoint
    puppet.take()
    bob.send(puppet)
    world.run()
    assert len(puppet.take(DATA)) == 1


def test_the_replay_window_is_untouched_by_a_message_with_a_wrong_tag() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    message = session.seal(puppet.packet_to(bob))
    far_ahead = session.seal(puppet.packet_to(bob), 2**40)
    for true in (message, far_ahead):
        puppet.send(bob, true[:-1] + bytes([true[-1] ^ 1]))
    puppet.send(bob, message)
    assert bob.payloads() == [b"hello"]
    assert bob.drops == {DropReason.BAD_TAG: 2}


def test_our_own_public_key_is_not_taken_as_a_peer() -> None:
    world = World()
    alice, _ = world.pair()
    with pytest.raises(PywgError, match="own public key"):
        alice.engine.add_peer(alice.public_key)
    assert len(list(alice.device.peers())) == 1


def test_a_peer_with_the_public_key_that_becomes_our_own_is_removed() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    alice.engine.set_private_key(bob.private_key)
    alice.engine.commit()
    assert list(alice.device.peers()) == []
    alice.send(bob)
    world.run(10)
    assert bob.received() == []


@pytest.mark.parametrize("key", LOW_ORDER)
def test_a_peer_with_a_public_key_of_low_order_is_accepted_and_never_completes_a_handshake(
    key: bytes,
) -> None:
    world = World()
    alice, bob = world.pair()
    peer = alice.engine.add_peer(PublicKey(key))
    alice.engine.set_endpoint(peer, bob.endpoint)
    alice.engine.add_allowed_ips(peer, [network_of("10.9.0.0/16")])
    alice.engine.commit()
    alice.tun.deliver(udp_packet("10.0.0.1", "10.9.0.9"))
    world.run(700)
    assert world.flights == []
    assert peer.keypairs.current is None
    assert alice.drops[DropReason.BAD_KEY] > 10
    world.connect(alice, bob)


@pytest.mark.parametrize("key", LOW_ORDER)
def test_a_dh_result_of_zeros_fails_the_handshake(key: bytes) -> None:
    """An ephemeral key of low order in an initiation and in a response, with all MACs right."""
    world = World()
    bob, puppet = world.host_and_puppet()
    initiation = messages.parse_untrusted(puppet.initiation(bob))
    assert isinstance(initiation, messages.Initiation)
    bad = messages.Initiation(1, key, initiation.static, initiation.timestamp)
    puppet.send(bob, puppet.stamp(bob, bad.encode_without_macs()))
    assert bob.drops == {DropReason.BAD_KEY: 1}
    bob.send(puppet)
    world.run()
    (ours,) = puppet.take(INITIATION)
    answer = messages.Response(1, int.from_bytes(ours[4:8], "little"), key, bytes(16))
    puppet.send(bob, puppet.stamp(bob, answer.encode_without_macs()))
    assert bob.drops == {DropReason.BAD_KEY: 2}
    assert bob.keypair(puppet) is None
    assert puppet.take() == []


def test_setting_the_private_key_drops_sessions_and_rekeys_every_peer() -> None:
    world = World()
    alice, bob = world.pair()
    carol = world.host("carol", "192.0.2.3", "10.0.0.3")
    alice.add_peer(carol)
    carol.add_peer(alice)
    world.connect(alice, bob)
    world.connect(alice, carol)
    world.run(1)
    new = PrivateKey.generate(world.chance.randbytes)
    old_public = alice.public_key
    alice.engine.set_private_key(new)
    alice.engine.commit()
    alice.private_key = new
    assert alice.keypair(bob) is None
    assert alice.keypair(carol) is None
    bob.send(alice, b"under the old session")
    world.run()
    assert alice.received() == []
    assert alice.drops[DropReason.UNKNOWN_INDEX] == 1
    for other in (bob, carol):
        peer = other.device.peer(old_public)
        assert peer is not None
        other.engine.remove_peer(peer)
        other.add_peer(alice)
        alice.send(other, b"under the new key")
        world.run()
        assert other.payloads() == [b"under the new key"]


def test_setting_the_same_private_key_again_changes_nothing() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    alice.engine.set_private_key(PrivateKey(bytes(alice.private_key)))
    alice.engine.commit()
    alice.send(bob)
    world.run()
    assert bob.payloads() == [b"hello"]
    assert len(world.sent(INITIATION)) == 1


def test_without_a_private_key_nothing_is_said_and_nobody_understood() -> None:
    world = World()
    alice, bob = world.pair()
    alice.engine.set_private_key(None)
    alice.engine.commit()
    alice.send(bob)
    bob.send(alice)
    world.run(30)
    assert world.sent(by=alice) == []
    assert alice.drops[DropReason.NO_PRIVATE_KEY] == len(world.sent(INITIATION, by=bob))
    alice.engine.set_private_key(alice.private_key)
    alice.engine.commit()
    world.run(6)
    assert alice.payloads() == bob.payloads() == [b"hello"]


def test_a_puppet_s_wrong_preshared_key_gets_it_no_session() -> None:
    world = World()
    bob, puppet = world.host_and_puppet(psk=PresharedKey(b"p" * 32))
    puppet.psk = PresharedKey(b"q" * 32)
    puppet.send(bob, puppet.initiation(bob))
    (response,) = puppet.take(RESPONSE)
    with pytest.raises(BadPacket):
        puppet.finish(response)
