"""When to do something for a peer although nothing arrives: five timers each (WireGuard paper, section 6).

`device.py` arms and cancels them as the events say; this module only knows deadlines. Ten thousand idle
peers cost nothing here: the queue holds armed timers only, and one that is pushed back stays where it is
until its old deadline comes.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterator

from pywg.device.session import PeerId


class Timer(enum.IntEnum):
    """What is due; each is armed at most once per peer."""

    RETRANSMIT_HANDSHAKE = 0
    """No response to our initiation: send it anew, or give up. REKEY_TIMEOUT and jitter after each."""
    SEND_KEEPALIVE = 1
    """Data arrived and we sent nothing since: show that we are here. KEEPALIVE_TIMEOUT after that data."""
    NEW_HANDSHAKE = 2
    """We sent data and nothing arrived since. KEEPALIVE_TIMEOUT, REKEY_TIMEOUT and jitter after that data."""
    ZERO_KEY_MATERIAL = 3
    """No new session for three times REJECT_AFTER_TIME: forget all keys."""
    PERSISTENT_KEEPALIVE = 4
    """Nothing authenticated was sent or received for the configured interval: keep the NAT's entry alive."""


class TimerQueue:
    """The armed timers of all peers."""

    def __init__(self) -> None:
        self._deadlines: dict[tuple[PeerId, Timer], float] = {}
        self._queued: dict[tuple[PeerId, Timer], float] = {}
        self._heap: list[tuple[float, PeerId, Timer]] = []

    def arm(self, peer: PeerId, timer: Timer, deadline: float) -> None:
        """Let the timer run out at `deadline`, whatever it was set to before."""
        key = (peer, timer)
        self._deadlines[key] = deadline
        queued = self._queued.get(key)
        if queued is None or deadline < queued:
            self._queued[key] = deadline
            heapq.heappush(self._heap, (deadline, peer, timer))

    def cancel(self, peer: PeerId, timer: Timer) -> None:
        """Stop a timer; harmless when it is not armed."""
        self._deadlines.pop((peer, timer), None)

    def cancel_all(self, peer: PeerId) -> None:
        """Stop all timers of a peer."""
        for timer in Timer:
            self.cancel(peer, timer)

    def is_armed(self, peer: PeerId, timer: Timer) -> bool:
        """Whether the timer is going to run out."""
        return (peer, timer) in self._deadlines

    def next_deadline(self) -> float | None:
        """When the next timer runs out; None when none is armed."""
        while self._heap:
            queued, peer, timer = self._heap[0]
            key = (peer, timer)
            deadline = self._deadlines.get(key)
            if deadline == queued:
                return queued
            heapq.heappop(self._heap)
            if self._queued.get(key) != queued:
                continue  # an earlier deadline was queued after this one
            del self._queued[key]
            if deadline is not None:
                self._queued[key] = deadline
                heapq.heappush(self._heap, (deadline, peer, timer))
        return None

    def expired(self, now: float) -> Iterator[tuple[PeerId, Timer]]:
        """Those that have run out by `now`, in order; each is disarmed before it is given."""
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            _, peer, timer = heapq.heappop(self._heap)
            del self._queued[(peer, timer)]
            del self._deadlines[(peer, timer)]
            yield peer, timer
