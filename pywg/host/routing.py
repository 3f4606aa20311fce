"""Which routes and which policy rules a tunnel needs; decided here, done in `pywg.host.linux`.

A default route does not go into the main table, where it would take the tunnel's own datagrams with it. It
goes into a table of its own, which a rule asks for every packet without the mark that the device puts on
what it sends; before that, a rule asks the main table for anything but a default route. When several tunnels
have default routes, the one brought up last is asked first; what an earlier one sends itself jumps over its
rules.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pywg.config.model import Config
from pywg.errors import PywgError
from pywg.wire.network import Network

if TYPE_CHECKING:
    from pywg.device.snapshot import DeviceSnapshot
    from pywg.wire.endpoint import Endpoint

OVERHEAD = 80
"""Bytes that the outer headers take of a packet at the most: IPv6 40, UDP 8, WireGuard 16 + 16."""

DEFAULT_PATH_MTU = 1500
SMALLEST_MTU, LARGEST_MTU = 68, 65535

FIRST_TABLE = 51820
"""The routing table of the first tunnel with default routes, and its mark; as wg-quick has it."""

MAIN_TABLE = 254

_TABLE_FOLDERS = ("/etc/iproute2", "/usr/share/iproute2", "/usr/lib/iproute2")
_TABLE_NAMES = {"main": 254, "local": 255, "default": 253}


class Paths(Protocol):
    """What `choose_mtu` asks the routing table."""

    def path_mtu(self, endpoint: Endpoint) -> int | None:
        """The MTU of the way to an endpoint in bytes; None: there is no way."""

    def default_mtu(self) -> int | None:
        """The MTU of the IPv4 default route in bytes; None when there is none."""


def choose_mtu(config: Config, device: DeviceSnapshot, paths: Paths) -> int:
    """The MTU in bytes: the file's, or that of the narrowest way to an endpoint less 80, or 1420."""
    if config.interface.mtu is not None:
        return config.interface.mtu.value
    endpoints = {peer.endpoint for peer in device.peers if peer.endpoint is not None}
    path_mtus = [mtu for endpoint in endpoints if (mtu := paths.path_mtu(endpoint))]
    path_mtu = min(path_mtus, default=None) or paths.default_mtu() or DEFAULT_PATH_MTU
    return max(SMALLEST_MTU, min(LARGEST_MTU, path_mtu - OVERHEAD))


def routes_to_add(wanted: Collection[Network], covered: Collection[Network]) -> list[Network]:
    """What still needs a route, longest prefix first; `covered` are what the interface has routes to."""
    lengths = {network.prefixlen for network in covered}
    missing = [
        network
        for network in wanted
        if not any(
            Network.of(network.address, length) in covered
            for length in lengths
            if length <= network.prefixlen
        )
    ]
    return sorted(missing, key=lambda network: (-network.prefixlen, network.version, network))


def table_number(name: str) -> int:
    """The number of a routing table that iproute2's rt_tables files name. Raises PywgError."""
    for folder in _TABLE_FOLDERS:
        for file in (Path(folder, "rt_tables"), *sorted(Path(folder, "rt_tables.d").glob("*.conf"))):
            try:
                lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                continue
            for line in lines:
                words = line.partition("#")[0].split()
                if len(words) > 1 and words[1] == name and (number := _number(words[0])) is not None:
                    return number
    if name in _TABLE_NAMES:
        return _TABLE_NAMES[name]
    raise PywgError(
        f"there is no routing table '{name}'; give its number, or name it in {_TABLE_FOLDERS[0]}/rt_tables"
    )


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


# --- Policy rules. ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A policy rule, as far as ours need it; the kernel asks those with a lower priority first.

    version: 4 or 6. mark: only packets with this mark, or, when `inverted`, those without. table: to look
    up, or None for a jump to the rule with the priority `goto`. suppress: a default route found there does
    not count.
    """

    version: int
    priority: int
    mark: int | None = None
    inverted: bool = False
    table: int | None = None
    goto: int | None = None
    suppress: bool = False

    @property
    def is_default(self) -> bool:
        """Whether it sends everything that a tunnel has not sent itself into that tunnel."""
        return self.inverted and self.mark is not None and self.mark == self.table

    @property
    def selector(self) -> str:
        """What `ip rule add` and `ip rule delete` are told about it."""
        words = []
        if self.mark is not None:
            words.append(f"{'not ' if self.inverted else ''}fwmark {self.mark}")
        if self.goto is not None:
            words.append(f"goto {self.goto}")
        elif self.table is not None:
            words.append(f"table {'main' if self.table == MAIN_TABLE else self.table}")
        if self.suppress:
            words.append("suppress_prefixlength 0")
        return f"{' '.join(words)} priority {self.priority}"

    def command(self, verb: str) -> str:
        """The command that adds or deletes it."""
        return f"ip -{self.version} rule {verb} {self.selector}"


def default_rules(version: int, mark: int, present: Sequence[Rule], marks: Collection[int]) -> list[Rule]:
    """What to add for the default route of a tunnel, in this order.

    present: the rules of that IP version, in the kernel's order; ours come before all but the first of them,
    which looks up local addresses. marks: those of the tunnels that have default routes already, of any
    version.
    """
    second = present[1].priority if len(present) > 1 else 32766
    priorities = itertools.count(second - 1, -1)
    rules = [
        Rule(version, next(priorities), mark=mark, inverted=True, table=mark),
        Rule(version, next(priorities), table=MAIN_TABLE, suppress=True),
    ]
    for earlier in sorted(set(marks) - {mark}):
        target = _first_priority(earlier, present)
        if target is None:
            rules.append(Rule(version, next(priorities), mark=earlier, table=MAIN_TABLE))
        else:
            rules.append(Rule(version, next(priorities), mark=earlier, goto=target))
    if rules[-1].priority < 1:
        raise PywgError(f"there is no room before the policy rules; `ip -{version} rule` shows them")
    return rules


def default_marks(present: Sequence[Rule]) -> set[int]:
    """The marks of the tunnels that have default routes."""
    return {rule.mark for rule in present if rule.is_default and rule.mark is not None}


def rules_of(mark: int, present: Sequence[Rule]) -> list[Rule]:
    """The rules that belong to the default route of the tunnel with that mark, whoever added them.

    present: the rules of one IP version, in the kernel's order.
    """
    found = [rule for rule in present if rule.table == mark]
    for rule in found.copy():
        before = [other for other in present if other.suppress and other.priority == rule.priority - 1]
        found += [other for other in before[:1] if other not in found]
    if not default_marks([rule for rule in present if rule not in found]):
        found += [rule for rule in present if rule.suppress and rule not in found]
    gone = {rule.priority for rule in found}
    marks = default_marks(present)
    first = min(gone, default=0)
    for rule in reversed(present):
        if rule.mark == mark and rule.goto in gone:
            found.append(rule)
        elif rule.priority == first - 1 and rule.mark in marks and (rule.goto or rule.table == MAIN_TABLE):
            found.append(rule)
            first -= 1
    return found


def choose_table(used: Container[int]) -> int:
    """The first free one, from 51820 on; `used` are those with routes or rules, or promised to a tunnel."""
    return next(table for table in itertools.count(FIRST_TABLE) if table not in used)


def _first_priority(mark: int, present: Sequence[Rule]) -> int | None:
    """Where the rules of the default route with that mark begin."""
    for rule in present:
        if rule.is_default and rule.mark == mark:
            before = any(other.suppress and other.priority == rule.priority - 1 for other in present)
            return rule.priority - 1 if before else rule.priority
    return None
