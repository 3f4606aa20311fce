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
            self._keep(packet, True, outgoing, None, dropped)

    def outer(
        self, datagram: Buffer, endpoint: Endpoint, *, outgoing: bool, dropped: DropReason | None = None
    ) -> None:
        """A datagram passes, or is dropped."""
        if self.wanted.outer:
            self._keep(datagram, False, outgoing, endpoint, dropped)

    def _keep(
        self,
        data: Buffer,
        inner: bool,
        outgoing: bool,
        endpoint: Endpoint | None,
        dropped: DropReason | None,
    ) -> None:
        length = len(data)
        copied = bytes(data[: self.wanted.snaplen])
        if self._size + len(copied) > ROOM:
            self._lost += 1
            return
        self._size += len(copied)
        self._kept.append(Tapped(time.time_ns(), inner, outgoing, length, copied, endpoint, dropped))

    def take(self) -> tuple[list[Tapped], int]:
        """What was kept since the last time, in order, and how many found no room."""
        kept, lost = self._kept, self._lost
        self._kept, self._size, self._lost = [], 0, 0
        return kept, lost
