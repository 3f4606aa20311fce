"""One way to any WireGuard interface here: through its daemon's socket when there is one, else the kernel.

That is `wg`'s rule too. What goes wrong is raised as PywgError with the interface's name.
"""

from __future__ import annotations

import errno
from typing import Any

from pywg.device.snapshot import DeviceSnapshot
from pywg.errors import PywgError
from pywg.host import kernel
from pywg.uapi import client
from pywg.uapi.error import UapiError
from pywg.uapi.format import DeviceChange


def list_interfaces() -> list[str]:
    """All of them, the kernel's first. Raises PywgError."""
    try:
        return kernel.list_interfaces() + client.list_interfaces()
    except UapiError as error:
        raise PywgError(f"the interfaces cannot be listed: {error}") from None


def get(interface: str) -> DeviceSnapshot:
    """How the interface is set up, and what it has carried."""
    try:
        if client.has_daemon(interface):
            with client.Client.open(interface) as daemon:
                return daemon.get()
        return kernel.get(interface)
    except UapiError as error:
        raise PywgError(f"{interface} cannot be read: {_explained(error)}") from None


def statistics(interface: str) -> dict[str, Any] | None:
    """What pywgd has counted of the interface; None where somebody else runs it. Raises PywgError."""
    if not client.has_daemon(interface):
        return None
    try:
        with client.Client.open(interface) as daemon:
            return daemon.statistics()
    except UapiError as error:
        if error.errno == errno.EOPNOTSUPP:
            return None
        raise PywgError(f"{interface} cannot be read: {_explained(error)}") from None


def apply(interface: str, change: DeviceChange) -> None:
    """Change the interface. Parts that came before a part that is refused stay applied."""
    try:
        if client.has_daemon(interface):
            with client.Client.open(interface) as daemon:
                daemon.set(change)
        else:
            kernel.apply(interface, change)
    except UapiError as error:
        raise PywgError(f"{interface} cannot be changed: {_explained(error)}") from None


def _explained(error: UapiError) -> str:
    match error.errno:
        case errno.ENODEV | errno.EOPNOTSUPP:
            return "there is no such WireGuard interface here; `pywg show interfaces` lists them"
        case errno.EPERM:
            return f"{error}; try again as root"
        case errno.EADDRINUSE:
            return f"{error}; another program may listen on the port"
    return str(error)
