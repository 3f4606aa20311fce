"""Which endpoint a peer is told to have, when there is a choice: by name, by family, by order in the file.

Decisions only, no clock and no sockets: told what a device says, what names resolve to and that the network
changed, `EndpointKeeper` answers with names to resolve and endpoints to set. `monitor.py` is the shell around
it. In the spirit of RFC 8305: both families are known, the preferred one is tried, and the other soon after.

A peer is in trouble when packets go out to it and nothing comes back. What comes back shows that an endpoint
works: data, or a handshake; not the peer's own initiations, which it sends because it does not hear us. Peers
that are silent because nobody sends are left alone.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from pywg.config.model import EndpointName
from pywg.device.snapshot import PeerSnapshot
from pywg.noise.keys import PublicKey
from pywg.wire.endpoint import Endpoint

ANSWER_TIME = 3.0
"""Seconds after something was first sent in which an endpoint has to answer when there is no session."""

LONGEST_ANSWER_TIME = 24.0
"""It doubles with every round through all endpoints, up to this, for ways that lose or delay much."""

SILENCE = 20.0
"""Seconds without an answer to data in a session: KEEPALIVE_TIMEOUT and REKEY_TIMEOUT, then a handshake that
stays unanswered. Whoever gets data shows within the first ten of them that it is there."""

STALE_HANDSHAKE = 135.0
"""Seconds after which a handshake should have been followed by another: REKEY_AFTER_TIME and 15 s. From
here on keepalives without an answer count as data."""

SESSION_LIFE = 180.0
"""Seconds after a handshake until which its session carries data: REJECT_AFTER_TIME."""

RETURN_TIME = 300.0
"""Seconds at another endpoint until the preferred one is tried again; doubles when it does not answer."""

LONGEST_RETURN_TIME = 3600.0
RETURN_AGE = 119.0
"""Seconds of a handshake's age from which the preferred endpoint is tried: the next one is due at 120."""

FIRST_LOOKUP_WAIT, LONGEST_LOOKUP_WAIT = 5.0, 120.0
"""Seconds between two lookups of a name while its peer is in trouble; they double, with jitter."""

LOOKUP_PATIENCE = 2.0
"""Seconds that a peer in trouble waits for the answer to a lookup before it tries what is known."""

LOOK, LOOK_CLOSELY = 5.0, 1.0
"""Seconds between two looks at the device: while all is well, and while an endpoint is being tried."""

CANDIDATE_LIMIT = 8
"""Addresses of one name that are tried at the most."""

_INITIATIONS = (148, 296, 444)
"""Bytes of one to three initiations. A peer that sends nothing else does not hear us; data in messages of
whole blocks of 16 never sums up to these."""

_KEEPALIVE = 32
_SPARE_KEEPALIVES = 2


class Watched(NamedTuple):
    """A peer and its endpoints as the file gives them, the preferred one first."""

    public_key: PublicKey
    endpoints: tuple[EndpointName, ...]


class Answer(NamedTuple):
    """An address of a name, and whether this host has a way to it."""

    endpoint: Endpoint
    reachable: bool = True


class Resolve(NamedTuple):
    """Ask for the addresses of this name, and give them to `resolved`."""

    name: EndpointName


class SetEndpoint(NamedTuple):
    """Give the peer this endpoint; `reason` is for the log."""

    public_key: PublicKey
    endpoint: Endpoint
    reason: str


Action: TypeAlias = Resolve | SetEndpoint


@dataclasses.dataclass(slots=True)
class _Name:
    """What is known of one name. `answers` are the last good ones."""

    answers: tuple[Answer, ...] = ()
    worked: Endpoint | None = None
    asked_at: float | None = None
    pending: bool = False
    wait: float = FIRST_LOOKUP_WAIT
    not_before: float = 0.0
    wanted: bool = False
    """The network changed: ask as soon as `not_before` allows."""


@dataclasses.dataclass(slots=True)
class _Attempt:
    """An endpoint that has to show that it works. `back` is the one to return to when it does not."""

    endpoint: Endpoint | None
    sent_before: int
    since: float
    tried_at: float | None = None
    back: Endpoint | None = None


@dataclasses.dataclass(slots=True)
class _Peer:
    watched: Watched
    started: float
    endpoint: Endpoint | None = None
    received: int = -1
    sent: int = 0
    handshake_ns: int = 0
    handshake_at: float | None = None
    heard_at: float = 0.0
    sent_when_heard: int = 0
    sending_since: float | None = None
    data_since: float | None = None
    attempt: _Attempt | None = None
    queue: list[Endpoint] = dataclasses.field(default_factory=list)
    answer_time: float = ANSWER_TIME
    return_at: float | None = None
    return_wait: float = RETURN_TIME


