"""What `pywg top` shows: the model that collects rates and events, and its picture.

The model knows no terminal and no clock of its own. The picture has the size that it is given.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.errors import PywgError
from pywg.host import control
from pywg.host.peernames import peer_names
from pywg.observe.eventstream import Event, in_words
from pywg.observe.findings import short_key

SPARKS = "▁▂▃▄▅▆▇█"
NARROW = 60
"""Columns; with fewer, peers have neither endpoints nor histories, so that their names find room."""

HISTORY = 12
"""Rates of a peer that are kept for its sparkline."""
EVENTS = 50
STALE = 180.0
"""Seconds after which a handshake is too old for a session."""

SORTS = ("name", "rate", "handshake", "total")


@dataclasses.dataclass(slots=True)
class Row:
    """One peer of one interface; rates in bytes per second."""

    interface: str
    name: str
    endpoint: str
    age: float | None
    received: int
    sent: int
    rate_in: float = 0.0
    rate_out: float = 0.0
    history: deque[float] = dataclasses.field(default_factory=lambda: deque(maxlen=HISTORY))


@dataclasses.dataclass(slots=True)
class Reading:
    """One interface at one moment. statistics: what pywgd counts, None for others. error: stands alone."""

    interface: str
    device: DeviceSnapshot | None = None
    statistics: dict[str, Any] | None = None
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    error: str = ""


def read(interfaces: Iterable[str]) -> list[Reading]:
    """Ask all of them."""
    readings = []
    for interface in interfaces:
        try:
            device = control.get(interface)
            names = {str(key): name for key, name in peer_names(interface).items()}
            readings.append(Reading(interface, device, control.statistics(interface), names))
        except PywgError as error:
            readings.append(Reading(interface, error=str(error)))
    return readings


class Top:
    """Everything that is on the screen, and what the keys have chosen."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.events: deque[Event] = deque(maxlen=EVENTS)
        self.sort = SORTS[0]
        self.reverse = False
        self.filter = ""
        self.typing = False
        self.paused = False
        self._readings: list[Reading] = []
        self._drops: dict[str, dict[str, int]] = {}
        self._drop_rates: dict[str, dict[str, float]] = {}
        self._at: float | None = None

    # --- What comes in. ------------------------------------------------------------------------------------

    def update(self, readings: list[Reading], now: float, wall: float) -> None:
        """Take in a new look; now: seconds of any steady clock, wall: seconds since 1970."""
        elapsed = now - self._at if self._at is not None else 0.0
        self._at, self._readings = now, readings
        seen = {}
        for reading in readings:
            if reading.device is None:
                continue
            for peer in reading.device.peers:
                key = (reading.interface, str(peer.public_key))
                seen[key] = self._row(key, peer, reading, elapsed, wall)
            if reading.statistics is not None:
                self._count_drops(reading.interface, reading.statistics["drops"], elapsed)
        self.rows = seen

    def _row(
        self, key: tuple[str, str], peer: PeerSnapshot, reading: Reading, elapsed: float, wall: float
    ) -> Row:
        public_key = key[1]
        name = reading.names.get(public_key) or short_key(public_key)
        age = wall - peer.last_handshake_ns / 1e9 if peer.last_handshake_ns else None
        endpoint = str(peer.endpoint) if peer.endpoint is not None else "(none)"
        row = Row(reading.interface, name, endpoint, age, peer.rx_bytes, peer.tx_bytes)
        before = self.rows.get(key)
        if before is not None:
            row.history = before.history
            if elapsed > 0:
                row.rate_in = max(0.0, (row.received - before.received) / elapsed)
                row.rate_out = max(0.0, (row.sent - before.sent) / elapsed)
                row.history.append(row.rate_in + row.rate_out)
        return row

    def _count_drops(self, interface: str, drops: dict[str, int], elapsed: float) -> None:
        before = self._drops.get(interface)
        if before is not None and elapsed > 0:
            rates = {reason: (count - before.get(reason, 0)) / elapsed for reason, count in drops.items()}
            self._drop_rates[interface] = {reason: rate for reason, rate in rates.items() if rate > 0}
        self._drops[interface] = drops

    def press(self, key: str) -> bool:
        """A key was pressed; False: leave."""
        if self.typing:
            match key:
                case "\r" | "\n" | "\x1b":
                    self.typing = False
                    if key == "\x1b":
                        self.filter = ""
                case "\x7f" | "\b":
                    self.filter = self.filter[:-1]
                case "\x03":
                    return False
                case _ if key.isprintable():
                    self.filter += key
            return True
        match key:
            case "q" | "\x03":
                return False
            case "s":
                self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
            case "r":
                self.reverse = not self.reverse
            case "p" | " ":
                self.paused = not self.paused
            case "/":
                self.typing, self.filter = True, ""
        return True

    # --- What is shown. ------------------------------------------------------------------------------------

    def chosen(self) -> list[Row]:
        """The rows that pass the filter, in their order."""
        wanted = self.filter.lower()
        rows = [
            row
            for row in self.rows.values()
            if wanted in f"{row.interface} {row.name} {row.endpoint}".lower()
        ]
        keys = {
            "name": lambda row: (row.interface, row.name.lower()),
            "rate": lambda row: -(row.rate_in + row.rate_out),
            "handshake": lambda row: row.age if row.age is not None else float("inf"),
            "total": lambda row: -(row.received + row.sent),
        }
        return sorted(rows, key=keys[self.sort], reverse=self.reverse)

    def picture(self, width: int, height: int) -> RenderableType:
        """Everything, in so many columns and lines at the most."""
        heads = [self._head(reading) for reading in self._readings]
        drops = self._drops_line()
        space = height - len(heads) - len(drops) - 3  # the table's head, a blank line, the keys
        shown = min(len(self.rows), max(1, space * 2 // 3))
        events = list(self.events)[-max(0, space - shown) :] if space > shown else []
        lines = [Text(in_words(event, brief=True), no_wrap=True, overflow="ellipsis") for event in events]
        parts: list[RenderableType] = [*heads, self._table(self.chosen()[:shown], width), *drops]
        parts += [Text(""), *lines] if lines else []
        return Group(*parts, self._keys())

    def _head(self, reading: Reading) -> Text:
        if reading.device is None:
            return Text(reading.error, style="red", no_wrap=True, overflow="ellipsis")
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(reading.interface, style="bold green")
        said = reading.statistics
        if said is None:
            text.append(f"  port {reading.device.listen_port or 'none'}{_peers(len(reading.device.peers))}")
            return text
        text.append("  up" if said["is_up"] else "  down", style="green" if said["is_up"] else "red")
        text.append(f"  port {said['listen_port']}  MTU {said['mtu']}  {said['datapath']}")
        text.append(_peers(len(said["peers"])))
        if said["under_load"]:
            text.append("  UNDER LOAD", style="bold red")
        return text

    def _table(self, rows: list[Row], width: int) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0), width=width, header_style="bold", pad_edge=False)
        is_wide = width >= NARROW
        table.add_column("PEER", ratio=3, no_wrap=True, overflow="ellipsis")
        if is_wide:
            table.add_column("ENDPOINT", ratio=4, no_wrap=True, overflow="ellipsis")
        table.add_column("SHAKEN", justify="right", width=7)
        table.add_column("IN/s", justify="right", width=8)
        table.add_column("OUT/s", justify="right", width=8)
        if is_wide:
            table.add_column("", width=HISTORY, no_wrap=True)
        several = len({row.interface for row in rows}) > 1
        for row in rows:
            stale = row.age is None or row.age > STALE
            table.add_row(
                f"{row.interface}/{row.name}" if several else row.name,
                *([row.endpoint] if is_wide else []),
                Text(age_text(row.age), style="yellow" if stale else ""),
                size_text(row.rate_in),
                size_text(row.rate_out),
                *([Text(sparkline(row.history), style="cyan")] if is_wide else []),
            )
        return table

    def _drops_line(self) -> list[Text]:
        parts = [
            f"{reason} {rate:.0f}"
            for rates in self._drop_rates.values()
            for reason, rate in sorted(rates.items(), key=lambda item: -item[1])
        ]
        if not parts:
            return []
        return [Text(f"drops/s: {', '.join(parts)}", style="red", no_wrap=True, overflow="ellipsis")]

    def _keys(self) -> Text:
        if self.typing:
            return Text(f"filter: {self.filter}▏ (Enter: keep, Esc: none)", style="bold")
        words = [
            f"s sort: {self.sort}",
            "r reverse",
            "/ filter" + (f": {self.filter}" if self.filter else ""),
        ]
        words += ["p go on" if self.paused else "p pause", "q quit"]
        return Text("  ".join(words), style="dim", no_wrap=True, overflow="ellipsis")


