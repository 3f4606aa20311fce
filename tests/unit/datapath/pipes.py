"""A tunnel device and a bind with descriptors, so that waiting for readiness can be tested without root."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from pywg.bind.memory import MemoryBind, MemoryNetwork
from pywg.tun.base import TunGoneError, TunOffload, TunState


class PipeTun:
    """A tunnel device whose host is the other end of a socket pair, `host`; keeps the contract of `Tun`."""

    def __init__(self, mtu: int = 1420) -> None:
        self._inside, self.host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._changed, self._change = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for each in (self._inside, self._changed):
            each.setblocking(False)
        self.host.settimeout(10)
        self._state = TunState(mtu, up=True)
        self._gone = False
        self.name = "pipe0"
        self.offload = TunOffload()

    def fileno(self) -> int:
        return self._inside.fileno()

    def changes_fileno(self) -> int:
        return self._changed.fileno()

    def set_state(self, *, mtu: int = 1420, up: bool = True) -> None:
        self._state = TunState(mtu, up)
        self._change.send(b"!")

    def remove(self) -> None:
        self._gone = True
        self._change.send(b"!")

    def read(self) -> bytes | None:
        try:
            return self._inside.recv(65536)
        except BlockingIOError:
            return None

    def write(self, frame: Sequence[bytes | bytearray | memoryview]) -> None:
        self._inside.sendmsg(frame)

    def state(self) -> TunState:
        with contextlib.suppress(BlockingIOError):
            self._changed.recv(16)
        if self._gone:
            raise TunGoneError("the tunnel device pipe0 was removed")
        return self._state

    def close(self) -> None:
        for each in (self._inside, self.host, self._changed, self._change):
            each.close()


class PipeBind(MemoryBind):
    """A memory bind with a descriptor, which is always ready to be written to and never to be read."""

    def __init__(self, network: MemoryNetwork, address: str) -> None:
        super().__init__(network, address)
        self._ends = socket.socketpair()

    def filenos(self) -> Sequence[int]:
        return (self._ends[0].fileno(),)

    def close(self) -> None:
        super().close()
        for end in self._ends:
            end.close()
