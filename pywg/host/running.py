"""A running interface's addresses, routes and MTU: read for comparison with a file, and taken away singly.

What adds them is in `linux.py`.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyroute2.netlink.exceptions import NetlinkError

from pywg.config.model import InterfaceAddress
from pywg.errors import PywgError, remedy
from pywg.host.rtnetlink import RtNetlink
from pywg.wire.network import Network

_BOOT = 3
"""RTPROT_BOOT: routes that `ip route add` and we add, in contrast to those that come with addresses."""

_ANY_SCOPE = 255
"""RT_SCOPE_NOWHERE, which a deletion takes for any."""

_GONE = {errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL}


class RunningInterface:
    """One interface of this network namespace; a context manager that holds a netlink socket."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        with _sentences("interfaces cannot be reached by netlink"):
            self._netlink = RtNetlink()
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
            return [
                ipaddress.ip_interface(
                    f"{entry.get_attr('IFA_LOCAL') or entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}"
                )
                for entry in self._netlink("get_addr", index=self._index)
            ]

    def mtu(self) -> int:
        """Bytes. Raises PywgError."""
        with _sentences(f"the interface {self.interface} cannot be read"):
            return int(self._netlink("link", "get", index=self._index)[0].get_attr("IFLA_MTU"))

    def set_mtu(self, mtu: int) -> None:
        """Bytes. Raises PywgError."""
        with _sentences(f"{self.interface} cannot be given an MTU of {mtu}"):
            self._netlink("link", "set", index=self._index, mtu=mtu)

    def routes(self, table: int) -> set[Network]:
        """The networks that were routed through it by hand, by a hook, or by `up`. Raises PywgError."""
        return {network for network, protocol in self._all_routes(table) if protocol == _BOOT}

    def networks(self, table: int) -> set[Network]:
        """All networks that are routed through it, those of its addresses too. Raises PywgError."""
        return {network for network, _ in self._all_routes(table)}

    def delete_address(self, address: InterfaceAddress) -> None:
        """Take an address away; one that is gone already is no error. Raises PywgError."""
        with _sentences(f"{address} cannot be taken from {self.interface}", _GONE):
            self._netlink(
                "addr", "del", index=self._index, address=str(address.ip), prefixlen=address.network.prefixlen
            )

    def delete_route(self, network: Network, table: int) -> None:
        """Take a route away; one that is gone already is no error. Raises PywgError."""
        with _sentences(f"the route of {network} through {self.interface} cannot be deleted", _GONE):
            self._netlink(
                "route",
                "del",
                dst=str(network),
                oif=self._index,
                family=_family(network.version),
                table=table,
                proto=_BOOT,
                scope=_ANY_SCOPE,
            )

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

    def _all_routes(self, table: int) -> Iterator[tuple[Network, int]]:
        for version in (4, 6):
            everything = ipaddress.IPv4Address(0) if version == 4 else ipaddress.IPv6Address(0)
            with _sentences("the routing table cannot be read"):
                found = self._netlink("get_routes", family=_family(version), oif=self._index, table=table)
            for route in found:
                if route["type"] == 1 and route.get_attr("RTA_OIF") == self._index:
                    destination = route.get_attr("RTA_DST") or everything
                    yield Network.parse(f"{destination}/{route['dst_len']}"), int(route["proto"])


def _family(version: int) -> socket.AddressFamily:
    return socket.AF_INET if version == 4 else socket.AF_INET6


@contextmanager
def _sentences(what: str, harmless: set[int] | None = None) -> Iterator[None]:
    """Turn the kernel's errors into PywgError, but for those that are no errors here."""
    try:
        yield
    except (NetlinkError, OSError) as error:
        number: Any = error.code if isinstance(error, NetlinkError) else error.errno
        if number not in (harmless or ()):
            raise PywgError(f"{what}: {os.strerror(number or 0)}{remedy(number)}") from None
