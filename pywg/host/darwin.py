"""What `up` and `down` change on macOS, by `ifconfig`, `route` and `netstat`.

Experimental: never run on a Mac. Nothing here prints or undoes. Routes through the tunnel go away with its
interface; those to endpoints, which go by the default gateway while the tunnel has a default route, are kept
and renewed by `EndpointRoutes`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Collection
from types import TracebackType
from typing import Self

from pywg.config.model import InterfaceAddress
from pywg.errors import PywgError
from pywg.host.command import run
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

_BLACKHOLE = {4: "127.0.0.1", 6: "::1"}
_INTERFACE = re.compile(r"^\s*interface:\s*(\S+)", re.MULTILINE)
_MTU = re.compile(r"\bmtu (\d+)")


class DarwinNetwork:
    """The network of this Mac; what is run for a change, the functions `..._command` tell."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""

    def add_address(self, interface: str, address: InterfaceAddress) -> None:
        """See `SystemNetwork.add_address`."""
        run(address_command(interface, address))

    def set_mtu_and_up(self, interface: str, mtu: int) -> None:
        """See `SystemNetwork.set_mtu_and_up`."""
        run(mtu_command(interface, mtu))
        run(up_command(interface))

    def path_mtu(self, endpoint: Endpoint) -> int | None:
        """See `SystemNetwork.path_mtu`: that of the interface by which the datagrams leave."""
        return self._mtu_of(self.interface_to(endpoint.host))

    def default_mtu(self) -> int | None:
        """See `SystemNetwork.default_mtu`; to be asked before a tunnel has a default route."""
        return self._mtu_of(self.interface_to("default", 4))

    def add_route(self, interface: str, network: Network) -> None:
        """See `SystemNetwork.add_route`; nothing is done when the system routes it there already."""
        if self.interface_to(str(network)) != interface:
            run(route_command(interface, str(network)))

    def interface_to(self, destination: str, version: int | None = None) -> str | None:
        """The interface that leads to a host or network, or `default`; None when there is no way."""
        family = _family(version or _version(destination))
        answer = run(["route", "-n", "get", family, destination], check=False)
        match = _INTERFACE.search(answer)
        return match[1] if match else None

    def gateways(self) -> dict[int, str]:
        """The default gateways, by IP version; without those that have none."""
        found = {}
        for version, family in ((4, "inet"), (6, "inet6")):
            for line in run(["netstat", "-nr", "-f", family], check=False).splitlines():
                words = line.split()
                if len(words) > 1 and words[0] == "default" and not words[1].startswith("link#"):
                    found[version] = words[1]
                    break
        return found

    def _mtu_of(self, interface: str | None) -> int | None:
        if interface is None:
            return None
        match = _MTU.search(run(["ifconfig", interface], check=False))
        return int(match[1]) if match else None


@dataclasses.dataclass(slots=True)
class EndpointRoutes:
    """Direct routes to the endpoints, by the default gateways, so that no datagram goes into its own tunnel.

    versions: the IP versions in which the tunnel has a default route; only these need them. hosts: those that
    have a route now. gateways: what they go by. Both are kept from one `renew` to the next.
    """

    versions: list[int]
    hosts: list[str] = dataclasses.field(default_factory=list)
    gateways: dict[int, str] = dataclasses.field(default_factory=dict)

    def renew(self, hosts: Collection[str], gateways: dict[int, str]) -> bool:
        """Route these hosts by these gateways, and no others; returns whether something changed.

        Where there is no gateway the host is blackholed: it must not be reached through the tunnel itself. A
        route that exists already, or is gone, is no error.
        """
        wanted = [host for host in dict.fromkeys(hosts) if _version(host) in self.versions]
        stale = [
            host
            for host in self.hosts
            if host not in wanted or gateways.get(_version(host)) != self.gateways.get(_version(host))
        ]
        for host in stale:
            _quietly(delete_endpoint_command(host))
        missing = [host for host in wanted if host not in self.hosts or host in stale]
        for host in missing:
            _quietly(endpoint_command(host, gateways.get(_version(host))))
        self.hosts, self.gateways = wanted, dict(gateways)
        return bool(stale or missing)

    def gateway_of(self, host: str) -> str | None:
        """What the route of a host goes by; None: nowhere."""
        return self.gateways.get(_version(host))

    def remove(self) -> None:
        """Remove them all."""
        for host in self.hosts:
            _quietly(delete_endpoint_command(host))
        self.hosts = []


def address_command(interface: str, address: InterfaceAddress) -> list[str]:
    """Gives an interface an address; utun is point to point, so IPv4 takes its own as the other end's."""
    if address.version == 6:
        return ["ifconfig", interface, "inet6", str(address), "alias"]
    return ["ifconfig", interface, "inet", str(address), str(address.ip), "alias"]


def mtu_command(interface: str, mtu: int) -> list[str]:
    """Sets an interface's MTU."""
    return ["ifconfig", interface, "mtu", str(mtu)]


def up_command(interface: str) -> list[str]:
    """Sets an interface up."""
    return ["ifconfig", interface, "up"]


def route_command(interface: str, network: str) -> list[str]:
    """Routes a network through an interface."""
    return ["route", "-q", "-n", "add", _family(_version(network)), network, "-interface", interface]


def endpoint_command(host: str, gateway: str | None) -> list[str]:
    """Routes a host by a gateway, or with None nowhere."""
    way = ["-gateway", gateway] if gateway else [_BLACKHOLE[_version(host)], "-blackhole"]
    return ["route", "-q", "-n", "add", _family(_version(host)), host, *way]


def delete_endpoint_command(host: str) -> list[str]:
    """Removes what `endpoint_command` made."""
    return ["route", "-q", "-n", "delete", _family(_version(host)), host]


def _quietly(command: list[str]) -> None:
    with contextlib.suppress(PywgError):
        run(command)


def _version(destination: str) -> int:
    return 6 if ":" in destination else 4


def _family(version: int) -> str:
    return "-inet6" if version == 6 else "-inet"
