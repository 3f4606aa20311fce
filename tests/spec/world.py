"""A small world for tests: hosts with the real control plane and the portable data path, on a virtual clock.

    world = World(seed=1)
    alice, bob = world.pair()
    alice.send(bob, b"hello")
    world.run(1.0)
    assert bob.payloads() == [b"hello"]

Time passes only in `run`, which stops at every deadline on its way. A `Puppet` is a peer that a test moves by
hand: it makes any message that a peer with right keys could make, and many that it should not.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from pywg.bind.memory import Flight, MemoryBind, MemoryNetwork
from pywg.datapath.portable import PortableDataPath
from pywg.device.device import Device
from pywg.device.keypair import Keypair
from pywg.device.peer import Peer
from pywg.device.session import Session
from pywg.engine import Engine
from pywg.errors import DropReason, PywgError
from pywg.noise import cookie, handshake, tai64n
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.noise.primitives import SessionCipher, dh
from pywg.tun.memory import MemoryTun
from pywg.wire import ip, messages
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

WALL_EPOCH_NS = 1_700_000_000 * 10**9
PORT = 51820

INITIATION, RESPONSE, COOKIE_REPLY, DATA = 1, 2, 3, 4
KEEPALIVE_SIZE = 32


class WatchedDataPath(PortableDataPath):
    """The portable data path; a test sees the sessions it was given, and may lower their limits."""

    def __init__(self, tun: MemoryTun) -> None:
        super().__init__(tun)
        self.sessions: list[Session] = []
        self._indices: set[int] = set()
        self.message_limit: int | None = None
        self.rekey_limit: int | None = None

    def install(self, session: Session) -> None:
        self.sessions.append(session)
        self._indices.add(session.local_index)
        super().install(
            dataclasses.replace(
                session,
                message_limit=self.message_limit or session.message_limit,
                rekey_limit=self.rekey_limit or session.rekey_limit,
            )
        )

    def retire(self, local_index: int) -> None:
        self._indices.remove(local_index)
        super().retire(local_index)

    def installed(self) -> frozenset[int]:
        """The indices of the sessions that were not retired."""
        return frozenset(self._indices)


class Host:
    """One machine: a device with a tunnel device and a bind in memory."""

    def __init__(
        self, world: World, name: str, outer: Sequence[str], inner: Sequence[str], seed: int
    ) -> None:
        self.world = world
        self.name = name
        self.inner = inner[0]
        self.addresses = list(inner)
        self.wall_offset_ns = 0
        self.port_taken = False
        self.asleep = False
        chance = random.Random(seed)
        self.randbytes = chance.randbytes
        self.private_key = PrivateKey.generate(chance.randbytes)
        self.outer = list(outer)
        self.boot()

    def boot(self) -> None:
        """The machine starts: a device that knows its private key and its port, and no peers."""
        self.tun = MemoryTun(self.name)
        self.device = Device(self.randbytes, self.wall_clock)
        self.datapath = self._make_datapath()
        self.engine = Engine(self.device, self.datapath, self.tun, self._open_bind, lambda: self.world.now)
        self.engine.set_private_key(self.private_key)
        self.engine.set_listen_port(PORT)
        self.bind: MemoryBind
        self.engine.follow_tun()

    def _make_datapath(self) -> PortableDataPath:
        return WatchedDataPath(self.tun)

    def _open_bind(self, port: int, mark: int) -> MemoryBind:
        if self.port_taken:
            raise PywgError(f"UDP port {port} is in use by another program")
        self.bind = MemoryBind(self.world.network, self.outer, port)
        self.bind.set_mark(mark)
        return self.bind

    def wall_clock(self) -> int:
        return WALL_EPOCH_NS + int(self.world.now * 1e9) + self.wall_offset_ns

    @property
    def public_key(self) -> PublicKey:
        return self.private_key.public_key

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.outer[0], self.bind.port)

    def add_peer(
        self,
        other: Host | Puppet,
        *,
        endpoint: Endpoint | bool = True,
        psk: PresharedKey | None = None,
        allowed: Iterable[str] | None = None,
        keepalive: int = 0,
    ) -> Peer:
        """Configure `other` as a peer. endpoint: where it is; True: where it listens; False: unknown."""
        peer = self.engine.add_peer(other.public_key)
        if psk is not None:
            self.engine.set_preshared_key(peer, psk)
        if endpoint:
            self.engine.set_endpoint(peer, other.endpoint if endpoint is True else endpoint)
        for text in other.addresses if allowed is None else allowed:
            network = text if "/" in text else f"{text}/{128 if ':' in text else 32}"
            self.engine.add_allowed_ips(peer, [Network.parse(network)])
        if keepalive:
            self.engine.set_persistent_keepalive(peer, keepalive)
        self.engine.commit()
        return peer

    def peer(self, other: Host | Puppet) -> Peer:
        found = self.device.peer(other.public_key)
        assert found is not None
        return found

    def send(
        self, other: Host | Puppet, payload: bytes = b"hello", *, source: str | None = None, ecn: int = 0
    ) -> bytes:
        """Deliver one UDP packet for the other host to the tunnel device; returns the packet."""
        packet = udp_packet(source or self.inner, other.inner, payload, ecn=ecn)
        self.tun.deliver(packet)
        return packet

    def received(self) -> list[bytes]:
        """The packets that came out of the tunnel since the last call."""
        return self.tun.packets()

    def payloads(self) -> list[bytes]:
        """Of the UDP packets that came out of the tunnel since the last call, what they carry."""
        return [payload_of(packet) for packet in self.received()]

    def keypair(self, other: Host | Puppet) -> Keypair | None:
        """The keypair that this host sends to the other with."""
        return self.peer(other).keypairs.current

    def is_ready(self) -> bool:
        """Whether the host is awake, and something waits for it or is due by now."""
        if self.asleep:
            return False
        due = self.engine.next_turn()
        return bool(self.tun.waiting or self.bind.waiting) or (due is not None and due <= self.world.now)

    @property
    def drops(self) -> Counter[DropReason]:
        return self.engine.drops

    def move(self, *addresses: str) -> None:
        """The machine gets other addresses."""
        self.outer = list(addresses)
        self.bind.move(addresses)


class World:
    """Hosts, a network and a clock. `run` lets time pass; nothing sleeps."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 1000.0
        self.chance = random.Random(seed)
        self.network = MemoryNetwork(seed, [self._record, self._cut])
        self.network.advance(self.now)
        self.hosts: list[Host] = []
        self.flights: list[Flight] = []
        """Every datagram that was sent, as an observer at the sender's door sees it; `due` is when."""
        self.lost: Callable[[Flight], bool] | None = None
        """Says which datagrams the network loses."""

    def _record(self, flight: Flight, chance: random.Random) -> Iterable[Flight]:
        self.flights.append(dataclasses.replace(flight))
        return (flight,)

    def _cut(self, flight: Flight, chance: random.Random) -> Iterable[Flight]:
        return () if self.lost is not None and self.lost(flight) else (flight,)

    def cut(self) -> None:
        """The network loses everything from now on."""
        self.lost = lambda flight: True

    def lose(self, *kinds: int) -> None:
        """The network loses all messages of these types from now on."""
        self.lost = lambda flight: flight.data[:1] in [bytes([kind]) for kind in kinds]

    def heal(self) -> None:
        """The network loses nothing any more."""
        self.lost = None

    def host(self, name: str, outer: Sequence[str] | str, inner: Sequence[str] | str) -> Host:
        host = Host(
            self,
            name,
            [outer] if isinstance(outer, str) else outer,
            [inner] if isinstance(inner, str) else inner,
            self.chance.getrandbits(64),
        )
        self.hosts.append(host)
        return host

    def pair(self, *, psk: PresharedKey | None = None, keepalive: int = 0) -> tuple[Host, Host]:
        """Two hosts, each with the other as its peer; alice sends persistent keepalives if asked to."""
        alice = self.host("alice", "192.0.2.1", ["10.0.0.1", "fd00::1"])
        bob = self.host("bob", "192.0.2.2", ["10.0.0.2", "fd00::2"])
        alice.add_peer(bob, psk=psk, keepalive=keepalive)
        bob.add_peer(alice, psk=psk)
        return alice, bob

    def host_and_puppet(self, *, psk: PresharedKey | None = None) -> tuple[Host, Puppet]:
        """A host, and a puppet that the host knows as a peer."""
        bob = self.host("bob", "192.0.2.2", ["10.0.0.2", "fd00::2"])
        puppet = Puppet(self, "198.51.100.7", ["10.0.0.7", "fd00::7"])
        puppet.psk = psk or PresharedKey.ZERO
        bob.add_peer(puppet, psk=psk)
        return bob, puppet

    def settle(self) -> None:
        """Let everything happen that needs no time. Only hosts that have cause are woken."""
        for _ in range(10_000):
            self.network.advance(self.now)
            ready = [host for host in self.hosts if host.is_ready()]
            for host in ready:
                host.engine.turn()
            if not ready and not any(deadline <= self.now for deadline in self._deadlines()):
                return
        raise AssertionError("the world does not come to rest")

    def _deadlines(self) -> list[float]:
        deadlines = [host.engine.next_turn() for host in self.hosts if not host.asleep]
        deadlines.append(self.network.next_delivery())
        return [deadline for deadline in deadlines if deadline is not None]

    def run(self, seconds: float = 0.0) -> None:
        """Let `seconds` pass, stopping at every deadline on the way."""
        end = self.now + seconds
        while True:
            self.settle()
            upcoming = min(self._deadlines(), default=end)
            if upcoming >= end:
                break
            self.now = upcoming
        self.now = end
        self.settle()

    def sleep(self, seconds: float) -> None:
        """The machines are suspended: time passes, and nothing happens meanwhile."""
        self.now += seconds

    def connect(self, a: Host, b: Host) -> None:
        """Make a session between two hosts, a the initiator, confirmed on both sides."""
        a.send(b)
        self.run()
        assert b.payloads() == [b"hello"]

    def sent(self, *kinds: int, by: Host | None = None, since: float = 0.0) -> list[Flight]:
        """The datagrams sent so far: of these message types, by this host, at or after this time."""
        return [
            flight
            for flight in self.flights
            if (not kinds or flight.data[:1] in [bytes([kind]) for kind in kinds])
            and (by is None or flight.source.host in by.outer)
            and flight.due >= since
        ]

    def times(self, *kinds: int, by: Host | None = None, since: float = 0.0) -> list[float]:
        """When those were sent."""
        return [flight.due for flight in self.sent(*kinds, by=by, since=since)]

    def keepalives(self, *, by: Host | None = None, since: float = 0.0) -> list[float]:
        """When keepalives were sent."""
        return [f.due for f in self.sent(DATA, by=by, since=since) if len(f.data) == KEEPALIVE_SIZE]


