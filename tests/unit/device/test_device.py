"""The control plane by itself, where the data path's side of the contract is played by hand.

What two hosts see of it is in tests/spec.
"""

from __future__ import annotations

import random
from typing import TypeVar

import pytest

from pywg.device.constants import HANDSHAKE_QUEUE, HANDSHAKE_SHARE
from pywg.device.device import Device
from pywg.device.peer import Peer
from pywg.device.session import (
    ActivateSession,
    Activity,
    Effect,
    HandshakeGaveUp,
    InstallSession,
    PeerId,
    Report,
    RetireSession,
    SendDatagram,
    SendPackets,
    SetEndpoint,
    SetIdentity,
)
from pywg.errors import DropReason
from pywg.noise.keys import PrivateKey
from pywg.wire.endpoint import Endpoint

Kind = TypeVar("Kind")
ALICE, BOB = Endpoint("192.0.2.1", 51820), Endpoint("192.0.2.2", 51820)
PACKET = b"\x45" + bytes(30)


def make_device(seed: int) -> Device:
    chance = random.Random(seed)
    device = Device(chance.randbytes, lambda: 1_700_000_000 * 10**9)
    device.set_private_key(PrivateKey.generate(chance.randbytes), 0.0)
    device.up(0.0)
    return device


class Two:
    """Two devices that are each other's peers, both past their first effects."""

    def __init__(self) -> None:
        self.alice, self.bob = make_device(1), make_device(2)
        assert self.alice.private_key is not None
        assert self.bob.private_key is not None
        self.bob_of_alice = self.alice.add_peer(self.bob.private_key.public_key)
        self.alice_of_bob = self.bob.add_peer(self.alice.private_key.public_key)
        self.alice.set_endpoint(self.bob_of_alice, BOB, 0.0)
        self.bob.set_endpoint(self.alice_of_bob, ALICE, 0.0)
        self.alice.take_effects()
        self.bob.take_effects()

    def initiation(self, now: float) -> bytes:
        self.alice.stage(self.bob_of_alice.id, [PACKET], now)
        return datagram_of(self.alice.take_effects())

    def response(self, now: float) -> bytes:
        initiation = self.initiation(now)
        hear(self.bob, initiation, ALICE, now)
        return datagram_of(self.bob.take_effects())

    def session(self, now: float) -> InstallSession:
        """Alice's session, its effects taken."""
        hear(self.alice, self.response(now), BOB, now)
        return only(InstallSession, self.alice.take_effects())


def hear(device: Device, datagram: bytes, source: Endpoint, now: float) -> None:
    device.observed(Report(control=[(datagram, source)]), now)
    device.work(10, now)


def only(kind: type[Kind], effects: list[Effect]) -> Kind:
    (found,) = [effect for effect in effects if isinstance(effect, kind)]
    return found


def datagram_of(effects: list[Effect]) -> bytes:
    return only(SendDatagram, effects).datagram


def test_effects_of_an_initiator_come_in_an_order_that_can_be_followed() -> None:
    two = Two()
    response = two.response(1.0)
    hear(two.alice, response, Endpoint("192.0.2.9", 9), 1.0)
    effects = two.alice.take_effects()
    assert [type(effect) for effect in effects] == [SetEndpoint, InstallSession, SendPackets]
    assert effects[2] == SendPackets(two.bob_of_alice.id, (PACKET,))
    assert two.alice.take_effects() == []


def test_effects_of_a_responder_come_in_an_order_that_can_be_followed() -> None:
    two = Two()
    hear(two.bob, two.initiation(1.0), Endpoint("192.0.2.9", 9), 1.0)
    effects = two.bob.take_effects()
    assert [type(effect) for effect in effects] == [SetEndpoint, InstallSession, SendDatagram]
    session = only(InstallSession, effects).session
    assert not session.may_send
    two.bob.observed(
        Report(activity=[Activity(session.local_index, session.peer, any_received=2.0, first_use=True)]), 2.0
    )
    assert two.bob.take_effects() == [ActivateSession(session.local_index)]


