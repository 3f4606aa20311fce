"""A small world for tests: hosts with the real control plane and the portable data path, on a virtual clock.

    world = World(seed=1)
    alice, bob = world.pair()
    alice.tun.deliver(alice.packet_to(bob))
    world.run(1.0)
    assert bob.received() == [...]
"""

from __future__ import annotations

import ipaddress
import random
import struct

from pywg.bind.memory import MemoryBind, MemoryNetwork
from pywg.datapath.portable import PortableDataPath
from pywg.device.device import Device
from pywg.device.peer import Peer
from pywg.engine import Engine
from pywg.noise.keys import PresharedKey, PrivateKey
from pywg.tun.memory import MemoryTun
from pywg.wire import ip
from pywg.wire.endpoint import Endpoint

WALL_EPOCH_NS = 1_700_000_000 * 10**9
PORT = 51820


class Host:
    """One machine: a device with a tunnel device and a bind in memory."""

    def __init__(self, world: World, name: str, outer: list[str], inner: str, seed: int) -> None:
        self.world = world
        self.name = name
        self.inner = inner
        self.wall_offset_ns = 0
        chance = random.Random(seed)
        self.private_key = PrivateKey.generate(chance.randbytes)
        self.tun = MemoryTun(name)
        self.outer = list(outer)
        self.device = Device(chance.randbytes, self.wall_clock)
        self.datapath = PortableDataPath(self.tun)
        self.engine = Engine(self.device, self.datapath, self.tun, self._open_bind, lambda: world.now)
        self.engine.set_private_key(self.private_key)
        self.engine.set_listen_port(PORT)
        self.engine.follow_tun()
        self.bind: MemoryBind

    def _open_bind(self, port: int, mark: int) -> MemoryBind:
        self.bind = MemoryBind(self.world.network, self.outer, port)
        self.bind.set_mark(mark)
        return self.bind

    def wall_clock(self) -> int:
        return WALL_EPOCH_NS + int(self.world.now * 1e9) + self.wall_offset_ns

    @property
    def public_key(self):
        return self.private_key.public_key

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.outer[0], PORT)

    def add_peer(
        self,
        other: Host,
        *,
        endpoint: bool = True,
        psk: PresharedKey | None = None,
        allowed: list[str] | None = None,
        keepalive: int = 0,
    ) -> Peer:
        peer = self.engine.add_peer(other.public_key)
        if psk is not None:
            self.engine.set_preshared_key(peer, psk)
        if endpoint:
            self.engine.set_endpoint(peer, other.endpoint)
        for network in allowed if allowed is not None else [other.inner]:
            self.engine.add_allowed_ip(peer, ipaddress.ip_network(network))
        if keepalive:
            self.engine.set_persistent_keepalive(peer, keepalive)
        self.engine.commit()
        return peer

    def peer(self, other: Host) -> Peer:
        found = self.device.peer(other.public_key)
        assert found is not None
        return found

    def send(self, other: Host, payload: bytes = b"hello", *, source: str | None = None, ecn: int = 0) -> bytes:
        """Deliver one UDP packet for the other host to the tunnel device; returns the packet."""
        packet = udp_packet(source or self.inner, other.inner, payload, ecn=ecn)
        self.tun.deliver(packet)
        return packet

    def received(self) -> list[bytes]:
        """The packets that came out of the tunnel since the last call."""
        return self.tun.packets()

    def session_with(self, other: Host):
        return self.peer(other).keypairs.current


class World:
    """Hosts, a network and a clock. `run` lets time pass; nothing sleeps."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 1000.0
        self.chance = random.Random(seed)
        self.network = MemoryNetwork(seed)
        self.network.advance(self.now)
        self.hosts: list[Host] = []

    def host(self, name: str, outer: list[str] | str, inner: str) -> Host:
        outer = [outer] if isinstance(outer, str) else outer
        host = Host(self, name, outer, inner, self.chance.getrandbits(64))
        self.hosts.append(host)
        return host

    def pair(self, *, psk: PresharedKey | None = None, keepalive: int = 0) -> tuple[Host, Host]:
        """Two hosts, each with the other as its peer."""
        alice = self.host("alice", "192.0.2.1", "10.0.0.1")
        bob = self.host("bob", "192.0.2.2", "10.0.0.2")
        alice.add_peer(bob, psk=psk, keepalive=keepalive)
        bob.add_peer(alice, psk=psk)
        return alice, bob

    def settle(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(10_000):
            delivered = self.network.advance(self.now)
            busy = False
            for host in self.hosts:
                before = len(host.bind._inbox) + len(host.tun._inbound) if hasattr(host, "bind") else 0
                host.engine.turn()
                due = host.engine.device.next_timeout()
                busy = busy or before > 0 or host.device.has_work() or (due is not None and due <= self.now)
            if not delivered and not busy and not self._in_flight_now():
                return
        raise AssertionError("the world does not come to rest")

    def _in_flight_now(self) -> bool:
        due = self.network.next_delivery()
        return due is not None and due <= self.now

    def run(self, seconds: float) -> None:
        """Let `seconds` pass, stopping at every deadline on the way."""
        end = self.now + seconds
        while True:
            self.settle()
            deadlines = [host.device.next_timeout() for host in self.hosts] + [self.network.next_delivery()]
            upcoming = min((deadline for deadline in deadlines if deadline is not None), default=end)
            if upcoming > end:
                break
            self.now = max(self.now, upcoming)
        self.now = end
        self.settle()

    def connect(self, a: Host, b: Host) -> None:
        """Make a session between two hosts, confirmed on both sides."""
        a.send(b)
        self.settle()
        assert b.received(), "no packet came through"


def udp_packet(source: str, destination: str, payload: bytes = b"", *, ecn: int = 0) -> bytes:
    """A whole IPv4 or IPv6 packet with a UDP header and right checksums."""
    src, dst = (ipaddress.ip_address(address).packed for address in (source, destination))
    datagram = bytearray(struct.pack("!HHHH", 1234, 4321, 8 + len(payload), 0) + payload)
    checksum = ip.internet_checksum(ip.pseudo_header(src, dst, 17, len(datagram)) + bytes(datagram))
    struct.pack_into("!H", datagram, 6, checksum or 0xFFFF)
    if len(src) == 16:
        return struct.pack("!IHBB16s16s", 6 << 28 | ecn << 20, len(datagram), 17, 64, src, dst) + datagram
    header = bytearray(struct.pack("!BBHHHBBH4s4s", 0x45, ecn, 20 + len(datagram), 1, 0, 64, 17, 0, src, dst))
    struct.pack_into("!H", header, 10, ip.internet_checksum(header))
    return bytes(header + datagram)
