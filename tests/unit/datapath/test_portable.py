"""The portable data path by itself: bursts, what it hands up and reports, and a socket that would block."""

from __future__ import annotations

import errno
import select
import struct
from collections.abc import Iterator

import pytest

from pywg.bind.memory import MemoryBind, MemoryNetwork
from pywg.datapath.portable import PortableDataPath
from pywg.device.session import PeerId, Session
from pywg.errors import DropReason
from pywg.noise import cookie
from pywg.noise.keys import PrivateKey
from pywg.noise.primitives import SessionCipher
from pywg.tun.base import TunGoneError, TunOffload
from pywg.tun.memory import MemoryTun
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network
from tests.spec.world import udp_packet
from tests.unit.datapath.pipes import PipeBind, PipeTun

PEER = PeerId(7)
OURS, THEIRS = 0x01020304, 0x0A0B0C0D
SEND, RECEIVE = b"s" * 32, b"r" * 32
REMOTE = Endpoint("192.0.2.2", 51820)


def session(
    *,
    index: int = OURS,
    born: float = 0.0,
    limit: int = 2**64 - 2**13 - 1,
    rekey: int = 2**60,
    may_send: bool = True,
) -> Session:
    return Session(PEER, index, THEIRS, SEND, RECEIVE, True, born, born + 180.0, limit, rekey, may_send)


def sealed(packet: bytes, counter: int, index: int = OURS) -> bytes:
    return struct.pack("<IIQ", 4, index, counter) + SessionCipher(RECEIVE).seal(counter, packet)


