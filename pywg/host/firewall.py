"""The firewall of a tunnel with default routes, in nftables, or by the iptables programs where there is none.

Packets for the tunnel's addresses that arrive elsewhere are dropped, else a neighbour could find out and
answer what goes through the tunnel. The mark of the tunnel's own datagrams is put on their answers too, so
that the check of source addresses finds the way that they came. Names are wg-quick's, so each takes the
other's away.
"""

from __future__ import annotations

import dataclasses
import enum
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from pywg.config.model import Address
from pywg.errors import PywgError
from pywg.host import nft

_RAW, _MANGLE = -300, -150
_TIMEOUT = 30.0


class Kind(enum.Enum):
    """What keeps the rules."""

    NFTABLES = "nftables"
    IPTABLES = "iptables"


def kinds_here() -> list[Kind]:
    """What this system has of them, the preferred one first."""
    kinds = [Kind.NFTABLES] if nft.is_here() else []
    return [*kinds, Kind.IPTABLES] if shutil.which("iptables-restore") else kinds


@dataclasses.dataclass(frozen=True, slots=True)
class Firewall:
    """The rules for one IP version of one tunnel."""

    interface: str
    version: int
    addresses: Sequence[Address]
    mark: int

    def commands(self, kind: Kind) -> list[str]:
        """What a person would type."""
        return self._nft_commands() if kind is Kind.NFTABLES else self._iptables_commands()

    def add(self, kind: Kind) -> None:
        """Add the rules, all or none. Raises PywgError."""
        if kind is Kind.NFTABLES:
            nft.apply(self.version, _table(self.interface), self._nft_changes())
        else:
            _run([f"{_iptables(self.version)}-restore", "-n"], self._iptables_lines())

    def undo_commands(self, kind: Kind) -> list[str]:
        """What a person would type to take them away."""
        if kind is Kind.NFTABLES:
            return [f"nft delete table {_family(self.version)} {_table(self.interface)}"]
        return [
            f"{_iptables(self.version)} -t {table} -D {rule[3:]}" for table, rule in self._iptables_rules()
        ]

    def _nft_changes(self) -> list[tuple[int, int, bytes]]:
        table = _table(self.interface)
        changes = [
            nft.chain(table, "preraw", nft.PREROUTING, _RAW),
            nft.chain(table, "premangle", nft.PREROUTING, _MANGLE),
            nft.chain(table, "postmangle", nft.POSTROUTING, _MANGLE),
        ]
        for address in self.addresses:
            expressions = [
                *nft.iifname(nft.NOT_EQUAL, self.interface),
                *nft.destination(self.version, address.packed),
                *nft.source_type(nft.NOT_EQUAL, nft.ADDRESS_LOCAL),
                *nft.drop(),
            ]
            changes.append(nft.rule(table, "preraw", expressions))
        save = [*nft.udp(), *nft.marked(self.mark), *nft.save_mark()]
        changes.append(nft.rule(table, "postmangle", save))
        changes.append(nft.rule(table, "premangle", [*nft.udp(), *nft.restore_mark()]))
        return changes

    def _nft_commands(self) -> list[str]:
        family = _family(self.version)
        where = f"{family} {_table(self.interface)}"
        commands = [f"nft add table {where}"]
        for name, hook, priority in (
            ("preraw", "prerouting", _RAW),
            ("premangle", "prerouting", _MANGLE),
            ("postmangle", "postrouting", _MANGLE),
        ):
            chain = f"{{ type filter hook {hook} priority {priority}; }}"
            commands.append(f"nft 'add chain {where} {name} {chain}'")
        commands += [
            f'nft \'add rule {where} preraw iifname != "{self.interface}" {family} daddr {address} '
            "fib saddr type != local drop'"
            for address in self.addresses
        ]
        commands.append(
            f"nft add rule {where} postmangle meta l4proto udp meta mark {self.mark} ct mark set mark"
        )
        commands.append(f"nft add rule {where} premangle meta l4proto udp meta mark set ct mark")
        return commands

    def _iptables_rules(self) -> list[tuple[str, str]]:
        """Which table, and the rule."""
        comment = f"-m comment --comment {_quoted(_comment(self.interface))}"
        rules = [
            (
                "raw",
                f"-I PREROUTING ! -i {self.interface} -d {address} -m addrtype ! --src-type LOCAL "
                f"-j DROP {comment}",
            )
            for address in self.addresses
        ]
        save = f"-I POSTROUTING -m mark --mark {self.mark} -p udp -j CONNMARK --save-mark {comment}"
        return [
            *rules,
            ("mangle", save),
            ("mangle", f"-I PREROUTING -p udp -j CONNMARK --restore-mark {comment}"),
        ]

    def _iptables_commands(self) -> list[str]:
        return [f"{_iptables(self.version)} -t {table} {rule}" for table, rule in self._iptables_rules()]

    def _iptables_lines(self) -> str:
        rules = self._iptables_rules()
        lines: list[str] = []
        for table in ("raw", "mangle"):
            lines += [f"*{table}", *(rule for name, rule in rules if name == table), "COMMIT"]
        return "\n".join(lines) + "\n"


