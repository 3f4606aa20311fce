"""The contract of a tunnel device, whatever the operating system calls it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pywg.errors import PywgError


class TunGoneError(PywgError):
    """The tunnel device was removed while it was in use."""


class TunState(NamedTuple):
    """What can change while the device is open: its MTU in bytes, and whether it is up."""

    mtu: int
    up: bool


@dataclasses.dataclass(frozen=True, slots=True)
class TunOffload:
    """What the device spares us.

    vnet_hdr: every frame begins with a 10-byte virtio_net_hdr, on reading and on writing.
    tso: it hands over TCP super-packets (both families); uso: UDP super-packets too.
    """

    vnet_hdr: bool = False
    tso: bool = False
    uso: bool = False


class Tun(Protocol):
    """An open tunnel device, non-blocking."""

    @property
    def name(self) -> str:
        """The interface's name now (it may be renamed while open)."""

    @property
    def offload(self) -> TunOffload:
        """What this device was opened with."""

    def fileno(self) -> int:
        """The descriptor that frames are read from and written to; -1 for one without (memory)."""

    def changes_fileno(self) -> int:
        """A descriptor that turns readable when `state` may have changed; -1 if there is none."""

    def read(self) -> bytes | None:
        """One frame (a virtio_net_hdr before the packet, if `offload.vnet_hdr`), or None if none waits.

        Raises TunGoneError when the device was removed.
        """

    def write(self, frame: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write one frame, in 1024 parts at most. Raises OSError as write(2), TunGoneError if removed."""

    def state(self) -> TunState:
        """The state now; consumes what made `changes_fileno` readable. Raises TunGoneError if removed."""

    def close(self) -> None:
        """Close it; the interface disappears with its last descriptor. Closing twice is harmless."""
