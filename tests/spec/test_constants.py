"""The constants of the protocol, stated again from the WireGuard paper and the kernel; none is imported.

The table in README.md says which test stands for which constant.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import os
import socket
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt

from pywg.bind.udp import UdpBind
from pywg.errors import DropReason
from pywg.tun.memory import MemoryTun
from pywg.wire.endpoint import Endpoint
from tests.spec.world import COOKIE_REPLY, DATA, INITIATION, RESPONSE, Host, Puppet, World, udp_packet

REKEY_AFTER_MESSAGES = 2**60
REJECT_AFTER_MESSAGES = 2**64 - 2**13 - 1
REKEY_AFTER_TIME = 120
REJECT_AFTER_TIME = 180
REKEY_ATTEMPT_TIME = 90
REKEY_TIMEOUT = 5
KEEPALIVE_TIMEOUT = 10
JITTER = 0.334


def blake2s(*parts: bytes) -> bytes:
    return hashlib.blake2s(b"".join(parts)).digest()


# --- Labels and sizes. ------------------------------------------------------------------------------------


def test_the_handshake_hash_begins_with_the_construction_and_the_identifier() -> None:
    """The initiator's static key opens only under the right chaining key and hash: paper, section 5.4.2."""
    world = World()
    bob, puppet = world.host_and_puppet()
    bob.send(puppet)
    world.run()
    (initiation,) = puppet.take(INITIATION)
    ephemeral, static = initiation[8:40], initiation[40:88]

    chaining_key = blake2s(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
    digest = blake2s(chaining_key, b"WireGuard v1 zx2c4 Jason@zx2c4.com")
    digest = blake2s(blake2s(digest, bytes(puppet.public_key)), ephemeral)

    def hmac_blake2s(key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, "blake2s")

    chaining_key = hmac_blake2s(hmac_blake2s(chaining_key, ephemeral), b"\1")
    private = X25519PrivateKey.from_private_bytes(bytes(puppet.private_key))
    secret = hmac_blake2s(chaining_key, private.exchange(X25519PublicKey.from_public_bytes(ephemeral)))
    key = hmac_blake2s(secret, hmac_blake2s(secret, b"\1") + b"\2")
    assert ChaCha20Poly1305(key).decrypt(bytes(12), static, digest) == bytes(bob.public_key)


def test_mac1_is_keyed_with_the_label_mac1_and_the_receiver_s_public_key() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    for kind, receiver in ((INITIATION, bob), (RESPONSE, alice)):
        (flight,) = world.sent(kind)
        key = blake2s(b"mac1----", bytes(receiver.public_key))
        expected = hashlib.blake2s(flight.data[:-32], key=key, digest_size=16).digest()
        assert flight.data[-32:-16] == expected


def test_a_cookie_is_sealed_with_the_label_cookie_and_the_responder_s_public_key() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    initiation = flood(world, bob, puppet)
    reply = next(reply for reply in puppet.take(COOKIE_REPLY))
    cookie = crypto_aead_xchacha20poly1305_ietf_decrypt(
        reply[32:], initiation[-32:-16], reply[8:32], blake2s(b"cookie--", bytes(bob.public_key))
    )
    assert len(cookie) == 16


def flood(world: World, bob: Host, puppet: Puppet) -> bytes:
    """Put bob under load with one initiation sent 200 times at once; returns it."""
    initiation = puppet.initiation(bob)
    for _ in range(200):
        world.network.transmit(initiation, puppet.endpoint, bob.endpoint)
    world.run()
    return initiation


def test_an_initiation_has_148_bytes_a_response_92_a_cookie_reply_64_and_data_32_more_than_the_packet() -> (
    None
):
    world = World()
    bob, puppet = world.host_and_puppet()
    bob.send(puppet)
    world.run()
    puppet.connect(bob)
    flood(world, bob, puppet)
    sizes = {flight.data[0]: len(flight.data) for flight in world.sent(by=bob)}
    assert {kind: sizes[kind] for kind in (INITIATION, RESPONSE, COOKIE_REPLY)} == {
        INITIATION: 148,
        RESPONSE: 92,
        COOKIE_REPLY: 64,
    }
    puppet.take()
    packet = bob.send(puppet, bytes(100))
    world.run()
    (data,) = puppet.take(DATA)
    assert len(data) == 32 + len(packet) == 32 + 128


def test_a_keepalive_has_32_bytes() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(20)
    assert [len(flight.data) for flight in world.sent(DATA, by=bob)] == [32]


def test_all_three_handshake_messages_leave_with_tos_0x88() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    bob.send(puppet)
    world.run()
    puppet.connect(bob)
    flood(world, bob, puppet)
    tos = {(flight.data[0], flight.tos) for flight in world.sent(INITIATION, RESPONSE, COOKIE_REPLY, by=bob)}
    assert tos == {(INITIATION, 0x88), (RESPONSE, 0x88), (COOKIE_REPLY, 0x88)}


# --- Limits on messages. ----------------------------------------------------------------------------------


def test_a_session_ends_at_2_to_the_64_minus_2_to_the_13_minus_1_messages_and_is_renewed_at_2_to_the_60() -> (
    None
):
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    for host in (alice, bob):
        (session,) = host.datapath.sessions
        assert session.message_limit == REJECT_AFTER_MESSAGES
        assert session.rekey_limit == REKEY_AFTER_MESSAGES


def test_no_counter_reaches_the_limit_and_packets_then_wait_for_a_new_session() -> None:
    world = World()
    alice, bob = world.pair()
    alice.datapath.message_limit = 10
    world.connect(alice, bob)
    payloads = [b"%d" % number for number in range(25)]
    for payload in payloads:
        alice.send(bob, payload)
        world.run(6)
    assert bob.payloads() == payloads
    assert all(counter_of(flight.data) < 10 for flight in world.sent(DATA, by=alice))
    assert len(world.sent(INITIATION)) >= 3


def test_packets_of_one_burst_that_pass_the_limit_go_out_under_the_next_session() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(30)
    alice.datapath.message_limit = 20
    world.sleep(200)  # so that the next session has the limit
    payloads = [b"%d" % number for number in range(25)]
    for payload in payloads:
        alice.send(bob, payload)
    world.run(6)
    assert bob.payloads() == payloads


def counter_of(data_message: bytes) -> int:
    return int(struct.unpack_from("<Q", data_message, 8)[0])


@pytest.mark.parametrize("counter", [REJECT_AFTER_MESSAGES, REJECT_AFTER_MESSAGES + 1, 2**64 - 1])
def test_a_counter_at_2_to_the_64_minus_2_to_the_13_minus_1_or_past_it_is_not_accepted(counter: int) -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    puppet.send(bob, session.seal(puppet.packet_to(bob), counter))
    assert not bob.received()
    assert bob.drops[DropReason.EXPIRED_SESSION] == 1


def test_the_last_counter_below_2_to_the_64_minus_2_to_the_13_minus_1_is_accepted() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    puppet.send(bob, session.seal(puppet.packet_to(bob), REJECT_AFTER_MESSAGES - 1))
    assert bob.payloads() == [b"hello"]


@pytest.mark.parametrize("role", ["initiator", "responder"])
def test_both_roles_rekey_when_the_counter_passes_the_limit(role: str) -> None:
    world = World()
    alice, bob = world.pair()
    sender, receiver = (alice, bob) if role == "initiator" else (bob, alice)
    sender.datapath.rekey_limit = 5
    world.connect(alice, bob)
    world.run(6)
    before = world.now
    for _ in range(10):
        sender.send(receiver)
        world.run(0.1)
    assert len(world.sent(INITIATION, by=sender, since=before)) == 1
    assert len(receiver.received()) == 10
    keypair = sender.keypair(receiver)
    assert keypair is not None
    assert keypair.born > before


# --- Limits on time. --------------------------------------------------------------------------------------


def test_an_initiator_rekeys_on_send_when_its_keypair_is_120_seconds_old() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    start = world.now
    for _ in range(130):
        alice.send(bob)
        world.run(1)
    (rekeyed,) = world.times(INITIATION, since=start + 1)
    assert rekeyed == start + REKEY_AFTER_TIME


def test_a_responder_does_not_rekey_by_time() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    for _ in range(179):
        bob.send(puppet)
        puppet.send(bob, session.seal(b""))
        world.run(1)
    assert len(puppet.take(DATA)) == 179
    assert world.sent(INITIATION, by=bob) == []


def test_an_idle_initiator_does_not_rekey() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(1000)
    assert len(world.sent(INITIATION)) == 1


def test_an_initiator_rekeys_once_on_receiving_when_its_keypair_is_165_seconds_old() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    start = world.now
    world.run(157)  # what arrives from here on asks for a keepalive, which would rekey on sending, after 165
    world.lose(RESPONSE)
    for _ in range(22):
        world.run(1)
        bob.send(alice)
        world.run()
    initiations = world.times(INITIATION, by=alice, since=start + 1)
    assert initiations[0] == start + REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
    # What follows are the repetitions of that one, not new ones for each packet.
    assert all(REKEY_TIMEOUT <= gap <= REKEY_TIMEOUT + JITTER for gap in gaps(initiations))


def gaps(times: list[float]) -> list[float]:
    return [round(later - earlier, 6) for earlier, later in itertools.pairwise(times)]


def test_a_responder_does_not_rekey_on_receiving() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    for _ in range(178):
        world.run(1)
        puppet.send(bob, session.seal(puppet.packet_to(bob)))
    assert world.sent(INITIATION, by=bob) == []


def test_a_keypair_of_180_seconds_neither_sends_nor_receives() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    world.run(REJECT_AFTER_TIME - 0.001)
    bob.send(puppet)
    puppet.send(bob, session.seal(puppet.packet_to(bob, b"in time")))
    assert bob.payloads() == [b"in time"]
    assert len(puppet.take(DATA)) == 1
    world.run(0.001)
    puppet.send(bob, session.seal(puppet.packet_to(bob, b"too late")))
    bob.send(puppet)
    world.run()
    assert bob.payloads() == []
    assert bob.drops[DropReason.EXPIRED_SESSION] == 1
    assert [datagram[0] for datagram in puppet.take()] == [INITIATION]


def test_an_initiation_is_repeated_after_5_seconds_and_up_to_334_milliseconds() -> None:
    waits = set()
    for seed in range(20):
        world = World(seed)
        alice, bob = world.pair()
        world.cut()
        alice.send(bob)
        world.run(60)
        waits.update(gaps(world.times(INITIATION)))
    assert all(REKEY_TIMEOUT <= wait <= REKEY_TIMEOUT + JITTER for wait in waits)
    assert min(waits) < REKEY_TIMEOUT + 0.02
    assert max(waits) > REKEY_TIMEOUT + JITTER - 0.02


def test_no_second_initiation_leaves_within_5_seconds() -> None:
    world = World()
    alice, bob = world.pair()
    world.cut()
    for _ in range(200):
        alice.send(bob)
        world.run(0.1)
    assert min(gaps(world.times(INITIATION))) >= REKEY_TIMEOUT


def test_initiations_are_repeated_for_90_seconds_and_then_no_more() -> None:
    world = World()
    alice, bob = world.pair()
    world.cut()
    alice.send(bob)
    start = world.now
    world.run(600)
    times = world.times(INITIATION)
    assert REKEY_ATTEMPT_TIME - REKEY_TIMEOUT - JITTER < times[-1] - start < REKEY_ATTEMPT_TIME
    assert len(times) in (17, 18)


def test_a_packet_after_giving_up_begins_anew() -> None:
    world = World()
    alice, bob = world.pair()
    world.cut()
    alice.send(bob)
    world.run(600)
    world.heal()
    alice.send(bob, b"again")
    world.run()
    assert bob.payloads() == [b"again"]


def test_a_packet_in_between_makes_the_90_seconds_begin_anew() -> None:
    world = World()
    alice, bob = world.pair()
    world.cut()
    alice.send(bob)
    world.run(80)
    again = world.now
    alice.send(bob)
    world.run(600)
    assert (
        REKEY_ATTEMPT_TIME - REKEY_TIMEOUT - JITTER < world.times(INITIATION)[-1] - again < REKEY_ATTEMPT_TIME
    )


def test_data_without_an_answer_is_acknowledged_by_a_keepalive_after_10_seconds() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    start = world.now
    world.run(60)
    assert world.keepalives(by=bob) == [start + KEEPALIVE_TIMEOUT]
    assert world.keepalives(by=alice) == []


def test_a_new_handshake_begins_15_seconds_after_data_that_nothing_answered() -> None:
    waits = set()
    for seed in range(20):
        world = World(seed)
        alice, bob = world.pair()
        world.connect(alice, bob)
        world.run(30)
        world.cut()
        alice.send(bob)
        start = world.now
        world.run(20)
        waits.add(round(world.times(INITIATION, since=start)[0] - start, 6))
    timeout = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT
    assert all(timeout <= wait <= timeout + JITTER for wait in waits)
    assert len(waits) > 10


def test_the_15_seconds_count_from_the_first_packet_that_nothing_answered() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(30)
    world.cut()
    start = world.now
    for _ in range(30):
        alice.send(bob)
        world.run(1)
    first = world.times(INITIATION, since=start)[0]
    assert 15 <= first - start <= 15 + JITTER


def test_all_keys_are_wiped_540_seconds_after_the_last_session() -> None:
    world = World()
    alice, bob = world.pair()
    world.connect(alice, bob)
    world.run(3 * REJECT_AFTER_TIME - 0.001)
    assert alice.keypair(bob) is not None
    assert bob.keypair(alice) is not None
    world.run(0.001)
    assert alice.keypair(bob) is None
    assert bob.keypair(alice) is None


def test_keys_of_a_handshake_that_gave_up_are_wiped_540_seconds_later() -> None:
    world = World()
    alice, bob = world.pair()
    world.cut()
    alice.send(bob)
    world.run(100)
    assert alice.peer(bob).handshake is None
    world.run(541)
    assert alice.device.next_timeout() is None


def test_one_initiation_per_peer_is_accepted_in_20_milliseconds() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    accepted = []
    for wait in (0.0, 0.001, 0.018, 0.002, 0.019, 0.002):
        world.run(wait)
        puppet.send(bob, puppet.initiation(bob))
        accepted.append(len(puppet.take(RESPONSE)))
    assert accepted == [1, 0, 0, 1, 0, 1]
    assert bob.drops[DropReason.INITIATION_FLOOD] == 3


@pytest.mark.parametrize("step", [0, -1, -(2**24), -3600 * 10**9])
def test_an_initiation_needs_a_strictly_greater_timestamp(step: int) -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    timestamp = puppet.timestamp_ns
    puppet.send(bob, puppet.initiation(bob, timestamp_ns=timestamp))
    assert puppet.take(RESPONSE)
    world.run(1)
    puppet.send(bob, puppet.initiation(bob, timestamp_ns=timestamp + step))
    assert not puppet.take(RESPONSE)
    assert bob.drops[DropReason.OLD_TIMESTAMP] == 1
    world.run(1)
    puppet.send(bob, puppet.initiation(bob, timestamp_ns=timestamp + 1))
    assert puppet.take(RESPONSE)


def test_timestamps_are_rounded_down_to_2_to_the_24_nanoseconds() -> None:
    from pywg.noise import handshake

    world = World()
    world.now += 0.123456789
    bob, puppet = world.host_and_puppet()
    bob.send(puppet)
    world.run()
    (initiation,) = puppet.take(INITIATION)
    received = handshake.open_initiation_untrusted(
        puppet.private_key, initiation[8:40], initiation[40:88], initiation[88:116]
    )
    private = X25519PrivateKey.from_private_bytes(bytes(puppet.private_key))
    static_static = private.exchange(X25519PublicKey.from_public_bytes(bytes(bob.public_key)))
    seconds, nanoseconds = struct.unpack(">QI", received.read_timestamp_untrusted(static_static))
    wall = bob.wall_clock()
    assert seconds == 2**62 + 10 + wall // 10**9
    assert nanoseconds == wall % 10**9 // 2**24 * 2**24
    assert nanoseconds % 2**24 == 0 != wall % 2**24


def test_a_counter_8128_behind_the_greatest_is_taken_and_one_further_back_is_not() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    puppet.send(bob, session.seal(puppet.packet_to(bob, b"greatest"), 20_000))
    puppet.send(bob, session.seal(puppet.packet_to(bob, b"too old"), 20_000 - 8129))
    puppet.send(bob, session.seal(puppet.packet_to(bob, b"just in"), 20_000 - 8128))
    assert bob.payloads() == [b"greatest", b"just in"]
    assert bob.drops[DropReason.REPLAYED] == 1


def test_of_more_than_128_staged_packets_the_oldest_are_dropped() -> None:
    world = World()
    alice, bob = world.pair()
    world.cut()
    for number in range(200):
        alice.send(bob, b"%d" % number)
        if number % 50 == 0:
            world.run(0.01)
    world.run(1)
    assert alice.drops[DropReason.STAGED_OVERFLOW] == 72
    world.heal()
    world.run(6)
    assert bob.payloads() == [b"%d" % number for number in range(72, 200)]


def test_the_mtu_is_1420_by_default() -> None:
    assert MemoryTun().state().mtu == 1420


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root passes the system's limit"
)
def test_sockets_ask_for_buffers_of_7_mebibytes() -> None:
    bind = UdpBind.open()
    try:
        for fileno in bind.filenos():
            with socket.socket(fileno=os.dup(fileno)) as sock:
                for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                    # Linux doubles what was asked for, to have room for its own bookkeeping.
                    assert sock.getsockopt(socket.SOL_SOCKET, option) == 2 * 7 * 1024 * 1024
    finally:
        bind.close()


