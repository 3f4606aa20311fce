"""What `up` and `down` change on Linux, by netlink: links, addresses, routes.

Errors of the kernel become sentences that say what was tried. Nothing here prints or undoes.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from pyroute2.netlink.exceptions import NetlinkError

from pywg.config.model import InterfaceAddress
from pywg.errors import PywgError, remedy
from pywg.host.routing import MAIN_TABLE, Rule
from pywg.host.rtnetlink import RtNetlink
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

_UNICAST = 1
_INVERTED = 2
_TO_TABLE, _GO_TO = 1, 2
_ALL_BITS = 0xFFFFFFFF
_NO_IPV6 = {errno.EACCES, errno.EPERM, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENODEV}


class LinuxNetwork:
    """The network namespace that we are in; a context manager that holds one netlink socket."""

    def __init__(self) -> None:
        """Raises PywgError when there is no netlink."""
        with _sentences("interfaces cannot be reached by netlink"):
            self._netlink = RtNetlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the netlink socket."""
        self._netlink.close()

    def is_kernel_wireguard(self, interface: str) -> bool:
        """Whether the interface is one of the kernel's own WireGuard."""
        with _sentences(f"the interface {interface} cannot be read"):
            info = self._link(_index(interface)).get_attr("IFLA_LINKINFO")
        return info is not None and info.get_attr("IFLA_INFO_KIND") == "wireguard"

    def add_address(self, interface: str, address: InterfaceAddress) -> None:
        """Give the interface an address. Raises PywgError."""
        with _sentences(f"{address} cannot be given to {interface}", address.version, "it has it already"):
            self._netlink(
                "addr",
                "add",
                index=_index(interface),
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
                family=_family(address.version),
            )

    def all_addresses_of(self, interface: str) -> list[InterfaceAddress]:
        """The interface's addresses, the kernel's own link-local ones too. Raises PywgError."""
        with _sentences(f"the addresses of {interface} cannot be read"):
            return [
                ipaddress.ip_interface(
                    f"{entry.get_attr('IFA_LOCAL') or entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}"
                )
                for entry in self._netlink("get_addr", index=_index(interface))
            ]

    def mtu_of(self, interface: str) -> int:
        """The interface's MTU in bytes. Raises PywgError."""
        with _sentences(f"the MTU of {interface} cannot be read"):
            return int(self._link(_index(interface)).get_attr("IFLA_MTU"))

    def set_mtu_and_up(self, interface: str, mtu: int) -> None:
        """Set the MTU in bytes, and the interface up. Raises PywgError."""
        with _sentences(f"{interface} cannot be set up with an MTU of {mtu}"):
            self._netlink("link", "set", index=_index(interface), mtu=mtu, state="up")

    def delete(self, interface: str) -> None:
        """Delete the interface; one that is gone already is no error. Raises PywgError."""
        with _sentences(f"{interface} cannot be deleted"):
            try:
                self._netlink("link", "del", index=_index(interface))
            except (NetlinkError, OSError) as error:
                if _number(error) not in (errno.ENODEV, errno.ENXIO):
                    raise

    def path_mtu(self, endpoint: Endpoint) -> int | None:
        """The MTU of the way to an endpoint in bytes, as the routing table has it; None: there is no way."""
        if endpoint.scope_id:
            return self._link_mtu(endpoint.scope_id)
        try:
            routes = self._netlink("route", "get", dst=endpoint.host, family=endpoint.family)
        except (NetlinkError, OSError):
            return None
        return self._route_mtu(routes[0]) if routes else None

    def default_mtu(self) -> int | None:
        """The MTU of the IPv4 default route in bytes; None when there is none."""
        with _sentences("the default route cannot be read"):
            routes = self._netlink("get_default_routes", family=socket.AF_INET, table=MAIN_TABLE)
        return self._route_mtu(routes[0]) if routes else None

    def networks_of(self, interface: str, version: int) -> set[Network]:
        """The networks of one IP version (4, 6) that the main table routes through the interface."""
        found: set[Network] = set()
        index = _index(interface)
        everything = ipaddress.IPv4Address(0) if version == 4 else ipaddress.IPv6Address(0)
        with _sentences("the routing table cannot be read"):
            for route in self._netlink("get_routes", family=_family(version), oif=index, table=MAIN_TABLE):
                if route["type"] == _UNICAST and route.get_attr("RTA_OIF") == index:
                    found.add(Network.parse(f"{route.get_attr('RTA_DST') or everything}/{route['dst_len']}"))
        return found

    def add_route(self, interface: str, network: Network, table: int = MAIN_TABLE) -> None:
        """Route a network through the interface. Raises PywgError."""
        scope = {"scope": "link"} if network.version == 4 else {}
        exists = f"`ip -{network.version} route show {network}` shows the route that is there"
        with _sentences(f"{network} cannot be routed through {interface}", network.version, exists):
            self._netlink(
                "route",
                "add",
                dst=str(network),
                oif=_index(interface),
                family=_family(network.version),
                table=table,
                proto="boot",
                **scope,
            )

    def tables_in_use(self, version: int) -> set[int]:
        """The routing tables of one IP version that a route is in."""
        with _sentences("the routing tables cannot be read"):
            return {
                route.get_attr("RTA_TABLE") or route["table"]
                for route in self._netlink("get_routes", family=_family(version))
            }

    def rules(self, version: int) -> list[Rule]:
        """The policy rules of one IP version, in the order in which the kernel asks them."""
        with _sentences("the policy rules cannot be read"):
            try:
                return [_rule(version, rule) for rule in self._netlink("get_rules", family=_family(version))]
            except NetlinkError as error:
                if _number(error) in _NO_IPV6:
                    return []
                raise

    def add_rule(self, rule: Rule) -> None:
        """Add a policy rule. Raises PywgError."""
        with _sentences(f"the policy rule '{rule.selector}' cannot be added", rule.version):
            self._netlink("rule", "add", **_rule_attributes(rule))

    def delete_rule(self, rule: Rule) -> None:
        """Take a policy rule away; one that is gone already is no error. Raises PywgError."""
        with _sentences(f"the policy rule '{rule.selector}' cannot be deleted"):
            try:
                self._netlink("rule", "del", **_rule_attributes(rule))
            except NetlinkError as error:
                if _number(error) not in (errno.ENOENT, *_NO_IPV6):
                    raise

    def _link(self, index: int) -> Any:
        return self._netlink("link", "get", index=index)[0]

    def _link_mtu(self, index: int) -> int | None:
        try:
            mtu = self._link(index).get_attr("IFLA_MTU")
        except (NetlinkError, OSError):
            return None
        return None if mtu is None else int(mtu)

    def _route_mtu(self, route: Any) -> int | None:
        metrics = route.get_attr("RTA_METRICS")
        mtu = metrics.get_attr("RTAX_MTU") if metrics is not None else None
        if mtu:
            return int(mtu)
        index = route.get_attr("RTA_OIF")
        return None if index is None else self._link_mtu(index)


