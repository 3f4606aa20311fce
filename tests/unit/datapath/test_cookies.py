"""Cookies that the compiled data path asks for and gives while the device is under load."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from pywg.datapath.base import HANDUP_SHARE, DataPath
from pywg.datapath.portable import PortableDataPath
from pywg.device.device import Device
from pywg.device.events import Event, EventKind
from pywg.engine import Engine
from pywg.errors import BadPacket, DropReason, PywgError
from pywg.noise import cookie
from pywg.noise.keys import PrivateKey
from pywg.tun.base import Tun, TunOffload
from pywg.wire import messages
from tests import twins

compiled = pytest.importorskip("pywg.datapath.compiled", reason="build it with: pip install .")

KEY = PrivateKey.generate(random.Random(1).randbytes)
SECRET = bytes(range(32))
UNTIL = 100.0
SIZES = {1: 148, 2: 92}
AF41 = b"\x88"


class Initiator:
    """Whoever sends handshake messages from one socket: right in both MACs, and random in everything else."""

    def __init__(self, seed: int = 0) -> None:
        self.jar = cookie.CookieJar(KEY.public_key)
        self.random = random.Random(seed)

    def message(self, kind: int = 1) -> bytes:
        body = struct.pack("<I", kind) + self.random.randbytes(SIZES[kind] - 36)
        return self.jar.stamp(body, 0.0)

    def take(self, reply: bytes) -> None:
        """Keep the cookie. Raises BadPacket when the reply is not to the last message."""
        parsed = messages.parse_untrusted(reply)
        assert isinstance(parsed, messages.CookieReply)
        self.jar.consume_reply_untrusted(parsed.nonce, parsed.cookie, 0.0)


@pytest.fixture(name="rig")
def _rig() -> Iterator[twins.Rig]:
    rig = twins.Rig(compiled.CompiledDataPath, TunOffload(vnet_hdr=True, tso=True, uso=True))
    rig.path.set_identity(cookie.mac1_key(KEY.public_key))
    ask(rig)
    yield rig
    rig.close()


def ask(rig: twins.Rig, secret: bytes = SECRET) -> None:
    rig.path.ask_for_cookies(secret, cookie.cookie_key(KEY.public_key), UNTIL)


def offer(rig: twins.Rig, message: bytes, remote: int = 0, now: float = 1.0) -> bytes | None:
    """The reply to a message; None when it was handed up."""
    rig.arrive(remote, [message])
    outcome = rig.settle(now)
    if outcome.control:
        assert outcome.control == [(message, f"remote{remote}")]
        assert not outcome.sent
        assert not outcome.drops
        return None
    assert outcome.drops == {DropReason.UNDER_LOAD: 1}
    ((where, receiver), (reply,)) = outcome.sent.popitem()
    assert (where, receiver) == (remote, message[4:8])
    assert not outcome.sent
    assert reply[:1] == AF41
    return reply[1:]


def with_cookie(rig: twins.Rig, seed: int = 0) -> Initiator:
    initiator = Initiator(seed)
    reply = offer(rig, initiator.message())
    assert reply is not None
    initiator.take(reply)
    return initiator


@pytest.mark.parametrize("kind", SIZES)
def test_a_message_without_a_cookie_gets_one_and_the_next_one_is_handed_up(rig: twins.Rig, kind: int) -> None:
    initiator = Initiator()
    reply = offer(rig, initiator.message(kind))
    assert reply is not None
    assert len(reply) == 64
    initiator.take(reply)
    assert offer(rig, initiator.message(kind)) is None


def test_the_cookie_is_the_one_that_the_device_checks(rig: twins.Rig) -> None:
    """Both may answer, one after the other."""
    checker = cookie.CookieChecker(KEY.public_key, lambda n: SECRET[:n])
    checker.secret(0.0)
    message = with_cookie(rig).message()
    assert checker.check_mac2(message, rig.endpoint(0).packed(), 0.0)
    assert not checker.check_mac2(message, rig.endpoint(1).packed(), 0.0)


def test_a_mac2_with_any_wrong_bit_is_none(rig: twins.Rig) -> None:
    message = with_cookie(rig).message()
    for bit in range(128):
        wrong = bytearray(message)
        wrong[-16 + bit // 8] ^= 1 << bit % 8
        assert offer(rig, bytes(wrong)) is not None
    assert offer(rig, message[:-16] + bytes(16)) is not None
    assert offer(rig, message) is None


def test_a_mac1_that_is_wrong_gets_no_cookie(rig: twins.Rig) -> None:
    message = bytearray(Initiator().message())
    message[-32] ^= 1
    rig.arrive(0, [bytes(message)])
    outcome = rig.settle(1.0)
    assert outcome.drops == {DropReason.BAD_MAC1: 1}
    assert not outcome.sent


def test_the_cookie_of_another_source_does_not_serve(rig: twins.Rig) -> None:
    message = with_cookie(rig).message()
    assert offer(rig, message, remote=1) is not None


def test_a_cookie_of_the_secret_before_does_not_serve(rig: twins.Rig) -> None:
    initiator = with_cookie(rig)
    ask(rig, bytes(32))
    reply = offer(rig, initiator.message())
    assert reply is not None
    initiator.take(reply)
    assert offer(rig, initiator.message()) is None


def test_a_reply_fits_only_the_message_that_it_answers(rig: twins.Rig) -> None:
    initiator = Initiator()
    reply = offer(rig, initiator.message())
    assert reply is not None
    initiator.message()
    with pytest.raises(BadPacket):
        initiator.take(reply)


def test_it_ends_at_its_time_and_with_the_identity(rig: twins.Rig) -> None:
    initiator = Initiator()
    assert offer(rig, initiator.message(), now=UNTIL - 0.001) is not None
    assert offer(rig, initiator.message(), now=UNTIL) is None
    rig.path.set_identity(cookie.mac1_key(KEY.public_key))
    assert offer(rig, initiator.message()) is None


def test_cookie_replies_to_us_need_no_cookie(rig: twins.Rig) -> None:
    assert offer(rig, struct.pack("<I", 3) + bytes(60)) is None


def test_a_burst_is_answered_whole_each_with_its_own_nonce(rig: twins.Rig) -> None:
    sent = [Initiator(seed).message() for seed in range(150)]
    for first in range(0, 150, 50):  # by UDP_GRO, 150 in one burst are more than go with one call
        rig.arrive(0, sent[first : first + 50])
    outcome = rig.settle(1.0)
    replies = [reply[1:] for each in outcome.sent.values() for reply in each]
    assert outcome.drops == {DropReason.UNDER_LOAD: 150}
    assert {reply[4:8] for reply in replies} == {message[4:8] for message in sent}
    assert len({reply[8:32] for reply in replies}) == len(replies) == 150


def test_a_flood_from_one_source_gets_so_many_cookies_until_the_next_drain(rig: twins.Rig) -> None:
    flood = [Initiator(seed).message() for seed in range(50)]
    for drops in [{DropReason.UNDER_LOAD: HANDUP_SHARE, DropReason.QUEUE_FULL: 300 - HANDUP_SHARE}] * 2:
        for _ in range(6):
            rig.arrive(0, flood)
        assert rig.settle(1.0).drops == drops


def test_who_captures_sees_the_replies_leave(rig: twins.Rig) -> None:
    message = Initiator().message()
    rig.arrive(0, [message])
    outcome = rig.settle(1.0)
    (reply,) = (reply[1:] for each in outcome.sent.values() for reply in each)
    assert outcome.tapped == [
        (False, False, 148, message, "remote0", "under-load"),
        (False, True, 64, reply, "remote0", ""),
    ]


@pytest.mark.parametrize(("family", "ours"), [(socket.AF_INET, "127.0.0.7"), (socket.AF_INET6, "::1")])
def test_the_reply_leaves_from_where_the_message_arrived(
    rig: twins.Rig, family: socket.AddressFamily, ours: str
) -> None:
    initiator = Initiator()
    with socket.socket(family, socket.SOCK_DGRAM) as remote:
        remote.bind(("127.0.0.3" if family == socket.AF_INET else "::1", 0))
        remote.settimeout(10)
        for handed_up in (False, True):
            remote.sendto(initiator.message(), (ours, rig.bind.port))
            while rig.path.step(1.0):
                pass
            report = rig.path.drain(1.0)
            assert len(report.control) == handed_up
            if not handed_up:
                reply, (host, port, *_) = remote.recvfrom(100)
                assert (host, port) == (ours, rig.bind.port)
                initiator.take(reply)


def test_a_reply_that_the_system_refuses_is_counted_and_the_others_are_sent(rig: twins.Rig) -> None:
    """To port 0, which only a forged message comes from."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        for port in (0, rig.endpoint(0).port):
            message = Initiator(port).message()
            header = struct.pack("!HHHH", port, rig.bind.port, 8 + len(message), 0)
            raw.sendto(header + message, ("127.0.0.1", 0))
    while rig.path.step(1.0):
        pass
    report = rig.path.drain(1.0)
    assert report.drops == {DropReason.UNDER_LOAD: 2, DropReason.SEND_FAILED: 1}
    assert rig.remotes[0].recv(100)[0] == 3


