from __future__ import annotations

import errno
import ipaddress
import os
import pathlib
import random
import resource
import select
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from pywg.datapath.base import HANDUP_LIMIT, HANDUP_SHARE
from pywg.device.session import PeerId
from pywg.errors import DropReason, PywgError
from pywg.noise import cookie
from pywg.tun.base import TunGoneError, TunOffload
from pywg.tun.memory import MemoryTun
from pywg.wire.network import Network
from tests import twins

compiled = pytest.importorskip("pywg.datapath.compiled", reason="build it with: pip install .")

SUPER = TunOffload(vnet_hdr=True, tso=True, uso=True)
MAC1_KEY = bytes(range(32))
OURS, THEIRS = twins.OURS[4], "10.1.0.1"


@pytest.fixture(name="rig")
def _rig() -> Iterator[twins.Rig]:
    rig = twins.Rig(compiled.CompiledDataPath, SUPER)
    rig.path.set_identity(MAC1_KEY)
    twins.set_up(rig)
    yield rig
    rig.close()


def handshake(size: int, kind: int = 1, *, right: bool = True) -> bytes:
    head = struct.pack("<I", kind) + random.Random(size).randbytes(size - 36)
    return head + (cookie.mac1(MAC1_KEY, head) if right else bytes(16)) + bytes(16)


# --- Making it. -------------------------------------------------------------------------------------------


def test_without_descriptors_to_be_had_it_says_so_and_keeps_none() -> None:
    tun, descriptors = twins.SocketTun(SUPER, 1420), pathlib.Path("/proc/self/fd")
    before, limit = list(descriptors.iterdir()), resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(free := os.dup(tun.fileno()))
    refusals = []
    try:
        for more in range(100):
            resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, limit[1]))
            try:
                compiled.CompiledDataPath(tun)
                break
            except OSError as error:
                refusals.append(error)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        tun.close()
    assert len(refusals) >= 3, "it takes three"
    assert {error.errno for error in refusals} == {errno.EMFILE}
    assert "`ulimit -n`" in str(refusals[0])
    assert len(list(descriptors.iterdir())) == len(before) - 2, "the tunnel device's are closed"


# --- Ciphers. ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cipher", compiled.ciphers())
def test_every_length_is_sealed_and_opened_as_cryptography_does(cipher: str) -> None:
    rng = random.Random(1)
    for size in range(2049):
        key, counter, plaintext = rng.randbytes(32), rng.randrange(2**64), rng.randbytes(size)
        nonce = bytes(4) + counter.to_bytes(8, "little")
        sealed = ChaCha20Poly1305(key).encrypt(nonce, plaintext, None)
        assert compiled.try_seal(cipher, key, counter, plaintext) == sealed
        assert compiled.try_open_untrusted(cipher, key, counter, sealed) == plaintext


