"""The queue of timers, against a plain dictionary of deadlines."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pywg.device.session import PeerId
from pywg.device.timers import Timer, TimerQueue

PEERS = st.sampled_from([PeerId(number) for number in range(3)])
TIMERS = st.sampled_from(list(Timer))
TIMES = st.integers(0, 20).map(float)


class TimerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.queue = TimerQueue()
        self.model: dict[tuple[PeerId, Timer], float] = {}

    @rule(peer=PEERS, timer=TIMERS, deadline=TIMES)
    def arm(self, peer: PeerId, timer: Timer, deadline: float) -> None:
        self.queue.arm(peer, timer, deadline)
        self.model[peer, timer] = deadline

    @rule(peer=PEERS, timer=TIMERS)
    def cancel(self, peer: PeerId, timer: Timer) -> None:
        self.queue.cancel(peer, timer)
        self.model.pop((peer, timer), None)

    @rule(peer=PEERS)
    def cancel_all(self, peer: PeerId) -> None:
        self.queue.cancel_all(peer)
        self.model = {key: deadline for key, deadline in self.model.items() if key[0] != peer}

    @rule(now=TIMES)
    def expire(self, now: float) -> None:
        due = sorted(
            (deadline, peer, timer) for (peer, timer), deadline in self.model.items() if deadline <= now
        )
        assert list(self.queue.expired(now)) == [(peer, timer) for _, peer, timer in due]
        for _, peer, timer in due:
            del self.model[peer, timer]

    @rule()
    def ask_for_the_next(self) -> None:
        assert self.queue.next_deadline() == min(self.model.values(), default=None)

    @invariant()
    def same_are_armed(self) -> None:
        for peer in range(3):
            for timer in Timer:
                assert self.queue.is_armed(PeerId(peer), timer) == ((peer, timer) in self.model)


TestTimers = TimerMachine.TestCase
TestTimers.settings = settings(max_examples=40, deadline=None)
ALICE, BOB = PeerId(1), PeerId(2)


def test_what_expires_may_be_armed_again_meanwhile() -> None:
    queue = TimerQueue()
    queue.arm(ALICE, Timer.SEND_KEEPALIVE, 1.0)
    seen = []
    for peer, timer in queue.expired(10.0):
        seen.append((peer, timer))
        if len(seen) < 4:
            queue.arm(peer, timer, 1.0 + len(seen))
    assert len(seen) == 4
    assert queue.next_deadline() is None


def test_what_one_expiry_cancels_does_not_expire() -> None:
    queue = TimerQueue()
    queue.arm(ALICE, Timer.SEND_KEEPALIVE, 1.0)
    queue.arm(BOB, Timer.SEND_KEEPALIVE, 1.0)
    seen = []
    for peer, _ in queue.expired(10.0):
        seen.append(peer)
        queue.cancel_all(BOB)
    assert seen == [ALICE]


def test_a_timer_pushed_back_for_ever_takes_no_memory() -> None:
    queue = TimerQueue()
    for now in range(10_000):
        queue.arm(ALICE, Timer.PERSISTENT_KEEPALIVE, now + 25.0)
        queue.next_deadline()
        assert not list(queue.expired(float(now)))
    assert len(queue._heap) <= 2