def make_small(rig: twins.Rig) -> None:
    """The socket's buffer: some 60 messages are more than half of it."""
    with socket.socket(fileno=os.dup(rig.bind.filenos()[0])) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)


def offer_all(rig: twins.Rig, remotes: list[socket.socket]) -> list[int]:
    """A message from each of them at once; who was answered."""
    for remote in remotes:
        remote.sendto(Initiator().message(), ("127.0.0.1", rig.bind.port))
    while rig.path.step(1.0):
        pass
    assert rig.path.drain(1.0).drops == {DropReason.UNDER_LOAD: len(remotes)}
    ready, _, _ = select.select(remotes, [], [], 0)
    assert all(remote.recv(100)[0] == 3 for remote in ready)
    return [i for i, remote in enumerate(remotes) if remote in ready]


def test_while_the_buffer_fills_only_who_asked_before_is_answered(rig: twins.Rig) -> None:
    make_small(rig)
    with contextlib.ExitStack() as stack:
        remotes = []
        for number in range(220):
            remote = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            remote.bind((f"127.1.0.{number + 1}", 0))
            remotes.append(remote)
        answered = offer_all(rig, remotes[:120])
        assert len(answered) >= 20
        assert answered[0] > 20
        answered = offer_all(rig, [remotes[0], *remotes[120:]])
        assert answered[0] == 0
        assert answered[1] > 20


