"""Joins one device, one data path, one tunnel device and one bind, and lets asyncio drive them.

`Engine` itself has no loop: `turn` does whatever is due at a time, which is how tests on a virtual clock
use it. `run` is the shell that calls it when a descriptor is readable or a deadline has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from pywg import clock
from pywg.bind.base import Bind
from pywg.datapath.base import Bursts, DataPath
from pywg.datapath.tap import Tap, Tapped, Wanted
from pywg.device.device import Device
from pywg.device.events import Event, EventKind
from pywg.device.peer import Peer
from pywg.device.session import (
    ActivateSession,
    AddRoutes,
    AskForCookies,
    Effect,
    HandshakeGaveUp,
    InstallSession,
    RemoveRoutes,
    RetireSession,
    SendDatagram,
    SendPackets,
    SetEndpoint,
    SetIdentity,
    WriteTun,
)
from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.device.statistics import PeerStatistics
from pywg.errors import DropReason, PywgError
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.tun.base import Tun, TunGoneError
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

logger = logging.getLogger(__name__)

HANDSHAKES_PER_TURN = 32
"""Handshake messages handled before packets get their turn again; each costs a fraction of a millisecond."""
ACTIVE_DRAIN = 1.0
"""Seconds between two drains while sessions carry packets: what the contract of the data path asks for."""
LOAD_DRAIN = 0.25
"""Seconds between two drains under load: the device has to hear in time whether it goes on."""

LOOK_AGAIN = 1.0
"""Seconds between two looks at a tunnel device whose changes nobody tells, or that can't go up."""

ROUTES_SETTLE = 0.05
"""Seconds between two looks at changed routes."""

OpenBind = Callable[[int, int], Bind]
"""Opens the UDP sockets on a port (0: any) with a mark (0: none)."""


@dataclasses.dataclass(slots=True)
class Statistics:
    """What an engine has counted, and how it stands.

    now: seconds of the engine's clock. dropped_ago: seconds since the data path last told of a drop, by
    reason. stranger: who began a handshake last without being a peer, where, and how many seconds ago.
    queued: handshake messages that wait. lag: the most seconds that a due turn had to wait since the last
    time somebody asked. outgoing, incoming: bursts of the data path.
    """

    now: float
    peers: list[PeerStatistics]
    drops: Counter[DropReason]
    dropped_ago: dict[DropReason, float]
    stranger: tuple[PublicKey, Endpoint, float] | None
    queued: int
    under_load: bool
    lag: float
    outgoing: Bursts
    incoming: Bursts
    listen_port: int
    mtu: int
    is_up: bool