class Bench:
    """A data path between a tunnel device and a bind, and a far end that reads and sends by hand."""

    def __init__(self, tun: MemoryTun | None = None) -> None:
        self.network = MemoryNetwork()
        self.tun = tun or MemoryTun()
        self.bind = MemoryBind(self.network, ["192.0.2.1"], 51820)
        self.far = MemoryBind(self.network, [REMOTE.host], REMOTE.port, group=False)
        self.datapath = PortableDataPath(self.tun)
        self.datapath.set_bind(self.bind)
        self.datapath.set_endpoint(PEER, REMOTE)
        self.datapath.add_routes(PEER, [Network.parse("10.0.0.2/32")])

    def out(self, number: int = 1, *, destination: str = "10.0.0.2", size: int = 4) -> list[bytes]:
        packets = [udp_packet("10.0.0.1", destination, b"%0*d" % (size, n)) for n in range(number)]
        self.tun.deliver(*packets)
        return packets

    def arrive(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.network.transmit(datagram, REMOTE, Endpoint("192.0.2.1", 51820))
        self.network.advance(0.0)

    def left(self) -> list[bytes]:
        """The plaintexts of what reached the far end."""
        self.network.advance(0.0)
        plaintexts = []
        while (received := self.far.receive()) is not None:
            counter = int.from_bytes(received.data[8:16], "little")
            plaintexts.append(SessionCipher(SEND).open(counter, received.data[16:]))
        return plaintexts


INCOMING = udp_packet("10.0.0.2", "10.0.0.1", b"hello")


# --- Bursts. ----------------------------------------------------------------------------------------------


def test_a_step_tells_whether_something_was_moved() -> None:
    bench = Bench()
    bench.datapath.install(session())
    assert not bench.datapath.step(1.0)
    bench.out()
    assert bench.datapath.step(1.0)
    assert not bench.datapath.step(1.0)
    bench.arrive(sealed(INCOMING, 0))
    assert bench.datapath.step(1.0)
    assert not bench.datapath.step(1.0)


def test_a_step_moves_64_frames_each_way_at_most() -> None:
    bench = Bench()
    bench.bind = MemoryBind(bench.network, ["192.0.2.3"], 51820, group=False)
    bench.datapath.set_bind(bench.bind)
    bench.datapath.install(session())
    bench.out(100)
    for counter in range(100):
        bench.network.transmit(sealed(INCOMING, counter), REMOTE, Endpoint("192.0.2.3", 51820))
    bench.network.advance(0.0)
    for moved in (64, 36):
        bench.datapath.step(1.0)
        assert len(bench.left()) == moved
        assert len(bench.tun.packets()) == moved


def test_a_step_ends_after_256_kib_each_way() -> None:
    bench = Bench()
    bench.datapath.install(session())
    bench.out(20, size=60_000)
    bench.datapath.step(1.0)
    assert bench.tun.waiting == 15
    big = udp_packet("10.0.0.2", "10.0.0.1", bytes(60_000))
    bench.arrive(*(sealed(big, counter) for counter in range(20)))
    bench.datapath.step(1.0)
    assert bench.bind.waiting == 15


def test_a_frame_with_a_virtio_header_is_split_and_a_broken_one_counted() -> None:
    bench = Bench(MemoryTun(offload=TunOffload(vnet_hdr=True, tso=True, uso=True)))
    bench.datapath.install(session())
    packet = bench.out()[0]
    bench.tun.deliver_frame(b"\0\1")
    bench.tun.deliver_frame(struct.pack("=BBHHHH", 1, 5, 40, 0, 20, 16) + packet)
    bench.datapath.step(1.0)
    assert [plaintext[: len(packet)] for plaintext in bench.left()] == [packet]
    assert bench.datapath.drain(1.0).drops.total() == 2


def test_injected_packets_get_a_virtio_header_where_the_device_wants_one() -> None:
    for offload, header in ((TunOffload(), b""), (TunOffload(vnet_hdr=True), bytes(10))):
        bench = Bench(MemoryTun(offload=offload))
        bench.datapath.inject([INCOMING, INCOMING])
        assert bench.tun.take() == [header + INCOMING] * 2


# --- What is handed up. -----------------------------------------------------------------------------------


def test_packets_without_a_session_are_handed_up_1024_at_most() -> None:
    bench = Bench()
    packets = bench.out(1500)
    while bench.datapath.step(1.0):
        pass
    report = bench.datapath.drain(1.0)
    assert report.no_session == [(PEER, packets[:1024])]
    assert report.drops == {DropReason.STAGED_OVERFLOW: 476}
    assert bench.datapath.drain(1.0).no_session == []


def test_packets_without_a_route_are_handed_up_16_at_most() -> None:
    bench = Bench()
    packets = bench.out(40, destination="10.77.0.1")
    bench.datapath.step(1.0)
    report = bench.datapath.drain(1.0)
    assert report.no_route == packets[:16]
    assert report.drops == {DropReason.NO_ROUTE: 24}


def test_control_messages_are_handed_up_1024_at_most_and_256_from_one_source() -> None:
    bench = Bench()
    key = cookie.mac1_key(PrivateKey(bytes(range(32))).public_key)
    bench.datapath.set_identity(key)
    response = b"\2" + bytes(59)
    response += cookie.mac1(key, response) + bytes(16)
    cookie_reply = b"\3" + bytes(63)  # nothing proves where it is from
    for message, sources, handed_up in (
        (response, 1, 256),
        (response, 2, 512),
        (response, 10, 1024),
        (cookie_reply, 10, 256),
    ):
        for number in range(1500):
            source = Endpoint(f"192.0.2.{10 + number % sources}", 1000)
            bench.network.transmit(message, source, Endpoint("192.0.2.1", 51820))
        bench.network.advance(0.0)
        while bench.datapath.step(1.0):
            pass
        report = bench.datapath.drain(1.0)
        assert len(report.control) == handed_up
        assert report.drops == {DropReason.QUEUE_FULL: 1500 - handed_up}


def test_a_message_with_a_mac1_is_dropped_while_there_is_no_identity() -> None:
    bench = Bench()
    bench.arrive(b"\1" + bytes(147), b"\2" + bytes(91), b"\3" + bytes(63))
    bench.datapath.step(1.0)
    report = bench.datapath.drain(1.0)
    assert [datagram[0] for datagram, _ in report.control] == [3]
    assert report.drops == {DropReason.NO_PRIVATE_KEY: 2}


def test_packets_of_an_expired_session_are_handed_up() -> None:
    bench = Bench()
    bench.datapath.install(session())
    packets = bench.out(2)
    bench.datapath.step(180.0)
    assert bench.datapath.drain(180.0).no_session == [(PEER, packets)]


def test_staged_packets_come_back_and_keepalives_do_not_without_a_session() -> None:
    bench = Bench()
    bench.datapath.send(PEER, [INCOMING], 1.0)
    bench.datapath.send(PEER, [], 1.0)
    assert bench.datapath.drain(1.0).no_session == [(PEER, [INCOMING])]


# --- Sessions. --------------------------------------------------------------------------------------------


def test_a_session_that_may_not_send_yet_receives_and_sends_once_activated() -> None:
    bench = Bench()
    bench.datapath.install(session(may_send=False))
    bench.arrive(sealed(INCOMING, 0))
    bench.out()
    bench.datapath.step(1.0)
    assert bench.tun.packets() == [INCOMING]
    assert bench.left() == []
    bench.datapath.activate(OURS)
    bench.out()
    bench.datapath.step(1.0)
    assert len(bench.left()) == 1


def test_a_retired_session_neither_sends_nor_receives() -> None:
    bench = Bench()
    bench.datapath.install(session())
    bench.datapath.retire(OURS)
    bench.arrive(sealed(INCOMING, 0))
    bench.out()
    bench.datapath.step(1.0)
    assert bench.tun.packets() == bench.left() == []
    assert bench.datapath.drain(1.0).drops == {DropReason.UNKNOWN_INDEX: 1}


def test_retiring_an_earlier_session_leaves_the_current_one() -> None:
    bench = Bench()
    bench.datapath.install(session(index=1))
    bench.datapath.install(session(index=2))
    bench.datapath.retire(1)
    bench.out()
    bench.datapath.step(1.0)
    assert len(bench.left()) == 1


def test_unknown_indices_are_ignored() -> None:
    bench = Bench()
    bench.datapath.activate(5)
    bench.datapath.retire(5)
    bench.out()
    bench.datapath.step(1.0)
    assert bench.left() == []


def test_the_message_limit_ends_sending_and_is_told_once() -> None:
    bench = Bench()
    bench.datapath.install(session(limit=3))
    packets = bench.out(5)
    bench.datapath.step(1.0)
    assert len(bench.left()) == 3
    report = bench.datapath.drain(1.0)
    assert report.no_session == [(PEER, packets[3:])]
    assert report.activity[0].exhausted
    bench.out()
    bench.datapath.step(2.0)
    report = bench.datapath.drain(2.0)
    assert report.activity == []
    assert len(report.no_session) == 1


def test_the_rekey_limit_is_told_once() -> None:
    bench = Bench()
    bench.datapath.install(session(rekey=3))
    told = []
    for now in range(1, 7):
        bench.out()
        bench.datapath.step(float(now))
        told.append(bench.datapath.drain(float(now)).activity[0].rekey_limit_reached)
    assert told == [False, False, True, False, False, False]


# --- What is reported. ------------------------------------------------------------------------------------


def test_activity_counts_whole_messages_and_keepalives_too() -> None:
    bench = Bench()
    bench.datapath.install(session())
    bench.out(2, size=4)
    bench.datapath.step(1.0)
    bench.datapath.send(PEER, [], 2.0)
    bench.arrive(sealed(b"", 0), sealed(INCOMING, 1))
    bench.datapath.step(3.0)
    (activity,) = bench.datapath.drain(3.0).activity
    assert (activity.local_index, activity.peer) == (OURS, PEER)
    assert (activity.sent_packets, activity.sent_bytes) == (3, 2 * (32 + 32) + 32)
    assert (activity.received_packets, activity.received_bytes) == (2, 32 + 32 + len(INCOMING))
    assert (activity.any_sent, activity.data_sent) == (2.0, 1.0)
    assert (activity.any_received, activity.data_received) == (3.0, 3.0)
    assert activity.unanswered_since is None
    assert activity.unacknowledged_since == 3.0
    assert activity.first_use
    assert bench.datapath.drain(3.0).activity == []


def test_unanswered_since_is_the_first_data_after_the_last_message_received() -> None:
    bench = Bench()
    bench.datapath.install(session())
    for now, receives in ((1.0, False), (2.0, True), (3.0, False), (4.0, False)):
        bench.out()
        if receives:
            bench.arrive(sealed(b"", int(now)))
        bench.datapath.step(now)
    (activity,) = bench.datapath.drain(4.0).activity
    assert activity.unanswered_since == 3.0
    assert activity.data_sent == 4.0


def test_a_keepalive_neither_asks_for_an_answer_nor_for_an_acknowledgement() -> None:
    bench = Bench()
    bench.datapath.install(session())
    bench.datapath.send(PEER, [], 1.0)
    bench.arrive(sealed(b"", 0))
    bench.datapath.step(2.0)
    (activity,) = bench.datapath.drain(2.0).activity
    assert activity.unanswered_since is activity.unacknowledged_since is None
    assert activity.data_sent is activity.data_received is None


def test_the_first_use_is_told_once() -> None:
    bench = Bench()
    bench.datapath.install(session())
    told = []
    for counter in range(3):
        bench.arrive(sealed(b"", counter))
        bench.datapath.step(1.0)
        told.append(bench.datapath.drain(1.0).activity[0].first_use)
    assert told == [True, False, False]


def test_a_new_source_is_reported_and_followed() -> None:
    bench = Bench()
    bench.datapath.install(session())
    elsewhere = MemoryBind(bench.network, ["192.0.2.9"], 9999)
    bench.network.transmit(sealed(b"", 0), elsewhere.endpoint(), Endpoint("192.0.2.1", 51820))
    bench.network.advance(0.0)
    bench.datapath.step(1.0)
    assert bench.datapath.drain(1.0).moved == [(PEER, Endpoint("192.0.2.9", 9999))]
    bench.out()
    bench.datapath.step(1.0)
    bench.network.advance(0.0)
    assert elsewhere.waiting == 1
    bench.arrive(sealed(b"", 1))
    bench.datapath.step(1.0)
    assert bench.datapath.drain(1.0).moved == [(PEER, REMOTE)]


def test_a_move_that_was_overtaken_by_set_endpoint_is_not_reported() -> None:
    bench = Bench()
    bench.datapath.install(session())
    bench.network.transmit(sealed(b"", 0), Endpoint("192.0.2.9", 9), Endpoint("192.0.2.1", 51820))
    bench.network.advance(0.0)
    bench.datapath.step(1.0)
    bench.datapath.set_endpoint(PEER, REMOTE)
    assert bench.datapath.drain(1.0).moved == []


# --- Troubles. --------------------------------------------------------------------------------------------


def test_without_a_bind_packets_of_the_host_are_dropped() -> None:
    bench = Bench()
    bench.datapath.install(session())
    bench.datapath.set_bind(None)
    bench.out(3)
    bench.datapath.step(1.0)
    bench.datapath.send(PEER, [INCOMING], 1.0)
    assert bench.datapath.drain(1.0).drops == {DropReason.DEVICE_DOWN: 4}


def test_without_an_endpoint_packets_are_dropped() -> None:
    bench = Bench()
    bench.datapath.install(session())
    bench.datapath.set_endpoint(PEER, None)
    bench.out(3)
    bench.datapath.step(1.0)
    assert bench.datapath.drain(1.0).drops == {DropReason.NO_ENDPOINT: 3}


def test_datagrams_that_the_kernel_refuses_are_dropped() -> None:
    bench = Bench()
    bench.datapath.install(session())
    bench.datapath.set_endpoint(PEER, Endpoint("2001:db8::2", 51820))  # and the bind has no IPv6
    bench.out(3)
    assert bench.datapath.step(1.0)
    assert bench.datapath.drain(1.0).drops == {DropReason.SEND_FAILED: 3}


def test_a_tunnel_device_that_refuses_a_packet_is_only_counted() -> None:
    bench = Bench()
    bench.datapath.install(session())
    bench.tun.set_state(up=False)
    bench.arrive(sealed(INCOMING, 0))
    bench.datapath.step(1.0)
    bench.datapath.inject([INCOMING])
    assert bench.datapath.drain(1.0).drops == {DropReason.TUN_WRITE_FAILED: 2}


def test_a_tunnel_device_that_is_gone_ends_the_step() -> None:
    bench = Bench()
    bench.tun.remove()
    with pytest.raises(TunGoneError):
        bench.datapath.step(1.0)
    with pytest.raises(TunGoneError):
        bench.datapath.inject([INCOMING])


def test_a_socket_that_would_block_keeps_what_is_sealed_and_stops_the_tunnel_device() -> None:
    bench = Bench()
    bench.datapath.install(session())
    packets = bench.out(10)
    bench.bind.room = 4
    bench.datapath.step(1.0)
    assert len(bench.left()) == 4
    packets += bench.out(5)
    bench.datapath.step(1.0)
    assert bench.tun.waiting == 5
    bench.datapath.send(PEER, [INCOMING], 1.0)
    bench.bind.room = None
    assert bench.datapath.step(1.0)
    left = bench.left()
    assert [plaintext[: len(packets[0])] for plaintext in left] == [
        *packets[4:10],
        INCOMING[: len(packets[0])],
        *packets[10:],
    ]
    assert bench.datapath.drain(1.0).drops == {}


def test_what_a_full_socket_kept_is_dropped_with_its_bind() -> None:
    bench = Bench()
    bench.datapath.install(session())
    bench.out(10)
    bench.bind.room = 0
    bench.datapath.step(1.0)
    bench.datapath.set_bind(bench.bind)
    bench.bind.room = None
    bench.datapath.step(1.0)
    assert bench.left() == []


def test_what_a_full_socket_kept_is_dropped_with_its_peer_s_endpoint() -> None:
    bench = Bench()
    bench.datapath.install(session())
    bench.out(10)
    bench.bind.room = 3
    bench.datapath.step(1.0)
    bench.datapath.set_endpoint(PEER, None)
    bench.datapath.step(1.0)
    assert bench.datapath.drain(1.0).drops == {DropReason.NO_ENDPOINT: 7}


def test_nothing_arrives_while_a_full_socket_blocks_that_would_not_be_taken_in() -> None:
    bench = Bench()
    bench.datapath.install(session())
    bench.out(10)
    bench.bind.room = 0
    bench.arrive(sealed(INCOMING, 0))
    bench.datapath.step(1.0)
    assert bench.tun.packets() == [INCOMING]


# --- Readiness. -------------------------------------------------------------------------------------------


class Pipes:
    """A started data path on descriptors."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.tun = PipeTun()
        self.bind = PipeBind(self.network, "192.0.2.1")
        self.datapath = PortableDataPath(self.tun)
        self.datapath.start()
        self.datapath.set_bind(self.bind)
        self.datapath.set_endpoint(PEER, REMOTE)
        self.datapath.add_routes(PEER, [Network.parse("10.0.0.2/32")])
        self.datapath.install(session())

    def is_ready(self) -> bool:
        return bool(select.select([self.datapath.fileno()], [], [], 0)[0])

    def close(self) -> None:
        self.datapath.close()
        self.bind.close()
        self.tun.close()


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    pipes.close()


def test_a_waiting_frame_makes_the_descriptor_readable(pipes: Pipes) -> None:
    assert not pipes.is_ready()
    pipes.tun.host.send(udp_packet("10.0.0.1", "10.0.0.2"))
    assert pipes.is_ready()
    pipes.datapath.step(1.0)
    assert not pipes.is_ready()


def test_with_a_full_socket_only_room_in_it_makes_the_descriptor_readable(pipes: Pipes) -> None:
    pipes.tun.host.send(udp_packet("10.0.0.1", "10.0.0.2"))
    pipes.bind.room = 0
    pipes.datapath.step(1.0)
    assert pipes.is_ready()  # this bind's descriptor is always writable
    pipes.bind.room = None
    pipes.datapath.step(1.0)
    assert not pipes.is_ready()


def test_staged_packets_that_a_full_socket_kept_make_it_wait_for_room(pipes: Pipes) -> None:
    pipes.bind.room = 0
    pipes.datapath.send(PEER, [INCOMING], 1.0)
    assert pipes.is_ready()


def test_sockets_of_an_earlier_bind_are_forgotten(pipes: Pipes) -> None:
    other = PipeBind(pipes.network, "192.0.2.3")
    pipes.datapath.set_bind(other)
    pipes.datapath.set_bind(None)
    other.close()
    assert not pipes.is_ready()
    pipes.tun.host.send(b"x")
    assert pipes.is_ready()


def test_before_start_and_after_close_there_is_no_descriptor() -> None:
    datapath = PortableDataPath(MemoryTun())
    assert datapath.fileno() == -1
    datapath.start()
    assert datapath.fileno() >= 0
    datapath.close()
    datapath.close()
    assert datapath.fileno() == -1


def test_closing_forgets_all_keys() -> None:
    bench = Bench()
    bench.datapath.install(session())
    bench.datapath.close()
    bench.out()
    bench.arrive(sealed(INCOMING, 0))
    bench.datapath.step(1.0)
    assert bench.left() == bench.tun.packets() == []


def test_the_errors_of_memory_are_those_of_the_system() -> None:
    bench = Bench()
    with pytest.raises(OSError, match="family") as caught:
        bench.bind.send([b"x"], Endpoint("2001:db8::2", 1), 0)
    assert caught.value.errno == errno.EAFNOSUPPORT
