"""Binds without sockets, joined by a fake network that loses, repeats, delays and alters as a test tells it.

Nothing arrives until `MemoryNetwork.advance` says that its time has come, and all chance comes from one
seed, so a run can be replayed datagram by datagram.
"""

from __future__ import annotations

import dataclasses
import errno
import heapq
import ipaddress
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from pywg.bind.base import BindOffload, Received
from pywg.errors import PywgError
from pywg.wire.endpoint import Endpoint, LocalAddress

INBOX_LIMIT = 8192
"""Datagrams that wait in one bind at most; what comes after is lost, as in a socket's buffer."""


@dataclasses.dataclass(slots=True)
class Flight:
    """One datagram on its way. `source` and `destination` are what an observer between them would see."""

    data: bytes
    source: Endpoint
    destination: Endpoint
    tos: int
    due: float


Fault: TypeAlias = Callable[[Flight, random.Random], Iterable[Flight]]
"""What becomes of one datagram: none (lost), one, or several; each may be changed."""


def loss(probability: float) -> Fault:
    """Lose datagrams."""

    def fault(flight: Flight, chance: random.Random) -> Iterable[Flight]:
        return () if chance.random() < probability else (flight,)

    return fault


def duplication(probability: float) -> Fault:
    """Deliver some datagrams twice."""

    def fault(flight: Flight, chance: random.Random) -> Iterable[Flight]:
        return (flight, dataclasses.replace(flight)) if chance.random() < probability else (flight,)

    return fault


def delay(seconds: float, jitter: float = 0.0) -> Fault:
    """Deliver after `seconds`, give or take `jitter` (evenly spread); jitter reorders."""

    def fault(flight: Flight, chance: random.Random) -> Iterable[Flight]:
        flight.due += max(0.0, seconds + (chance.uniform(-jitter, jitter) if jitter else 0.0))
        return (flight,)

    return fault


def reordering(probability: float, seconds: float) -> Fault:
    """Hold some datagrams back for `seconds`, so that later ones overtake them."""

    def fault(flight: Flight, chance: random.Random) -> Iterable[Flight]:
        if chance.random() < probability:
            flight.due += seconds
        return (flight,)

    return fault