def _rule(version: int, message: Any) -> Rule:
    """One that selects by more than a mark is told with the mark None and the table None."""
    selects = any(
        message.get_attr(name) is not None
        for name in ("FRA_SRC", "FRA_DST", "FRA_IIFNAME", "FRA_OIFNAME", "FRA_UID_RANGE", "FRA_IP_PROTO")
    )
    priority = message.get_attr("FRA_PRIORITY") or 0
    mark, mask = message.get_attr("FRA_FWMARK"), message.get_attr("FRA_FWMASK")
    if selects or (mark is not None and mask not in (None, _ALL_BITS)):
        return Rule(version, priority)
    suppress = message.get_attr("FRA_SUPPRESS_PREFIXLEN")
    return Rule(
        version,
        priority,
        mark,
        bool(message["flags"] & _INVERTED),
        message.get_attr("FRA_TABLE") if message["action"] == _TO_TABLE else None,
        message.get_attr("FRA_GOTO") if message["action"] == _GO_TO else None,
        suppress == 0,
    )


def _rule_attributes(rule: Rule) -> dict[str, Any]:
    attributes: dict[str, Any] = {"family": _family(rule.version), "priority": rule.priority}
    if rule.mark is not None:
        attributes["fwmark"] = rule.mark
    if rule.inverted:
        attributes["flags"] = _INVERTED
    if rule.table is not None:
        attributes["table"] = rule.table
    if rule.goto is not None:
        attributes |= {"action": "goto", "goto": rule.goto}
    if rule.suppress:
        attributes["FRA_SUPPRESS_PREFIXLEN"] = 0
    return attributes


def _family(version: int) -> socket.AddressFamily:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _index(interface: str) -> int:
    return socket.if_nametoindex(interface)


def _number(error: NetlinkError | OSError) -> int:
    return (error.code if isinstance(error, NetlinkError) else error.errno) or 0


@contextlib.contextmanager
def _sentences(what: str, version: int = 4, exists: str = "") -> Iterator[None]:
    """Turn the kernel's errors into PywgError: `what`, the reason, and a hint where one is known."""
    try:
        yield
    except (NetlinkError, OSError) as error:
        number = _number(error)
        hint = ""
        if version == 6 and number in _NO_IPV6:
            hint = "; is IPv6 switched off here (sysctl net.ipv6.conf.all.disable_ipv6)?"
        elif number == errno.EEXIST and exists:
            hint = f"; {exists}"
        raise PywgError(f"{what}: {os.strerror(number)}{hint or remedy(number)}") from None