@dataclasses.dataclass(slots=True)
class PuppetSession:
    """A session as the puppet sees it."""

    receiver: int
    own_index: int
    sealer: SessionCipher
    opener: SessionCipher
    counter: int = 0

    def seal(self, packet: bytes, counter: int | None = None) -> bytes:
        """The data message with this packet, padded; under the next counter if none is given."""
        if counter is None:
            counter = self.counter
            self.counter += 1
        padded = packet + bytes(-len(packet) % 16)
        header = struct.pack("<IIQ", 4, self.receiver, counter)
        return header + self.sealer.seal(counter, padded)

    def open(self, datagram: bytes) -> bytes:
        """The plaintext of a data message, with its padding."""
        _, index, counter = struct.unpack_from("<IIQ", datagram)
        assert index == self.own_index
        return self.opener.open(counter, datagram[16:])


class Puppet:
    """A peer moved by hand. It knows the protocol's messages and has none of its manners."""

    def __init__(
        self,
        world: World,
        outer: str,
        inner: Sequence[str],
        port: int = PORT,
        private: PrivateKey | None = None,
    ) -> None:
        self.world = world
        self.addresses = list(inner)
        self.inner = inner[0]
        self.randbytes = world.chance.randbytes
        self.private_key = private or PrivateKey.generate(self.randbytes)
        self.psk = PresharedKey.ZERO
        self.bind = MemoryBind(world.network, outer, port, group=False)
        self.jar: cookie.CookieJar | None = None
        self.timestamp_ns = WALL_EPOCH_NS + int(world.now * 1e9)
        self.pending: dict[int, handshake.SentInitiation] = {}

    @property
    def public_key(self) -> PublicKey:
        return self.private_key.public_key

    @property
    def endpoint(self) -> Endpoint:
        return self.bind.endpoint()

    def stamp(self, host: Host, without_macs: bytes) -> bytes:
        """MACs on a handshake message; MAC2 when a cookie was taken in."""
        if self.jar is None:
            self.jar = cookie.CookieJar(host.public_key)
        return self.jar.stamp(without_macs, self.world.now)

    def initiation(self, host: Host, *, timestamp_ns: int | None = None, index: int | None = None) -> bytes:
        """A whole initiation to the host; its timestamp grows by itself unless one is given."""
        if timestamp_ns is None:
            self.timestamp_ns += 2**24
            timestamp_ns = self.timestamp_ns
        if index is None:
            index = int.from_bytes(self.randbytes(4), "little")
        sent = handshake.create_initiation(
            self.private_key,
            host.public_key,
            dh(bytes(self.private_key), bytes(host.public_key)),
            PrivateKey.generate(self.randbytes),
            tai64n.encode(timestamp_ns),
        )
        self.pending[index] = sent
        message = messages.Initiation(index, sent.ephemeral, sent.static, sent.timestamp)
        return self.stamp(host, message.encode_without_macs())

    def respond(self, host: Host, initiation: bytes) -> tuple[bytes, PuppetSession]:
        """The response to an initiation of the host's, and the session it begins."""
        message = messages.parse_untrusted(initiation)
        assert isinstance(message, messages.Initiation)
        received = handshake.open_initiation_untrusted(
            self.private_key, message.ephemeral, message.static, message.timestamp
        )
        received.read_timestamp_untrusted(dh(bytes(self.private_key), bytes(host.public_key)))
        ephemeral, nothing, keys = received.respond(self.psk, PrivateKey.generate(self.randbytes))
        index = int.from_bytes(self.randbytes(4), "little")
        response = messages.Response(index, message.sender, ephemeral, nothing).encode_without_macs()
        session = PuppetSession(message.sender, index, SessionCipher(keys.send), SessionCipher(keys.receive))
        return self.stamp(host, response), session

    def finish(self, response: bytes) -> PuppetSession:
        """The session that a response to one of the puppet's initiations begins."""
        message = messages.parse_untrusted(response)
        assert isinstance(message, messages.Response)
        sent = self.pending.pop(message.receiver)
        keys = sent.read_response_untrusted(self.psk, message.ephemeral, message.nothing)
        return PuppetSession(
            message.sender, message.receiver, SessionCipher(keys.send), SessionCipher(keys.receive)
        )

    def send(self, host: Host, datagram: bytes, *, source: Endpoint | None = None, tos: int = 0) -> None:
        """Let a datagram arrive at the host, from the puppet's own address or another."""
        self.world.network.transmit(datagram, source or self.endpoint, host.endpoint, tos)
        self.world.run()

    def take(self, *kinds: int) -> list[bytes]:
        """The datagrams that came since the last call, of these message types."""
        datagrams = []
        while (received := self.bind.receive()) is not None:
            datagrams.append(bytes(received.data))
        return [each for each in datagrams if not kinds or each[0] in kinds]

    def take_cookie(self, reply: bytes) -> None:
        """Take in a cookie reply; the cookie goes into the messages made from now on."""
        message = messages.parse_untrusted(reply)
        assert isinstance(message, messages.CookieReply)
        assert self.jar is not None
        self.jar.consume_reply_untrusted(message.nonce, message.cookie, self.world.now)

    def connect(self, host: Host) -> PuppetSession:
        """A session that the puppet began and confirmed with a keepalive."""
        self.take()
        self.send(host, self.initiation(host))
        (response,) = self.take(RESPONSE)
        session = self.finish(response)
        self.send(host, session.seal(b""))
        return session

    def packet_to(self, host: Host, payload: bytes = b"hello", *, ecn: int = 0) -> bytes:
        """A packet from the puppet's inner address to the host's."""
        return udp_packet(self.inner, host.inner, payload, ecn=ecn)


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


def payload_of(packet: bytes) -> bytes:
    """What a UDP packet of `udp_packet` carries."""
    return packet[28:] if packet[0] >> 4 == 4 else packet[48:]
