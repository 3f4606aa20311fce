"""What can be asked about interfaces and about our own rights without netlink, so without importing much."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path

from pywg.config.files import CONFIG_DIRECTORY, is_interface_name
from pywg.errors import PywgError

_CAP_NET_ADMIN = 12


def interface_exists(interface: str) -> bool:
    """Whether there is such an interface in this network namespace."""
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


def interface_meant(argument: str) -> str | None:
    """The interface that an argument of `down` means, also when its file is gone; None: unknown."""
    name = Path(argument).name
    if is_interface_name(argument):
        in_folder = False
        with contextlib.suppress(PermissionError):
            in_folder = (CONFIG_DIRECTORY / f"{argument}.conf").exists()
        if in_folder or interface_exists(argument) or not argument.endswith(".conf"):
            return argument
    stem = name.removesuffix(".conf")
    return stem if stem != name and is_interface_name(stem) else None


def may_administer_network() -> bool:
    """Whether this process has CAP_NET_ADMIN, also as root of a user namespace."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
        return bool(int(effective, 16) >> _CAP_NET_ADMIN & 1)
    except (OSError, StopIteration, IndexError, ValueError):
        return _is_administrator()


def _is_administrator() -> bool:
    """Whether we are root, or on Windows an administrator with all rights."""
    if not hasattr(os, "geteuid"):
        import ctypes  # noqa: PLC0415  Windows alone needs it

        return bool(ctypes.windll.shell32.IsUserAnAdmin())  # type: ignore[attr-defined]
    return os.geteuid() == 0


def require_network_rights(command: str) -> None:
    """Raise PywgError unless interfaces may be changed; `command` is what the person typed."""
    if not may_administer_network():
        if sys.platform == "win32":
            raise PywgError(f"changing interfaces needs an administrator's console: {command}")
        raise PywgError(
            f"changing interfaces needs the capability CAP_NET_ADMIN; run it as root: sudo {command}"
        )
