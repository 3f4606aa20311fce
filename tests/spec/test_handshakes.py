"""Handshakes that meet trouble: both sides begin at once, messages are lost or late, a side starts anew."""

from __future__ import annotations

import pytest

from pywg.bind.memory import delay
from pywg.errors import DropReason
from pywg.noise.keys import PresharedKey
from tests.spec.world import DATA, INITIATION, RESPONSE, Host, World


def restart(world: World, host: Host, *others: Host) -> Host:
    """The same machine with the same configuration, and no memory."""
    world.hosts.remove(host)
    host.bind.close()
    again = world.host(host.name, host.outer, host.addresses)
    again.private_key = host.private_key
    again.engine.set_private_key(host.private_key)
    for other in others:
        again.add_peer(other)
    return again


@pytest.mark.parametrize("psk", [None, PresharedKey(b"p" * 32)], ids=["no psk", "psk"])
def test_packets_staged_on_both_sides_come_through_when_both_initiate_at_once(
    psk: PresharedKey | None,
) -> None:
    world = World()
    alice, bob = world.pair(psk=psk)
    alice.send(bob, b"from alice")
    bob.send(alice, b"from bob")
    world.run()
    assert bob.payloads() == [b"from alice"]
    assert alice.payloads() == [b"from bob"]


@pytest.mark.parametrize("late", [0.0, 0.001, 0.02, 0.021, 0.04, 0.06])
def test_simultaneous_initiations_converge_and_lose_nothing(late: float) -> None:
    """With 20 ms each way, the other side's initiation may arrive before, with or after its response."""
    world = World(round(late * 1000))
    alice, bob = world.pair()
    world.network.faults.append(delay(0.02))
    alice.send(bob, b"0")
    world.run(late)
    bob.send(alice, b"0")
    payloads = [b"0"]
    for number in range(1, 800):
        world.run(0.5)
        payloads.append(b"%d" % number)
        alice.send(bob, payloads[-1])
        bob.send(alice, payloads[-1])
    world.run(1)
    assert bob.payloads() == payloads
    assert alice.payloads() == payloads
    assert len(world.sent(INITIATION)) <= 2 + 400 // 120


def test_sessions_of_simultaneous_initiations_are_renewed_without_a_loss() -> None:
    world = World()
    alice, bob = world.pair()
    world.network.faults.append(delay(0.02))
    alice.send(bob)
    bob.send(alice)
    world.run(119)
    for host in (alice, bob):
        host.received()
    payloads = [b"%d" % number for number in range(1000)]
    for payload in payloads:
        alice.send(bob, payload)
        bob.send(alice, payload)
        world.run(0.002)
    world.run(1)
    assert bob.payloads() == payloads
    assert alice.payloads() == payloads
    assert len(world.sent(INITIATION)) == 3


def test_a_lost_initiation_is_repeated() -> None:
    world = World()
    alice, bob = world.pair()
    world.lose(INITIATION)
    alice.send(bob)
    world.run(1)
    world.heal()
    world.run(4.334)
    assert bob.payloads() == [b"hello"]


def test_a_lost_response_costs_one_repetition() -> None:
    world = World()
    alice, bob = world.pair()
    world.lose(RESPONSE)
    alice.send(bob)
    world.run(1)
    world.heal()
    world.run(4.334)
    assert bob.payloads() == [b"hello"]
    assert len(world.sent(INITIATION)) == 2


def test_a_responder_with_packets_does_not_wait_for_ever_for_a_lost_confirmation() -> None:
    world = World()
    alice, bob = world.pair()
    alice.send(bob, b"lost")
    world.lose(DATA)
    world.run()
    world.heal()
    bob.send(alice, b"from the responder")
    world.run(6)
    assert alice.payloads() == [b"from the responder"]


def test_a_response_to_an_earlier_initiation_is_refused() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    bob.send(puppet)
    world.run(6)
    first, second = puppet.take(INITIATION)
    response, _ = puppet.respond(bob, first)
    puppet.send(bob, response)
    assert bob.drops == {DropReason.UNKNOWN_INDEX: 1}
    response, session = puppet.respond(bob, second)
    puppet.send(bob, response)
    (datagram,) = puppet.take(DATA)
    assert session.open(datagram)[28:33] == b"hello"


def test_an_initiation_that_the_other_s_overtook_leaves_no_ephemeral_key_behind() -> None:
    world = World()
    alice, bob = world.pair()
    world.cut()
    alice.send(bob)
    world.run(1)
    world.heal()
    bob.send(alice)
    world.run()
    assert alice.payloads() == bob.payloads() == [b"hello"]
    assert alice.peer(bob).handshake is None
    assert len(alice.device._indices) == 1


def test_a_second_response_to_one_initiation_is_refused() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    bob.send(puppet)
    world.run()
    (initiation,) = puppet.take(INITIATION)
    for _ in range(2):
        response, _ = puppet.respond(bob, initiation)
        puppet.send(bob, response)
    assert bob.drops == {DropReason.UNEXPECTED: 1}


def test_a_response_after_giving_up_is_refused() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    bob.send(puppet)
    world.run(100)
    response, _ = puppet.respond(bob, puppet.take(INITIATION)[-1])
    puppet.send(bob, response)
    assert bob.drops[DropReason.UNKNOWN_INDEX] == 1
    assert bob.keypair(puppet) is None


def test_an_initiation_of_an_unknown_peer_is_not_answered() -> None:
    world = World()
    alice = world.host("alice", "192.0.2.1", "10.0.0.1")
    bob = world.host("bob", "192.0.2.2", "10.0.0.2")
    alice.add_peer(bob)
    alice.send(bob)
    world.run(1)
    assert bob.drops == {DropReason.UNKNOWN_PEER: 1}
    assert world.sent(by=bob) == []


def test_an_initiator_that_started_anew_is_answered_at_once() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(1)
    alice = restart(world, alice, bob)
    world.connect(alice, bob)
    bob.send(alice)
    world.run()
    assert alice.payloads() == [b"hello"]


def test_a_responder_that_started_anew_is_noticed_after_15_seconds() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(30)
    bob = restart(world, bob, alice)
    alice.send(bob, b"lost")
    world.run(15.334)
    alice.send(bob, b"found")
    world.run()
    assert bob.payloads() == [b"found"]


def test_a_responder_that_started_anew_and_speaks_is_heard_at_once() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(1)
    bob = restart(world, bob, alice)
    bob.send(alice)
    world.run()
    assert alice.payloads() == [b"hello"]
    world.connect(alice, bob)


def test_a_paced_stream_loses_nothing_over_many_rekeys() -> None:
    world = World()
    alice, bob = world.pair()
    world.network.faults.append(delay(0.05))
    payloads = [b"%d" % number for number in range(2500)]
    for payload in payloads:
        alice.send(bob, payload)
        bob.send(alice, payload)
        world.run(0.2)
    world.run(1)
    assert bob.payloads() == payloads
    assert alice.payloads() == payloads
    assert len(world.sent(RESPONSE)) >= 4


def test_old_sessions_leave_no_index_and_no_keys_behind() -> None:
    world = World()
    alice, bob = world.pair()
    for _ in range(2000):
        alice.send(bob)
        world.run(1)
    for host in (alice, bob):
        retired = len(host.datapath.sessions) - len(host.datapath.installed())
        assert retired >= 12
        assert len(host.datapath.installed()) <= 3
