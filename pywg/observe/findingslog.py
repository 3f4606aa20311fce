"""The daemon's log of findings: a line when one begins, and one when it is over, in the registry's words.

What the counts alone tell is looked at every few seconds. A finding is told when it has lasted for a while,
and is over when it was not found for as long: so nobody who sends us packets can make many lines of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from pywg.datapath import describe
from pywg.engine import Engine
from pywg.observe.counted import from_statistics
from pywg.observe.findings import Finding, Severity, settle, short_key
from pywg.observe.statistics import to_json

logger = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two looks."""

LASTS = 10.0
"""Seconds for which a finding has to be there before it is told, and to be gone before it is over."""

_ELSEWHERE = frozenset({"interface-down"})  # the daemon tells that the moment it happens
_LEVELS = {Severity.ERROR: logging.ERROR, Severity.WARNING: logging.WARNING, Severity.NOTE: logging.INFO}

_Which = tuple[str, str | None]


class _Told:
    """A finding since it was seen first: when that was, when it was seen last, and whether it was told."""

    __slots__ = ("began", "finding", "is_told", "seen")

    def __init__(self, finding: Finding, now: float) -> None:
        self.finding, self.began, self.seen, self.is_told = finding, now - (finding.lasted or 0.0), now, False


class FindingsLog:
    """What was told of one interface, by its name. `log` takes a level, a code and a line."""

    def __init__(self, interface: str, log: Callable[[int, str, str], None]) -> None:
        self._interface, self._log = interface, log
        self._found: dict[_Which, _Told] = {}

    def look(self, found: Iterable[Finding], now: float) -> None:
        """Tell what is new and what is over. found: all that there is at this time, settled."""
        for finding in found:
            if finding.code in _ELSEWHERE:
                continue
            told = self._found.setdefault((finding.code, finding.peer), _Told(finding, now))
            told.seen = now
            if not told.is_told:
                told.finding = finding
                told.is_told = now - told.began >= max(LASTS, finding.kind.lasts)
                if told.is_told:
                    advice = f"; `pywg doctor {self._interface}` tells more"
                    self._say(finding, f"{finding.kind.summary}{advice}")
        for which, told in list(self._found.items()):
            if now - told.seen >= LASTS:
                del self._found[which]
                if told.is_told:
                    self._say(told.finding, f"no longer: {told.finding.kind.summary}")

    def _say(self, finding: Finding, text: str) -> None:
        whom = ""
        if finding.peer is not None:
            key = short_key(finding.peer)
            whom = f"peer {finding.name} ({key}): " if finding.name else f"peer {key}: "
        self._log(_LEVELS[finding.weight], finding.code, f"{whom}{text} [{finding.code}]")


async def follow(engine: Engine, interface: str) -> None:
    """Look from now on, without end; where nothing is logged, nothing is looked at. Raises nothing."""

    def log(level: int, code: str, text: str) -> None:
        logger.log(level, "%s", text, extra={"kind": f"finding {code}"})

    findings, datapath = FindingsLog(interface, log), describe()
    while True:
        await asyncio.sleep(EVERY)
        if not logger.isEnabledFor(logging.ERROR):
            continue
        try:
            statistics = engine.suspicious()
            found = settle(from_statistics(to_json(statistics, datapath, 0.0)))
            findings.look(found, statistics.now)
        except Exception:  # packets go on whatever becomes of their log
            logger.exception("findings cannot be looked for")
