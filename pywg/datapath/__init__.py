"""All packet I/O: bursts between the tunnel device and the sockets, sealed and opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pywg.datapath.base import DataPath
    from pywg.tun.base import Tun


def open_datapath(tun: Tun) -> DataPath:
    """The data path that this system carries packets with."""
    from pywg.datapath.portable import PortableDataPath

    return PortableDataPath(tun)


def describe() -> str:
    """Which data path `open_datapath` takes, and with which cipher library."""
    from importlib.metadata import version

    return f"portable data path, cryptography {version('cryptography')}"
