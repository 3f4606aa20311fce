"""A tunnel device without an operating system, for tests and for programs that carry the packets themselves.

`deliver` is what the host sends into the tunnel, `take` what came out of it for the host.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence

from pywg.tun.base import TunGoneError, TunOffload, TunState

QUEUE_LIMIT = 4096
"""Frames that wait in each direction at most; what comes after is dropped, as a device's queue does."""

_PLAIN = bytes(10)  # a virtio_net_hdr that says: no segmentation, no checksum to complete


class MemoryTun:
    """Keeps the contract of `Tun`.

    offload: with `vnet_hdr`, every frame begins with a virtio_net_hdr; `deliver` puts a plain one before a
    packet, `deliver_frame` takes any.
    """

    def __init__(self, name: str = "memory0", mtu: int = 1420, offload: TunOffload | None = None) -> None:
        self._name = name
        self._mtu = mtu
        self._up = True
        self._offload = offload or TunOffload()
        self._inbound: deque[bytes] = deque()
        self._written: deque[bytes] = deque()
        self._gone = False
        self.dropped = 0
        """Frames that found the queue full, in either direction."""
        self.on_change: Callable[[], None] | None = None
        """Called when there is something to read or the state changed: what a descriptor says elsewhere."""

    @property
    def name(self) -> str:
        """The name it was given."""
        return self._name

    @property
    def offload(self) -> TunOffload:
        """What it was made with."""
        return self._offload

    def fileno(self) -> int:
        """None: -1."""
        return -1

    def changes_fileno(self) -> int:
        """None: -1."""
        return -1

    @property
    def waiting(self) -> int:
        """How many frames wait for `read`: what a descriptor's readiness says elsewhere."""
        return len(self._inbound)

    def deliver(self, *packets: bytes) -> None:
        """The host sends these IP packets into the tunnel."""
        header = _PLAIN if self._offload.vnet_hdr else b""
        for packet in packets:
            self.deliver_frame(header + packet)

    def deliver_frame(self, frame: bytes) -> None:
        """The host sends this frame into the tunnel, its virtio_net_hdr included."""
        if not self._up or len(self._inbound) >= QUEUE_LIMIT:
            self.dropped += 1
            return
        self._inbound.append(bytes(frame))
        self._changed()

    def take(self) -> list[bytes]:
        """What the host got since the last call, as frames: with a virtio_net_hdr if `offload` says so."""
        frames = list(self._written)
        self._written.clear()
        return frames

    def packets(self) -> list[bytes]:
        """As `take`, without the virtio_net_hdr; for devices whose writer does not coalesce."""
        skip = len(_PLAIN) if self._offload.vnet_hdr else 0
        return [frame[skip:] for frame in self.take()]

    def set_state(self, *, mtu: int | None = None, up: bool | None = None) -> None:
        """The administrator changes the MTU, or brings the device up or down."""
        self._mtu = self._mtu if mtu is None else mtu
        self._up = self._up if up is None else up
        self._changed()

    def remove(self) -> None:
        """The administrator removes the device."""
        self._gone = True
        self._changed()

    def read(self) -> bytes | None:
        """See `Tun.read`."""
        self._check()
        return self._inbound.popleft() if self._inbound else None

    def write(self, frame: Sequence[bytes | bytearray | memoryview]) -> None:
        """See `Tun.write`; EIO when the device is down, as Linux has it."""
        self._check()
        if not self._up:
            raise OSError(errno.EIO, "the device is down")
        if len(self._written) >= QUEUE_LIMIT:
            self.dropped += 1
            return
        self._written.append(b"".join(frame))

    def state(self) -> TunState:
        """The state now."""
        self._check()
        return TunState(self._mtu, self._up)

    def close(self) -> None:
        """Drop what waits; it is gone."""
        self._gone = True
        self._inbound.clear()

    def _check(self) -> None:
        if self._gone:
            raise TunGoneError(f"the tunnel device {self._name} was removed")

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()
