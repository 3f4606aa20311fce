"""What pywgd answers on its configuration socket beside `get=1` and `set=1`: counts, events, its log level.

`stats=1` gives one line of JSON. `events=1` gives a line of JSON for each event until the client hangs up;
one that reads too slowly loses events and is told how many. `log=1` with `level=` sets what is logged.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import time
from collections import deque
from typing import Any

from pywg import clock
from pywg.datapath import describe
from pywg.device.events import Event
from pywg.engine import Engine
from pywg.observe.statistics import to_json
from pywg.uapi.error import UapiError
from pywg.uapi.server import Service, Write

EVENTS_VERSION = 1

WAITING_EVENTS = 1000
"""Events that are kept for a client that is slow; further ones are counted."""

LEVELS = {
    "verbose": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "error": logging.ERROR,
    "silent": logging.CRITICAL + 1,
}
"""What LOG_LEVEL may say, and what it means here; `info` is ours."""


def services(engine: Engine) -> dict[str, Service]:
    """All of them, by name."""
    return {"stats": StatisticsService(engine), "events": EventsService(engine), "log": LogService()}


class StatisticsService:
    """`stats=1`."""

    endless = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._started = clock.now()

    async def answer(self, request: list[str], write: Write) -> None:
        """One line of JSON."""
        _takes_no_lines("stats", request)
        text = json.dumps(to_json(self._engine.statistics(), describe(), self._started))
        await write(text.encode() + b"\n")


class EventsService:
    """`events=1`."""

    endless = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def answer(self, request: list[str], write: Write) -> None:
        """A line of JSON when it begins, and for each event."""
        _takes_no_lines("events", request)
        waiting: deque[dict[str, Any]] = deque()
        came = asyncio.Event()
        lost = 0

        def take(event: Event) -> None:
            nonlocal lost
            if len(waiting) < WAITING_EVENTS:
                waiting.append(event_to_json(event, time.time()))
            else:
                lost += 1
            came.set()

        end = self._engine.watch(take)
        try:
            await _write_line(write, {"version": EVENTS_VERSION, "kind": "watching", "time": time.time()})
            while True:
                await came.wait()
                came.clear()
                while waiting:
                    await _write_line(write, waiting.popleft())
                if lost:
                    text = f"{lost} events were lost: they were not read in time"
                    await _write_line(
                        write, {"kind": "lost", "time": time.time(), "text": text, "count": lost}
                    )
                    lost = 0
        finally:
            end()


class LogService:
    """`log=1`."""

    endless = False

    async def answer(self, request: list[str], write: Write) -> None:  # noqa: ARG002  the status is all
        """Set the level of the root logger."""
        match [line.partition("=")[::2] for line in request]:
            case [("level", level)] if level in LEVELS:
                logging.getLogger().setLevel(LEVELS[level])
            case _:
                raise UapiError(errno.EINVAL, f"log=1 takes one line, level= one of {', '.join(LEVELS)}")


def event_to_json(event: Event, at: float) -> dict[str, Any]:
    """An event as values that JSON has; `at`: seconds since 1970."""
    return {
        "kind": event.kind.value,
        "time": round(at, 6),
        "peer": None if event.peer is None else str(event.peer),
        "endpoint": None if event.endpoint is None else str(event.endpoint),
        "text": event.text,
        "detail": event.detail,
    }


def _takes_no_lines(name: str, request: list[str]) -> None:
    if request:
        raise UapiError(errno.EINVAL, f"{name}=1 takes no lines")


async def _write_line(write: Write, value: dict[str, Any]) -> None:
    await write(json.dumps(value).encode() + b"\n")
