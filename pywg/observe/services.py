"""What pywgd answers on its configuration socket beside `get=1` and `set=1`: counts, events, its log level.

`stats=1` gives one line of JSON. `events=1` gives a line of JSON for each event until the client hangs up;
one that reads too slowly loses events and is told how many. `log=1` with `level=` sets what is logged.
`names=1` tells what people call the peers. `capture=1` is in `capture.py`.
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
from pywg.noise.keys import PublicKey
from pywg.observe.capture import CaptureService
from pywg.observe.logs import LEVELS
from pywg.observe.statistics import to_json
from pywg.uapi.error import UapiError
from pywg.uapi.format import parse_key, split_line
from pywg.uapi.server import Service, Write

EVENTS_VERSION = 1

NAME_LIMIT = 100
"""Letters of a peer's name."""

WAITING_EVENTS = 1000
"""Events that are kept for a client that is slow; further ones are counted."""


def services(engine: Engine) -> dict[str, Service]:
    """All of them, by name."""
    return {
        "stats": StatisticsService(engine),
        "events": EventsService(engine),
        "log": LogService(),
        "names": NamesService(engine),
        "capture": CaptureService(engine),
    }


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


class NamesService:
    """`names=1`: what people call the peers, for logs and events."""

    endless = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def answer(self, request: list[str], write: Write) -> None:  # noqa: ARG002  the status is all
        """Lines of a public key in hexadecimal, `=`, and a name. They replace all names that there were."""
        names = {}
        for line in request:
            key, name = split_line(line)
            if not name.isprintable() or len(name) > NAME_LIMIT:
                raise UapiError(errno.EINVAL, f"a name has {NAME_LIMIT} printable letters at the most")
            names[parse_key(PublicKey, "public_key", key)] = name
        for peer in self._engine.device.peers():
            peer.name = names.get(peer.public_key, "")


def event_to_json(event: Event, at: float) -> dict[str, Any]:
    """An event as values that JSON has; `at`: seconds since 1970."""
    return {
        "kind": event.kind.value,
        "time": round(at, 6),
        "peer": None if event.peer is None else str(event.peer),
        "name": event.name or None,
        "endpoint": None if event.endpoint is None else str(event.endpoint),
        "text": event.text,
        "detail": event.detail,
    }


def _takes_no_lines(name: str, request: list[str]) -> None:
    if request:
        raise UapiError(errno.EINVAL, f"{name}=1 takes no lines")


async def _write_line(write: Write, value: dict[str, Any]) -> None:
    await write(json.dumps(value).encode() + b"\n")