def test_both_sides_have_the_same_keys_and_each_other_s_index() -> None:
    two = Two()
    hear(two.bob, two.initiation(1.0), ALICE, 1.0)
    effects = two.bob.take_effects()
    theirs = only(InstallSession, effects).session
    hear(two.alice, datagram_of(effects), BOB, 1.0)
    ours = only(InstallSession, two.alice.take_effects()).session
    assert (ours.send_key, ours.receive_key) == (theirs.receive_key, theirs.send_key)
    assert (ours.local_index, ours.remote_index) == (theirs.remote_index, theirs.local_index)
    assert (ours.initiator, theirs.initiator) == (True, False)
    assert (ours.born, ours.expires) == (1.0, 181.0)


def test_packets_that_meet_a_session_that_came_meanwhile_are_sent_at_once() -> None:
    two = Two()
    two.session(1.0)
    two.alice.stage(two.bob_of_alice.id, [PACKET], 1.1)
    assert two.alice.take_effects() == [SendPackets(two.bob_of_alice.id, (PACKET,))]


def test_packets_for_a_peer_that_is_gone_are_counted() -> None:
    two = Two()
    two.alice.observed(Report(no_session=[(PeerId(99), [PACKET, PACKET])]), 1.0)
    assert two.alice.drops == {DropReason.NO_ROUTE: 2}
    assert two.alice.take_effects() == []


def test_reports_about_a_peer_that_is_gone_are_ignored() -> None:
    two = Two()
    two.alice.observed(
        Report(moved=[(PeerId(99), BOB)], activity=[Activity(1, PeerId(99), any_sent=1.0)]), 1.0
    )
    assert two.alice.take_effects() == []
    assert two.alice.next_timeout() is None


def test_activity_of_a_session_that_was_forgotten_moves_no_keypair() -> None:
    two = Two()
    session = two.session(1.0).session
    two.alice.set_private_key(make_device(3).private_key, 1.5)
    two.alice.observed(
        Report(
            activity=[
                Activity(
                    session.local_index, session.peer, any_received=2.0, first_use=True, received_bytes=32
                )
            ]
        ),
        2.0,
    )
    assert two.bob_of_alice.keypairs.current is None
    assert two.bob_of_alice.rx_bytes == 92 + 32


def test_a_data_message_that_the_data_path_hands_up_is_refused() -> None:
    two = Two()
    hear(two.alice, b"\4\0\0\0" + bytes(28), BOB, 1.0)
    assert two.alice.drops == {DropReason.UNEXPECTED: 1}


def test_a_handshake_message_that_comes_as_the_private_key_goes_is_refused() -> None:
    two = Two()
    initiation = two.initiation(1.0)
    two.bob.set_private_key(None, 1.0)
    hear(two.bob, initiation, ALICE, 1.0)
    assert two.bob.drops == {DropReason.NO_PRIVATE_KEY: 1}


def test_bytes_that_are_no_message_are_refused() -> None:
    two = Two()
    for datagram in (b"", b"\1", b"\1\0\0\0" + bytes(10), b"\7" + bytes(100)):
        hear(two.alice, datagram, BOB, 1.0)
    assert two.alice.drops.total() == 4


def test_cookie_replies_from_everywhere_leave_room_for_an_initiation() -> None:
    two = Two()
    for host in range(2 * HANDSHAKE_QUEUE):
        two.bob.receive(b"\3\0\0\0" + bytes(60), Endpoint(f"198.18.{host // 256}.{host % 256}", 7))
    assert two.bob.queue_length == HANDSHAKE_SHARE
    two.bob.receive(two.initiation(1.0), ALICE)
    while two.bob.has_work():
        two.bob.work(100, 1.0)
    assert two.bob.drops[DropReason.QUEUE_FULL] == 2 * HANDSHAKE_QUEUE - HANDSHAKE_SHARE
    assert any(isinstance(effect, SendDatagram) for effect in two.bob.take_effects())


