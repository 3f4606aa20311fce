"""A simulated Darwin kernel, as far as utun needs one: control sockets are ends of socket pairs.

`Kernel` keeps `pywg.tun.utun.System`. Numbers and layouts stand here again, from XNU's headers.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

AF_SYSTEM, SYSPROTO_CONTROL, AF_ROUTE = 32, 2, 17
CONTROL_ID = 7
INET, INET6 = b"\0\0\0\x02", b"\0\0\0\x1e"


class Kernel:
    """Interfaces by name, with MTU and flags; `host(name)` is the end that the network stack has."""

    def __init__(self, *, root: bool = True) -> None:
        self.root = root
        self.mtus: dict[str, int] = {}
        self.flags: dict[str, int] = {}
        self.hosts: dict[str, socket.socket] = {}
        self._listeners: list[socket.socket] = []

    def socket(self, family: int, kind: int, protocol: int) -> socket.socket:
        if family == AF_SYSTEM:
            if not self.root:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            assert (kind, protocol) == (socket.SOCK_DGRAM, SYSPROTO_CONTROL)
            return ControlSocket(self)
        if family == AF_ROUTE:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._listeners.append(theirs)
            return ours
        assert (family, kind) == (socket.AF_INET, socket.SOCK_DGRAM)
        return socket.socket(family, kind)

    def ioctl(self, fd: int, request: int, argument: bytes) -> bytes:
        os.fstat(fd)
        if request == 0xC0644E03:  # CTLIOCGINFO
            assert argument == struct.pack("=I96s", 0, b"com.apple.net.utun_control")
            return struct.pack("=I", CONTROL_ID) + argument[4:]
        assert len(argument) == 32  # struct ifreq
        name = argument[:16].rstrip(b"\0").decode()
        if name not in self.mtus:
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        if request == 0xC0206911:  # SIOCGIFFLAGS
            return argument[:16] + struct.pack("=H", self.flags[name]) + argument[18:]
        if request == 0xC0206933:  # SIOCGIFMTU
            return argument[:16] + struct.pack("=i", self.mtus[name]) + argument[20:]
        assert request == 0x80206934  # SIOCSIFMTU
        (mtu,) = struct.unpack_from("=i", argument, 16)
        if not 576 <= mtu <= 65535:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.mtus[name] = mtu
        self.changed()
        return argument

    def make(self, unit: int) -> tuple[str, socket.socket]:
        """A new interface; unit 0: the first free. Returns its name and the program's end."""
        number = unit - 1
        if unit == 0:
            number = next(n for n in range(256) if f"utun{n}" not in self.mtus)
        name = f"utun{number}"
        if name in self.mtus:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.settimeout(10)
        self.hosts[name] = theirs
        self.mtus[name] = 1500
        self.flags[name] = 0x8051 & ~1  # POINTOPOINT, RUNNING, MULTICAST
        return name, ours

    def bring(self, name: str, *, up: bool) -> None:
        self.flags[name] = self.flags[name] & ~1 | up
        self.changed()

    def destroy(self, name: str) -> None:
        self.hosts.pop(name).close()
        del self.mtus[name], self.flags[name]
        self.changed()

    def changed(self) -> None:
        for listener in self._listeners:
            try:
                listener.send(b"an RTM_IFINFO")
            except OSError:  # it was closed
                continue

    def close(self) -> None:
        for each in (*self.hosts.values(), *self._listeners):
            each.close()


class ControlSocket(socket.socket):
    """A kernel control socket: a utun once it is connected."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._kernel = kernel
        self._interface = ""

    def connect(self, address: tuple[int, int]) -> None:  # type: ignore[override]
        identity, unit = address
        assert identity == CONTROL_ID
        self._interface, ours = self._kernel.make(unit)
        os.dup2(ours.fileno(), self.fileno(), inheritable=False)
        ours.close()

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes:  # type: ignore[override]
        assert (level, option) == (SYSPROTO_CONTROL, 2)
        return self._interface.encode() + b"\0"
