"""macOS's tunnel devices, utun, by the standard library's sockets. Experimental: never run on a Mac so far.

The interface's name is `utun` and a number, the system's choice when none is given; it exists as long as the
socket is open. Every packet has four bytes before it that tell its family.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from collections.abc import Sequence

from pywg.errors import PywgError
from pywg.tun import netlink, utun
from pywg.tun.base import TunGoneError, TunOffload, TunState
from pywg.tun.utun import System

_NAME = re.compile(r"utun([0-9]{0,9})")
_HEADER_SIZE = 4
_READ_SIZE = 65536 + _HEADER_SIZE
_HEADERS = {4: utun.AF_INET.to_bytes(_HEADER_SIZE, "big"), 6: utun.AF_INET6.to_bytes(_HEADER_SIZE, "big")}
_GONE = frozenset({errno.ENXIO, errno.EBADF, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE})


class DarwinTun:
    """An open utun interface. Make one with `create` or `from_fd`."""

    def __init__(self, control: socket.socket, name: str, system: System) -> None:
        self._control = control
        self._fd = control.fileno()
        self._name = name
        self._system = system
        self._events: socket.socket | None = None
        with contextlib.suppress(OSError):
            self._events = utun.open_route_events(system)

    @classmethod
    def create(cls, name: str, mtu: int, system: System | None = None) -> DarwinTun:
        """Make the interface `name`: `utun4`, or `utun` for the first that is free. Raises PywgError."""
        system = system or utun.Darwin()
        match = _NAME.fullmatch(name)
        if match is None:
            raise PywgError(f"'{name}' is no interface name for macOS: it must be 'utun' or 'utun4'")
        try:
            control = utun.open_utun(system, int(match[1]) if match[1] else None)
        except OSError as error:
            raise _explained(name, error) from None
        return cls._adopt(control, mtu, system)

    @classmethod
    def from_fd(cls, fd: int, mtu: int | None = None, system: System | None = None) -> DarwinTun:
        """Take over an open utun socket (`WG_TUN_FD`); it is ours from here on, also when this fails.

        mtu: None leaves it as it is. Raises PywgError.
        """
        try:
            control = socket.socket(fileno=fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise PywgError(f"descriptor {fd} is no utun interface: {error.strerror}") from None
        control.set_inheritable(False)
        control.setblocking(False)
        return cls._adopt(control, mtu, system or utun.Darwin())

    @classmethod
    def _adopt(cls, control: socket.socket, mtu: int | None, system: System) -> DarwinTun:
        try:
            name = utun.interface_name(control)
        except OSError as error:
            fd = control.fileno()
            control.close()
            raise PywgError(f"descriptor {fd} is no utun interface: {error.strerror}") from None
        tun = cls(control, name, system)
        try:
            if mtu is not None:
                tun.set_mtu(mtu)
            tun.state()
        except BaseException:
            tun.close()
            raise
        return tun

    @property
    def name(self) -> str:
        """The interface's name; macOS does not rename interfaces."""
        return self._name

    @property
    def offload(self) -> TunOffload:
        """None."""
        return TunOffload()

    def fileno(self) -> int:
        """The socket's descriptor; -1 after `close`."""
        return self._fd

    def changes_fileno(self) -> int:
        """A routing socket: readable when any interface, address or route changed."""
        return -1 if self._events is None else self._events.fileno()

    def read(self) -> bytes | None:
        """See `Tun.read`."""
        try:
            frame = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._gone_or(error) from None
        if not frame:
            raise self._gone()
        return frame[_HEADER_SIZE:]

    def write(self, frame: Sequence[bytes | bytearray | memoryview]) -> None:
        """See `Tun.write`. EAFNOSUPPORT: no IP packet; ENOBUFS: the interface's queue is full."""
        header = _HEADERS.get(frame[0][0] >> 4 if frame and len(frame[0]) else 0)
        if header is None:
            raise OSError(errno.EAFNOSUPPORT, "this is neither IPv4 nor IPv6")
        try:
            os.writev(self._fd, [header, *frame])
        except OSError as error:
            raise self._gone_or(error) from None

    def state(self) -> TunState:
        """See `Tun.state`."""
        if self._events is not None:
            netlink.drain(self._events)
        try:
            return utun.interface_state(self._system, self._name)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise self._gone() from None
            raise PywgError(f"the state of {self._name} cannot be read: {error.strerror}") from None

    def set_mtu(self, mtu: int) -> None:
        """Set the interface's MTU, in bytes. Raises PywgError."""
        try:
            utun.set_mtu(self._system, self._name, mtu)
        except OSError as error:
            raise PywgError(f"the MTU of {self._name} cannot be set to {mtu}: {error.strerror}") from None

    def close(self) -> None:
        """See `Tun.close`."""
        self._control.close()
        self._fd = -1
        if self._events is not None:
            self._events.close()
            self._events = None

    def _gone(self) -> TunGoneError:
        return TunGoneError(f"the tunnel device {self._name} was removed")

    def _gone_or(self, error: OSError) -> OSError | TunGoneError:
        return self._gone() if error.errno in _GONE or self._fd < 0 else error


def _explained(name: str, error: OSError) -> PywgError:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return PywgError(f"the interface {name} may not be made by this user; run it as root, with sudo")
    if error.errno in {errno.EBUSY, errno.EADDRINUSE}:
        return PywgError(f"the interface {name} exists already; 'utun' takes the next free number")
    return PywgError(f"the interface {name} cannot be made: {error.strerror or error}")
