"""Which module makes tunnel devices on this system; it is imported when the first one is made."""

from __future__ import annotations

import sys
from typing import Protocol

from pywg.errors import PywgError
from pywg.tun.base import Tun, TunOffload

# Asked at run time, so that a checker of types for one system reads the branches of all.
_PLATFORM: str = sys.platform


class SystemTun(Tun, Protocol):
    """A tunnel device of the operating system."""

    def set_mtu(self, mtu: int) -> None:
        """Set the interface's MTU, in bytes. Raises PywgError."""


def create_tun(name: str, mtu: int, want: TunOffload) -> SystemTun:
    """Make the interface `name`. Raises PywgError with a sentence."""
    if _PLATFORM == "darwin":
        from pywg.tun.darwin import DarwinTun  # noqa: PLC0415

        return DarwinTun.create(name, mtu)
    if _PLATFORM == "win32":
        from pywg.tun.windows import WindowsTun  # noqa: PLC0415

        return WindowsTun.create(name, mtu)
    from pywg.tun.linux import LinuxTun  # noqa: PLC0415

    return LinuxTun.create(name, mtu, want)


def tun_from_fd(fd: int, want: TunOffload) -> SystemTun:
    """Take over an open descriptor (`WG_TUN_FD`), also when this fails. Raises PywgError."""
    if _PLATFORM == "darwin":
        from pywg.tun.darwin import DarwinTun  # noqa: PLC0415

        return DarwinTun.from_fd(fd)
    if _PLATFORM == "win32":
        raise PywgError("WG_TUN_FD cannot be used on Windows: its tunnel devices are no descriptors")
    from pywg.tun.linux import LinuxTun  # noqa: PLC0415

    return LinuxTun.from_fd(fd, want=want)