@dataclasses.dataclass(frozen=True, slots=True)
class Installed:
    """Rules of a tunnel that are there, whoever added them: how to show their removal, and to do it."""

    interface: str
    version: int
    kind: Kind

    @property
    def name(self) -> str:
        """A short name, as in `nftables/4`."""
        return f"{self.kind.value}/{self.version}"

    @classmethod
    def from_name(cls, interface: str, name: str) -> Installed:
        """The opposite of `name`; raises ValueError."""
        kind, _, version = name.partition("/")
        return cls(interface, int(version), Kind(kind))

    @property
    def commands(self) -> list[str]:
        """What a person would type; nothing when they are gone."""
        if self.kind is Kind.NFTABLES:
            if not nft.exists(self.version, _table(self.interface)):
                return []
            return [f"nft delete table {_family(self.version)} {_table(self.interface)}"]
        return [
            f"{_iptables(self.version)} -t {table} {rule}"
            for table, rule in _iptables_deletions(self.interface, self.version)
        ]

    def remove(self) -> None:
        """Take them away; it is no error when they are gone. Raises PywgError."""
        if self.kind is Kind.NFTABLES:
            nft.delete(self.version, _table(self.interface))
            return
        deletions = _iptables_deletions(self.interface, self.version)
        lines = []
        for table in dict.fromkeys(table for table, _ in deletions):
            lines += [f"*{table}", *(rule for name, rule in deletions if name == table), "COMMIT"]
        if lines:
            _run([f"{_iptables(self.version)}-restore", "-n"], "\n".join(lines) + "\n")


def find_installed(interface: str) -> list[Installed]:
    """All rules of that tunnel that are there."""
    found = [
        Installed(interface, version, Kind.NFTABLES)
        for version in (4, 6)
        if nft.exists(version, _table(interface))
    ]
    return found + [
        Installed(interface, version, Kind.IPTABLES)
        for version in (4, 6)
        if _iptables_deletions(interface, version)
    ]


def _iptables_deletions(interface: str, version: int) -> list[tuple[str, str]]:
    program = f"{_iptables(version)}-save"
    if shutil.which(program) is None:
        return []
    try:
        saved = _run([program])
    except PywgError:
        return []
    marker = f"-m comment --comment {_quoted(_comment(interface))}"
    table, found = "", []
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A ") and marker in line:
            found.append((table, f"-D {line[3:]}"))
    return found


def _run(command: Sequence[str], text: str = "") -> str:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PywgError(f"{shlex.join(command)}: {error}") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[0]
        raise PywgError(f"{shlex.join(command)}: {reason}")
    return done.stdout


def _table(interface: str) -> str:
    return f"wg-quick-{interface}"


def _comment(interface: str) -> str:
    return f"wg-quick(8) rule for {interface}"


def _quoted(text: str) -> str:
    return f'"{text}"'


def _family(version: int) -> str:
    return "ip" if version == 4 else "ip6"


def _iptables(version: int) -> str:
    return "iptables" if version == 4 else "ip6tables"