def _peers(count: int) -> str:
    return f"  {count} peer{'' if count == 1 else 's'}"


def sparkline(values: Iterable[float]) -> str:
    """A character for each value, the highest being the largest one."""
    rates = list(values)
    most = max(rates, default=0.0)
    if most <= 0:
        return SPARKS[0] * len(rates)
    return "".join(SPARKS[min(len(SPARKS) - 1, int(rate / most * len(SPARKS)))] for rate in rates)


def size_text(count: float) -> str:
    """`0`, `512`, `1.2K`, `3.4M`: bytes in at most 5 characters."""
    if count < 1000:
        return f"{count:.0f}"
    for unit in "KMGTP":
        count /= 1024
        if count < 1000:
            return f"{count:.1f}{unit}" if count < 100 else f"{count:.0f}{unit}"
    return f"{count:.0f}P"


def age_text(seconds: float | None) -> str:
    """`never`, `5s`, `3m`, `2h`, `4d`."""
    if seconds is None:
        return "never"
    for limit, length, unit in ((120, 1, "s"), (7200, 60, "m"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / length:.0f}{unit}"
    return f"{seconds / 86400:.0f}d"


def look(top: Top, interfaces: Iterable[str]) -> None:
    """Ask all interfaces, and take in the answers."""
    top.update(read(interfaces), time.monotonic(), time.time())