def test_while_the_buffer_fills_one_in_eight_is_answered_at_most(rig: twins.Rig) -> None:
    make_small(rig)
    message = Initiator().message()
    for _ in range(120):
        rig.arrive(0, [message])
    replies = rig.settle(1.0).sent[0, message[4:8]]
    assert 20 < len(replies) < 100


def test_a_cookie_serves_also_while_the_buffer_fills(rig: twins.Rig) -> None:
    initiator = with_cookie(rig)
    make_small(rig)
    for _ in range(120):
        rig.arrive(0, [initiator.message()])
    assert len(rig.settle(1.0).control) == 120


def test_keys_of_a_wrong_length_are_refused(rig: twins.Rig) -> None:
    for secret, key in ((bytes(31), bytes(32)), (bytes(32), bytes(33))):
        with pytest.raises(PywgError, match="32 bytes"):
            rig.path.ask_for_cookies(secret, key, UNTIL)


# --- With a device behind it. -----------------------------------------------------------------------------


class Responder:
    """A device on one of the data paths, and three sockets whose messages it gets."""

    def __init__(self, make: Callable[[Tun], DataPath]) -> None:
        self.now = 1000.0
        self.rig = twins.Rig(make, TunOffload())
        self.engine = Engine(
            Device(os.urandom, lambda: 0),
            self.rig.path,
            self.rig.tun,
            lambda _port, _mark: self.rig.bind,
            lambda: self.now,
        )
        self.engine.set_private_key(KEY)
        self.engine.follow_tun()
        self.initiators = [Initiator(seed) for seed in range(twins.REMOTES)]
        self.events: list[EventKind] = []
        self.engine.watch(self._heard)

    def _heard(self, event: Event) -> None:
        self.events.append(event.kind)

    def offer(self, remote: int, number: int) -> int:
        """So many messages at once; how many were answered with a cookie, of which the last one is kept."""
        for _ in range(number):
            self.rig.arrive(remote, [self.initiators[remote].message()])
        while self.rig.path.step(self.now):
            pass
        self.settle()
        outcome = self.rig.outcome(self.rig.path.drain(self.now))
        replies = [reply[1:] for each in outcome.sent.values() for reply in each]
        for reply in replies:
            try:
                self.initiators[remote].take(reply)
            except BadPacket:  # an earlier message's
                continue
        return len(replies)

    def settle(self) -> None:
        self.engine.turn()
        while (due := self.engine.next_turn()) is not None and due <= self.now:
            self.engine.turn()

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.engine.next_turn()) is not None and due < end:
            self.now = max(due, self.now)
            self.settle()
        self.now = end
        self.settle()

    def under_load(self) -> bool:
        return self.engine.device.under_load(self.now)