class Engine:
    """A running WireGuard device. All methods are called in one thread.

    The methods that configure take effect at once; `now` is the clock that is handed in.
    """

    def __init__(
        self,
        device: Device,
        datapath: DataPath,
        tun: Tun,
        open_bind: OpenBind,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self.device = device
        self._datapath = datapath
        self._tun = tun
        self._open_bind = open_bind
        self._now = now
        self._bind: Bind | None = None
        self._port = 0
        self._mark = 0
        self._drain_by: float | None = None
        self._more = False
        self._mtu = tun.state().mtu
        self._tun_up = False
        self._drops: Counter[DropReason] = Counter()
        self._dropped_at: dict[DropReason, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm: clock.Alarm | None = None
        self._ended: asyncio.Future[None] | None = None
        self._tap: Tap | None = None  # for the datagrams that we send ourselves
        self._watchers: list[Callable[[Event], None]] = []
        self._key_watchers: list[Callable[[Peer, PrivateKey], None]] = []
        self._complaint = ""  # the last one, while the device would be up and has no port
        self._look: asyncio.TimerHandle | None = None
        self._lag = 0.0  # the longest that a due turn had to wait since somebody asked

    # --- What happens. -------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Do all that is due: hear the data plane, handle handshakes, run timers, apply effects."""
        now = self._now()
        self._datapath.step(now)
        self._hear_datapath(now)
        self.device.work(HANDSHAKES_PER_TURN, now)
        if self.device.under_load(now):
            self._drain_by = now + LOAD_DRAIN
        self.device.handle_timeout(now)
        self._apply_effects(now)

    def _hear_datapath(self, now: float) -> None:
        report = self._datapath.drain(now)
        self._drain_by = now + ACTIVE_DRAIN if report.activity else None
        self._more = report.more
        if report.drops:
            self._drops.update(report.drops)
            self._dropped_at.update(dict.fromkeys(report.drops, now))
        if self._bind is not None and (lost := self._bind.take_lost()):
            self._drops[DropReason.SEND_FAILED] += lost
        self.device.observed(report, now)

    def next_turn(self) -> float | None:
        """When `turn` is due although nothing arrives; None: not before something does."""
        if self._more or self.device.has_work():
            return self._now()
        times = (self.device.next_timeout(), self._drain_by)
        return min((time for time in times if time is not None), default=None)

    def follow_tun(self) -> None:
        """Take over what has changed of the tunnel device: its MTU, and whether it is up.

        Raises PywgError when it went up and the port cannot be had; the device then stays down.
        """
        state = self._tun.state()
        if state.mtu != self._mtu:
            logger.info("%s: the MTU is now %d", self._tun.name, state.mtu)
            self._mtu = state.mtu
            self._datapath.set_mtu(state.mtu)
        self._tun_up = state.up
        if state.up and self._bind is None:
            self._use_bind(self._open_bind(self._port, self._mark))
            logger.info("%s: up, listening on UDP port %d", self._tun.name, self._port)
            self._tell(Event(EventKind.DEVICE_UP, f"up, listening on UDP port {self._port}"))
            self.device.up(self._now())
            self.commit()
        elif not state.up and self._bind is not None:
            logger.info("%s: down", self._tun.name)
            self._tell(Event(EventKind.DEVICE_DOWN, "down"))
            self._use_bind(None)
            self.device.down()
            self._hear_datapath(self._now())  # or what was under way would start something when up again
            self.commit()

    def _use_bind(self, bind: Bind | None) -> None:
        old, self._bind = self._bind, bind
        self._datapath.set_bind(bind)
        if old is not None:
            self._unwatch_routes(old)
            old.close()
        if bind is not None:
            self._port = bind.port
            self._watch_routes()

    def _watch_routes(self) -> None:
        if self._loop is not None and self._bind is not None and self._bind.changes_fileno() >= 0:
            self._loop.add_reader(self._bind.changes_fileno(), self._guard, self._routes_changed)

    def _unwatch_routes(self, bind: Bind) -> None:
        if self._loop is not None and bind.changes_fileno() >= 0:
            self._loop.remove_reader(bind.changes_fileno())

    def _routes_changed(self) -> None:
        """Another source address may be the better one now. Looks again after a while: routes may churn."""
        assert self._bind is not None
        assert self._loop is not None
        self._bind.take_changes()
        self._unwatch_routes(self._bind)
        self._loop.call_later(ROUTES_SETTLE, self._watch_routes)
        self.device.forget_local_addresses()
        self.commit()

    def _apply_effects(self, now: float) -> None:
        while effects := self.device.take_effects():
            for effect in effects:
                self._apply(effect, now)

    def _apply(self, effect: Effect, now: float) -> None:
        datapath = self._datapath
        match effect:
            case SendDatagram(datagram, endpoint, tos):
                self._send_datagram(datagram, endpoint, tos)
            case InstallSession(session):
                datapath.install(session)
            case ActivateSession(local_index):
                datapath.activate(local_index)
            case RetireSession(local_index):
                datapath.retire(local_index)
            case SendPackets(peer, packets):
                datapath.send(peer, packets, now)
                self._drain_by = now  # what came of it is in the next report
            case SetEndpoint(peer, endpoint):
                datapath.set_endpoint(peer, endpoint)
            case AddRoutes(peer, networks):
                datapath.add_routes(peer, networks)
            case RemoveRoutes(peer, networks):
                datapath.remove_routes(peer, networks)
            case SetIdentity(mac1_key):
                datapath.set_identity(mac1_key)
            case AskForCookies(secret, cookie_key, until):
                datapath.ask_for_cookies(secret, cookie_key, until)
            case WriteTun(packets):
                datapath.inject(packets)
            case HandshakeGaveUp(peer_id):
                text = "%r: no answer to our handshake, giving up; `pywg doctor %s` finds out why"
                logger.info(text, self.device.peer_by_id(peer_id), self._tun.name)

    def _send_datagram(self, datagram: bytes, endpoint: Endpoint, tos: int) -> None:
        if self._bind is None:
            return
        dropped, begun = None, time.time_ns()
        try:
            if not self._bind.send((datagram,), endpoint, tos):
                dropped = DropReason.SEND_FAILED
        except OSError as error:
            dropped = DropReason.SEND_FAILED
            logger.debug("could not send a handshake message to %s: %s", endpoint, error.strerror)
        if dropped is not None:
            self._drops[dropped] += 1
            if self.device.probes is not None:
                self.device.probes.drop(dropped, 1, True)
        if self._tap is not None:
            self._tap.outer(datagram, endpoint, outgoing=True, dropped=dropped, at=begun)

    @property
    def drops(self) -> Counter[DropReason]:
        """How many datagrams and packets were dropped, by reason."""
        return self._drops + self.device.drops

    # --- What the user configures (the UAPI server calls these). -------------------------------------------

    def commit(self) -> None:
        """Let the data plane and the timers know what was configured since."""
        self._apply_effects(self._now())
        self._set_alarm()

    def set_private_key(self, key: PrivateKey | None) -> None:
        """Change who we are; None: no key."""
        self.device.set_private_key(key, self._now())

    def set_listen_port(self, port: int) -> None:
        """Listen on another UDP port; 0: any. Raises PywgError when it is taken; the old one then stays."""
        if self._bind is None:
            self._port = port
            self.follow_tun()  # which may be up already, and have found the last port taken
        elif port != self._port:
            self._use_bind(self._open_bind(port, self._mark))
        self.device.forget_local_addresses()

    def set_fwmark(self, mark: int) -> None:
        """Mark all datagrams from now on; 0: none. Raises PywgError where the system does not allow it."""
        if self._bind is not None:
            self._bind.set_mark(mark)
        self._mark = mark
        self.device.forget_local_addresses()

    def remove_all_peers(self) -> None:
        """Remove every peer."""
        for peer in list(self.device.peers()):
            self.device.remove_peer(peer)

    def peer(self, public_key: PublicKey) -> Peer | None:
        """The peer with this public key."""
        return self.device.peer(public_key)

    def add_peer(self, public_key: PublicKey) -> Peer:
        """Add a peer. Raises PywgError when it exists or is ourselves."""
        return self.device.add_peer(public_key)

    def remove_peer(self, peer: Peer) -> None:
        """Remove a peer."""
        self.device.remove_peer(peer)

    def set_preshared_key(self, peer: Peer, key: PresharedKey) -> None:
        """Used from the next handshake on."""
        self.device.set_preshared_key(peer, key)

    def set_endpoint(self, peer: Peer, endpoint: Endpoint) -> None:
        """Where the peer is reached."""
        self.device.set_endpoint(peer, endpoint, self._now())

    def set_persistent_keepalive(self, peer: Peer, interval: int) -> None:
        """Seconds between keepalives; 0: off."""
        self.device.set_persistent_keepalive(peer, interval, self._now())

    def clear_allowed_ips(self, peer: Peer) -> None:
        """Take all allowed IPs from the peer."""
        self.device.clear_allowed_ips(peer)

    def add_allowed_ips(self, peer: Peer, networks: Sequence[Network]) -> None:
        """Give allowed IPs to the peer, taking each from whoever had it."""
        self.device.add_allowed_ips(peer, networks)

    def remove_allowed_ip(self, peer: Peer, network: Network) -> None:
        """Take an allowed IP from the peer; ignored when it has it not."""
        self.device.remove_allowed_ips(peer, (network,))

    def snapshot(self) -> DeviceSnapshot:
        """The device and its peers as they are now; the port is 0 while the device is up without its port."""
        with contextlib.suppress(TunGoneError):  # `run` hears of it too, and ends
            self._follow_or_complain()  # whoever brought the device up and asks then sees it up
            self.turn()  # what the data plane has counted since the last one belongs in it
        device = self.device
        return DeviceSnapshot(
            private_key=device.private_key,
            listen_port=self._port if self._bind is not None or not self._tun_up else 0,
            fwmark=self._mark,
            peers=[
                PeerSnapshot(
                    public_key=peer.public_key,
                    preshared_key=peer.preshared_key,
                    endpoint=peer.endpoint,
                    last_handshake_ns=peer.last_handshake_ns,
                    rx_bytes=peer.rx_bytes,
                    tx_bytes=peer.tx_bytes,
                    persistent_keepalive_interval=peer.persistent_keepalive,
                    allowed_ips=device.allowed_ips(peer),
                )
                for peer in device.peers()
            ],
        )

    # --- What can be watched. ------------------------------------------------------------------------------

    def watch(self, watcher: Callable[[Event], None]) -> Callable[[], None]:
        """Call `watcher` with each event from now on; returns what ends that."""
        self._watchers.append(watcher)
        self.device.watcher = self._tell

        def end() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)
            if not self._watchers:
                self.device.watcher = None

        return end

    def _tell(self, event: Event) -> None:
        for watcher in tuple(self._watchers):
            watcher(event)

    def watch_keys(self, watcher: Callable[[Peer, PrivateKey], None]) -> Callable[[], None]:
        """Call `watcher` with the ephemeral key of each handshake; returns what ends that."""
        self._key_watchers.append(watcher)
        self.device.key_log = self._tell_key

        def end() -> None:
            self._key_watchers.remove(watcher)
            if not self._key_watchers:
                self.device.key_log = None

        return end

    def _tell_key(self, peer: Peer, key: PrivateKey) -> None:
        for watcher in tuple(self._key_watchers):
            watcher(peer, key)

    def set_tap(self, wanted: Wanted | None) -> None:
        """Copy packets and datagrams from now on; None: no longer."""
        self._tap = None if wanted is None else Tap(wanted)
        self._datapath.set_tap(wanted)

    def take_tapped(self) -> tuple[list[Tapped], int]:
        """What was copied since the last time, by time, and how many found no room."""
        if self._tap is None:
            return [], 0
        copied, lost = self._datapath.take_tapped()
        ours, ours_lost = self._tap.take()
        return sorted([*copied, *ours], key=lambda one: one.at), lost + ours_lost

    @property
    def fwmark(self) -> int:
        """The mark of what we send; 0: none."""
        return self._mark

    @property
    def listen_port(self) -> int:
        """The UDP port; 0 while the device is down and none was chosen."""
        return self._port

    def statistics(self) -> Statistics:
        """What was counted so far, and how things stand. The lag begins anew with each call."""
        statistics = self._statistics(suspects=False)
        self._lag = 0.0
        return statistics

    def suspicious(self) -> Statistics:
        """The same of those peers only with which something may be wrong; nothing begins anew."""
        return self._statistics(suspects=True)

    def _statistics(self, *, suspects: bool) -> Statistics:
        with contextlib.suppress(TunGoneError):
            self.turn()
        now, stranger = self._now(), self.device.stranger
        outgoing, incoming = self._datapath.bursts()
        return Statistics(
            now=now,
            peers=self.device.statistics(now, suspects=suspects),
            drops=self.drops,
            dropped_ago={reason: now - at for reason, at in self._dropped_at.items()},
            stranger=None if stranger is None else (*stranger[:2], now - stranger[2]),
            queued=self.device.queue_length,
            under_load=self.device.under_load(now),
            lag=self._lag,
            outgoing=outgoing,
            incoming=incoming,
            listen_port=self._port if self._bind is not None else 0,
            mtu=self._mtu,
            is_up=self._bind is not None,
        )

    # --- The asyncio shell. --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry packets until cancelled, or until the tunnel device is removed: then TunGoneError.

        On the way out sockets are closed and keys forgotten; the tunnel device stays open.
        """
        self._loop = loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        self._alarm = clock.Alarm(loop, lambda: self._guard(self._turn_that_was_due))
        changes = self._tun.changes_fileno()
        self._datapath.start()
        loop.add_reader(self._datapath.fileno(), self._guard, self.turn)
        if changes >= 0:
            loop.add_reader(changes, self._guard, self._follow_or_complain)
        try:
            self._guard(self._follow_or_complain)
            await self._ended
        finally:
            if self._look is not None:
                self._look.cancel()
                self._look = None
            self._alarm.close()
            self._alarm = None
            loop.remove_reader(self._datapath.fileno())
            if changes >= 0:
                loop.remove_reader(changes)
            self.device.down()
            self._datapath.close()
            self._use_bind(None)
            self._loop = None

    def _guard(self, work: Callable[[], None]) -> None:
        """Run a callback of the loop; its exception ends `run`, instead of a line in the loop's log."""
        assert self._ended is not None
        if self._ended.done():
            return
        try:
            work()
            self._set_alarm()
        except Exception as error:
            self._ended.set_exception(error)

    def _turn_that_was_due(self) -> None:
        assert self._alarm is not None
        if self._alarm.rang is not None:
            self._lag = max(self._lag, self._now() - self._alarm.rang)
        self.turn()

    def _set_alarm(self) -> None:
        """See to it that a turn comes in time; one that comes too early does no harm."""
        if self._alarm is None:
            return
        due = self.next_turn()
        if due is not None and (self._alarm.deadline is None or due < self._alarm.deadline):
            self._alarm.set(due)

    def _follow_or_complain(self) -> None:
        try:
            self.follow_tun()
        except TunGoneError:
            raise
        except PywgError as error:
            if str(error) != self._complaint:
                logger.error("%s: can't go up: %s; it is tried each second", self._tun.name, error)
            self._complaint = str(error)
        else:
            self._complaint = ""
        unheard = bool(self._complaint) or self._tun.changes_fileno() < 0
        if unheard and self._loop is not None and self._look is None:
            self._look = self._loop.call_later(LOOK_AGAIN, self._guard, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        self._follow_or_complain()
