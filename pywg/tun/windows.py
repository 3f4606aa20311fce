"""Windows' tunnel devices, by Wintun. Experimental: never run on Windows so far.

Wintun has no descriptor: a thread waits for its event and turns a socket readable, which event loops on
Windows can watch; packets are taken from the ring by whoever reads. The MTU is told by `set_mtu`.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Sequence

from pywg.errors import PywgError
from pywg.tun import wintun
from pywg.tun.base import TunGoneError, TunOffload, TunState
from pywg.tun.wintun import Wintun

TUNNEL_TYPE = "WireGuard"
"""What Windows shows as the kind of the adapter."""


class WindowsTun:
    """An adapter with an open session. Make one with `create`."""

    def __init__(self, api: Wintun, name: str, mtu: int, adapter: int, session: int) -> None:
        self._api = api
        self._name = name
        self._mtu = mtu
        self._adapter = adapter
        self._session = session
        self._arrived, self._arrive = socket.socketpair()
        self._changed, self._change = socket.socketpair()
        for end in (self._arrived, self._arrive, self._changed, self._change):
            end.setblocking(False)
        self._ended = api.create_event()
        self._waiter = threading.Thread(target=self._wait_for_packets, name=f"pywg-{name}", daemon=True)
        self._waiter.start()

    @classmethod
    def create(cls, name: str, mtu: int, api: Wintun | None = None) -> WindowsTun:
        """Make the adapter `name`, which lives as long as this program. Raises PywgError.

        mtu: what padding is limited to; the interface's own is set with the rest of its settings.
        """
        if not name or len(name) > 127 or any(c in '\\/:*?"<>|' or not c.isprintable() for c in name):
            raise PywgError(f"'{name}' is no name for an adapter")
        api = api or Wintun.load()
        try:
            adapter = api.create_adapter(name, TUNNEL_TYPE)
        except OSError as error:
            if error.errno == wintun.ERROR_ACCESS_DENIED:
                raise PywgError(f"the adapter {name} may not be made; run it as administrator") from None
            raise PywgError(f"the adapter {name} cannot be made: {error.strerror}") from None
        try:
            session = api.start_session(adapter, wintun.RING_CAPACITY)
        except OSError as error:
            api.close_adapter(adapter)
            raise PywgError(f"the adapter {name} cannot be used: {error.strerror}") from None
        return cls(api, name, mtu, adapter, session)

    @property
    def name(self) -> str:
        """The adapter's name, as it was made."""
        return self._name

    @property
    def offload(self) -> TunOffload:
        """None."""
        return TunOffload()

    def fileno(self) -> int:
        """A socket that is readable when packets may wait; -1 after `close`."""
        return self._arrived.fileno()

    def changes_fileno(self) -> int:
        """A socket that is readable when `set_mtu` was called; -1 after `close`."""
        return self._changed.fileno()

    def read(self) -> bytes | None:
        """See `Tun.read`."""
        packet = self._receive()
        if packet is None and self._session:
            # What comes from here on sets the event again; what came before is in the ring.
            _drain(self._arrived)
            packet = self._receive()
        return packet

    def _receive(self) -> bytes | None:
        if not self._session:
            raise self._gone()
        try:
            return self._api.receive(self._session)
        except OSError as error:
            if error.errno == wintun.ERROR_HANDLE_EOF:
                raise self._gone() from None
            raise

    def write(self, frame: Sequence[bytes | bytearray | memoryview]) -> None:
        """See `Tun.write`. ENOBUFS: the ring is full; EMSGSIZE: it is no packet."""
        if not self._session:
            raise self._gone()
        packet = b"".join(frame)
        if not 0 < len(packet) <= wintun.LARGEST_PACKET:
            raise OSError(errno.EMSGSIZE, "a packet has 1 to 65535 bytes")
        try:
            self._api.send(self._session, packet)
        except OSError as error:
            if error.errno == wintun.ERROR_HANDLE_EOF:
                raise self._gone() from None
            if error.errno == wintun.ERROR_BUFFER_OVERFLOW:
                raise OSError(errno.ENOBUFS, "the ring is full") from None
            raise

    def state(self) -> TunState:
        """See `Tun.state`; an adapter is always up."""
        if not self._session:
            raise self._gone()
        _drain(self._changed)
        return TunState(self._mtu, up=True)

    def set_mtu(self, mtu: int) -> None:
        """Tell what the interface's MTU is, in bytes. From any thread."""
        self._mtu = mtu
        with contextlib.suppress(OSError):  # full: it is readable already
            self._change.send(b"!")

    def close(self) -> None:
        """See `Tun.close`."""
        if not self._session:
            return
        session, self._session = self._session, 0
        self._api.set_event(self._ended)
        self._waiter.join()
        self._api.close_event(self._ended)
        self._api.end_session(session)
        self._api.close_adapter(self._adapter)
        for end in (self._arrived, self._arrive, self._changed, self._change):
            end.close()

    def _wait_for_packets(self) -> None:
        arrived = self._api.read_wait_event(self._session)
        while True:
            with contextlib.suppress(BlockingIOError):  # full: it is readable already
                self._arrive.send(b"!")
            if self._api.wait(self._ended, arrived) == 0:
                return

    def _gone(self) -> TunGoneError:
        return TunGoneError(f"the adapter {self._name} was removed")


def _drain(end: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while end.recv(4096):
            pass
