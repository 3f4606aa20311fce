"""What `up` and `down` change on Linux, by netlink: links, addresses, routes.

Errors of the kernel become sentences that say what was tried. Nothing here prints or undoes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from pywg.config.model import InterfaceAddress
from pywg.errors import PywgError, remedy
from pywg.host import rtnetlink
from pywg.host.routing import MAIN_TABLE, Rule
from pywg.host.rtnetlink import Route, Rtnetlink, RuleMessage
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

_SELECTORS = {1, 2, 3, 17, 20, 22}  # FRA_DST, _SRC, _IIFNAME, _OIFNAME, _UID_RANGE, _IP_PROTO
_FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK = 4, 6, 10, 14, 15, 16
_INVERTED = 2
_TO_TABLE, _GO_TO = 1, 2
_ALL_BITS = 0xFFFFFFFF
_NO_IPV6 = {errno.EACCES, errno.EPERM, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENODEV}


class LinuxNetwork:
    """The network namespace that we are in; a context manager that holds one netlink socket."""

    def __init__(self) -> None:
        """Raises PywgError when there is no netlink."""
        with _sentences("interfaces cannot be reached by netlink"):
            self._netlink = Rtnetlink()

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
            return self._netlink.link(_index(interface)).kind == "wireguard"

    def add_address(self, interface: str, address: InterfaceAddress) -> None:
        """Give the interface an address. Raises PywgError."""
        with _sentences(f"{address} cannot be given to {interface}", address.version, "it has it already"):
            self._netlink.change_address(rtnetlink.NEW_ADDRESS, _index(interface), address)

    def all_addresses_of(self, interface: str) -> list[InterfaceAddress]:
        """The interface's addresses, the kernel's own link-local ones too. Raises PywgError."""
        with _sentences(f"the addresses of {interface} cannot be read"):
            return self._netlink.addresses(_index(interface))

    def mtu_of(self, interface: str) -> int:
        """The interface's MTU in bytes. Raises PywgError."""
        with _sentences(f"the MTU of {interface} cannot be read"):
            return self._netlink.link(_index(interface)).mtu

    def set_mtu_and_up(self, interface: str, mtu: int) -> None:
        """Set the MTU in bytes, and the interface up. Raises PywgError."""
        with _sentences(f"{interface} cannot be set up with an MTU of {mtu}"):
            self._netlink.set_link(_index(interface), mtu, up=True)

    def delete(self, interface: str) -> None:
        """Delete the interface; one that is gone already is no error. Raises PywgError."""
        with _sentences(f"{interface} cannot be deleted"):
            try:
                self._netlink.delete_link(_index(interface))
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.ENXIO):
                    raise

    def path_mtu(self, endpoint: Endpoint) -> int | None:
        """The MTU of the way to an endpoint in bytes, as the routing table has it; None: there is no way."""
        if endpoint.scope_id:
            return self._link_mtu(endpoint.scope_id)
        try:
            return self._route_mtu(self._netlink.route_to(endpoint.host))
        except OSError:
            return None

    def default_mtu(self) -> int | None:
        """The MTU of the IPv4 default route in bytes; None when there is none."""
        with _sentences("the default route cannot be read"):
            routes = self._netlink.routes(4)
        ours = (route for route in routes if route.table == MAIN_TABLE and route.network.prefixlen == 0)
        first = next(ours, None)
        return None if first is None else self._route_mtu(first)

    def networks_of(self, interface: str, version: int) -> set[Network]:
        """The networks of one IP version (4, 6) that the main table routes through the interface."""
        with _sentences("the routing table cannot be read"):
            index = _index(interface)
            return {
                route.network
                for route in self._netlink.routes(version)
                if (route.kind, route.table, route.interface) == (rtnetlink.UNICAST, MAIN_TABLE, index)
            }

    def add_route(self, interface: str, network: Network, table: int = MAIN_TABLE) -> None:
        """Route a network through the interface. Raises PywgError."""
        exists = f"`ip -{network.version} route show {network}` shows the route that is there"
        with _sentences(f"{network} cannot be routed through {interface}", network.version, exists):
            self._netlink.add_route(_index(interface), network, table)

    def tables_in_use(self, version: int) -> set[int]:
        """The routing tables of one IP version that a route is in."""
        with _sentences("the routing tables cannot be read"):
            return {route.table for route in self._netlink.routes(version)}

    def rules(self, version: int) -> list[Rule]:
        """The policy rules of one IP version, in the order in which the kernel asks them."""
        with _sentences("the policy rules cannot be read"):
            try:
                return [_rule(version, rule) for rule in self._netlink.rules(version)]
            except OSError as error:
                if error.errno in _NO_IPV6:
                    return []
                raise

    def add_rule(self, rule: Rule) -> None:
        """Add a policy rule. Raises PywgError."""
        with _sentences(f"the policy rule '{rule.selector}' cannot be added", rule.version):
            self._change_rule(rtnetlink.NEW_RULE, rule)

    def delete_rule(self, rule: Rule) -> None:
        """Take a policy rule away; one that is gone already is no error. Raises PywgError."""
        with _sentences(f"the policy rule '{rule.selector}' cannot be deleted"):
            try:
                self._change_rule(rtnetlink.DELETE_RULE, rule)
            except OSError as error:
                if error.errno not in (errno.ENOENT, *_NO_IPV6):
                    raise

    def _change_rule(self, kind: int, rule: Rule) -> None:
        values = {
            _FRA_PRIORITY: rule.priority,
            _FRA_FWMARK: rule.mark,
            _FRA_TABLE: rule.table,
            _FRA_GOTO: rule.goto,
            _FRA_SUPPRESS_PREFIXLEN: 0 if rule.suppress else None,
        }
        given = {number: value for number, value in values.items() if value is not None}
        action = _TO_TABLE if rule.goto is None else _GO_TO
        self._netlink.change_rule(kind, rule.version, action, _INVERTED if rule.inverted else 0, given)

    def _link_mtu(self, index: int) -> int | None:
        try:
            return self._netlink.link(index).mtu
        except OSError:
            return None

    def _route_mtu(self, route: Route) -> int | None:
        if route.mtu:
            return route.mtu
        return None if route.interface is None else self._link_mtu(route.interface)


def _rule(version: int, message: RuleMessage) -> Rule:
    """One that selects by more than a mark is told with the mark None and the table None."""
    priority = message.number(_FRA_PRIORITY) or 0
    mark, mask = message.number(_FRA_FWMARK), message.number(_FRA_FWMASK)
    selects = not _SELECTORS.isdisjoint(message.attributes)
    if selects or (mark is not None and mask not in (None, _ALL_BITS)):
        return Rule(version, priority)
    return Rule(
        version,
        priority,
        mark,
        bool(message.flags & _INVERTED),
        message.number(_FRA_TABLE) if message.action == _TO_TABLE else None,
        message.number(_FRA_GOTO) if message.action == _GO_TO else None,
        message.number(_FRA_SUPPRESS_PREFIXLEN) == 0,
    )


def _index(interface: str) -> int:
    return socket.if_nametoindex(interface)


@contextlib.contextmanager
def _sentences(what: str, version: int = 4, exists: str = "") -> Iterator[None]:
    """Turn the kernel's errors into PywgError: `what`, the reason, and a hint where one is known."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        hint = ""
        if version == 6 and number in _NO_IPV6:
            hint = "; is IPv6 switched off here (sysctl net.ipv6.conf.all.disable_ipv6)?"
        elif number == errno.EEXIST and exists:
            hint = f"; {exists}"
        raise PywgError(f"{what}: {os.strerror(number)}{hint or remedy(number)}") from None
