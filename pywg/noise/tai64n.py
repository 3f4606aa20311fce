"""TAI64N timestamps, which keep an initiation from being replayed (paper, section 5.1).

A timestamp is 12 bytes: 2**62 plus the TAI second, 64 bits, and the nanosecond in it, 32 bits, both
big-endian; so bytes compare as times do. Like all implementations, TAI is taken to be ten seconds ahead
of the wall clock, and nanoseconds are rounded down so that a timestamp tells little about our clock.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable

RESOLUTION = 1 << 24
"""Nanoseconds, about 16.8 ms, to which the time within a second is rounded down."""

_LABEL = struct.Struct(">QI")
_EPOCH = 2**62 + 10  # the label of 1970-01-01 00:00:00 UTC
_SECOND = 10**9


def encode(nanoseconds: int) -> bytes:
    """The timestamp of a wall clock time in nanoseconds since 1970, unrounded."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    return _LABEL.pack(_EPOCH + seconds, rest)


def decode(timestamp: bytes) -> int:
    """Nanoseconds of the wall clock since 1970; any 12 bytes give some number."""
    seconds, rest = _LABEL.unpack(timestamp)
    return int(seconds - _EPOCH) * _SECOND + int(rest)


def describe(timestamp: bytes) -> str:
    """For a person: the UTC time to the millisecond, or the bytes in hexadecimal when it is no time."""
    try:
        moment = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(
            microseconds=decode(timestamp) // 1000
        )
    except OverflowError:
        return timestamp.hex()
    return moment.isoformat(timespec="milliseconds")


class Tai64nClock:
    """Gives timestamps that only ever grow, also when the wall clock is set back.

    wall_clock: nanoseconds since 1970.
    """

    __slots__ = ("_last", "_wall_clock")

    def __init__(self, wall_clock: Callable[[], int]) -> None:
        self._wall_clock = wall_clock
        self._last: tuple[int, int] | None = None  # second, and steps of RESOLUTION within it

    def now(self) -> bytes:
        """The wall clock's time, or when that is no later than the last timestamp, the next after it."""
        second, nanosecond = divmod(self._wall_clock(), _SECOND)
        time = (second, nanosecond // RESOLUTION)
        if self._last is not None and time <= self._last:
            time = self._step_after(self._last)
        self._last = time
        return _LABEL.pack(_EPOCH + time[0], time[1] * RESOLUTION)

    @staticmethod
    def _step_after(time: tuple[int, int]) -> tuple[int, int]:
        """At least RESOLUTION later, and again a multiple of it within its second."""
        second, step = time
        if (step + 1) * RESOLUTION < _SECOND:
            return second, step + 1
        return second + 1, 1
