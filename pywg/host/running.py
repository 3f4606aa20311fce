"""A running interface's addresses, routes and MTU: read for comparison with a file, and taken away singly.

What adds them is in `linux.py`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from pywg.config.model import InterfaceAddress
from pywg.errors import PywgError, remedy
from pywg.host import rtnetlink
from pywg.host.rtnetlink import Route, Rtnetlink
from pywg.wire.network import Network

_GONE = {errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL}


class RunningInterface:
    """One interface of this network namespace; a context manager that holds a netlink socket."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        with _sentences("interfaces cannot be reached by netlink"):
            self._netlink = Rtnetlink()
        try:
            self._index = socket.if_nametoindex(interface)
        except OSError:
            self._netlink.close()
            raise PywgError(f"there is no interface {interface} here") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._netlink.close()

    def addresses(self) -> list[InterfaceAddress]:
        """Its addresses with their prefix lengths, in the kernel's order. Raises PywgError."""
        with _sentences(f"the addresses of {self.interface} cannot be read"):
            return self._netlink.addresses(self._index)

    def mtu(self) -> int:
        """Bytes. Raises PywgError."""
        with _sentences(f"the interface {self.interface} cannot be read"):
            return self._netlink.link(self._index).mtu

    def set_mtu(self, mtu: int) -> None:
        """Bytes. Raises PywgError."""
        with _sentences(f"{self.interface} cannot be given an MTU of {mtu}"):
            self._netlink.set_link(self._index, mtu)

    def routes(self, table: int) -> set[Network]:
        """The networks that were routed through it by hand, by a hook, or by `up`. Raises PywgError."""
        return {route.network for route in self._all_routes(table) if route.protocol == rtnetlink.BOOT}

    def networks(self, table: int) -> set[Network]:
        """All networks that are routed through it, those of its addresses too. Raises PywgError."""
        return {route.network for route in self._all_routes(table)}

    def delete_address(self, address: InterfaceAddress) -> None:
        """Take an address away; one that is gone already is no error. Raises PywgError."""
        with _sentences(f"{address} cannot be taken from {self.interface}", _GONE):
            self._netlink.change_address(rtnetlink.DELETE_ADDRESS, self._index, address)

    def delete_route(self, network: Network, table: int) -> None:
        """Take a route away; one that is gone already is no error. Raises PywgError."""
        with _sentences(f"the route of {network} through {self.interface} cannot be deleted", _GONE):
            self._netlink.delete_route(self._index, network, table)

    def promotes_secondaries(self) -> bool:
        """Whether deleting the first IPv4 address of a network leaves the others of that network."""
        return any(self._promotion(name).read_text().strip() == "1" for name in ("all", self.interface))

    def promote_secondaries(self) -> None:
        """Make it so. Raises PywgError."""
        try:
            self._promotion(self.interface).write_text("1\n")
        except OSError as error:
            raise PywgError(f"net.ipv4.conf.{self.interface}.promote_secondaries: {error.strerror}") from None

    @staticmethod
    def _promotion(name: str) -> Path:
        return Path("/proc/sys/net/ipv4/conf", name, "promote_secondaries")

    def _all_routes(self, table: int) -> list[Route]:
        with _sentences("the routing table cannot be read"):
            return [
                route
                for version in (4, 6)
                for route in self._netlink.routes(version)
                if (route.kind, route.table, route.interface) == (rtnetlink.UNICAST, table, self._index)
            ]


@contextmanager
def _sentences(what: str, harmless: set[int] | None = None) -> Iterator[None]:
    """Turn the kernel's errors into PywgError, but for those that are no errors here."""
    try:
        yield
    except OSError as error:
        number = error.errno
        if number not in (harmless or ()):
            raise PywgError(f"{what}: {os.strerror(number or 0)}{remedy(number)}") from None