@pytest.fixture(name="responders")
def _responders() -> Iterator[list[Responder]]:
    made: list[Responder] = []
    try:
        made += [Responder(PortableDataPath), Responder(compiled.CompiledDataPath)]
        yield made
    finally:
        for responder in made:
            responder.rig.close()


def test_cookies_and_drops_add_up_to_the_same_on_both_data_paths(responders: list[Responder]) -> None:
    outcomes = []
    for responder in responders:
        replies = [responder.offer(0, 200)]
        assert responder.under_load()
        for remote, number in ((1, 1), (0, 40), (2, 5), (1, 10), (2, 1)):
            responder.wait(0.1)
            replies.append(responder.offer(remote, number))
        responder.wait(2.0)
        assert not responder.under_load()
        replies.append(responder.offer(0, 3))
        outcomes.append((replies, responder.engine.drops, responder.events))
    assert outcomes[0] == outcomes[1]
    replies, drops, _ = outcomes[1]
    assert replies[1:] == [1, 0, 5, 0, 0, 0]
    assert drops[DropReason.UNDER_LOAD] == sum(replies)
    assert drops[DropReason.RATE_LIMITED] > 0
    assert drops.total() == 200 + 1 + 40 + 5 + 10 + 1 + 3


@pytest.mark.parametrize(("number", "goes_on"), [(64, True), (63, False)])
def test_load_goes_on_as_long_as_128_cookies_a_second_are_given(
    responders: list[Responder], number: int, goes_on: bool
) -> None:
    """By the data path: Python has nothing to do, and nothing in its queue."""
    _, responder = responders
    responder.offer(0, 200)
    for step in range(20):
        responder.wait(0.45)
        answered = responder.offer(1, number)
        responder.initiators[1] = Initiator(step)
        assert answered == number or not goes_on
    assert responder.under_load() is goes_on
    assert responder.events.count(EventKind.UNDER_LOAD) == 1
    responder.wait(1.5)
    assert not responder.under_load()


def test_the_data_path_gets_a_new_secret_after_120_seconds(responders: list[Responder]) -> None:
    _, responder = responders
    responder.offer(0, 200)
    answered = 0
    for step in range(300):
        responder.initiators[1] = Initiator(step)
        responder.wait(0.4)
        answered += responder.offer(1, 64)
    assert responder.under_load()
    assert answered > 64 * 290
    assert responder.offer(0, 1) == 1  # its cookie was of the first secret
    assert responder.offer(0, 1) == 0