def corruption(probability: float) -> Fault:
    """Flip one bit of some datagrams."""

    def fault(flight: Flight, chance: random.Random) -> Iterable[Flight]:
        if flight.data and chance.random() < probability:
            altered = bytearray(flight.data)
            bit = chance.randrange(8 * len(altered))
            altered[bit // 8] ^= 1 << (bit % 8)
            flight.data = bytes(altered)
        return (flight,)

    return fault


class Nat:
    """Address translation in front of some hosts: one public address, a port for each one inside.

    What comes from outside passes only if the inside sent to that very address and port within `timeout`
    seconds (an exchange in either direction keeps the entry alive), as Linux's masquerading does.
    """

    def __init__(self, inside: Iterable[str], public: str, timeout: float = 120.0) -> None:
        self.inside = frozenset(_canonical(host) for host in inside)
        self.public = _canonical(public)
        self.timeout = timeout
        self._next_port = 40000
        self._ports: dict[tuple[str, int], int] = {}
        self._owners: dict[int, tuple[str, int]] = {}
        self._used: dict[int, dict[tuple[str, int], float]] = {}  # by port: to whom, and when last

    def rebind(self) -> None:
        """Forget all entries; every address and port inside gets a new port outside."""
        self._ports.clear()
        self._owners.clear()
        self._used.clear()

    def outbound(self, flight: Flight, now: float) -> None:
        """Translate the source of a datagram that leaves."""
        inner = (flight.source.host, flight.source.port)
        port = self._ports.get(inner)
        if port is None or not self._alive(port, now):
            if port is not None:
                del self._owners[port], self._used[port]
            port = self._free_port()
            self._ports[inner] = port
            self._owners[port] = inner
            self._used[port] = {}
        self._used[port][flight.destination.host, flight.destination.port] = now
        flight.source = Endpoint(self.public, port)

    def inbound(self, flight: Flight, now: float) -> bool:
        """Translate the destination of a datagram that arrives; False: nobody inside asked for it."""
        port = flight.destination.port
        peer = (flight.source.host, flight.source.port)
        used = self._used.get(port, {})
        if peer not in used or now - used[peer] >= self.timeout:
            return False
        used[peer] = now
        flight.destination = Endpoint(*self._owners[port])
        return True

    def _alive(self, port: int, now: float) -> bool:
        return any(now - at < self.timeout for at in self._used[port].values())

    def owner(self, port: int) -> str | None:
        """The host inside whose entry has this port outside."""
        inner = self._owners.get(port)
        return None if inner is None else inner[0]

    def _free_port(self) -> int:
        while True:
            port = self._next_port
            self._next_port = port + 1 if port < 65535 else 1024
            if port not in self._owners:
                return port


class MemoryNetwork:
    """Carries datagrams between the binds that were opened on it.

    seed: of all chance. faults: applied to each datagram in this order; a test may change the list meanwhile.
    """

    def __init__(self, seed: int = 0, faults: Iterable[Fault] = ()) -> None:
        self.now = 0.0
        self.faults: list[Fault] = list(faults)
        self.nats: list[Nat] = []
        self.counts: Counter[str] = Counter()
        """Datagrams by fate: sent, lost (a fault), blocked (a NAT), unreachable, overflow, delivered."""
        self._chance = random.Random(seed)  # noqa: S311  a test that can be replayed, not a secret
        self._queue: list[tuple[float, int, Flight]] = []
        self._number = 0
        self._binds: dict[tuple[str, int], MemoryBind] = {}
        self._next_port = 20000

    def advance(self, now: float) -> int:
        """Set the clock and deliver what is due by then, in order; returns how many arrived.

        Time never goes back: an earlier `now` only delivers what is due at the present time.
        """
        self.now = max(self.now, now)
        delivered = 0
        while self._queue and self._queue[0][0] <= self.now:
            delivered += self._deliver(heapq.heappop(self._queue)[2])
        return delivered

    def next_delivery(self) -> float | None:
        """When the next datagram is due; None when none is on its way."""
        return self._queue[0][0] if self._queue else None

    def transmit(self, data: bytes, source: Endpoint, destination: Endpoint, tos: int = 0) -> None:
        """Put one datagram on its way; a test may forge any source."""
        self.counts["sent"] += 1
        flight = Flight(data, source, destination, tos, self.now)
        nat = self._nat_of(source.host)
        if nat is not None and destination.host not in nat.inside:
            nat.outbound(flight, self.now)
        flights = [flight]
        for fault in self.faults:
            flights = [result for each in flights for result in fault(each, self._chance)]
        if not flights:
            self.counts["lost"] += 1
        for each in flights:
            self._number += 1
            heapq.heappush(self._queue, (each.due, self._number, each))

    def _nat_of(self, host: str) -> Nat | None:
        return next((nat for nat in self.nats if host in nat.inside), None)

    def _deliver(self, flight: Flight) -> int:
        for nat in self.nats:
            if flight.destination.host == nat.public and not nat.inbound(flight, flight.due):
                self.counts["blocked"] += 1
                return 0
        bind = self._binds.get((flight.destination.host, flight.destination.port))
        if bind is None:
            self.counts["unreachable"] += 1
            return 0
        if not bind._take(flight):
            self.counts["overflow"] += 1
            return 0
        self.counts["delivered"] += 1
        return 1

    def _attach(self, bind: MemoryBind, hosts: Sequence[str], port: int) -> int:
        if not port:
            port = self._next_port
            self._next_port += 1
        for host in hosts:
            if (host, port) in self._binds:
                raise PywgError(f"UDP port {port} of {host} is in use by another bind")
        for host in hosts:
            self._binds[host, port] = bind
        return port

    def _detach(self, bind: MemoryBind) -> None:
        self._binds = {key: other for key, other in self._binds.items() if other is not bind}


class MemoryBind:
    """A bind on a `MemoryNetwork`; keeps the contract of `Bind`.

    addresses: this host's, of either family; datagrams leave from the first of the right family unless the
    endpoint says otherwise. port 0: a free one. group: hand over what one source sent in a row, in equal
    sizes, as one `Received`, as UDP_GRO does.
    """

    def __init__(
        self, network: MemoryNetwork, addresses: Sequence[str] | str, port: int = 0, *, group: bool = True
    ) -> None:
        self._network = network
        self._addresses = _canonical_all(addresses)
        self._offload = BindOffload(gso=group, gro=group)
        self._inbox: deque[Flight] = deque()
        self._open = True
        self._port = network._attach(self, self._addresses, port)
        self.mark = 0
        self.room: int | None = None
        """How many more datagrams `send` takes before it would block; None: no end."""

    @property
    def port(self) -> int:
        """The UDP port, the same on all addresses."""
        return self._port

    @property
    def offload(self) -> BindOffload:
        """Both, or none without `group`."""
        return self._offload

    @property
    def addresses(self) -> tuple[str, ...]:
        """This host's addresses."""
        return self._addresses

    @property
    def waiting(self) -> int:
        """How many datagrams wait for `receive`: what a descriptor's readiness says elsewhere."""
        return len(self._inbox)

    def endpoint(self, family_of: str = "") -> Endpoint:
        """Where others reach this bind: its first address, or the first of the family of the one given."""
        host = self._source(":" in family_of) if family_of else self._addresses[0]
        if host is None:
            raise PywgError(f"this bind has no address of the family of {family_of}")
        return Endpoint(host, self._port)

    def move(self, addresses: Sequence[str] | str) -> None:
        """The host has other addresses from now on (roaming); what flies to the old ones is lost."""
        moved = _canonical_all(addresses)
        self._network._detach(self)
        self._network._attach(self, moved, self._port)
        self._addresses = moved

    def filenos(self) -> Sequence[int]:
        """None."""
        return ()

    def changes_fileno(self) -> int:
        """None: -1."""
        return -1

    def take_changes(self) -> None:
        """There are none."""

    def take_lost(self) -> int:
        """None: what the network loses is not known here."""
        return 0

    def receive(self) -> Received | None:
        """See `Bind.receive`."""
        inbox = self._inbox
        if not inbox:
            return None
        first = inbox.popleft()
        parts = [first.data]
        size = len(first.data)
        if self._offload.gro and size:
            total = size
            while inbox and len(parts) < 64 and len(parts[-1]) == size and total + size <= 65507:
                following = inbox[0]
                same = (following.source, following.destination, following.tos) == (
                    first.source,
                    first.destination,
                    first.tos,
                )
                if not same or not 0 < len(following.data) <= size:
                    break
                parts.append(inbox.popleft().data)
                total += len(parts[-1])
        source = first.source
        local = LocalAddress(first.destination.host, 1)
        endpoint = Endpoint(source.host, source.port, source.scope_id, local)
        return Received(memoryview(b"".join(parts)), size, endpoint, first.tos)

    def send(self, datagrams: Sequence[bytes | bytearray | memoryview], endpoint: Endpoint, tos: int) -> int:
        """See `Bind.send`; takes no more than `room`."""
        host = endpoint.local.host if endpoint.local is not None else None
        if host not in self._addresses:
            host = self._source(":" in endpoint.host)
        if host is None or not self._open:
            raise OSError(errno.EAFNOSUPPORT, f"no address of the family of {endpoint}")
        taken = datagrams if self.room is None else datagrams[: self.room]
        if self.room is not None:
            self.room -= len(taken)
        source = Endpoint(host, self._port)
        destination = Endpoint(endpoint.host, endpoint.port)
        for datagram in taken:
            self._network.transmit(bytes(datagram), source, destination, tos)
        return len(taken)

    def set_mark(self, mark: int) -> None:
        """Keep it in `mark`."""
        self.mark = mark

    def close(self) -> None:
        """Leave the network. Closing twice is harmless."""
        self._open = False
        self._network._detach(self)
        self._inbox.clear()

    def _source(self, ipv6: bool) -> str | None:
        return next((host for host in self._addresses if (":" in host) is ipv6), None)

    def _take(self, flight: Flight) -> bool:
        if len(self._inbox) >= INBOX_LIMIT:
            return False
        self._inbox.append(flight)
        return True


def _canonical(host: str) -> str:
    return str(ipaddress.ip_address(host))


def _canonical_all(addresses: Sequence[str] | str) -> tuple[str, ...]:
    return tuple(_canonical(host) for host in ([addresses] if isinstance(addresses, str) else addresses))
