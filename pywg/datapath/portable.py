"""The data plane in pure Python: runs wherever Python does, and says what the compiled one must do.

One burst each way per `step`. Outgoing reads down: tunnel device, split, route, seal, send. Incoming reads
down: receive, dispatch, open, replay window, endpoint, source check, coalesce, tunnel device.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pywg.bind.base import Bind, Received
from pywg.datapath import offload
from pywg.datapath.allowedips import AllowedIps
from pywg.datapath.base import BURST, HANDUP_LIMIT, HANDUP_SHARE, Bursts
from pywg.datapath.readiness import READ, WRITE, Readiness, open_readiness
from pywg.datapath.replay import ReplayWindow
from pywg.datapath.tap import Tap, Tapped, Wanted
from pywg.device.session import Activity, PeerId, Report, Session
from pywg.errors import BadPacket, DropReason
from pywg.noise import cookie
from pywg.noise.primitives import SessionCipher
from pywg.tun.base import Tun, TunGoneError
from pywg.wire import ip, messages
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

NO_ROUTE_HANDUPS = 16
"""Packets without a route that are handed up per drain, to be answered with ICMP errors."""
BURST_BYTES = 256 * 1024
"""A burst of super-packets ends here, so that one direction does not keep the other waiting."""

_PAUSE = 0.001  # seconds after a read that failed and may fail again
_DATA_TYPE = messages.TYPE_DATA.to_bytes(4, "little")
_ZEROS = bytes(16)


class _Live:
    """A session at work: its ciphers, counters and window."""

    __slots__ = (
        "activity",
        "heard_from",
        "opener",
        "rekey_limit_told",
        "sealer",
        "send_counter",
        "session",
        "told_exhausted",
        "window",
    )

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sealer = SessionCipher(session.send_key)
        self.opener = SessionCipher(session.receive_key)
        self.send_counter = 0
        self.window = ReplayWindow()
        self.activity: Activity | None = None
        self.heard_from = False
        self.rekey_limit_told = False
        self.told_exhausted = False


class _Blocked(NamedTuple):
    """Sealed datagrams that the socket did not take yet."""

    peer: PeerId
    datagrams: list[bytearray]
    tos: int


class PortableDataPath:
    """The contract `DataPath` (see `base.py` for every method), without threads."""

    def __init__(self, tun: Tun) -> None:
        self._tun = tun
        self._vnet_hdr = tun.offload.vnet_hdr
        self._coalescer = offload.Coalescer(tun.offload)
        self._mtu = tun.state().mtu
        self._bind: Bind | None = None
        self._mac1_key: bytes | None = None
        self._live: dict[int, _Live] = {}
        self._current: dict[PeerId, _Live] = {}
        self._endpoints: dict[PeerId, Endpoint] = {}
        self._allowed_ips = AllowedIps()
        self._blocked: deque[_Blocked] = deque()

        self._control: list[tuple[bytes, Endpoint]] = []
        self._control_of: Counter[bytes] = Counter()
        self._no_session: dict[PeerId, list[bytes]] = {}
        self._no_session_count = 0
        self._no_route: list[bytes] = []
        self._active: list[_Live] = []
        self._moved: dict[PeerId, Endpoint] = {}
        self._drops: Counter[DropReason] = Counter()

        self._readiness: Readiness | None = None
        self._bursts_out, self._bursts_in = Bursts(), Bursts()
        self._tap: Tap | None = None
        self._seen = 0  # packets from the tunnel device

    # --- Life. ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._readiness = open_readiness()
        self._watch()

    def close(self) -> None:
        self._live.clear()
        self._current.clear()
        self._blocked.clear()
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None

    def fileno(self) -> int:
        return -1 if self._readiness is None else self._readiness.fileno()

    def _watch(self) -> None:
        """Wait for what can make progress: with a full socket, only for room in it, and for arrivals."""
        if self._readiness is None:
            return
        wanted = {}
        if not self._blocked:
            wanted[self._tun.fileno()] = READ
        if self._bind is not None:
            events = READ | (WRITE if self._blocked else 0)
            wanted.update(dict.fromkeys(self._bind.filenos(), events))
        wanted.pop(-1, None)
        self._readiness.watch(wanted)

    # --- What the control plane tells. ---------------------------------------------------------------------

    def set_bind(self, bind: Bind | None) -> None:
        self._bind = None
        self._blocked.clear()
        self._watch()  # forgets the old sockets before new ones may take their numbers
        self._bind = bind
        self._watch()

    def set_mtu(self, mtu: int) -> None:
        self._mtu = mtu

    def set_identity(self, mac1_key: bytes | None) -> None:
        self._mac1_key = mac1_key

    def ask_for_cookies(self, secret: bytes, cookie_key: bytes, until: float) -> None:
        """Leave it to the control plane: in Python, it costs as much here as there."""

    def install(self, session: Session) -> None:
        live = _Live(session)
        self._live[session.local_index] = live
        if session.may_send:
            self._current[session.peer] = live

    def activate(self, local_index: int) -> None:
        live = self._live.get(local_index)
        if live is not None:
            self._current[live.session.peer] = live

    def retire(self, local_index: int) -> None:
        live = self._live.pop(local_index, None)
        if live is not None and self._current.get(live.session.peer) is live:
            del self._current[live.session.peer]

    def set_endpoint(self, peer: PeerId, endpoint: Endpoint | None) -> None:
        self._moved.pop(peer, None)
        if endpoint is None:
            self._endpoints.pop(peer, None)
        else:
            self._endpoints[peer] = endpoint

    def add_routes(self, peer: PeerId, networks: Sequence[Network]) -> None:
        self._allowed_ips.add(peer, networks)

    def remove_routes(self, peer: PeerId, networks: Sequence[Network]) -> None:
        self._allowed_ips.remove(peer, networks)

    def send(self, peer: PeerId, packets: Sequence[bytes], now: float) -> None:
        self._seal_and_send(peer, packets or (b"",), now)
        if self._blocked:
            self._watch()

    def inject(self, packets: Sequence[bytes]) -> None:
        for packet in packets:
            self._write_tun((offload.NO_OFFLOAD, packet) if self._vnet_hdr else (packet,))

    # --- Outgoing. -----------------------------------------------------------------------------------------

    def step(self, now: float) -> bool:
        was_blocked = bool(self._blocked)
        flushed = self._flush_blocked()
        outgoing = flushed and self._outgoing(now)
        incoming = self._incoming(now)
        if was_blocked or self._blocked:
            self._watch()
        if self._readiness is not None:
            self._readiness.taken()
        return outgoing or incoming or (was_blocked and flushed)

    def _outgoing(self, now: float) -> bool:
        by_peer: dict[PeerId, list[bytes]] = {}
        room = BURST_BYTES
        moved = False
        packets_before, begun = self._seen, time.perf_counter()
        for _ in range(BURST):
            try:
                frame = self._tun.read()
            except OSError:  # not its end: that is TunGoneError
                time.sleep(_PAUSE)  # what waits is tried again
                break
            if frame is None:
                break
            moved = True
            room -= len(frame)
            for packet in self._packets_of(frame):
                self._seen += 1
                peer = self._route(packet)
                if peer is not None:
                    by_peer.setdefault(peer, []).append(packet)
            if room <= 0:
                break
        for peer, packets in by_peer.items():
            self._seal_and_send(peer, packets, now, tap=self._tap)
        if moved:
            self._bursts_out.add(self._seen - packets_before, time.perf_counter() - begun)
        return moved

    def _packets_of(self, frame: bytes) -> Iterable[bytes]:
        if self._bind is None:
            self._drops[DropReason.DEVICE_DOWN] += 1
            return ()
        if not self._vnet_hdr:
            return (frame,)
        try:
            return offload.split_untrusted(frame)
        except BadPacket as bad:
            self._drops[bad.reason] += 1
            return ()

    def _route(self, packet: bytes) -> PeerId | None:
        try:
            _, destination, _ = ip.header_untrusted(packet)
        except BadPacket as bad:
            self._drops[bad.reason] += 1
            _tap_outgoing(self._tap, (packet,), bad.reason)
            return None
        peer = self._allowed_ips.lookup(destination)
        if peer is None:
            if len(self._no_route) < NO_ROUTE_HANDUPS:
                self._no_route.append(bytes(packet))
            else:
                self._drops[DropReason.NO_ROUTE] += 1
            _tap_outgoing(self._tap, (packet,), DropReason.NO_ROUTE)
        return peer

    def _seal_and_send(
        self, peer: PeerId, packets: Sequence[bytes], now: float, tap: Tap | None = None
    ) -> None:
        """tap: where copies go; None for packets that were staged, which were copied when they came."""
        live = self._current.get(peer)
        if live is None or now >= live.session.expires:
            self._hand_up(peer, packets, tap)
            return
        session = live.session
        left = session.message_limit - live.send_counter
        endpoint = self._endpoints.get(peer)
        if left > 0 and (endpoint is None or self._bind is None):
            reason = DropReason.NO_ENDPOINT if self._bind else DropReason.DEVICE_DOWN
            self._drops[reason] += len(packets)
            _tap_outgoing(tap, packets, reason)
            return
        if left < len(packets):
            if not live.told_exhausted:
                live.told_exhausted = True
                self._activity(live).exhausted = True
            self._hand_up(peer, packets[max(left, 0) :], tap)
            packets = packets[: max(left, 0)]
            if not packets:
                return

        _tap_outgoing(tap, packets)
        activity = self._activity(live)
        sealed: list[tuple[int, bytearray]] = []
        for packet in packets:
            sealed.append((ip.ecn(packet) if packet else 0, self._seal(live, packet)))
            activity.sent_bytes += len(sealed[-1][1])
        activity.sent_packets += len(packets)
        activity.any_sent = now
        activity.unacknowledged_since = None
        if any(packets):
            activity.data_sent = now
            if activity.unanswered_since is None:
                activity.unanswered_since = now
        if live.send_counter >= session.rekey_limit and not live.rekey_limit_told:
            live.rekey_limit_told = activity.rekey_limit_reached = True

        for tos, run in itertools.groupby(sealed, key=lambda one: one[0]):
            self._transmit(_Blocked(peer, [datagram for _, datagram in run], tos))

    def _seal(self, live: _Live, packet: bytes) -> bytearray:
        size = len(packet)
        padded = max(size, min((size + 15) & ~15, self._mtu))
        if padded != size:
            packet = packet + _ZEROS[: padded - size]
        datagram = bytearray(messages.DATA_HEADER_SIZE + padded + messages.TAG_SIZE)
        messages.DATA_HEADER.pack_into(
            datagram, 0, messages.TYPE_DATA, live.session.remote_index, live.send_counter
        )
        live.sealer.seal_into(live.send_counter, packet, memoryview(datagram)[messages.DATA_HEADER_SIZE :])
        live.send_counter += 1
        return datagram

    def _transmit(self, waiting: _Blocked) -> None:
        """Send, or keep for when the socket has room; what the kernel refuses is dropped and counted."""
        if self._blocked or not self._try_transmit(waiting):
            self._blocked.append(waiting)

    def _try_transmit(self, waiting: _Blocked) -> bool:
        endpoint = self._endpoints.get(waiting.peer)
        if endpoint is None or self._bind is None:
            self._drops[DropReason.NO_ENDPOINT] += len(waiting.datagrams)
            return True
        begun = time.time_ns() if self._tap is not None else 0
        try:
            taken = self._bind.send(waiting.datagrams, endpoint, waiting.tos)
        except OSError:
            self._drops[DropReason.SEND_FAILED] += len(waiting.datagrams)
            self._tap_sent(waiting.datagrams, endpoint, begun, DropReason.SEND_FAILED)
            return True
        self._tap_sent(waiting.datagrams[:taken], endpoint, begun)
        del waiting.datagrams[:taken]
        return not waiting.datagrams

    def _tap_sent(
        self, datagrams: Sequence[bytearray], endpoint: Endpoint, at: int, dropped: DropReason | None = None
    ) -> None:
        if self._tap is not None:
            for datagram in datagrams:
                self._tap.outer(datagram, endpoint, outgoing=True, dropped=dropped, at=at)

    def _flush_blocked(self) -> bool:
        while self._blocked:
            if not self._try_transmit(self._blocked[0]):
                return False
            self._blocked.popleft()
        return True

    def _hand_up(self, peer: PeerId, packets: Sequence[bytes], tap: Tap | None) -> None:
        packets = [bytes(packet) for packet in packets if packet]
        room = HANDUP_LIMIT - self._no_session_count
        if len(packets) > room:
            self._drops[DropReason.STAGED_OVERFLOW] += len(packets) - room
            _tap_outgoing(tap, packets[room:], DropReason.STAGED_OVERFLOW)
            packets = packets[:room]
        _tap_outgoing(tap, packets)
        if packets:
            self._no_session.setdefault(peer, []).extend(packets)
            self._no_session_count += len(packets)

    # --- Incoming. -----------------------------------------------------------------------------------------

    def _incoming(self, now: float) -> bool:
        if self._bind is None:
            return False
        opened: list[memoryview | bytearray] = []
        moved = False
        room = BURST_BYTES
        datagrams, begun = 0, time.perf_counter()
        for _ in range(BURST):
            received = self._bind.receive()
            if received is None:
                break
            moved = True
            self._dispatch_untrusted(received, opened, now)
            datagrams += -(-len(received.data) // (received.segment_size or 1))  # an empty one counts none
            room -= len(received.data)
            if room <= 0:
                break
        if opened:
            for frame in self._coalescer.frames(opened):
                self._write_tun(frame)
        if moved:
            self._bursts_in.add(datagrams, time.perf_counter() - begun)
        return moved

    def set_tap(self, wanted: Wanted | None) -> None:
        self._tap = None if wanted is None else Tap(wanted)

    def take_tapped(self) -> tuple[list[Tapped], int]:
        return ([], 0) if self._tap is None else self._tap.take()

    def bursts(self) -> tuple[Bursts, Bursts]:
        return self._bursts_out, self._bursts_in

    def _dispatch_untrusted(
        self, received: Received, opened: list[memoryview | bytearray], now: float
    ) -> None:
        data, size = received.data, received.segment_size
        if not len(data):
            self._drops[DropReason.EMPTY] += 1
            return
        for start in range(0, len(data), size):
            datagram = data[start : start + size]
            packet, dropped = None, None
            try:
                if datagram[:4] == _DATA_TYPE:
                    packet = self._open_untrusted(datagram, received, now)
                    if packet is not None:
                        opened.append(packet)
                else:
                    self._check_control_untrusted(datagram, received.endpoint)
            except BadPacket as bad:
                dropped = bad.reason
                self._drops[dropped] += 1
            if self._tap is not None:
                self._tap.outer(datagram, received.endpoint, outgoing=False, dropped=dropped)
                if packet is not None:
                    self._tap.inner(packet, outgoing=False)

    def _check_control_untrusted(self, datagram: memoryview, source: Endpoint) -> None:
        messages.parse_untrusted(datagram)  # raises when it is none
        if datagram[0] != messages.TYPE_COOKIE_REPLY:  # that one has no MAC1
            if self._mac1_key is None:
                raise BadPacket(DropReason.NO_PRIVATE_KEY)
            if not cookie.check_mac1(self._mac1_key, datagram):
                raise BadPacket(DropReason.BAD_MAC1)
        who = messages.shared_with(datagram, source)
        if len(self._control) >= HANDUP_LIMIT or self._control_of[who] >= HANDUP_SHARE:
            raise BadPacket(DropReason.QUEUE_FULL)
        self._control_of[who] += 1
        self._control.append((bytes(datagram), source))

    def _open_untrusted(
        self, datagram: memoryview, received: Received, now: float
    ) -> memoryview | bytearray | None:
        """The inner packet, or None for a keepalive."""
        size = len(datagram)
        if size < messages.DATA_OVERHEAD:
            raise BadPacket(DropReason.TRUNCATED)
        _, index, counter = messages.DATA_HEADER.unpack_from(datagram)
        live = self._live.get(index)
        if live is None:
            raise BadPacket(DropReason.UNKNOWN_INDEX)
        session = live.session
        if now >= session.expires or counter >= session.message_limit:
            raise BadPacket(DropReason.EXPIRED_SESSION)
        packet = bytearray(size - messages.DATA_OVERHEAD)
        live.opener.open_into(counter, datagram[messages.DATA_HEADER_SIZE :], packet)
        if not live.window.accept(counter):
            raise BadPacket(DropReason.REPLAYED)

        activity = self._activity(live)
        if not live.heard_from:
            live.heard_from = activity.first_use = True
            self._confirmed(live)
        activity.received_packets += 1
        activity.received_bytes += size
        activity.any_received = now
        activity.unanswered_since = None
        endpoint = self._endpoints.get(session.peer)
        if endpoint is not received.endpoint:
            self._follow(session.peer, endpoint, received.endpoint)
        if not packet:
            return None
        activity.data_received = now
        if activity.unacknowledged_since is None:
            activity.unacknowledged_since = now

        source, _, length = ip.header_untrusted(packet)
        if self._allowed_ips.lookup(source) != session.peer:
            raise BadPacket(DropReason.SOURCE_NOT_ALLOWED)
        if received.tos & 3:
            combined = ip.ecn_on_arrival(ip.ecn(packet), received.tos & 3)
            if combined is None:
                raise BadPacket(DropReason.ECN)
            ip.set_ecn(packet, combined)
        del packet[length:]
        return packet

    def _confirmed(self, live: _Live) -> None:
        """A responder's session was heard from: answers go under it, unless we have a younger one."""
        current = self._current.get(live.session.peer)
        if not live.session.may_send and (current is None or current.session.born < live.session.born):
            self._current[live.session.peer] = live

    def _follow(self, peer: PeerId, known: Endpoint | None, seen: Endpoint) -> None:
        if known != seen or known.local != seen.local:
            self._endpoints[peer] = self._moved[peer] = seen

    def _write_tun(self, frame: Sequence[bytes | bytearray | memoryview]) -> None:
        try:
            self._tun.write(frame)
        except TunGoneError:
            raise
        except OSError:
            self._drops[DropReason.TUN_WRITE_FAILED] += 1

    # --- What the control plane hears. ---------------------------------------------------------------------

    def _activity(self, live: _Live) -> Activity:
        if live.activity is None:
            live.activity = Activity(live.session.local_index, live.session.peer)
            self._active.append(live)
        return live.activity

    def drain(self, now: float) -> Report:
        report = Report(
            control=self._control,
            no_session=list(self._no_session.items()),
            no_route=self._no_route,
            moved=list(self._moved.items()),
            drops=self._drops,
        )
        for live in self._active:
            assert live.activity is not None
            report.activity.append(live.activity)
            live.activity = None
        self._control_of.clear()
        self._control, self._no_session, self._no_session_count = [], {}, 0
        self._no_route, self._active, self._moved, self._drops = [], [], {}, Counter()
        return report


def _tap_outgoing(tap: Tap | None, packets: Sequence[bytes], dropped: DropReason | None = None) -> None:
    if tap is not None:
        for packet in packets:
            tap.inner(packet, outgoing=True, dropped=dropped)
