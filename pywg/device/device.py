"""The control plane of one device, without I/O: datagrams, reports and times go in, effects come out.

It follows the WireGuard paper, section 5.4 (messages) and section 6 (timers). Reads from top to bottom: what
the user configures, what arrives, what is sent, what the data plane saw, what the timers do.

Time is given by the caller, in seconds of a clock that counts suspended time. Randomness and the wall clock
come from outside too, so that a run can be repeated byte for byte.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn

from pywg.device.constants import (
    HANDSHAKE_QUEUE,
    HANDSHAKE_SHARE,
    HANDSHAKE_TOS,
    INITIATION_INTERVAL,
    KEEPALIVE_TIMEOUT,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME,
    REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME,
    REKEY_ATTEMPT_TIME,
    REKEY_JITTER_MS,
    REKEY_TIMEOUT,
    STAGED_PACKETS,
    UNDER_LOAD_LINGERS,
    UNDER_LOAD_QUEUE,
    ZERO_KEYS_AFTER_TIME,
)
from pywg.device.events import Event, EventKind, Probes
from pywg.device.indextable import IndexTable
from pywg.device.keypair import Keypair
from pywg.device.peer import Peer
from pywg.device.ratelimiter import RateLimiter
from pywg.device.routes import Routes
from pywg.device.session import (
    ActivateSession,
    Activity,
    AddRoutes,
    AskForCookies,
    Effect,
    HandshakeGaveUp,
    InstallSession,
    PeerId,
    RemoveRoutes,
    Report,
    RetireSession,
    SendDatagram,
    SendPackets,
    Session,
    SetEndpoint,
    SetIdentity,
    WriteTun,
)
from pywg.device.statistics import PeerStatistics
from pywg.device.timers import Timer, TimerQueue
from pywg.errors import BadPacket, DropReason, PywgError
from pywg.noise import cookie, handshake, tai64n
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.noise.tai64n import Tai64nClock
from pywg.wire import ip, messages
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

logger = logging.getLogger(__name__)


CLOCKS_APART_NS = 60 * 10**9
"""Nanoseconds by which a peer's clock may be ahead of ours before we wonder which is right."""

_CHEAP_DROPS = frozenset({DropReason.UNDER_LOAD, DropReason.RATE_LIMITED, DropReason.UNKNOWN_INDEX})


@dataclasses.dataclass(frozen=True, slots=True)
class _IndexOwner:
    """Whose index it is: a keypair's, or (None) that of the peer's own initiation under way."""

    peer: Peer
    keypair: Keypair | None


