"""Endpoints: who may move them, and the local addresses learned with them (WireGuard paper, section 2.1)."""

from __future__ import annotations

from pywg.bind.memory import Nat
from pywg.wire.endpoint import Endpoint, LocalAddress
from tests.spec.world import DATA, INITIATION, RESPONSE, World

ELSEWHERE = Endpoint("203.0.113.66", 4000)


def test_authenticated_data_moves_the_endpoint() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    puppet.send(bob, session.seal(puppet.packet_to(bob)), source=ELSEWHERE)
    assert bob.peer(puppet).endpoint == ELSEWHERE
    bob.send(puppet)
    world.run()
    assert world.sent(DATA, by=bob)[-1].destination == ELSEWHERE


def test_a_keepalive_moves_the_endpoint() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    puppet.send(bob, session.seal(b""), source=ELSEWHERE)
    assert bob.peer(puppet).endpoint == ELSEWHERE


def test_an_initiation_moves_the_endpoint() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    puppet.send(bob, puppet.initiation(bob), source=ELSEWHERE)
    assert bob.peer(puppet).endpoint == ELSEWHERE
    assert world.sent(RESPONSE, by=bob)[-1].destination == ELSEWHERE


def test_a_response_moves_the_endpoint() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    bob.send(puppet)
    world.run()
    response, _ = puppet.respond(bob, puppet.take(INITIATION)[0])
    puppet.send(bob, response, source=ELSEWHERE)
    assert bob.peer(puppet).endpoint == ELSEWHERE
    assert world.sent(DATA, by=bob)[-1].destination == ELSEWHERE


def test_data_whose_inner_source_is_not_allowed_is_authenticated_all_the_same() -> None:
    """As in the kernel: the endpoint follows the tag, not the packet inside."""
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    puppet.send(bob, session.seal(b"no packet"), source=ELSEWHERE)
    assert bob.peer(puppet).endpoint == ELSEWHERE


def test_a_host_that_changes_its_address_keeps_its_session() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    for number in range(10, 15):
        alice.move(f"192.0.2.{number}")
        alice.send(bob, b"from %d" % number)
        world.run(1)
        bob.send(alice, b"to %d" % number)
        world.run(1)
        assert bob.payloads() == [b"from %d" % number]
        assert alice.payloads() == [b"to %d" % number]
    assert len(world.sent(INITIATION)) == 1


def test_a_host_behind_a_nat_that_rebinds_keeps_its_session() -> None:
    world = World()
    alice, bob = world.pair(keepalive=10)
    nat = Nat(["192.0.2.1"], "198.51.100.1", timeout=30)
    world.network.nats.append(nat)
    world.run(15)
    nat.rebind()
    world.run(11)
    bob.send(alice)
    world.run()
    assert alice.payloads() == [b"hello"]
    assert len(world.sent(INITIATION)) == 1


def test_a_peer_without_an_endpoint_is_reached_once_it_has_been_heard() -> None:
    world = World()
    alice = world.host("alice", "192.0.2.1", "10.0.0.1")
    bob = world.host("bob", "192.0.2.2", "10.0.0.2")
    alice.add_peer(bob)
    bob.add_peer(alice, endpoint=False)
    world.connect(alice, bob)
    bob.send(alice)
    world.run()
    assert alice.payloads() == [b"hello"]


def test_both_families_of_outer_address_are_roamed_between() -> None:
    world = World()
    alice = world.host("alice", ["192.0.2.1", "2001:db8::1"], "10.0.0.1")
    bob = world.host("bob", ["192.0.2.2", "2001:db8::2"], "10.0.0.2")
    alice.add_peer(bob)
    bob.add_peer(alice)
    world.connect(alice, bob)
    alice.engine.set_endpoint(alice.peer(bob), Endpoint("2001:db8::2", 51820))
    alice.engine.commit()
    alice.send(bob)
    world.run()
    bob.send(alice)
    world.run()
    assert world.sent(DATA, by=bob)[-1].source.host == "2001:db8::2"
    assert alice.payloads() == [b"hello"]


def test_replies_leave_from_the_address_that_was_spoken_to() -> None:
    world = World()
    alice = world.host("alice", "192.0.2.1", "10.0.0.1")
    bob = world.host("bob", ["192.0.2.2", "192.0.2.3"], "10.0.0.2")
    alice.add_peer(bob, endpoint=Endpoint("192.0.2.3", 51820))
    bob.add_peer(alice)
    world.connect(alice, bob)
    world.run(11)
    assert {flight.source.host for flight in world.sent(by=bob)} == {"192.0.2.3"}


def test_a_local_address_that_gets_no_answer_is_forgotten() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    endpoint = alice.peer(bob).endpoint
    assert endpoint is not None
    assert endpoint.local == LocalAddress("192.0.2.1", 1)
    world.cut()
    alice.send(bob)
    world.run(16)
    endpoint = alice.peer(bob).endpoint
    assert endpoint == bob.endpoint
    assert endpoint.local is None


def test_an_endpoint_that_the_user_sets_wins_over_where_the_peer_was_heard_before() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    # Heard from elsewhere, but not reported yet when the user sets the endpoint: as it was, then to a third.
    for chosen in (puppet.endpoint, Endpoint("203.0.113.77", 7)):
        world.network.transmit(session.seal(b""), ELSEWHERE, bob.endpoint)
        world.network.advance(world.now)
        bob.datapath.step(world.now)
        bob.engine.set_endpoint(bob.peer(puppet), chosen)
        bob.engine.commit()
        world.run(1)
        bob.send(puppet)
        world.run()
        assert bob.peer(puppet).endpoint == chosen
        assert world.sent(DATA, by=bob)[-1].destination == chosen
