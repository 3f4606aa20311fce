"""The clock of a running device: it counts the time a machine sleeps, as keys age in that time too.

On Linux CLOCK_BOOTTIME, and alarms by a timerfd on it, since asyncio's own timers stand still during
suspend. Elsewhere the monotonic clock; there an alarm is also looked at every ten seconds.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import sys
import time
from collections.abc import Callable

if sys.platform == "linux":
    _CLOCK = time.CLOCK_BOOTTIME
elif sys.platform == "darwin":
    _CLOCK = time.CLOCK_MONOTONIC_RAW
else:
    _CLOCK = None

_LOOK_AGAIN = 10.0


MADE = 1_767_225_600
"""The start of 2026, UTC, in seconds since 1970: a wall clock that says less is wrong."""


def wall_clock_is_right() -> bool:
    """Whether the wall clock may be right: it says no time before this program was made."""
    return time.time() >= MADE


def now() -> float:
    """Seconds of the clock that counts suspended time, as far as this system has one."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Alarm:
    """Calls back in the event loop when `now()` has reached a deadline; one deadline at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self.deadline: float | None = None
        self.rang: float | None = None
        """The deadline that the callback is called for."""
        self._handle: asyncio.TimerHandle | None = None
        self._fd = _timerfd_create() if sys.platform == "linux" else -1
        if self._fd >= 0:
            loop.add_reader(self._fd, self._on_timerfd)

    def set(self, deadline: float | None) -> None:
        """Call back at `deadline`, in the past: at once; None: not at all."""
        if deadline == self.deadline:
            return
        self.deadline = deadline
        if self._fd >= 0:
            # A deadline of zero would disarm; a nanosecond is in the past just as well.
            _timerfd_settime(self._fd, 0.0 if deadline is None else max(deadline, 1e-9))
            return
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if deadline is not None:
            delay = min(max(0.0, deadline - now()), _LOOK_AGAIN)
            self._handle = self._loop.call_later(delay, self._on_timer)

    def close(self) -> None:
        """No more callbacks."""
        self.set(None)
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _on_timerfd(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self.rang, self.deadline = self.deadline, None
        self._callback()

    def _on_timer(self) -> None:
        deadline, self.deadline, self._handle = self.deadline, None, None
        if deadline is not None and now() < deadline:
            self.set(deadline)
        else:
            self.rang = deadline
            self._callback()


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


_TFD_TIMER_ABSTIME = 1


@functools.cache
def _libc() -> ctypes.CDLL:
    """Made once: each one makes a class of its own, which only the garbage collector takes away."""
    return ctypes.CDLL(None, use_errno=True)


def _timerfd_create() -> int:
    """Python has its own from 3.13 on."""
    fd = int(_libc().timerfd_create(_CLOCK, os.O_CLOEXEC | os.O_NONBLOCK))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    return fd


def _timerfd_settime(fd: int, deadline: float) -> None:
    seconds = int(deadline)
    value = _Timespec(seconds, int((deadline - seconds) * 1e9))
    spec = _Itimerspec(_Timespec(0, 0), value)
    if _libc().timerfd_settime(fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
        raise OSError(ctypes.get_errno(), "timerfd_settime")
