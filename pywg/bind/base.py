"""The contract of a bind: the UDP sockets of one device, both families on one port."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pywg.wire.endpoint import Endpoint


@dataclasses.dataclass(frozen=True, slots=True)
class BindOffload:
    """What the kernel spares us: UDP_SEGMENT on sending (`gso`), UDP_GRO on receiving (`gro`)."""

    gso: bool = False
    gro: bool = False


class Received(NamedTuple):
    """Datagrams from one source: `data` is one or more, each `segment_size` bytes long but for the last.

    endpoint: the source, with the local address it was sent to. tos: the outer TOS byte or traffic class.
    `data` is valid until the next `receive` on the same bind.
    """

    data: memoryview
    segment_size: int
    endpoint: Endpoint
    tos: int


class Bind(Protocol):
    """Open UDP sockets, non-blocking. One family may be missing (a host without IPv6)."""

    @property
    def port(self) -> int:
        """The UDP port that all sockets share."""

    @property
    def offload(self) -> BindOffload:
        """What the sockets were opened with."""

    def filenos(self) -> Sequence[int]:
        """The sockets' descriptors; empty for one without (memory)."""

    def changes_fileno(self) -> int:
        """A descriptor that turns readable when routes of this host have changed; -1 if there is none."""

    def take_changes(self) -> None:
        """Consume what made `changes_fileno` readable."""

    def receive(self) -> Received | None:
        """What waits on any socket, or None. Takes the sockets in turn; never raises for the network's sake.

        An empty datagram has `segment_size` 0.
        """

    def send(self, datagrams: Sequence[bytes | bytearray | memoryview], endpoint: Endpoint, tos: int) -> int:
        """Send to one endpoint, in order, with as few system calls as the kernel lets us.

        From `endpoint.local` if that is set and still an address of this host. Returns how many were taken:
        fewer than given when the socket would block, or when the kernel refused one that was not the first.
        Raises OSError when it refuses the first for another reason than a full buffer (no route, no such
        family), after the fallbacks: without the local address, without UDP_SEGMENT. The caller drops that
        datagram, or all of them, and does not try it again.
        """

    def take_lost(self) -> int:
        """How many of the datagrams that `send` took since the last call were lost to a full queue below."""

    def set_mark(self, mark: int) -> None:
        """Mark all that is sent (SO_MARK); 0 removes the mark. Raises PywgError where that cannot be."""

    def close(self) -> None:
        """Close the sockets. Closing twice is harmless."""