class Device:
    """A WireGuard device's control plane.

    random: gives so many random bytes. wall_clock: nanoseconds since 1970, used for handshake timestamps
    and for telling when the last handshake was, never for measuring time.
    """

    def __init__(self, random: Callable[[int], bytes], wall_clock: Callable[[], int]) -> None:
        self._random = random
        self._wall_clock = wall_clock
        self._timestamps = Tai64nClock(wall_clock)
        self._private_key: PrivateKey | None = None
        self._checker: cookie.CookieChecker | None = None
        self._is_up = False

        self._peers: dict[PeerId, Peer] = {}
        self._by_public_key: dict[PublicKey, Peer] = {}
        self._next_peer_id = 1
        self._indices: IndexTable[_IndexOwner] = IndexTable(random)
        self._routes = Routes()
        self._timers = TimerQueue()

        self._queue: deque[tuple[bytes, Endpoint]] = deque()
        self._queued_of: Counter[bytes] = Counter()  # by `messages.shared_with`
        self._stranger: tuple[PublicKey, Endpoint] | None = None  # the last one, until it was told
        self.stranger: tuple[PublicKey, Endpoint, float] | None = None
        """The last initiator whose key no peer has, where it was, and when."""
        self._last_under_load: float | None = None
        self._cookies_given = 0  # by the data plane, since then
        self._handshake_limiter = RateLimiter()
        self._unreachable_limiter = RateLimiter()
        self._effects: list[Effect] = []
        self.drops: Counter[DropReason] = Counter()
        """How many datagrams and packets the control plane dropped, by reason."""
        self.watcher: Callable[[Event], None] | None = None
        """Called with each event as it happens; None: nobody watches."""
        self.key_log: Callable[[Peer, PrivateKey], None] | None = None
        """Called with the ephemeral key of each handshake, for a key log; None: nobody is told."""
        self.probes: Probes | None = None
        """Told of handshakes, sessions and drops; None: there are no probes."""

    def _tell(
        self, kind: EventKind, peer: Peer, text: str, *, endpoint: Endpoint | None = None, detail: str = ""
    ) -> None:
        """Log what happened with a peer, and tell whoever watches."""
        endpoint = endpoint or peer.endpoint
        logger.debug("%r: %s", peer, text) if endpoint is None else logger.debug(
            "%r at %s: %s", peer, endpoint, text
        )
        if self.watcher is not None:
            self.watcher(Event(kind, text, peer.public_key, peer.name, endpoint, detail))

    def _drop(self, reason: DropReason, count: int = 1, *, outgoing: bool) -> None:
        self.drops[reason] += count
        if self.probes is not None:
            self.probes.drop(reason, count, outgoing)

    # --- What the user configures. -------------------------------------------------------------------------

    @property
    def private_key(self) -> PrivateKey | None:
        """Our static private key; None: not set yet."""
        return self._private_key

    def set_private_key(self, key: PrivateKey | None, now: float) -> None:
        """Change who we are: all sessions end, and a peer with our own public key is removed.

        Peers for which something waits or that are kept alive get a new handshake at once.
        """
        if key == self._private_key:
            return
        self._private_key = key
        if key is None:
            self._checker = None
            self._effects.append(SetIdentity(None))
        else:
            own = key.public_key
            if (ourselves := self._by_public_key.get(own)) is not None:
                self.remove_peer(ourselves)
            self._checker = cookie.CookieChecker(own, self._random)
            self._effects.append(SetIdentity(cookie.mac1_key(own)))
        for peer in self._peers.values():
            self._forget_sessions(peer)
            if self._is_up and key is not None and (peer.staged or peer.persistent_keepalive):
                self._initiate(peer, now)

    def peers(self) -> Iterator[Peer]:
        """All peers, in the order they were added."""
        return iter(self._peers.values())

    def peer(self, public_key: PublicKey) -> Peer | None:
        """The peer with this public key."""
        return self._by_public_key.get(public_key)

    def peer_by_id(self, peer_id: PeerId) -> Peer | None:
        """The peer with this number."""
        return self._peers.get(peer_id)

    def add_peer(self, public_key: PublicKey) -> Peer:
        """Add a peer without endpoint and allowed IPs.

        Raises PywgError when the peer exists or the key is our own.
        """
        if public_key in self._by_public_key:
            raise PywgError(f"the peer {public_key} exists already")
        if self._private_key is not None and public_key == self._private_key.public_key:
            raise PywgError(f"{public_key} is this device's own public key; a device can't be its own peer")
        peer = Peer(PeerId(self._next_peer_id), public_key)
        self._next_peer_id += 1
        self._peers[peer.id] = peer
        self._by_public_key[public_key] = peer
        self._tell(EventKind.PEER_ADDED, peer, "added")
        return peer

    def remove_peer(self, peer: Peer) -> None:
        """Remove a peer with its sessions and allowed IPs."""
        self._forget_sessions(peer)
        self._timers.cancel_all(peer.id)
        self.clear_allowed_ips(peer)
        self._effects.append(SetEndpoint(peer.id, None))
        del self._peers[peer.id]
        del self._by_public_key[peer.public_key]
        self._tell(EventKind.PEER_REMOVED, peer, "removed")

    def set_preshared_key(self, peer: Peer, key: PresharedKey) -> None:
        """Used from the next handshake on."""
        peer.preshared_key = key

    def set_endpoint(self, peer: Peer, endpoint: Endpoint, now: float) -> None:
        """Where to send to, until the peer is heard from elsewhere. A first one lets keepalives begin."""
        was, peer.endpoint = peer.endpoint, endpoint
        self._effects.append(SetEndpoint(peer.id, endpoint))
        if self._is_up and was is None and peer.persistent_keepalive:
            self._send_keepalive(peer, now)

    def forget_local_addresses(self) -> None:
        """Let the routing table choose source addresses anew, after the port or the mark has changed."""
        for peer in self._peers.values():
            self._forget_local_address(peer)

    def set_persistent_keepalive(self, peer: Peer, interval: int, now: float) -> None:
        """Send something every `interval` seconds; 0 turns it off; from 0 to more sends one at once."""
        was, peer.persistent_keepalive = peer.persistent_keepalive, interval
        if not interval:
            self._timers.cancel(peer.id, Timer.PERSISTENT_KEEPALIVE)
        elif self._is_up and not was:
            self._send_keepalive(peer, now)

    def allowed_ips(self, peer: Peer) -> list[Network]:
        """The peer's networks, in the order they were added."""
        return self._routes.of(peer.id)

    def add_allowed_ips(self, peer: Peer, networks: Sequence[Network]) -> None:
        """Give networks to the peer, taking each from whoever had it."""
        self._routes.add(peer.id, networks)
        self._effects.append(AddRoutes(peer.id, networks))

    def remove_allowed_ips(self, peer: Peer, networks: Iterable[Network]) -> None:
        """Take networks from the peer; those it does not have are ignored."""
        if had := self._routes.remove(peer.id, networks):
            self._effects.append(RemoveRoutes(peer.id, had))

    def clear_allowed_ips(self, peer: Peer) -> None:
        """Take all networks from the peer."""
        if had := self._routes.clear(peer.id):
            self._effects.append(RemoveRoutes(peer.id, had))

    def up(self, now: float) -> None:
        """The tunnel device and the bind are there: persistent keepalives start."""
        self._is_up = True
        for peer in self._peers.values():
            if peer.persistent_keepalive:
                self._send_keepalive(peer, now)

    def down(self) -> None:
        """Stop everything and forget all sessions; the configuration stays."""
        self._is_up = False
        self._queue.clear()
        self._queued_of.clear()
        for peer in self._peers.values():
            self._forget_sessions(peer)
            self._timers.cancel_all(peer.id)
            peer.staged = peer.attempts_since = None

    # --- What arrives. -------------------------------------------------------------------------------------

    def receive(self, datagram: bytes, source: Endpoint) -> None:
        """Queue a handshake message whose size and MAC1 the data plane has checked; raises for none."""
        who = messages.shared_with(datagram, source)
        if len(self._queue) >= HANDSHAKE_QUEUE or self._queued_of[who] >= HANDSHAKE_SHARE:
            self._drop(DropReason.QUEUE_FULL, outgoing=False)
        else:
            self._queue.append((datagram, source))
            self._queued_of[who] += 1

    def has_work(self) -> bool:
        """Whether handshake messages wait for `work`."""
        return bool(self._queue)

    def work(self, budget: int, now: float) -> None:
        """Handle queued handshake messages worth `budget`.

        One costs 1; one that was answered with a cookie, or had no other cost than being dropped for the
        rate limit, a tenth: under load, queues must not grow while we say so.
        """
        spent = 0.0
        last_under_load = self._last_under_load
        dropped: Counter[DropReason] = Counter()
        while self._queue and spent < budget:
            under_load = self._is_under_load(now)
            datagram, source = self._queue.popleft()
            self._no_longer_queued(messages.shared_with(datagram, source))
            spent += 1.0
            try:
                self._handle_untrusted(datagram, source, under_load, now)
            except BadPacket as bad:
                dropped[bad.reason] += 1
                if bad.reason in _CHEAP_DROPS:
                    spent -= 0.9
        if self._last_under_load != last_under_load:
            self._ask_for_cookies(now)
        if dropped:  # one line for all: a flood must not fill the log
            for reason, count in dropped.items():
                self._drop(reason, count, outgoing=False)
            counts = ", ".join(f"{reason.value} {count}" for reason, count in dropped.items())
            logger.debug("dropped handshake messages: %s; the last from %s", counts, source)
        if self._stranger is not None:
            key, seen_at = self._stranger
            self._stranger, self.stranger = None, (key, seen_at, now)
            if self.watcher is not None:
                text = "begins a handshake with us, but is no peer"
                self.watcher(Event(EventKind.STRANGER, text, key, endpoint=seen_at))

    def _no_longer_queued(self, who: bytes) -> None:
        self._queued_of[who] -= 1
        if not self._queued_of[who]:
            del self._queued_of[who]

    def statistics(self, now: float, *, suspects: bool = False) -> list[PeerStatistics]:
        """What is known of the peers for whoever watches.

        suspects: only of those with which something may be wrong, who are quickly found among very many.
        """
        wall, losers = self._wall_clock(), self._routes.losers()
        lost = {peer: (network, self._peers[taker].public_key) for peer, (network, taker) in losers.items()}
        soon = tai64n.encode(wall + CLOCKS_APART_NS)
        return [
            PeerStatistics.of(peer, now, wall, lost.get(peer.id))
            for peer in self._peers.values()
            if not suspects
            or peer.silent_since is not None
            or peer.counts.refused
            or peer.last_timestamp > soon
            or peer.id in lost
        ]

    def _is_under_load(self, now: float) -> bool:
        was = self.under_load(now)
        if len(self._queue) >= UNDER_LOAD_QUEUE:
            self._last_under_load = now
            if not was and self.watcher is not None:
                self.watcher(Event(EventKind.UNDER_LOAD, "under load: handshakes need a cookie now"))
            return True
        return was

    def _ask_for_cookies(self, now: float) -> None:
        """Load lasts from now for as long as it lingers; until then, the data plane gives the cookies."""
        self._last_under_load = now
        self._cookies_given = 0
        if self._checker is not None:
            secret, ends = self._checker.secret(now)
            until = min(now + UNDER_LOAD_LINGERS, ends)
            self._effects.append(AskForCookies(secret, self._checker.cookie_key, until))

    def _observed_cookies(self, given: int, now: float) -> None:
        """Whom the data plane answers is missing in our queue: as many of them as there are load too."""
        self._cookies_given += given
        if self._cookies_given >= UNDER_LOAD_QUEUE and self.under_load(now):
            self._ask_for_cookies(now)

    def under_load(self, now: float) -> bool:
        """Whether whoever begins a handshake now has to bring a cookie."""
        return self._last_under_load is not None and now - self._last_under_load < UNDER_LOAD_LINGERS

    @property
    def queue_length(self) -> int:
        """Handshake messages that wait for `work`."""
        return len(self._queue)

    def _handle_untrusted(self, datagram: bytes, source: Endpoint, under_load: bool, now: float) -> None:
        if self._private_key is None or self._checker is None:
            raise BadPacket(DropReason.NO_PRIVATE_KEY)
        message = messages.parse_untrusted(datagram)
        if isinstance(message, messages.CookieReply):
            self._consume_cookie_reply_untrusted(message, now)
            return
        if isinstance(message, messages.Data):
            raise BadPacket(DropReason.UNEXPECTED)
        if under_load:
            if not self._checker.check_mac2(datagram, source.packed(), now):
                nonce, sealed = self._checker.create_reply(datagram, source.packed(), now)
                reply = messages.CookieReply(message.sender, nonce, sealed).encode()
                self._effects.append(SendDatagram(reply, source, HANDSHAKE_TOS))
                raise BadPacket(DropReason.UNDER_LOAD)
            if not self._handshake_limiter.allow(source.host, now):
                raise BadPacket(DropReason.RATE_LIMITED)
        if isinstance(message, messages.Initiation):
            peer = self._consume_initiation_untrusted(message, self._private_key, source, now)
        else:
            peer = self._consume_response_untrusted(message, source, now)
        peer.rx_bytes += len(datagram)
        self._any_authenticated_packet_received(peer)
        self._any_authenticated_packet_traversed(peer, now)

    def _consume_initiation_untrusted(
        self, message: messages.Initiation, private_key: PrivateKey, source: Endpoint, now: float
    ) -> Peer:
        received = handshake.open_initiation_untrusted(
            private_key, message.ephemeral, message.static, message.timestamp
        )
        peer = self._by_public_key.get(received.initiator)
        if peer is None:
            self._stranger = (received.initiator, source)
            raise BadPacket(DropReason.UNKNOWN_PEER)
        timestamp = received.read_timestamp_untrusted(peer.static_static(private_key))
        if timestamp <= peer.last_timestamp:
            self._refuse(peer, DropReason.OLD_TIMESTAMP, source, now)
        last = peer.last_consumed_initiation
        if last is not None and now - last < INITIATION_INTERVAL:
            self._refuse(peer, DropReason.INITIATION_FLOOD, source, now)
        ephemeral_public, nothing, keys = received.respond(peer.preshared_key, self._new_ephemeral(peer))
        peer.last_timestamp = timestamp
        peer.last_consumed_initiation = now
        self._move(peer, source)

        if self.probes is not None:
            self.probes.handshake_begin(peer, False)
        local_index = self._indices.allocate(_IndexOwner(peer, None))
        self._begin_session(peer, keys, local_index, message.sender, initiator=False, now=now)
        response = messages.Response(local_index, message.sender, ephemeral_public, nothing)
        self._send_handshake_message(peer, response.encode_without_macs(), now)
        peer.counts.initiations_received += 1
        self._tell(EventKind.RESPONSE_SENT, peer, "received an initiation, sent the response")
        return peer

    def _refuse(self, peer: Peer, reason: DropReason, source: Endpoint, now: float) -> NoReturn:
        """Drop a handshake message of a known peer. Raises BadPacket."""
        refused = peer.counts.refused = peer.counts.refused or {}
        count, _ = refused.get(reason, (0, now))
        refused[reason] = count + 1, now
        if self.watcher is not None:
            text = f"its handshake message was refused: {reason.value}"
            self.watcher(
                Event(EventKind.HANDSHAKE_REFUSED, text, peer.public_key, peer.name, source, reason.value)
            )
        raise BadPacket(reason)

    def _consume_response_untrusted(self, message: messages.Response, source: Endpoint, now: float) -> Peer:
        owner = self._indices.get(message.receiver)
        if owner is None:
            raise BadPacket(DropReason.UNKNOWN_INDEX)
        peer = owner.peer
        if owner.keypair is not None or peer.handshake is None:
            raise BadPacket(DropReason.UNEXPECTED)
        try:
            keys = peer.handshake.read_response_untrusted(
                peer.preshared_key, message.ephemeral, message.nothing
            )
        except BadPacket as bad:
            self._refuse(peer, bad.reason, source, now)
        if peer.last_sent_initiation is not None:
            peer.counts.round_trip = now - peer.last_sent_initiation
        peer.handshake = peer.handshake_index = None
        self._move(peer, source)
        self._begin_session(peer, keys, message.receiver, message.sender, initiator=True, now=now)
        self._handshake_complete(peer, initiator=True)
        self._tell(EventKind.RESPONSE_RECEIVED, peer, "received the response, the session is up")
        # The responder may send only after it has heard from us: without staged packets, a keepalive.
        self._send_staged_or_keepalive(peer)
        return peer

    def _consume_cookie_reply_untrusted(self, message: messages.CookieReply, now: float) -> None:
        owner = self._indices.get(message.receiver)
        if owner is None:
            raise BadPacket(DropReason.UNKNOWN_INDEX)
        owner.peer.cookies.consume_reply_untrusted(message.nonce, message.cookie, now)
        self._tell(EventKind.COOKIE_RECEIVED, owner.peer, "is under load and gave us a cookie")

    def _begin_session(
        self,
        peer: Peer,
        keys: handshake.TransportKeys,
        local_index: int,
        remote_index: int,
        *,
        initiator: bool,
        now: float,
    ) -> None:
        keypair = Keypair(local_index, initiator, now, now + REJECT_AFTER_TIME)
        self._indices.hand_over(local_index, _IndexOwner(peer, keypair))
        self._retire(peer.keypairs.add(keypair))
        self._effects.append(
            InstallSession(
                Session(
                    peer=peer.id,
                    local_index=local_index,
                    remote_index=remote_index,
                    send_key=keys.send,
                    receive_key=keys.receive,
                    initiator=initiator,
                    born=now,
                    expires=keypair.expires,
                    message_limit=REJECT_AFTER_MESSAGES,
                    rekey_limit=REKEY_AFTER_MESSAGES,
                    may_send=initiator,
                )
            )
        )
        self._timers.arm(peer.id, Timer.ZERO_KEY_MATERIAL, now + ZERO_KEYS_AFTER_TIME)
        if self.probes is not None:
            self.probes.session_install(peer, local_index, initiator)

    def _handshake_complete(self, peer: Peer, *, initiator: bool) -> None:
        self._forget_initiation(peer)  # one of ours that nobody answered, when theirs was faster
        self._timers.cancel(peer.id, Timer.RETRANSMIT_HANDSHAKE)
        peer.attempts_since = None
        peer.rekeyed_at_last_minute = False
        peer.last_handshake_ns = self._wall_clock()
        peer.counts.completed += 1
        if self.probes is not None:
            self.probes.handshake_end(peer, initiator)

    def _move(self, peer: Peer, endpoint: Endpoint) -> None:
        was = peer.endpoint
        if was is None or was != endpoint or was.local != endpoint.local:
            peer.endpoint = endpoint
            self._effects.append(SetEndpoint(peer.id, endpoint))
            self._tell_moved(peer, was)

    def _tell_moved(self, peer: Peer, was: Endpoint | None) -> None:
        if was is not None and was != peer.endpoint:
            text = f"endpoint moved from {was} to {peer.endpoint}"
            self._tell(EventKind.ENDPOINT_MOVED, peer, text, detail=str(was))

    def _forget_local_address(self, peer: Peer) -> None:
        if peer.endpoint is not None and peer.endpoint.local is not None:
            self._move(peer, dataclasses.replace(peer.endpoint, local=None))

    # --- What is sent. -------------------------------------------------------------------------------------

    def stage(self, peer_id: PeerId, packets: Sequence[bytes], now: float) -> None:
        """Keep packets that have no session until there is one, the newest STAGED_PACKETS of them."""
        peer = self._peers.get(peer_id)
        if peer is None:
            self._drop(DropReason.NO_ROUTE, len(packets), outgoing=True)
            return
        if peer.endpoint is None:
            self._unreachable(packets, DropReason.NO_ENDPOINT, now)
            return
        if peer.staged is None:
            peer.staged = deque()
        peer.staged.extend(packets)
        while len(peer.staged) > STAGED_PACKETS:
            peer.staged.popleft()
            self._drop(DropReason.STAGED_OVERFLOW, outgoing=True)
        current = peer.keypairs.current
        if current is not None and current.may_send(now):
            self._send_staged_or_keepalive(peer)  # the session came while they were on their way here
        else:
            self._initiate(peer, now)

    def _send_staged_or_keepalive(self, peer: Peer) -> None:
        packets = tuple(peer.staged or ())
        peer.staged = None
        self._effects.append(SendPackets(peer.id, packets))

    def _send_keepalive(self, peer: Peer, now: float) -> None:
        current = peer.keypairs.current
        if current is not None and current.may_send(now):
            self._send_staged_or_keepalive(peer)
        else:
            self._initiate(peer, now)

    def _initiate(self, peer: Peer, now: float, *, retry: bool = False) -> None:
        """Send an initiation; if one went out less than REKEY_TIMEOUT ago, see to it that another follows."""
        if not retry:
            peer.attempts_since = now
        if peer.endpoint is None:
            return
        last = peer.last_sent_initiation
        if last is not None and now - last < REKEY_TIMEOUT:
            if not self._timers.is_armed(peer.id, Timer.RETRANSMIT_HANDSHAKE):
                self._timers.arm(peer.id, Timer.RETRANSMIT_HANDSHAKE, last + REKEY_TIMEOUT + self._jitter())
            return
        if peer.silent_since is None:
            peer.silent_since = now
        elif now - peer.silent_since >= REKEY_ATTEMPT_TIME:
            # Whoever keeps sending keeps us trying, and is told meanwhile that nobody answers.
            self._drop_staged(peer, now)
        if self._private_key is not None:
            peer.last_sent_initiation = now
        elif self._timers.is_armed(peer.id, Timer.RETRANSMIT_HANDSHAKE):
            return
        self._timers.arm(peer.id, Timer.RETRANSMIT_HANDSHAKE, now + REKEY_TIMEOUT + self._jitter())
        if self._private_key is None:
            return
        self._forget_initiation(peer)
        try:
            peer.handshake = handshake.create_initiation(
                self._private_key,
                peer.public_key,
                peer.static_static(self._private_key),
                self._new_ephemeral(peer),
                self._timestamps.now(),
            )
        except BadPacket as bad:
            self._drop(bad.reason, outgoing=True)
            logger.debug("%r: its public key has no handshake: %s", peer, bad.reason.value)
            return
        peer.handshake_index = self._indices.allocate(_IndexOwner(peer, None))
        initiation = messages.Initiation(
            peer.handshake_index, peer.handshake.ephemeral, peer.handshake.static, peer.handshake.timestamp
        )
        self._send_handshake_message(peer, initiation.encode_without_macs(), now)
        peer.counts.initiations_sent += 1
        if self.probes is not None:
            self.probes.handshake_begin(peer, True)
        self._tell(EventKind.INITIATION_SENT, peer, "sent an initiation")

    def _send_handshake_message(self, peer: Peer, without_macs: bytes, now: float) -> None:
        assert peer.endpoint is not None
        datagram = peer.cookies.stamp(without_macs, now)
        self._effects.append(SendDatagram(datagram, peer.endpoint, HANDSHAKE_TOS))
        peer.tx_bytes += len(datagram)
        self._timers.cancel(peer.id, Timer.SEND_KEEPALIVE)
        self._any_authenticated_packet_traversed(peer, now)

    def _new_ephemeral(self, peer: Peer) -> PrivateKey:
        key = PrivateKey.generate(self._random)
        if self.key_log is not None:
            self.key_log(peer, key)
        return key

    def _jitter(self) -> float:
        return int.from_bytes(self._random(4), "little") % (REKEY_JITTER_MS + 1) / 1000

    def _unreachable(self, packets: Iterable[bytes], reason: DropReason, now: float) -> None:
        """Drop packets, and tell their senders as far as the rate limit lets us."""
        errors = []
        for packet in packets:
            self._drop(reason, outgoing=True)
            error = ip.unreachable(packet)
            if error is None:
                continue
            # An ICMP error comes from the packet's destination, which is what the limit goes by.
            source, _ = ip.source_and_destination_untrusted(error)
            if self._unreachable_limiter.allow_packed(source, now):
                errors.append(error)
        if errors:
            self._effects.append(WriteTun(errors))

    # --- What the data plane saw. --------------------------------------------------------------------------

    def observed(self, report: Report, now: float) -> None:
        """Take in a report: control messages are queued, packets staged, timers set, keypairs moved.

        While the device is down, what is reported is of before: it is counted, and starts nothing.
        """
        for peer_id, endpoint in report.moved:
            if (mover := self._peers.get(peer_id)) is not None:
                was, mover.endpoint = mover.endpoint, endpoint
                self._tell_moved(mover, was)
        by_peer: dict[PeerId, list[Activity]] = {}
        for activity in report.activity:
            by_peer.setdefault(activity.peer, []).append(activity)
            if (peer := self._peers.get(activity.peer)) is not None:
                peer.tx_bytes += activity.sent_bytes
                peer.rx_bytes += activity.received_bytes
                peer.counts.tx_packets += activity.sent_packets
                peer.counts.rx_packets += activity.received_packets
        if not self._is_up:
            return
        for peer_id, activities in by_peer.items():
            if (peer := self._peers.get(peer_id)) is not None:
                self._observed_peer(peer, activities, now)
        for peer_id, packets in report.no_session:
            self.stage(peer_id, packets, now)
        if report.no_route:
            self._unreachable(report.no_route, DropReason.NO_ROUTE, now)
        self._observed_cookies(report.drops[DropReason.UNDER_LOAD], now)
        for datagram, source in report.control:
            self.receive(datagram, source)

    def _observed_peer(self, peer: Peer, activities: list[Activity], now: float) -> None:
        for activity in activities:
            owner = self._indices.get(activity.local_index)
            if owner is None or owner.keypair is None:
                continue
            if activity.exhausted:
                owner.keypair.exhausted = True
            if activity.first_use:
                self._confirm(peer, owner.keypair)

        any_sent = _latest(activity.any_sent for activity in activities)
        any_received = _latest(activity.any_received for activity in activities)
        if any_received is not None:
            self._any_authenticated_packet_received(peer)
        unanswered = _first_after(any_received, ((a.unanswered_since, a.data_sent) for a in activities))
        if unanswered is not None and not self._timers.is_armed(peer.id, Timer.NEW_HANDSHAKE):
            self._timers.arm(
                peer.id,
                Timer.NEW_HANDSHAKE,
                unanswered + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + self._jitter(),
            )
        if any_sent is not None:
            self._timers.cancel(peer.id, Timer.SEND_KEEPALIVE)
        unacknowledged = _first_after(
            any_sent, ((a.unacknowledged_since, a.data_received) for a in activities)
        )
        if unacknowledged is not None and not self._timers.is_armed(peer.id, Timer.SEND_KEEPALIVE):
            self._timers.arm(peer.id, Timer.SEND_KEEPALIVE, unacknowledged + KEEPALIVE_TIMEOUT)
        traversed = _latest((any_sent, any_received))
        if traversed is not None:
            self._any_authenticated_packet_traversed(peer, traversed)

        self._keep_key_fresh(
            peer,
            sent=any_sent is not None,
            received=any_received is not None,
            by_count=any(activity.rekey_limit_reached or activity.exhausted for activity in activities),
            now=now,
        )

    def _confirm(self, peer: Peer, keypair: Keypair) -> None:
        assert self._private_key is not None
        yields = bytes(self._private_key.public_key) < bytes(peer.public_key)
        pushed_out = peer.keypairs.confirm(keypair, yields=yields)
        if pushed_out is None:
            return
        self._retire(pushed_out)
        self._effects.append(ActivateSession(keypair.local_index))
        self._handshake_complete(peer, initiator=False)
        self._tell(EventKind.SESSION_CONFIRMED, peer, "the session is confirmed")
        if peer.staged:
            self._send_staged_or_keepalive(peer)

    def _keep_key_fresh(self, peer: Peer, *, sent: bool, received: bool, by_count: bool, now: float) -> None:
        current = peer.keypairs.current
        if current is None:
            return
        age = now - current.born
        if sent and (by_count or (current.initiator and age >= REKEY_AFTER_TIME)):
            self._initiate(peer, now)
        elif (
            received
            and current.initiator
            and not peer.rekeyed_at_last_minute
            and age >= REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
        ):
            peer.rekeyed_at_last_minute = True
            self._initiate(peer, now)

    def _any_authenticated_packet_received(self, peer: Peer) -> None:
        peer.silent_since = None
        self._timers.cancel(peer.id, Timer.NEW_HANDSHAKE)

    def _any_authenticated_packet_traversed(self, peer: Peer, when: float) -> None:
        if peer.persistent_keepalive:
            self._timers.arm(peer.id, Timer.PERSISTENT_KEEPALIVE, when + peer.persistent_keepalive)

    # --- What the timers do. -------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do; None: not before something else happens."""
        return self._timers.next_deadline()

    def handle_timeout(self, now: float) -> None:
        """Do what is due. Give `observed` a fresh report first: it may have become unnecessary."""
        for peer_id, timer in self._timers.expired(now):
            peer = self._peers[peer_id]
            match timer:
                case Timer.RETRANSMIT_HANDSHAKE:
                    self._retransmit_handshake(peer, now)
                case Timer.SEND_KEEPALIVE | Timer.PERSISTENT_KEEPALIVE:
                    self._send_keepalive(peer, now)
                case Timer.NEW_HANDSHAKE:
                    self._tell(EventKind.NO_ANSWER, peer, "no answer to data, starting a new handshake")
                    self._forget_local_address(peer)
                    self._initiate(peer, now)
                case Timer.ZERO_KEY_MATERIAL:
                    text = f"no new session for {ZERO_KEYS_AFTER_TIME:.0f} s, forgetting all keys"
                    self._tell(EventKind.KEYS_FORGOTTEN, peer, text)
                    if self._timers.is_armed(peer.id, Timer.RETRANSMIT_HANDSHAKE):
                        self._retire(peer.keypairs.clear())  # the handshake under way is no residue
                    else:
                        self._forget_sessions(peer)

    def _retransmit_handshake(self, peer: Peer, now: float) -> None:
        if peer.attempts_since is not None and now - peer.attempts_since < REKEY_ATTEMPT_TIME:
            logger.debug("%r: no response to our initiation, sending another", peer)
            self._forget_local_address(peer)
            self._initiate(peer, now, retry=True)
            return
        peer.counts.gave_up += 1
        if self.probes is not None:
            self.probes.handshake_give_up(peer)
        text = f"no response to our initiations for {REKEY_ATTEMPT_TIME:.0f} s, giving up"
        self._tell(EventKind.HANDSHAKE_GAVE_UP, peer, text)
        self._timers.cancel(peer.id, Timer.SEND_KEEPALIVE)
        self._forget_initiation(peer)
        peer.attempts_since = peer.silent_since = None
        self._drop_staged(peer, now)
        self._effects.append(HandshakeGaveUp(peer.id))
        if not self._timers.is_armed(peer.id, Timer.ZERO_KEY_MATERIAL):
            self._timers.arm(peer.id, Timer.ZERO_KEY_MATERIAL, now + ZERO_KEYS_AFTER_TIME)

    def _drop_staged(self, peer: Peer, now: float) -> None:
        self._unreachable(peer.staged or (), DropReason.HANDSHAKE_GAVE_UP, now)
        peer.staged = None

    # --- Endings. ------------------------------------------------------------------------------------------

    def _forget_initiation(self, peer: Peer) -> None:
        if peer.handshake_index is not None:
            self._indices.release(peer.handshake_index)
        peer.handshake = peer.handshake_index = None

    def _forget_sessions(self, peer: Peer) -> None:
        self._forget_initiation(peer)
        self._retire(peer.keypairs.clear())
        self._timers.cancel(peer.id, Timer.ZERO_KEY_MATERIAL)
        peer.last_sent_initiation = None

    def _retire(self, keypairs: Iterable[Keypair]) -> None:
        for keypair in keypairs:
            owner = self._indices.get(keypair.local_index)
            self._indices.release(keypair.local_index)
            self._effects.append(RetireSession(keypair.local_index))
            if owner is None:
                continue
            whose = owner.peer
            if self.probes is not None:
                self.probes.session_retire(whose, keypair.local_index)
            if self.watcher is not None:
                self.watcher(
                    Event(EventKind.SESSION_RETIRED, "a session ended", whose.public_key, whose.name)
                )

    def take_effects(self) -> list[Effect]:
        """What is to be done now, in this order; each is handed out once."""
        effects, self._effects = self._effects, []
        return effects


def _latest(times: Iterable[float | None]) -> float | None:
    return max((time for time in times if time is not None), default=None)


def _first_after(reset: float | None, spans: Iterable[tuple[float | None, float | None]]) -> float | None:
    """The earliest start after `reset`, of spans (start, latest) of several sessions.

    A span of the session that saw `reset` began after it, at the same time if both were in one burst. One
    that began before, as `reset` was seen by another session, and reaches beyond it counts from its end.
    """
    starts = []
    for start, latest in spans:
        if start is None or latest is None:
            continue
        if reset is None or start >= reset:
            starts.append(start)
        elif latest > reset:
            starts.append(latest)
    return min(starts, default=None)