def test_without_a_private_key_retries_are_timed_but_not_sent() -> None:
    two = Two()
    two.alice.set_private_key(None, 1.0)
    two.alice.take_effects()
    two.alice.stage(two.bob_of_alice.id, [PACKET], 1.0)
    two.alice.stage(two.bob_of_alice.id, [PACKET], 2.0)
    due = two.alice.next_timeout()
    assert due is not None
    assert 6.0 <= due <= 6.334
    for _ in range(30):
        due = two.alice.next_timeout()
        if due is None:
            break
        two.alice.handle_timeout(due)
    effects = two.alice.take_effects()
    assert HandshakeGaveUp(two.bob_of_alice.id) in effects
    assert not any(isinstance(effect, SendDatagram) for effect in effects)


def test_setting_the_private_key_tells_the_key_of_mac1() -> None:
    import hashlib

    device = make_device(1)
    assert device.private_key is not None
    public = bytes(device.private_key.public_key)
    assert device.take_effects() == [SetIdentity(hashlib.blake2s(b"mac1----" + public).digest())]
    device.set_private_key(None, 1.0)
    assert device.take_effects() == [SetIdentity(None)]


def test_removing_a_peer_tells_the_data_path_to_forget_it() -> None:
    two = Two()
    index = two.session(1.0).session.local_index
    two.alice.remove_peer(two.bob_of_alice)
    assert two.alice.take_effects() == [RetireSession(index), SetEndpoint(two.bob_of_alice.id, None)]
    assert two.alice.peer_by_id(two.bob_of_alice.id) is None
    assert two.alice.next_timeout() is None


def test_ids_of_peers_are_never_given_twice() -> None:
    device = make_device(1)
    ids = set()
    for seed in range(2, 12):
        private_key = make_device(seed).private_key
        assert private_key is not None
        peer = device.add_peer(private_key.public_key)
        ids.add(peer.id)
        device.remove_peer(peer)
    assert len(ids) == 10


def test_work_handles_no_more_than_its_budget() -> None:
    two = Two()
    initiation = two.initiation(1.0)
    two.bob.observed(Report(control=[(initiation, ALICE)] * 10), 1.0)
    two.bob.work(3, 1.0)
    assert two.bob.drops.total() == 2  # the first is taken, two are replays
    assert two.bob.has_work()
    two.bob.work(100, 1.0)
    assert two.bob.drops.total() == 9
    assert not two.bob.has_work()


@pytest.mark.parametrize(
    ("sent", "received", "expected"),
    [
        ([(1.0, 1.0, 1.0)], [], 16.0),  # sent, nothing came
        ([(1.0, 1.0, 3.0)], [], 16.0),  # the first of several counts
        ([(2.0, 2.0, 2.0)], [1.0], 17.0),  # sent after the last arrival
        ([(1.0, 1.0, 1.0)], [2.0], None),  # another session received after it was sent
        ([(1.0, 1.0, 3.0)], [2.0], 18.0),  # another session received in between
        ([(1.0, None, None)], [], None),  # only keepalives were sent
    ],
)
def test_a_new_handshake_is_due_15_seconds_after_the_first_unanswered_data_of_any_session(
    sent: list[tuple[float, float | None, float | None]], received: list[float], expected: float | None
) -> None:
    two = Two()
    session = two.session(0.5).session
    activity = [
        Activity(session.local_index, session.peer, any_sent=any_sent, unanswered_since=since, data_sent=last)
        for any_sent, since, last in sent
    ]
    activity += [Activity(12345, session.peer, any_received=when) for when in received]
    two.alice.observed(Report(activity=activity), 4.0)
    due = two.alice.next_timeout()
    assert due is not None
    if expected is None:
        assert due == 0.5 + 540
    else:
        assert expected <= due <= expected + 0.334


def test_a_peer_shows_the_ends_of_its_public_key_as_others_do() -> None:
    two = Two()
    text = str(two.bob_of_alice.public_key)
    assert repr(two.bob_of_alice) == f"peer({text[:4]}…{text[39:43]})"


def test_the_secret_of_both_static_keys_is_computed_once_per_private_key() -> None:
    two = Two()
    peer: Peer = two.bob_of_alice
    key = two.alice.private_key
    assert key is not None
    first = peer.static_static(key)
    assert peer.static_static(key) is first
    other = make_device(3).private_key
    assert other is not None
    assert peer.static_static(other) != first
