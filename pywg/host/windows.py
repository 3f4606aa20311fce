"""What `up` changes on Windows, by `netsh`, and asks, by PowerShell. Experimental: never run on Windows.

Nothing here prints or undoes. All that belongs to the adapter goes away with it; direct routes to endpoints
do not. Settings are made with `store=active`, so that none outlives a restart of the system.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

from pywg.config.model import InterfaceAddress
from pywg.errors import PywgError
from pywg.host.command import run
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

_STORE = "store=active"
_ON_LINK = {"0.0.0.0", "::", ""}  # noqa: S104  what Windows tells as next hop where there is none


class Way(NamedTuple):
    """How a host is reached: the number of the interface, and the gateway."""

    interface: int
    gateway: str


class WindowsNetwork:
    """The network of this computer; what is run for a change, the functions `..._command` tell."""

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
        """See `SystemNetwork.set_mtu_and_up`; an adapter is up while it exists."""
        for version in (4, 6):
            run(mtu_command(interface, mtu, version))

    def path_mtu(self, endpoint: Endpoint) -> int | None:
        """See `SystemNetwork.path_mtu`: that of the interface by which the datagrams leave."""
        found = _ask(
            f"Find-NetRoute -RemoteIPAddress {endpoint.host} | Where-Object NextHop | "
            f"ForEach-Object {{ Get-NetIPInterface -InterfaceIndex $_.InterfaceIndex "
            f"-AddressFamily IPv{6 if ':' in endpoint.host else 4} }} | Select-Object NlMtu"
        )
        mtu = found.get("NlMtu")
        return mtu if isinstance(mtu, int) else None

    def default_mtu(self) -> int | None:
        """Not asked: None."""
        return None

    def add_route(self, interface: str, network: Network) -> None:
        """See `SystemNetwork.add_route`."""
        run(route_command(interface, str(network)))

    def way_to(self, host: str) -> Way | None:
        """How a host is reached now; None when there is no way, or no gateway on it."""
        found = _ask(
            f"Find-NetRoute -RemoteIPAddress {host} | Where-Object NextHop | "
            "Select-Object InterfaceIndex,NextHop"
        )
        index, gateway = found.get("InterfaceIndex"), found.get("NextHop")
        if not isinstance(index, int) or not isinstance(gateway, str) or gateway in _ON_LINK:
            return None
        return Way(index, gateway)


def address_command(interface: str, address: InterfaceAddress) -> list[str]:
    """Gives the adapter an address."""
    if address.version == 6:
        return _netsh(6, "add", "address", f"interface={interface}", f"address={address}", _STORE)
    own, mask = f"address={address.ip}", f"mask={address.netmask}"
    return _netsh(4, "add", "address", f"name={interface}", own, mask, _STORE)


def mtu_command(interface: str, mtu: int, version: int) -> list[str]:
    """Sets the adapter's MTU for one IP version."""
    return _netsh(version, "set", "subinterface", f"interface={interface}", f"mtu={mtu}", _STORE)


def route_command(interface: str, network: str) -> list[str]:
    """Routes a network through the adapter."""
    version = 6 if ":" in network else 4
    return _netsh(version, "add", "route", f"prefix={network}", f"interface={interface}", "metric=0", _STORE)


def endpoint_commands(host: str, way: Way) -> tuple[list[str], list[str]]:
    """Routes a host the way it is reached now, whatever the tunnel takes; and takes that back."""
    version, prefix = (6, f"{host}/128") if ":" in host else (4, f"{host}/32")
    where = [f"prefix={prefix}", f"interface={way.interface}", f"nexthop={way.gateway}"]
    return (
        _netsh(version, "add", "route", *where, "metric=0", _STORE),
        _netsh(version, "delete", "route", *where, _STORE),
    )


def name_server_commands(interface: str, servers: Sequence[str]) -> list[list[str]]:
    """Give the adapter name servers."""
    commands = []
    for version in (4, 6):
        mine = [server for server in servers if (":" in server) == (version == 6)]
        for at, server in enumerate(mine):
            name, address = f"name={interface}", f"address={server}"
            if at == 0:
                more = ["source=static", address, "register=none", "validate=no"]
                commands.append(_netsh(version, "set", "dnsservers", name, *more))
            else:
                more = [address, f"index={at + 1}", "validate=no"]
                commands.append(_netsh(version, "add", "dnsservers", name, *more))
    return commands


def _netsh(version: int, *words: str) -> list[str]:
    return ["netsh", "interface", f"ipv{version}", *words]


def _ask(script: str) -> dict[str, object]:
    """The first object that a line of PowerShell gives; an empty one when it gives none, or fails."""
    command = ["powershell", "-NoProfile", "-NonInteractive", "-Command", f"{script} | ConvertTo-Json"]
    try:
        answer = json.loads(run(command) or "null")
    except (PywgError, ValueError):
        return {}
    if isinstance(answer, list):
        answer = answer[0] if answer else None
    return answer if isinstance(answer, dict) else {}
