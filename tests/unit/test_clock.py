"""The clock that counts suspended time, and its alarms in a real event loop, some milliseconds long."""

from __future__ import annotations

import asyncio
import pathlib
import sys
import time
from collections.abc import Callable

import pytest

from pywg import clock


def open_descriptors() -> int:
    directory = pathlib.Path("/proc/self/fd")
    return sum(1 for _ in directory.iterdir()) if directory.exists() else 0


def run_with_alarm(body: Callable[[clock.Alarm, asyncio.Future[float]], object]) -> float:
    """When the alarm called back, after `body` has set it."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        rang: asyncio.Future[float] = loop.create_future()

        def ring() -> None:
            if not rang.done():
                rang.set_result(clock.now())

        alarm = clock.Alarm(loop, ring)
        try:
            body(alarm, rang)
            return await asyncio.wait_for(rang, 10)
        finally:
            alarm.close()

    return asyncio.run(main())


@pytest.fixture(params=["timerfd", "call_later"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Linux's alarms, and those of other systems."""
    if request.param == "timerfd" and sys.platform != "linux":
        pytest.skip("timerfd is Linux's")
    if request.param == "call_later":
        monkeypatch.setattr(sys, "platform", "other")
    return str(request.param)


@pytest.mark.skipif(sys.platform != "linux", reason="CLOCK_BOOTTIME is Linux's")
def test_it_is_the_clock_that_counts_suspended_time() -> None:
    assert abs(clock.now() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 0.1


def test_it_never_goes_backwards() -> None:
    times = [clock.now() for _ in range(1000)]
    assert times == sorted(times)


@pytest.mark.usefixtures("kind")
class TestAlarm:
    def test_it_calls_back_at_its_deadline_and_not_before(self) -> None:
        deadline = clock.now() + 0.03
        assert run_with_alarm(lambda alarm, _: alarm.set(deadline)) >= deadline

    @pytest.mark.parametrize("deadline", [0.0, -5.0, 1e-12])
    def test_a_deadline_in_the_past_calls_back_at_once(self, deadline: float) -> None:
        before = clock.now()
        assert run_with_alarm(lambda alarm, _: alarm.set(deadline)) - before < 5

    def test_an_earlier_deadline_replaces_a_later_one(self) -> None:
        start = clock.now()

        def body(alarm: clock.Alarm, _: object) -> None:
            alarm.set(start + 3600)
            alarm.set(start + 0.01)

        assert start + 0.01 <= run_with_alarm(body) < start + 5

    def test_a_later_deadline_replaces_an_earlier_one(self) -> None:
        start = clock.now()

        def body(alarm: clock.Alarm, _: object) -> None:
            alarm.set(start + 0.001)
            alarm.set(start + 0.05)

        assert run_with_alarm(body) >= start + 0.05

    def test_without_a_deadline_it_does_not_call_back(self) -> None:
        def body(alarm: clock.Alarm, rang: asyncio.Future[float]) -> None:
            alarm.set(clock.now() + 0.001)
            alarm.set(None)
            rang.get_loop().call_later(0.02, rang.set_result, -1.0)

        assert run_with_alarm(body) == -1.0

    def test_after_its_call_it_has_no_deadline_and_can_be_set_again(self) -> None:
        seen: list[float | None] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            done = loop.create_future()

            def rang() -> None:
                seen.append(alarm.deadline)
                if len(seen) == 3:
                    done.set_result(None)
                else:
                    alarm.set(clock.now())

            alarm = clock.Alarm(loop, rang)
            alarm.set(clock.now())
            await asyncio.wait_for(done, 10)
            alarm.close()

        asyncio.run(main())
        assert seen == [None, None, None]

    def test_setting_the_same_deadline_twice_changes_nothing(self) -> None:
        deadline = clock.now() + 0.01

        def body(alarm: clock.Alarm, _: object) -> None:
            alarm.set(deadline)
            alarm.set(deadline)

        assert run_with_alarm(body) >= deadline

    def test_a_closed_alarm_leaves_no_descriptor_and_no_callback(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            before = open_descriptors()
            alarm = clock.Alarm(loop, pytest.fail)
            alarm.set(clock.now())
            alarm.close()
            alarm.close()
            await asyncio.sleep(0)
            assert open_descriptors() == before

        asyncio.run(main())


def test_where_sleep_is_not_counted_an_alarm_looks_again_before_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Suspension makes the clock jump while the loop's timer stands still: the next look finds it out."""
    monkeypatch.setattr(sys, "platform", "other")
    monkeypatch.setattr(clock, "_LOOK_AGAIN", 0.005)
    looks: list[float] = []
    real = clock.now
    offset = 0.0

    def now() -> float:
        nonlocal offset
        looks.append(real() + offset)
        if len(looks) == 4:
            offset = 3600.0
        return looks[-1]

    monkeypatch.setattr(clock, "now", now)
    start = real()
    run_with_alarm(lambda alarm, _: alarm.set(start + 600))
    assert len(looks) > 4
    assert real() - start < 5