# --- Previous, current, next. -----------------------------------------------------------------------------


def test_a_responder_s_keypair_is_next_until_the_first_data_message_under_it_arrives() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    old = puppet.connect(bob)
    world.run(1)
    puppet.send(bob, puppet.initiation(bob))
    (response,) = puppet.take(RESPONSE)
    new = puppet.finish(response)
    bob.send(puppet, b"before")
    world.run()
    (datagram,) = puppet.take(DATA)
    assert old.open(datagram)[28:34] == b"before"
    puppet.send(bob, new.seal(b""))
    bob.send(puppet, b"after")
    world.run()
    (datagram,) = puppet.take(DATA)
    assert new.open(datagram)[28:33] == b"after"


def test_data_under_the_previous_keypair_is_still_received() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    old = puppet.connect(bob)
    world.run(1)
    puppet.connect(bob)
    puppet.send(bob, old.seal(puppet.packet_to(bob, b"late")))
    assert bob.payloads() == [b"late"]


def test_data_under_the_keypair_before_the_previous_one_is_not_received() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    oldest = puppet.connect(bob)
    for _ in range(2):
        world.run(1)
        puppet.connect(bob)
    puppet.send(bob, oldest.seal(puppet.packet_to(bob)))
    assert bob.payloads() == []
    assert bob.drops[DropReason.UNKNOWN_INDEX] == 1


def test_an_initiator_s_keypair_is_current_at_once() -> None:
    world = World()
    bob, puppet = world.host_and_puppet()
    bob.send(puppet)
    world.run()
    (initiation,) = puppet.take(INITIATION)
    response, session = puppet.respond(bob, initiation)
    puppet.send(bob, response)
    (datagram,) = puppet.take(DATA)
    assert session.open(datagram)[28:33] == b"hello"


def test_udp_packets_of_tests_are_what_scapy_makes_of_them() -> None:
    from scapy.layers.inet import IP, UDP

    packet = udp_packet("10.0.0.1", "10.0.0.2", b"hello", ecn=1)
    again = IP(packet)
    del again.chksum, again[UDP].chksum
    assert bytes(again) == packet
    assert Endpoint("10.0.0.1", 1) != Endpoint("10.0.0.2", 1)