class EndpointKeeper:
    """The decisions for all watched peers of one interface.

    jitter: gives numbers from 0 to 1. `now` is everywhere the same clock in seconds, one that counts the time
    a machine sleeps. What is returned is to be done in order.
    """

    def __init__(self, peers: Iterable[Watched], jitter: Callable[[], float], now: float) -> None:
        self._jitter = jitter
        self._peers = {watched.public_key: _Peer(watched, now) for watched in peers}
        self._names = {name: _Name() for peer in self._peers.values() for name in peer.watched.endpoints}

    def start(self, now: float) -> list[Action]:
        """The first lookups: all names, so that other addresses are known before they are needed."""
        return [self._ask(name, now) for name in self._names]

    def observe(self, device: Iterable[PeerSnapshot], wall_ns: int, now: float) -> list[Action]:
        """Look at the device's peers. wall_ns: the wall clock, of which a handshake's age is taken once."""
        actions: list[Action] = [
            self._ask(name, now)
            for name, known in self._names.items()
            if known.wanted and not known.pending and now >= known.not_before
        ]
        for snapshot in device:
            peer = self._peers.get(snapshot.public_key)
            if peer is not None:
                actions += self._observe(peer, snapshot, wall_ns, now)
        return actions

    def resolved(self, name: EndpointName, answers: Sequence[Answer], now: float) -> list[Action]:
        """The addresses of a name in the system's order; none: it could not be resolved."""
        known = self._names[name]
        known.pending = False
        moved, known.wanted = known.wanted, False
        if not answers:
            return []
        before, known.answers = known.answers, tuple(answers[:CANDIDATE_LIMIT])
        actions: list[Action] = []
        for peer in self._peers.values():
            if name in peer.watched.endpoints:
                actions += self._reconsider(peer, name, before, moved, now)
        return actions

    def network_changed(self, now: float) -> list[Action]:
        """Addresses or routes of this host changed, or it slept: look up what may be looked up already."""
        actions: list[Action] = []
        for name, known in self._names.items():
            known.wanted = True
            known.wait = FIRST_LOOKUP_WAIT
            if known.asked_at is not None:
                known.not_before = min(known.not_before, known.asked_at + FIRST_LOOKUP_WAIT)
            if not known.pending and now >= known.not_before:
                actions.append(self._ask(name, now))
        for peer in self._peers.values():
            peer.answer_time = ANSWER_TIME
            peer.return_wait = RETURN_TIME
        return actions

    def next_look(self, now: float) -> float:
        """When to call `observe` next."""
        closely = any(self._is_close(peer, now) for peer in self._peers.values())
        look = now + (LOOK_CLOSELY if closely else LOOK)
        for peer in self._peers.values():
            if peer.return_at is not None and peer.handshake_at is not None and peer.attempt is None:
                moment = max(peer.return_at, peer.handshake_at + RETURN_AGE)
                if now < moment < look:
                    look = moment
        return look

    def known_endpoints(self) -> set[Endpoint]:
        """Every address that some peer has or could be given."""
        found = {answer.endpoint for known in self._names.values() for answer in known.answers}
        return found | {peer.endpoint for peer in self._peers.values() if peer.endpoint is not None}

    # --- One peer. ----------------------------------------------------------------------------------------

    def _observe(self, peer: _Peer, snapshot: PeerSnapshot, wall_ns: int, now: float) -> list[Action]:
        peer.endpoint = snapshot.endpoint
        first = peer.received < 0
        grown = snapshot.rx_bytes - peer.received
        heard = snapshot.last_handshake_ns != peer.handshake_ns or (grown != 0 and grown not in _INITIATIONS)
        if first:
            heard = snapshot.last_handshake_ns != 0
        if snapshot.last_handshake_ns != peer.handshake_ns:
            age = (wall_ns - snapshot.last_handshake_ns) / 1e9
            peer.handshake_at = now - min(max(age, 0.0), 2 * SESSION_LIFE)
        peer.received, peer.sent = snapshot.rx_bytes, snapshot.tx_bytes
        peer.handshake_ns = snapshot.last_handshake_ns
        if heard:
            return self._heard(peer, now)
        if first:
            peer.heard_at = now
        if peer.endpoint is None and (candidates := self._candidates(peer)):
            return self._set(peer, candidates[0], "it had none", now)
        sent = peer.sent - peer.sent_when_heard
        if sent > 0 and peer.sending_since is None:
            peer.sending_since = now
        interval = snapshot.persistent_keepalive_interval
        keepalives = _SPARE_KEEPALIVES + ((now - peer.heard_at) / interval if interval else 0)
        if sent > _KEEPALIVE * keepalives and peer.data_since is None:
            peer.data_since = now
        if peer.attempt is not None:
            return self._follow(peer, peer.attempt, now)
        if self._in_trouble(peer, now):
            return self._move(peer, now)
        return self._return(peer, now)

    def _heard(self, peer: _Peer, now: float) -> list[Action]:
        """The endpoint that the device has now works: it was set by us, or the peer has roamed there."""
        attempt, peer.attempt = peer.attempt, None
        peer.heard_at, peer.sent_when_heard = now, peer.sent
        peer.sending_since = peer.data_since = None
        peer.queue = []
        peer.answer_time = ANSWER_TIME
        place = self._place(peer, peer.endpoint)
        for name in peer.watched.endpoints:
            known = self._names[name]
            known.wait = FIRST_LOOKUP_WAIT
            if any(answer.endpoint == peer.endpoint for answer in known.answers):
                known.worked = peer.endpoint
        if place == 0:
            peer.return_at, peer.return_wait = None, RETURN_TIME
        elif place is None:
            peer.return_at = None
        else:
            if attempt is not None and attempt.back is not None:
                peer.return_wait = min(2 * peer.return_wait, LONGEST_RETURN_TIME)
                peer.return_at = None
            if peer.return_at is None:
                peer.return_at = now + peer.return_wait
        return self._return(peer, now)

    def _in_trouble(self, peer: _Peer, now: float) -> bool:
        age = None if peer.handshake_at is None else now - peer.handshake_at
        if age is None or age >= SESSION_LIFE:
            return peer.sending_since is not None and now - peer.sending_since >= peer.answer_time
        since = peer.sending_since if age >= STALE_HANDSHAKE else peer.data_since
        return since is not None and now - since >= SILENCE

    def _follow(self, peer: _Peer, attempt: _Attempt, now: float) -> list[Action]:
        """An endpoint is being tried: has it had its time since something was sent to it?"""
        if attempt.tried_at is None and peer.sent > attempt.sent_before:
            attempt.tried_at = now
        if attempt.endpoint is None:  # waiting for a lookup
            return self._move(peer, now)
        if attempt.tried_at is None or now - attempt.tried_at < peer.answer_time:
            return []
        if attempt.back is not None:
            peer.return_wait = min(2 * peer.return_wait, LONGEST_RETURN_TIME)
            peer.return_at = now + peer.return_wait
            return self._set(peer, attempt.back, "the preferred endpoint does not answer", now)
        return self._move(peer, now)

    def _move(self, peer: _Peer, now: float) -> list[Action]:
        """On to the next endpoint; a round through all begins with lookups, and waits for them a moment."""
        actions: list[Action] = []
        if not peer.queue:
            if peer.attempt is None or peer.attempt.endpoint is not None:
                if peer.attempt is not None:
                    peer.answer_time = min(2 * peer.answer_time, LONGEST_ANSWER_TIME)
                actions += self._ask_for(peer, now)
                peer.attempt = _Attempt(None, peer.sent, now)
            waits = any(self._names[name].pending for name in peer.watched.endpoints)
            if waits and now - peer.attempt.since < LOOKUP_PATIENCE:
                return actions
            peer.queue = self._candidates(peer)
            if peer.endpoint in peer.queue:  # it has just been tried: all others come first
                peer.queue.remove(peer.endpoint)
                peer.queue.append(peer.endpoint)
            if not peer.queue:
                peer.attempt = _Attempt(peer.endpoint, peer.sent, now)
                return actions
        since = peer.sending_since
        reason = "it did not answer" if since is None else f"it has not answered for {now - since:.0f} s"
        return [*actions, *self._set(peer, peer.queue.pop(0), reason, now)]

    def _return(self, peer: _Peer, now: float) -> list[Action]:
        """Back to the preferred endpoint, when that is due and a handshake is due too."""
        if peer.return_at is None or now < peer.return_at:
            return []
        if peer.handshake_at is not None and now - peer.handshake_at < RETURN_AGE:
            return []
        preferred = [
            answer.endpoint for answer in self._ordered(peer.watched.endpoints[0]) if answer.reachable
        ]
        if not preferred:
            return []
        peer.return_at = None
        return self._set(peer, preferred[0], "the preferred endpoint may be back", now, back=peer.endpoint)

    def _reconsider(
        self, peer: _Peer, name: EndpointName, before: tuple[Answer, ...], moved: bool, now: float
    ) -> list[Action]:
        """A name has been resolved anew. moved: because the network changed."""
        candidates = self._candidates(peer)
        old, new = (
            {answer.endpoint for answer in answers} for answers in (before, self._names[name].answers)
        )
        if peer.attempt is not None:
            if new - old:
                peer.queue = [endpoint for endpoint in candidates if endpoint != peer.endpoint]
                if peer.attempt.endpoint not in candidates and peer.queue:
                    return self._set(peer, peer.queue.pop(0), f"{name} has another address", now)
            return []
        if not candidates or candidates[0] == peer.endpoint:
            return []
        if moved and peer.endpoint in old and peer.endpoint not in candidates:
            return self._set(peer, candidates[0], f"{name} has another address", now)
        unreachable = Answer(peer.endpoint, False) in self._names[name].answers if peer.endpoint else False
        if unreachable and self._is_reachable(peer, candidates[0]):
            return self._set(peer, candidates[0], "there is no way to it from here", now)
        return []

    def _set(
        self, peer: _Peer, endpoint: Endpoint, reason: str, now: float, back: Endpoint | None = None
    ) -> list[Action]:
        peer.attempt = _Attempt(endpoint, peer.sent, now, back=back)
        if endpoint == peer.endpoint:
            return []
        peer.endpoint = endpoint
        return [SetEndpoint(peer.watched.public_key, endpoint, reason)]

    def _is_close(self, peer: _Peer, now: float) -> bool:
        if peer.attempt is not None:
            several = len(self._candidates(peer)) > 1 or peer.attempt.endpoint is None
            return several or now - peer.attempt.since < LOOKUP_PATIENCE
        has_session = peer.handshake_at is not None and now - peer.handshake_at < SESSION_LIFE
        if not has_session and peer.sending_since is not None:
            return True
        return peer.handshake_at is None and now - peer.started < 60

    # --- Names. -------------------------------------------------------------------------------------------

    def _ask(self, name: EndpointName, now: float) -> Resolve:
        known = self._names[name]
        known.pending = True
        known.asked_at = now
        known.not_before = now + known.wait * (0.75 + 0.5 * self._jitter())
        known.wait = min(2 * known.wait, LONGEST_LOOKUP_WAIT)
        return Resolve(name)

    def _ask_for(self, peer: _Peer, now: float) -> list[Action]:
        return [
            self._ask(name, now)
            for name in dict.fromkeys(peer.watched.endpoints)
            if not self._names[name].pending and now >= self._names[name].not_before
        ]

    def _candidates(self, peer: _Peer) -> list[Endpoint]:
        """Every address of the peer, best first: those with a way to them, in the file's order of names."""
        answers = [answer for name in peer.watched.endpoints for answer in self._ordered(name)]
        answers.sort(key=lambda answer: not answer.reachable)
        return list(dict.fromkeys(answer.endpoint for answer in answers))

    def _ordered(self, name: EndpointName) -> list[Answer]:
        """The addresses of one name: what worked before, then the two families in turn."""
        known = self._names[name]
        first = [answer for answer in known.answers if answer.endpoint == known.worked]
        rest = [answer for answer in known.answers if answer.endpoint != known.worked]
        preferred = (first or rest)[0].endpoint.family if known.answers else None
        same = [answer for answer in rest if answer.endpoint.family == preferred]
        other = [answer for answer in rest if answer.endpoint.family != preferred]
        pairs = (other, same) if first else (same, other)
        mixed = itertools.chain.from_iterable(itertools.zip_longest(*pairs))
        return [*first, *(answer for answer in mixed if answer is not None)]

    def _is_reachable(self, peer: _Peer, endpoint: Endpoint) -> bool:
        return any(Answer(endpoint) in self._names[name].answers for name in peer.watched.endpoints)

    def _place(self, peer: _Peer, endpoint: Endpoint | None) -> int | None:
        """Which of the file's endpoints this is; None: the peer has roamed, or nothing is known yet."""
        for place, name in enumerate(peer.watched.endpoints):
            if any(answer.endpoint == endpoint for answer in self._names[name].answers):
                return place
        return None
