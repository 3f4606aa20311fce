"""One host of the simulation: it sleeps, wakes, crashes and starts again, and is watched at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pywg.bind.memory import Nat
from pywg.datapath.portable import PortableDataPath
from pywg.device.peer import Peer
from pywg.device.session import PeerId, Report, Session
from pywg.noise import tai64n
from tests.simulator import invariants
from tests.simulator.invariants import Violation, at_most
from tests.simulator.network import Link, SimulatedBind
from tests.spec.world import Host

if TYPE_CHECKING:
    from tests.simulator.recovery import Recovery
    from tests.simulator.simulation import Simulation


class SimulatedDataPath(PortableDataPath):
    """The portable data path; its ciphers tell the book of keys, and its sessions may be shortened."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.tun)
        self._machine = machine

    def install(self, session: Session) -> None:
        super().install(session)
        machine = self._machine
        live = self._live[session.local_index]
        keys = machine.world.keys
        limit = session.message_limit
        live.sealer = keys.sealer(machine.name, session.send_key, limit, live.sealer)
        live.opener = keys.opener(machine.name, live.opener)
        machine.began(session)

    def drain(self, now: float) -> Report:
        report = super().drain(now)
        self._machine.touched.update(peer for peer, _ in report.no_session)
        return report


class Machine(Host):
    """A host with a number. Number 0 is the hub; the others know it alone."""

    world: Simulation
    datapath: SimulatedDataPath

    def __init__(  # noqa: PLR0917
        self,
        world: Simulation,
        number: int,
        outer: Sequence[str],
        inner: Sequence[str],
        seed: int,
        link: Link,
    ) -> None:
        self.number = number
        self.link = link
        self.is_off = False
        self.stalled = False
        """Whether something else has the processor; datagrams and time go on."""
        self.nat: Nat | None = None
        self.recovery: Recovery | None = None
        self.peers_set: dict[int, dict[str, object]] = {}
        self.due: float | None = None
        self.births: dict[PeerId, dict[int, float]] = {}
        """Of each peer, the sessions that the data path was given and may still have, and when."""
        self.touched: set[PeerId] = set()
        self.audits: list[tuple[PeerId, float]] = []
        """Audits that came due while the machine slept."""
        super().__init__(world, "hub" if not number else f"machine {number}", outer, inner, seed)

    @property
    def is_hub(self) -> bool:
        return self.number == 0

    def boot(self) -> None:
        self.births = {}
        self.audits = []
        super().boot()
        self.tun.on_change = lambda: self.world.wake(self)

    def _make_datapath(self) -> PortableDataPath:
        return self.world.plan.datapath(self)

    def _open_bind(self, port: int, mark: int) -> SimulatedBind:
        self.bind = SimulatedBind(self, port)
        return self.bind

    def know(self, other: Machine, **settings: object) -> None:
        """Configure `other` as a peer, now and after every start."""
        self.peers_set[other.number] = settings
        self.add_peer(other, **settings)

    def crash(self) -> None:
        """Everything in memory is lost."""
        self.bind.close()
        self.is_off = self.asleep = True

    def start(self) -> None:
        """The machine starts after a crash; its configuration is what it was."""
        self.is_off = self.asleep = False
        self.boot()
        for number, settings in self.peers_set.items():
            self.add_peer(self.world.machines[number], **settings)
        self.world.wake(self)

    def next_timestamp(self) -> bytes:
        """What the next initiation will say, or a little less."""
        second, nanosecond = divmod(self.wall_clock(), 10**9)
        step = nanosecond // tai64n.RESOLUTION
        second, step = max((second, step), self.device._timestamps._last or (0, 0))
        return tai64n.encode(second * 10**9 + step * tai64n.RESOLUTION)

    # --- Invariants of one machine. ------------------------------------------------------------------------

    def began(self, session: Session) -> None:
        """The data path was given a session: its keys are to be gone in time."""
        self.births.setdefault(session.peer, {})[session.local_index] = self.world.now
        self.touched.add(session.peer)
        self.world.count["sessions"] += 1
        self.world.later(
            invariants.ERASE_AFTER + 0.001, self.world.audit, self, self.device, session.peer, self.world.now
        )

    def check(self) -> None:
        """Memory is bounded; after every step."""
        device, datapath, name = self.device, self.datapath, self.name
        peers = len(device._peers)
        at_most((invariants.KEYPAIRS + 1) * peers, len(device._indices), "indices in use", name)
        at_most(invariants.KEYPAIRS * peers, len(datapath._live), "sessions", name)
        at_most(peers, len(datapath._endpoints), "endpoints", name)
        at_most(64 + 4 * invariants.TIMERS * peers, len(device._timers._heap), "timers", name)
        at_most(invariants.HANDSHAKE_QUEUE, len(device._queue), "handshake messages waiting", name)
        at_most(invariants.HANDSHAKE_QUEUE, len(datapath._control), "handshake messages handed up", name)
        at_most(invariants.HANDSHAKE_QUEUE, len(device._queued_of), "sources of those waiting", name)
        at_most(invariants.RATE_TABLE, len(device._handshake_limiter), "sources that are limited", name)
        at_most(invariants.TUN_QUEUE, self.tun.waiting, "frames waiting", name)
        at_most(invariants.INBOX, self.bind.waiting, "datagrams waiting", name)
        if peers <= 4:
            self.touched.update(device._peers)
        for peer_id in self.touched:
            self._check_peer(peer_id)
        self.touched.clear()

    def _check_peer(self, peer_id: PeerId) -> None:
        peer = self.device.peer_by_id(peer_id)
        if peer is None:
            return
        at_most(invariants.STAGED, len(peer.staged or ()), "staged packets for one peer", self.name)
        births = self.births.get(peer_id, {})
        for index in [index for index in births if index not in self.datapath._live]:
            del births[index]
        at_most(invariants.KEYPAIRS, len(births), "sessions with one peer", self.name)
        pairs = peer.keypairs
        known = {pair.local_index for pair in (pairs.previous, pairs.current, pairs.next) if pair is not None}
        if known != births.keys():
            raise Violation(
                f"{self.name}: the control plane has sessions {known}, the data path {set(births)}"
            )

    def audit(self, peer_id: PeerId, born: float) -> None:
        """ERASE_AFTER a session began: if no younger one did, all keys of the peer are gone."""
        births = self.births.get(peer_id, {})
        if any(other > born for other in births.values()):
            return
        kept = [index for index in births if index in self.datapath._live]
        if kept:
            age = self.world.now - born
            raise Violation(f"{self.name} keeps {len(kept)} keys {age:.1f} s after the last session began")

    def audit_initiation(self, peer: Peer, sent: float) -> None:
        """A retry's time after an initiation: its ephemeral key is gone, if no other has taken its place."""
        if peer.handshake is not None and peer.last_sent_initiation == sent:
            raise Violation(
                f"{self.name} keeps an ephemeral key {self.world.now - sent:.1f} s after its initiation"
            )