@pytest.mark.parametrize("cipher", compiled.ciphers())
def test_one_wrong_bit_anywhere_is_noticed(cipher: str) -> None:
    rng = random.Random(2)
    key = rng.randbytes(32)
    for size in (0, 1, 16, 63, 64, 100):
        sealed = compiled.try_seal(cipher, key, 3, rng.randbytes(size))
        for bit in range(len(sealed) * 8):
            wrong = bytearray(sealed)
            wrong[bit // 8] ^= 1 << bit % 8
            assert compiled.try_open_untrusted(cipher, key, 3, bytes(wrong)) is None
        assert compiled.try_open_untrusted(cipher, key, 4, sealed) is None


def test_an_unknown_cipher_library_is_refused() -> None:
    with pytest.raises(PywgError, match="'rot13' was not found"):
        compiled.try_seal("rot13", bytes(32), 0, b"")


@pytest.mark.parametrize("cipher", compiled.ciphers())
def test_each_cipher_library_carries_packets(cipher: str) -> None:
    rig = twins.Rig(lambda tun: compiled.CompiledDataPath(tun, cipher=cipher), SUPER)
    twins.set_up(rig)
    whole = twins.packet(OURS, THEIRS, bytes(20000), protocol=6)
    rig.tun.deliver(twins.super_packet(whole, 1360))
    sent = [d[1:] for d in rig.settle(1.0).sent[0, (111).to_bytes(4, "little")]]
    opened = [twins.open_message(11, d) for d in sent]
    assert [o[0] for o in opened if o is not None] == list(range(15))
    rig.close()


def test_a_tunnel_device_without_a_descriptor_is_refused() -> None:
    with pytest.raises(PywgError, match="descriptor"):
        compiled.CompiledDataPath(MemoryTun())


# --- Outgoing. --------------------------------------------------------------------------------------------


def outgoing(rig: twins.Rig, now: float = 1.0, remote: int = 0, index: int = 11) -> list[tuple[int, bytes]]:
    """Counters and plaintexts of what went out."""
    sent = rig.settle(now).sent.get((remote, (index + 100).to_bytes(4, "little")), [])
    opened = [twins.open_message(index, one[1:]) for one in sent]
    assert None not in opened
    return [one for one in opened if one is not None]


def test_a_super_packet_becomes_segments_whose_payloads_are_the_whole(rig: twins.Rig) -> None:
    payload = random.Random(3).randbytes(64000)
    rig.tun.deliver(twins.super_packet(twins.packet(OURS, THEIRS, payload, protocol=6), 1360))
    packets = [plaintext for _, plaintext in outgoing(rig)]
    assert b"".join(p[40 : int.from_bytes(p[2:4], "big")] for p in packets) == payload
    for packet in packets:
        real = bytearray(packet[: int.from_bytes(packet[2:4], "big")])
        assert twins.checksummed(bytearray(real)) == real


@pytest.mark.parametrize(
    ("mtu", "size", "sealed"), [(1420, 33, 48), (1420, 1420, 1420), (1419, 1409, 1419), (100, 300, 300)]
)
def test_padding_is_to_16_and_never_past_the_mtu(rig: twins.Rig, mtu: int, size: int, sealed: int) -> None:
    rig.path.set_mtu(mtu)
    rig.tun.deliver(twins.PLAIN + twins.packet(OURS, THEIRS, bytes(size - 28)))
    [(_, plaintext)] = outgoing(rig)
    assert len(plaintext) == sealed
    assert not any(plaintext[size:])


def test_packets_without_a_session_are_handed_up_so_many_at_most(rig: twins.Rig) -> None:
    rig.path.retire(11)
    packet = twins.packet(OURS, THEIRS, b"x")
    for _ in range(HANDUP_LIMIT // 64 + 2):
        for _ in range(64):
            rig.tun.deliver(twins.PLAIN + packet)
        rig.path.step(1.0)
    report = rig.path.drain(1.0)
    assert report.no_session == [(PeerId(1), [packet] * HANDUP_LIMIT)]
    assert report.drops == {DropReason.STAGED_OVERFLOW: 128}


def test_the_message_limit_is_kept_within_a_super_packet(rig: twins.Rig) -> None:
    rig.path.retire(11)
    rig.path.install(twins.session(1, 11, message_limit=5))
    rig.tun.deliver(twins.super_packet(twins.packet(OURS, THEIRS, bytes(10000), protocol=6), 1000))
    outcome = rig.settle(1.0)
    assert len(outcome.sent[0, (111).to_bytes(4, "little")]) == 5
    assert len(outcome.no_session[PeerId(1)]) == 5
    assert outcome.activity[0].exhausted


def test_nothing_leaves_at_or_after_the_expiry(rig: twins.Rig) -> None:
    rig.tun.deliver(twins.PLAIN + twins.packet(OURS, THEIRS))
    outcome = rig.settle(1000.0)
    assert not outcome.sent
    assert list(outcome.no_session) == [PeerId(1)]


# --- Incoming. --------------------------------------------------------------------------------------------


def test_neighbours_of_a_flow_are_written_as_one_super_packet(rig: twins.Rig) -> None:
    inner = [
        twins.packet(THEIRS, OURS, bytes(1000), protocol=6, sequence=1000 * i, identification=i)
        for i in range(30)
    ]
    rig.arrive(0, [twins.data_message(11, i, one) for i, one in enumerate(inner)])
    while rig.path.step(1.0):
        pass
    [frame] = rig.tun.take()
    assert len(frame) == 10 + 40 + 30 * 1000
    assert struct.unpack_from("=BBHHHH", frame) == (1, 1, 40, 1000, 20, 16)


def test_the_replay_window_takes_8128_behind_and_no_more(rig: twins.Rig) -> None:
    for counter in (10000, 10000 - 8128, 10000 - 8129, 10000 - 8128, 10000):
        rig.arrive(0, [twins.data_message(11, counter, b"")])
    outcome = rig.settle(1.0)
    assert outcome.activity[0].received_packets == 2
    assert outcome.drops == {DropReason.REPLAYED: 3}


def test_a_forged_message_moves_neither_the_window_nor_the_endpoint(rig: twins.Rig) -> None:
    forged = bytearray(twins.data_message(11, 5000, b""))
    forged[-1] ^= 1
    rig.arrive(2, [bytes(forged)])
    outcome = rig.settle(1.0)
    assert outcome.drops == {DropReason.BAD_TAG: 1}
    assert not outcome.moved
    rig.arrive(2, [twins.data_message(11, 0, b"")])
    assert rig.settle(1.0).moved == {PeerId(1): "remote2"}


def test_of_a_flood_of_handshake_messages_from_one_source_a_share_is_handed_up(rig: twins.Rig) -> None:
    for _ in range(HANDUP_SHARE // 16 + 2):
        for _ in range(16):
            rig.arrive(0, [handshake(148)])
        rig.path.step(1.0)
    report = rig.path.drain(1.0)
    assert len(report.control) == HANDUP_SHARE
    assert report.drops == {DropReason.QUEUE_FULL: 32}


def test_cookie_replies_share_one_share_whatever_their_sources(rig: twins.Rig) -> None:
    reply = struct.pack("<I", 3) + bytes(60)
    for _ in range(HANDUP_SHARE // 16):
        for remote in range(16):
            rig.arrive(remote % 3, [reply])
        rig.path.step(1.0)
    rig.arrive(1, [reply])
    rig.arrive(1, [handshake(148)])
    rig.path.step(1.0)
    report = rig.path.drain(1.0)
    assert [datagram[0] for datagram, _ in report.control] == [3] * HANDUP_SHARE + [1]
    assert report.drops == {DropReason.QUEUE_FULL: 1}


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (handshake(148, right=False), DropReason.BAD_MAC1),
        (handshake(92, 2, right=False), DropReason.BAD_MAC1),
        (handshake(148)[:-1], DropReason.TRUNCATED),
        (handshake(148) + b"\0", DropReason.OVERSIZED),
        (b"\4\0\0\0" + bytes(27), DropReason.TRUNCATED),
        (b"\4\0\0\1" + bytes(28), DropReason.RESERVED_BITS),
        (b"\5\0\0\0" + bytes(28), DropReason.UNKNOWN_TYPE),
        (b"\1\0", DropReason.TRUNCATED),
        (b"", DropReason.EMPTY),
        (twins.data_message(99, 0, b""), DropReason.UNKNOWN_INDEX),
        (twins.data_message(11, 2**64 - 2**13 - 1, b""), DropReason.EXPIRED_SESSION),
        (twins.data_message(11, 0, bytes(32)), DropReason.NOT_AN_IP_PACKET),
        (twins.data_message(11, 0, twins.packet("10.2.0.1", OURS)), DropReason.SOURCE_NOT_ALLOWED),
        (twins.data_message(11, 0, twins.packet("10.1.7.1", OURS)), DropReason.SOURCE_NOT_ALLOWED),
    ],
)
def test_bad_datagrams_are_counted_and_dropped(rig: twins.Rig, datagram: bytes, reason: DropReason) -> None:
    rig.arrive(0, [datagram])
    outcome = rig.settle(1.0)
    assert outcome.drops == {reason: 1}
    assert not outcome.control
    assert not outcome.written


# --- Routes. ----------------------------------------------------------------------------------------------


def test_lookup_is_by_the_longest_prefix_through_any_changes(rig: twins.Rig) -> None:
    rng = random.Random(4)
    twins_of: dict[Network, int] = {}
    for peer, networks in twins.NETS.items():
        rig.path.remove_routes(PeerId(peer), networks)
    for _ in range(300):
        length = rng.choice([0, 1, 7, 8, 9, 16, 24, 31, 32])
        network = Network.of((rng.getrandbits(5) << 27 | rng.getrandbits(3)).to_bytes(4, "big"), length)
        peer = rng.choice([1, 2])
        if rng.randrange(3):
            twins_of[network] = peer
            rig.path.add_routes(PeerId(peer), [network])
        else:
            if twins_of.get(network) == peer:
                del twins_of[network]
            rig.path.remove_routes(PeerId(peer), [network])
        address = ipaddress.IPv4Address(rng.getrandbits(5) << 27 | rng.getrandbits(3))
        covering = [n for n in twins_of if n.covers(address.packed)]
        rig.tun.deliver(twins.PLAIN + twins.packet(OURS, str(address)))
        outcome = rig.settle(1.0)
        if covering:
            owner = twins_of[max(covering, key=lambda n: n.prefixlen)]
            assert [remote for remote, _ in outcome.sent] == [owner - 1]
        else:
            assert len(outcome.no_route) == 1


def test_100000_networks_are_held_and_taken_back(rig: twins.Rig) -> None:
    networks = [Network.of((0x0B000000 + (i << 4)).to_bytes(4, "big"), 28) for i in range(100_000)]
    inside = str(ipaddress.ip_address(networks[77_777].address) + 3)
    rig.path.add_routes(PeerId(2), networks)
    rig.tun.deliver(twins.PLAIN + twins.packet(OURS, inside))
    assert len(outgoing(rig, remote=1, index=21)) == 1
    rig.path.remove_routes(PeerId(2), networks)
    rig.tun.deliver(twins.PLAIN + twins.packet(OURS, inside))
    assert len(rig.settle(1.0).no_route) == 1


@pytest.mark.parametrize("data", [b"", b"\x08", bytes(4), bytes(4) + b"\x21", bytes(16) + b"\x81", bytes(18)])
def test_what_is_no_network_is_refused_and_changes_nothing(rig: twins.Rig, data: bytes) -> None:
    for change in (rig.path.add_routes, rig.path.remove_routes):
        with pytest.raises((TypeError, ValueError), match=r"no network|prefix"):
            change(PeerId(2), [Network(data)])
    with pytest.raises(TypeError, match="no network"):
        rig.path.add_routes(PeerId(2), ["10.0.0.0/8"])  # type: ignore[list-item]
    rig.tun.deliver(twins.PLAIN + twins.packet(OURS, THEIRS))
    assert len(outgoing(rig, remote=0, index=11)) == 1


# --- Threads and signals. ---------------------------------------------------------------------------------


def readable(rig: twins.Rig, timeout: float = 0.0) -> bool:
    return bool(select.select([rig.path.fileno()], [], [], timeout)[0])


def until(question: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not question():
        assert time.monotonic() < deadline, what
        select.select([], [], [], 0.005)


def test_threads_carry_packets_both_ways_and_report_the_first_activity(rig: twins.Rig) -> None:
    rig.path.start()
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    rig.path.install(twins.session(1, 11, expires=now + 1000))
    assert not readable(rig)
    rig.tun.deliver(twins.PLAIN + twins.packet(OURS, THEIRS))
    assert readable(rig, 10)
    assert not rig.path.step(now)
    activity = rig.path.drain(now).activity
    assert [a.sent_packets for a in activity] == [1]
    assert not readable(rig)
    # the last drain reported activity: more of it does not signal, the first use of a session does
    rig.tun.deliver(twins.PLAIN + twins.packet(OURS, THEIRS))
    until(lambda: bool(select.select([rig.remotes[0]], [], [], 0)[0]), "sent")
    rig.arrive(0, [twins.data_message(11, 0, twins.packet(THEIRS, OURS))])
    assert readable(rig, 10)
    report = rig.path.drain(now)
    assert report.activity[0].first_use
    until(lambda: bool(rig.tun.take()), "written")


def status_of(thread: str) -> pathlib.Path:
    """What the kernel says of one of our threads."""
    (task,) = (t for t in threading.enumerate() if t.name == thread)
    return pathlib.Path(f"/proc/self/task/{task.native_id}/status")


def sleeps(status: pathlib.Path) -> int:
    """How often that thread has slept."""
    return int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_one_thread_carries_single_packets_both_ways_until_a_burst_comes(rig: twins.Rig) -> None:
    rig.path.start()
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    rig.path.install(twins.session(1, 11, expires=now + 1000))
    outgoing = status_of("pywg-outgoing")
    counters = iter(range(1000))

    def sent(datagrams: int) -> None:
        for _ in range(datagrams):
            assert select.select([rig.remotes[0]], [], [], 10)[0]
            rig.remotes[0].recv(2048)

    def round_trips(n: int) -> int:
        """How often the outgoing thread slept while single packets went to and fro."""
        before = sleeps(outgoing)
        for _ in range(n):
            rig.tun.deliver(twins.PLAIN + twins.packet(OURS, THEIRS))
            sent(1)
            rig.arrive(0, [twins.data_message(11, next(counters), twins.packet(THEIRS, OURS))])
            until(lambda: bool(rig.tun.take()), "written")
        return sleeps(outgoing) - before

    def burst() -> None:
        before = sleeps(outgoing)
        rig.tun.deliver(twins.super_packet(twins.packet(OURS, THEIRS, bytes(30000), protocol=6), 1000))
        sent(30)
        until(lambda: sleeps(outgoing) > before, "the outgoing thread works")

    until(lambda: round_trips(10) == 0, "one thread to begin with")
    burst()
    assert round_trips(10) > 0
    until(lambda: round_trips(10) == 0, "one thread again")
    burst()


def test_quick_answers_are_waited_for_awake_and_silence_asleep(rig: twins.Rig) -> None:
    rig.path.start()
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    rig.path.install(twins.session(1, 11, expires=now + 1000))
    rig.remotes[0].settimeout(10)
    incoming = status_of("pywg-incoming")
    turns = 100
    counters = iter(range(1_000_000))

    def sleeps_while_talking() -> int:
        question = twins.PLAIN + twins.packet(OURS, THEIRS)
        answers = [twins.data_message(11, next(counters), twins.packet(THEIRS, OURS)) for _ in range(turns)]
        before = sleeps(incoming)
        for answer in answers:
            rig.tun.deliver(question)
            rig.remotes[0].recv(2048)
            rig.arrive(0, [answer])
        return sleeps(incoming) - before

    until(lambda: sleeps_while_talking() < turns // 10, "awake between quick answers")
    until(lambda: "\nState:\tS" in incoming.read_text(), "asleep when none comes")


def test_hand_ups_signal_at_once(rig: twins.Rig) -> None:
    rig.path.start()
    rig.path.retire(21)
    events: list[Callable[[], None]] = [
        lambda: rig.tun.deliver(twins.PLAIN + twins.packet(OURS, "192.0.2.1")),
        lambda: rig.tun.deliver(twins.PLAIN + twins.packet(OURS, "10.2.0.1")),
        lambda: rig.arrive(0, [handshake(148)]),
    ]
    for event in events:
        rig.path.drain(1.0)
        assert not readable(rig)
        event()
        assert readable(rig, 10)


def test_a_flood_that_is_dropped_does_not_signal(rig: twins.Rig) -> None:
    rig.path.start()
    for _ in range(100):
        rig.arrive(0, [handshake(148, right=False)])
        rig.arrive(0, [twins.data_message(99, 0, b"")])
    drops: dict[DropReason, int] = {}

    def all_counted() -> bool:
        assert not readable(rig)
        for reason, count in rig.path.drain(1.0).drops.items():
            drops[reason] = drops.get(reason, 0) + count
        return drops == {DropReason.BAD_MAC1: 100, DropReason.UNKNOWN_INDEX: 100}

    until(all_counted, "counted")


def test_closing_ends_the_threads_and_forgets_the_sessions(rig: twins.Rig) -> None:
    rig.path.start()
    rig.path.close()
    rig.path.close()
    assert rig.path.fileno() == -1
    assert not rig.path.step(1.0)


def test_a_removed_tunnel_device_is_told(rig: twins.Rig) -> None:
    rig.path.start()
    rig.tun.hang_up()
    assert readable(rig, 10)
    with pytest.raises(TunGoneError):
        rig.path.step(1.0)


def test_commands_do_not_starve_while_packets_flow(rig: twins.Rig) -> None:
    """Both threads busy, and Python changing routes, sessions and endpoints under them."""
    rig.path.start()
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    rig.path.install(twins.session(1, 11, expires=now + 1000))
    whole = twins.super_packet(twins.packet(OURS, THEIRS, bytes(30000), protocol=6), 1000)
    for round_number in range(50):
        for _ in range(5):
            rig.tun.deliver(whole)
            rig.arrive(0, [twins.data_message(11, round_number, twins.packet(THEIRS, OURS))])
        rig.path.add_routes(PeerId(3), [Network.parse(f"10.3.{round_number}.0/24")])
        rig.path.set_endpoint(PeerId(1), rig.endpoint(0))
        rig.path.install(twins.session(2, 200 + round_number))
        rig.path.drain(now)
    rig.path.close()


def test_a_wrong_tag_is_what_cryptography_says_too() -> None:
    with pytest.raises(InvalidTag):
        ChaCha20Poly1305(bytes(32)).decrypt(bytes(12), bytes(16), None)
    assert compiled.try_open_untrusted(compiled.ciphers()[0], bytes(32), 0, bytes(16)) is None
