"""The asyncio shell on real descriptors: two engines on the loopback, with socket pairs as tunnel devices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import selectors
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from pywg import clock
from pywg.bind.memory import MemoryBind, MemoryNetwork
from pywg.bind.udp import UdpBind
from pywg.datapath.portable import PortableDataPath
from pywg.device.device import Device
from pywg.device.session import Report
from pywg.engine import Engine
from pywg.errors import DropReason, PywgError
from pywg.noise.keys import PrivateKey, PublicKey
from pywg.tun.base import TunGoneError
from pywg.tun.memory import MemoryTun
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network
from tests.spec.world import payload_of, udp_packet
from tests.unit.datapath.pipes import PipeTun

WAIT = 10


class Node:
    """One engine, its tunnel device and its task."""

    def __init__(self, inner: str, open_bind: Callable[[int, int], UdpBind] = UdpBind.open) -> None:
        self.inner = inner
        self.tun = PipeTun()
        device = Device(os.urandom, lambda: 1_700_000_000 * 10**9)
        self.engine = Engine(device, PortableDataPath(self.tun), self.tun, open_bind)
        private_key = PrivateKey.generate(os.urandom)
        self.public_key: PublicKey = private_key.public_key
        self.engine.set_private_key(private_key)
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.task = asyncio.create_task(self.engine.run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def know(self, other: Node) -> None:
        peer = self.engine.add_peer(other.public_key)
        port = other.engine.snapshot().listen_port
        self.engine.set_endpoint(peer, Endpoint("127.0.0.1", port))
        self.engine.add_allowed_ips(peer, [Network.parse(f"{other.inner}/32")])
        self.engine.commit()

    def send(self, other: Node, payload: bytes) -> None:
        self.tun.host.send(udp_packet(self.inner, other.inner, payload))

    async def receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        return payload_of(await asyncio.wait_for(loop.run_in_executor(None, self.tun.host.recv, 65536), WAIT))


@contextlib.asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    for node in nodes:
        await node.start()
    try:
        yield
    finally:
        for node in nodes:
            assert node.task is not None
            node.task.cancel()
            with contextlib.suppress(asyncio.CancelledError, PywgError, RuntimeError):
                await node.task
            node.tun.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something is so."""
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # what is waited for calls nobody


