"""A running device is configured anew: peers, keys, allowed IPs, ports, and the tunnel device beneath."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pywg.errors import DropReason, PywgError
from pywg.tun.base import TunGoneError
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network
from tests.spec.world import COOKIE_REPLY, DATA, INITIATION, RESPONSE, Puppet, World, udp_packet


def test_a_peer_can_be_added_while_others_talk() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    carol = world.host("carol", "192.0.2.3", "10.0.0.3")
    carol.add_peer(alice)
    alice.add_peer(carol)
    world.connect(carol, alice)
    world.connect(alice, bob)
    assert len(world.sent(INITIATION)) == 2


def test_a_removed_peer_is_neither_sent_to_nor_heard() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    alice.engine.remove_peer(alice.peer(bob))
    alice.engine.commit()
    bob.send(alice)
    alice.send(bob)
    world.run(30)
    assert [len(packet) for packet in alice.received()] == [20 + 8 + 33]  # the ICMP error
    assert bob.received() == []
    assert alice.drops[DropReason.UNKNOWN_INDEX] == 1
    assert alice.drops[DropReason.UNKNOWN_PEER] >= 1
    assert alice.drops[DropReason.NO_ROUTE] == 1
    assert alice.device.next_timeout() is None


def test_a_peer_removed_while_its_packets_wait_is_forgotten_with_them() -> None:
    world = World()
    alice, bob = world.pair()
    alice.tun.deliver(udp_packet(alice.inner, bob.inner))
    alice.datapath.step(world.now)
    alice.engine.remove_peer(alice.peer(bob))
    alice.engine.commit()
    world.run(10)
    assert world.flights == []


def test_a_peer_removed_and_added_again_begins_anew() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(1)
    alice.engine.remove_all_peers()
    alice.add_peer(bob)
    world.connect(alice, bob)
    assert len(world.sent(INITIATION)) == 2


def test_a_peer_exists_once() -> None:
    world = World()
    alice, bob = world.pair()
    with pytest.raises(PywgError, match="exists already"):
        alice.engine.add_peer(bob.public_key)


def test_an_allowed_ip_given_to_another_peer_moves_there() -> None:
    world = World()
    bob, first = world.host_and_puppet()
    second = Puppet(world, "198.51.100.8", ["10.0.0.8"])
    bob.add_peer(second)
    sessions = {puppet: puppet.connect(bob) for puppet in (first, second)}
    network = Network.parse("10.5.0.0/16")
    for owner, other in ((first, second), (second, first), (first, second)):
        bob.engine.add_allowed_ips(bob.peer(owner), [network])
        bob.engine.commit()
        for puppet in (owner, other):
            puppet.take()
            puppet.send(bob, sessions[puppet].seal(udp_packet("10.5.0.1", bob.inner, puppet.inner.encode())))
        assert bob.payloads() == [owner.inner.encode()]
        bob.tun.deliver(udp_packet(bob.inner, "10.5.0.1"))
        world.run()
        assert len(owner.take(DATA)) == 1
        assert len(other.take(DATA)) == 0
        assert network in bob.device.allowed_ips(bob.peer(owner))
        assert network not in bob.device.allowed_ips(bob.peer(other))


def test_an_allowed_ip_that_is_taken_away_no_longer_passes() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    bob.engine.remove_allowed_ip(bob.peer(alice), Network.parse("10.0.0.1/32"))
    bob.engine.commit()
    alice.send(bob)
    world.run()
    assert bob.received() == []
    assert bob.drops == {DropReason.SOURCE_NOT_ALLOWED: 1}


def test_an_allowed_ip_of_another_peer_is_not_taken_away() -> None:
    world = World()
    alice, bob = world.pair()
    carol = world.host("carol", "192.0.2.3", "10.0.0.3")
    peer = alice.add_peer(carol)
    alice.engine.remove_allowed_ip(peer, Network.parse("10.0.0.2/32"))
    alice.engine.commit()
    world.connect(alice, bob)


def test_persistent_keepalives_keep_their_interval() -> None:
    world = World()
    alice, bob = world.pair(keepalive=7)
    world.run()
    start = world.now
    world.run(50)
    assert world.keepalives(by=alice, since=start) == [start + 7 * number for number in range(8)]
    assert world.keepalives(by=bob) == []


def test_a_persistent_keepalive_is_counted_from_the_last_message_either_way() -> None:
    world = World()
    alice, bob = world.pair(keepalive=25)
    world.run(20)
    bob.send(alice)
    world.run()
    received = world.now
    world.run(9)
    alice.send(bob)
    world.run()
    sent = world.now
    world.run(36)
    assert world.keepalives(by=bob, since=received) == [sent + 10]
    assert world.keepalives(by=alice, since=received) == [sent + 10 + 25]


def test_persistent_keepalives_hold_a_session_through_rekeys() -> None:
    world = World()
    alice, bob = world.pair(keepalive=25)
    world.run(1000)
    assert len(world.sent(INITIATION)) == 1000 // 125 + 1
    bob.send(alice)
    world.run()
    assert alice.payloads() == [b"hello"]


def test_turning_persistent_keepalive_on_sends_one_at_once() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(30)
    alice.engine.set_persistent_keepalive(alice.peer(bob), 25)
    alice.engine.commit()
    world.run()
    assert world.keepalives(by=alice) == [world.now]


def test_turning_persistent_keepalive_off_ends_them() -> None:
    world = World()
    alice, bob = world.pair(keepalive=5)
    world.run(20)
    alice.engine.set_persistent_keepalive(alice.peer(bob), 0)
    alice.engine.commit()
    off = world.now
    world.run(600)
    assert world.keepalives(by=alice, since=off + 0.001) == []


def test_persistent_keepalives_begin_when_the_endpoint_becomes_known() -> None:
    world = World()
    alice = world.host("alice", "192.0.2.1", "10.0.0.1")
    bob = world.host("bob", "192.0.2.2", "10.0.0.2")
    bob.add_peer(alice)
    peer = alice.add_peer(bob, endpoint=False, keepalive=25)
    world.run(100)
    alice.engine.set_endpoint(peer, bob.endpoint)
    alice.engine.commit()
    world.run(100)
    assert len(world.keepalives(by=alice)) >= 4


def test_persistent_keepalives_never_give_up() -> None:
    world = World()
    world.pair(keepalive=25)
    world.cut()
    world.run(3000)
    world.heal()
    healed = world.now
    world.run(26)
    assert len(world.sent(RESPONSE, since=healed)) >= 1


def test_a_down_device_says_and_hears_nothing() -> None:
    world = World()
    alice, bob = world.pair(keepalive=10)
    world.run(5)
    alice.tun.set_state(up=False)
    alice.engine.follow_tun()
    down = world.now
    bob.send(alice)
    world.run(100)
    assert world.sent(by=alice, since=down + 0.001) == []
    assert alice.received() == []
    assert alice.keypair(bob) is None
    assert alice.device.next_timeout() is None


def test_what_was_on_its_way_to_a_device_that_went_down_starts_nothing() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    later = Puppet(world, "198.51.100.8", ["10.0.0.8"])
    bob.add_peer(later)
    bob.send(later)
    for datagram in (session.seal(puppet.packet_to(bob)), puppet.initiation(bob)):
        world.network.transmit(datagram, puppet.endpoint, bob.endpoint)
    world.network.advance(world.now)
    bob.datapath.step(world.now)
    bob.tun.set_state(up=False)
    bob.engine.follow_tun()
    world.run()
    assert bob.device.next_timeout() is None
    assert bob.keypair(puppet) is None
    bob.tun.set_state(up=True)
    bob.engine.follow_tun()
    world.run(10)
    assert later.take() == []


def test_a_device_that_comes_up_again_makes_new_sessions() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    for up in (False, True):
        alice.tun.set_state(up=up)
        alice.engine.follow_tun()
        world.run(1)
    world.connect(alice, bob)
    assert len(world.sent(INITIATION)) == 2
    assert alice.endpoint.port == 51820


def test_coming_up_sends_persistent_keepalives_at_once() -> None:
    world = World()
    alice, _ = world.pair(keepalive=25)
    world.run(5)
    for up in (False, True):
        alice.tun.set_state(up=up)
        alice.engine.follow_tun()
        world.run(1)
    assert world.times(INITIATION)[-1] == world.now - 1


def test_persistent_keepalive_configured_while_down_waits_for_up() -> None:
    world = World()
    alice, bob = world.pair()
    alice.tun.set_state(up=False)
    alice.engine.follow_tun()
    alice.engine.set_persistent_keepalive(alice.peer(bob), 25)
    alice.engine.commit()
    world.run(60)
    assert world.flights == []


def test_a_port_that_is_taken_leaves_the_device_down_until_it_is_free() -> None:
    world = World()
    alice, bob = world.pair()
    alice.tun.set_state(up=False)
    alice.engine.follow_tun()
    alice.tun.set_state(up=True)
    alice.port_taken = True
    with pytest.raises(PywgError, match="in use"):
        alice.engine.follow_tun()
    alice.send(bob)
    world.run(1)
    assert world.flights == []
    assert alice.drops[DropReason.DEVICE_DOWN] == 1
    alice.port_taken = False
    alice.engine.follow_tun()
    world.connect(alice, bob)


def test_another_port_that_is_taken_leaves_the_old_one_open() -> None:
    world = World()
    alice, bob = world.pair()
    alice.port_taken = True
    with pytest.raises(PywgError, match="in use"):
        alice.engine.set_listen_port(5555)
    world.connect(alice, bob)


def test_another_port_is_used_at_once_and_sessions_go_on() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    alice.engine.set_listen_port(4444)
    alice.engine.commit()
    alice.send(bob)
    world.run()
    assert bob.peer(alice).endpoint == Endpoint("192.0.2.1", 4444)
    bob.send(alice)
    world.run()
    assert alice.payloads() == [b"hello"]
    assert len(world.sent(INITIATION)) == 1


def test_setting_port_or_mark_forgets_learned_local_addresses() -> None:
    world = World()
    alice, bob = world.pair()
    changes: tuple[Callable[[], None], ...] = (
        lambda: alice.engine.set_fwmark(7),
        lambda: alice.engine.set_listen_port(4444),
    )
    for change in changes:
        world.connect(alice, bob)
        world.run(11)
        endpoint = alice.peer(bob).endpoint
        assert endpoint is not None
        assert endpoint.local is not None
        change()
        alice.engine.commit()
        endpoint = alice.peer(bob).endpoint
        assert endpoint == bob.endpoint
        assert endpoint.local is None


def test_the_mark_is_put_on_sockets_opened_later_too() -> None:
    world = World()
    alice, _ = world.pair()
    alice.engine.set_fwmark(51820)
    assert alice.bind.mark == 51820
    alice.engine.set_listen_port(4444)
    assert alice.bind.mark == 51820
    assert alice.engine.snapshot().fwmark == 51820


def test_a_removed_tunnel_device_ends_the_engine_s_turn() -> None:
    world = World()
    alice, _ = world.pair()
    alice.tun.remove()
    with pytest.raises(TunGoneError):
        alice.engine.turn()


def test_a_snapshot_tells_what_was_carried_and_when_the_last_handshake_was() -> None:
    world = World()
    alice, bob = world.pair()
    assert alice.engine.snapshot().peers[0].last_handshake_ns == 0
    alice.send(bob, bytes(72))
    world.run(3)
    for host, sent, received in ((alice, 148 + 32 + 112, 92), (bob, 92, 148 + 32 + 112)):
        (peer,) = host.engine.snapshot().peers
        assert (peer.tx_bytes, peer.rx_bytes) == (sent, received)
        assert peer.last_handshake_ns == host.wall_clock() - 3 * 10**9
    snapshot = alice.engine.snapshot()
    assert snapshot.listen_port == 51820
    assert snapshot.private_key == alice.private_key
    assert list(snapshot.peers[0].allowed_ips) == [
        Network.parse("10.0.0.2/32"),
        Network.parse("fd00::2/128"),
    ]


def test_a_cookie_survives_nothing_that_it_should_not() -> None:
    """A device that gets another private key has another cookie secret too."""
    world = World()
    bob, puppet = world.host_and_puppet()
    initiation = puppet.initiation(bob)
    for _ in range(200):
        world.network.transmit(initiation, puppet.endpoint, bob.endpoint)
    world.run()
    puppet.take_cookie(puppet.take(COOKIE_REPLY)[-1])
    key = bob.private_key
    bob.engine.set_private_key(None)
    bob.engine.set_private_key(key)
    bob.engine.commit()
    puppet.send(bob, puppet.initiation(bob))
    assert [datagram[0] for datagram in puppet.take()] == [COOKIE_REPLY]
