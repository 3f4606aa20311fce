"""The tap: copies of what a data path carries, kept for whoever captures until they are taken.

Nothing is copied while nobody captures. So many bytes are kept at the most; what finds no room is counted.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TypeAlias

from pywg.errors import DropReason
from pywg.wire.endpoint import Endpoint

ROOM = 8 << 20
"""Bytes that wait to be taken."""

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What to copy: inner packets, outer datagrams, and so many bytes of each at the most."""

    inner: bool = True
    outer: bool = True
    snaplen: int = 65535


@dataclasses.dataclass(frozen=True, slots=True)
class Tapped:
    """One packet or datagram. at: nanoseconds since 1970. length: bytes, of which `data` has the first.

    endpoint: a datagram's other side; None for inner packets. dropped: why it went no further, if it did not.
    """

    at: int
    inner: bool
    outgoing: bool
    length: int
    data: bytes
    endpoint: Endpoint | None = None
    dropped: DropReason | None = None


class Tap:
    """Where copies wait."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._kept: list[Tapped] = []
        self._size = 0
        self._lost = 0

    def inner(self, packet: Buffer, *, outgoing: bool, dropped: DropReason | None = None) -> None:
        """An inner packet passes, or is dropped."""
        if self.wanted.inner:
            copied = bytes(packet[: self.wanted.snaplen])
            self._keep(Tapped(time.time_ns(), True, outgoing, len(packet), copied, None, dropped))

    def outer(
        self,
        datagram: Buffer,
        endpoint: Endpoint,
        *,
        outgoing: bool,
        dropped: DropReason | None = None,
        at: int | None = None,
    ) -> None:
        """A datagram passes, or is dropped; `at` when, if that was not now: an answer may be faster."""
        if self.wanted.outer:
            copied = bytes(datagram[: self.wanted.snaplen])
            at = time.time_ns() if at is None else at
            self._keep(Tapped(at, False, outgoing, len(datagram), copied, endpoint, dropped))

    def _keep(self, tapped: Tapped) -> None:
        if self._size + len(tapped.data) > ROOM:
            self._lost += 1
            return
        self._size += len(tapped.data)
        self._kept.append(tapped)

    def take(self) -> tuple[list[Tapped], int]:
        """What was kept since the last time, in order, and how many found no room."""
        kept, lost = self._kept, self._lost
        self._kept, self._size, self._lost = [], 0, 0
        return kept, lost
