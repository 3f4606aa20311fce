"""macOS's system calls for utun interfaces: opened by a kernel control socket, asked and set by ioctl.

Numbers and layouts are those of XNU's headers (`sys/kern_control.h`, `sys/sys_domain.h`, `net/if_utun.h`,
`net/if.h`). `System` is all that touches the kernel, so that the rest runs against a simulated one.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Protocol

from pywg.tun.base import TunState

AF_INET, AF_INET6 = 2, 30
"""The families in the four bytes before every packet, in network order: Darwin's numbers."""

_AF_SYSTEM = 32
_AF_ROUTE = 17
_SYSPROTO_CONTROL = 2
_UTUN_CONTROL_NAME = b"com.apple.net.utun_control"
_UTUN_OPT_IFNAME = 2
_CTLIOCGINFO = 0xC0644E03
_SIOCGIFFLAGS = 0xC0206911
_SIOCGIFMTU = 0xC0206933
_SIOCSIFMTU = 0x80206934
_IFF_UP = 1
_NAME_SIZE = 16

_CTL_INFO = struct.Struct("=I96s")
_IFREQ = struct.Struct("=16si12x")
_FLAGS = struct.Struct("=16sH14x")


class System(Protocol):
    """The system calls that are needed."""

    def socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        """As socket(2). Raises OSError."""

    def ioctl(self, fd: int, request: int, argument: bytes) -> bytes:
        """As ioctl(2) with a structure that is given, and given back. Raises OSError."""


class Darwin:
    """The system that we run on."""

    def socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        """See `System.socket`."""
        return socket.socket(family, kind, protocol)

    def ioctl(self, fd: int, request: int, argument: bytes) -> bytes:
        """See `System.ioctl`."""
        import fcntl  # noqa: PLC0415  not on Windows, where this module can be read as well

        return fcntl.ioctl(fd, request, argument)


def open_utun(system: System, number: int | None) -> socket.socket:
    """Make the interface `utun<number>`, or with None the first that is free; it lives as long as the socket.

    Raises OSError: EPERM when we are not root, EBUSY when there is one of this number.
    """
    control = system.socket(_AF_SYSTEM, socket.SOCK_DGRAM, _SYSPROTO_CONTROL)
    try:
        info = system.ioctl(control.fileno(), _CTLIOCGINFO, _CTL_INFO.pack(0, _UTUN_CONTROL_NAME))
        identity: int = _CTL_INFO.unpack(info)[0]
        control.connect((identity, 0 if number is None else number + 1))
        control.setblocking(False)
    except BaseException:
        control.close()
        raise
    return control


def interface_name(control: socket.socket) -> str:
    """The name of the interface behind a control socket. Raises OSError when it is no utun."""
    name = control.getsockopt(_SYSPROTO_CONTROL, _UTUN_OPT_IFNAME, _NAME_SIZE)
    return name.partition(b"\0")[0].decode("ascii", "replace")


def interface_state(system: System, name: str) -> TunState:
    """MTU and whether it is up. Raises OSError, ENXIO when there is no such interface."""
    with contextlib.closing(system.socket(socket.AF_INET, socket.SOCK_DGRAM, 0)) as sock:
        mtu = _IFREQ.unpack(system.ioctl(sock.fileno(), _SIOCGIFMTU, _IFREQ.pack(name.encode(), 0)))[1]
        flags = _FLAGS.unpack(system.ioctl(sock.fileno(), _SIOCGIFFLAGS, _FLAGS.pack(name.encode(), 0)))[1]
    return TunState(mtu, bool(flags & _IFF_UP))


def set_mtu(system: System, name: str, mtu: int) -> None:
    """Set an interface's MTU in bytes. Raises OSError."""
    with contextlib.closing(system.socket(socket.AF_INET, socket.SOCK_DGRAM, 0)) as sock:
        system.ioctl(sock.fileno(), _SIOCSIFMTU, _IFREQ.pack(name.encode(), mtu))


def open_route_events(system: System) -> socket.socket:
    """A non-blocking routing socket: readable when an interface, an address or a route changed.

    Raises OSError.
    """
    events = system.socket(_AF_ROUTE, socket.SOCK_RAW, 0)
    events.setblocking(False)
    return events