def play(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


@pytest.mark.parametrize("selector", [selectors.DefaultSelector, selectors.SelectSelector])
def test_packets_go_both_ways_between_two_running_engines(
    selector: type[selectors.BaseSelector], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selectors, "DefaultSelector", selector)  # select: all that there is on Windows

    async def story() -> None:
        alice, bob = Node("10.0.0.1"), Node("10.0.0.2")
        async with running(alice, bob):
            alice.know(bob)
            bob.know(alice)
            for number in range(20):
                alice.send(bob, b"there %d" % number)
                assert await bob.receive() == b"there %d" % number
                bob.send(alice, b"back %d" % number)
                assert await alice.receive() == b"back %d" % number
            (peer,) = alice.engine.snapshot().peers
            assert peer.last_handshake_ns
            assert alice.engine.drops.total() == 0

    play(story)


def open_descriptors() -> int:
    return sum(1 for _ in pathlib.Path("/proc/self/fd").iterdir())


def test_cancelling_closes_sockets_and_forgets_sessions() -> None:
    async def story() -> None:
        before = open_descriptors()
        alice, bob = Node("10.0.0.1"), Node("10.0.0.2")
        async with running(alice, bob):
            alice.know(bob)
            bob.know(alice)
            alice.send(bob, b"x")
            await bob.receive()
        peer = alice.engine.peer(bob.public_key)
        assert peer is not None
        assert peer.keypairs.current is None
        assert open_descriptors() == before

    play(story)


def test_a_removed_tunnel_device_ends_it() -> None:
    async def story() -> None:
        alice = Node("10.0.0.1")
        async with running(alice):
            alice.tun.remove()
            assert alice.task is not None
            with pytest.raises(TunGoneError):
                await asyncio.wait_for(alice.task, WAIT)

    play(story)


def test_a_fault_in_a_callback_ends_it_with_that_fault() -> None:
    async def story() -> None:
        alice = Node("10.0.0.1")
        async with running(alice):

            def broken() -> bytes | None:
                raise RuntimeError("a fault of ours")

            alice.tun.read = broken  # type: ignore[method-assign]
            alice.tun.host.send(b"x")
            assert alice.task is not None
            with pytest.raises(RuntimeError, match="a fault of ours"):
                await asyncio.wait_for(alice.task, WAIT)

    play(story)


def test_down_and_up_and_mtu_of_the_tunnel_device_are_followed() -> None:
    async def story() -> None:
        alice, bob = Node("10.0.0.1"), Node("10.0.0.2")
        async with running(alice, bob):
            alice.know(bob)
            bob.know(alice)
            port = alice.engine.snapshot().listen_port
            alice.tun.set_state(up=False)
            with pytest.raises(PywgError, match="in use"):
                UdpBind.open(port)
            await until(lambda: is_free(port))
            alice.tun.set_state(mtu=1280, up=True)
            await until(lambda: not is_free(port))
            alice.send(bob, b"again")
            assert await bob.receive() == b"again"

    play(story)


def is_free(port: int) -> bool:
    try:
        UdpBind.open(port).close()
    except PywgError:
        return False
    return True


def test_a_port_that_cannot_be_had_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        refuse = True

        def open_bind(port: int, mark: int) -> UdpBind:
            if refuse:
                raise PywgError(f"UDP port {port} is in use by another program")
            return UdpBind.open(port, mark)

        alice = Node("10.0.0.1", open_bind)
        with contextlib.suppress(PywgError):
            alice.engine.set_listen_port(0)
        async with running(alice):
            await until(lambda: "can't go up: UDP port 0 is in use" in caplog.text)
            refuse = False
            alice.tun.set_state()
            await until(lambda: alice.engine.snapshot().listen_port > 0)

    play(story)


def test_timers_run_without_traffic() -> None:
    """A persistent keepalive of a second, to a peer that is there."""

    async def story() -> None:
        alice, bob = Node("10.0.0.1"), Node("10.0.0.2")
        async with running(alice, bob):
            alice.know(bob)
            bob.know(alice)
            peer = alice.engine.peer(bob.public_key)
            assert peer is not None
            alice.engine.set_persistent_keepalive(peer, 1)
            alice.engine.commit()
            await until(lambda: alice.engine.snapshot().peers[0].tx_bytes == 148 + 32 + 32)

    play(story)


class RoutedBind(UdpBind):
    """Its routes change when a test says so."""

    def watch(self, descriptor: socket.socket) -> None:
        self.descriptor = descriptor

    def changes_fileno(self) -> int:
        return self.descriptor.fileno()

    def take_changes(self) -> None:
        self.descriptor.recv(1)


def test_learned_local_addresses_are_forgotten_when_routes_change() -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()

        def open_bind(port: int, mark: int) -> UdpBind:
            bind = RoutedBind.open(port, mark)
            assert isinstance(bind, RoutedBind)
            bind.watch(ours)
            return bind

        alice, bob = Node("10.0.0.1", open_bind), Node("10.0.0.2")
        async with running(alice, bob):
            alice.know(bob)
            bob.know(alice)
            bob.send(alice, b"x")
            await alice.receive()
            peer = alice.engine.peer(bob.public_key)
            assert peer is not None
            assert peer.endpoint is not None
            assert peer.endpoint.local is not None
            theirs.send(b"!")
            await until(lambda: peer.endpoint is not None and peer.endpoint.local is None)
        for each in (ours, theirs):
            each.close()

    play(story)


# --- Without a loop. --------------------------------------------------------------------------------------


class TroubledDataPath(PortableDataPath):
    """Says once that more waits than it handed up."""

    def __init__(self, tun: MemoryTun) -> None:
        super().__init__(tun)
        self.more = False

    def drain(self, now: float) -> Report:
        report = super().drain(now)
        report.more, self.more = self.more, False
        return report


def make_engine(now: Callable[[], float] = lambda: 100.0) -> tuple[Engine, TroubledDataPath, MemoryTun]:
    network = MemoryNetwork()
    tun = MemoryTun()
    datapath = TroubledDataPath(tun)
    device = Device(os.urandom, lambda: 0)
    engine = Engine(device, datapath, tun, lambda port, mark: MemoryBind(network, "192.0.2.1", port), now)
    engine.set_private_key(PrivateKey.generate(os.urandom))
    engine.follow_tun()
    return engine, datapath, tun


def test_a_turn_is_due_at_once_when_more_waits_than_was_handed_up() -> None:
    engine, datapath, _ = make_engine()
    datapath.more = True
    engine.turn()
    assert engine.next_turn() == 100.0
    engine.turn()
    assert engine.next_turn() is None


def test_a_turn_is_due_at_once_while_handshakes_wait() -> None:
    engine, _, _ = make_engine()
    for _ in range(40):
        engine.device.receive(b"\1\0\0\0" + bytes(144), Endpoint("192.0.2.2", 1))
    engine.turn()
    assert engine.next_turn() == 100.0
    engine.turn()
    assert engine.next_turn() is None
    assert engine.drops.total() == 40


def test_a_handshake_message_that_cannot_be_sent_is_counted() -> None:
    engine, _, tun = make_engine()
    peer = engine.add_peer(PrivateKey.generate(os.urandom).public_key)
    engine.add_allowed_ips(peer, [Network.parse("10.0.0.2/32")])
    engine.set_endpoint(peer, Endpoint("2001:db8::1", 51820))  # and the bind has no IPv6
    engine.commit()
    tun.deliver(udp_packet("10.0.0.1", "10.0.0.2"))
    engine.turn()
    assert engine.drops == {DropReason.SEND_FAILED: 1}


def test_a_handshake_message_that_meets_a_full_socket_is_counted() -> None:
    network = MemoryNetwork()
    bind = MemoryBind(network, "192.0.2.1")
    bind.room = 0
    tun = MemoryTun()
    engine = Engine(
        Device(os.urandom, lambda: 0), PortableDataPath(tun), tun, lambda port, mark: bind, clock.now
    )
    engine.set_private_key(PrivateKey.generate(os.urandom))
    engine.follow_tun()
    peer = engine.add_peer(PrivateKey.generate(os.urandom).public_key)
    engine.set_endpoint(peer, Endpoint("192.0.2.2", 51820))
    engine.set_persistent_keepalive(peer, 25)
    engine.commit()
    assert engine.drops == {DropReason.SEND_FAILED: 1}


def test_a_snapshot_of_a_device_whose_tunnel_device_is_gone_still_tells_its_peers() -> None:
    engine, _, tun = make_engine()
    engine.add_peer(PrivateKey.generate(os.urandom).public_key)
    tun.remove()
    assert len(engine.snapshot().peers) == 1


def test_allowed_ips_are_given_and_taken() -> None:
    engine, _, _ = make_engine()
    peer = engine.add_peer(PrivateKey.generate(os.urandom).public_key)
    networks = [Network.parse("10.0.0.0/8"), Network.parse("fd00::/8")]
    for network in networks:
        engine.add_allowed_ips(peer, [network])
    assert engine.device.allowed_ips(peer) == networks
    engine.remove_allowed_ip(peer, networks[0])
    assert engine.device.allowed_ips(peer) == networks[1:]
    engine.clear_allowed_ips(peer)
    assert engine.device.allowed_ips(peer) == []
