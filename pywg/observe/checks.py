"""Runs checks side by side: what they look at, and what becomes of one that fails itself.

The checks are in `checks_files.py`, `checks_host.py`, `checks_handshake.py` and `checks_traffic.py`; what
they look at is gathered into a `Subject` first. What changes while one looks is in `watching.py`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pywg.config.model import Config, EndpointName, Peer, merge_peers
from pywg.config.positions import value_of
from pywg.device.snapshot import DeviceSnapshot
from pywg.errors import PywgError, printable
from pywg.host.state import State, index_of
from pywg.observe.findings import Finding, short

SIDE_BY_SIDE = 16
"""Threads."""


@dataclasses.dataclass(slots=True)
class Watched:
    """What happened while one looked.

    before, after: what `stats=1` answered at both ends; None for other daemons than pywgd. events: those of
    `events=1` between. left, arrived: handshake messages on the wire with the device's port, as (type,
    address of the other side); None when it could not be seen. wrong_mac1: the addresses of those that
    arrived and were for another public key than ours. counters: how much those of the kernel's network
    statistics grew. device: the device at the end.
    """

    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    events: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    left: list[tuple[int, str]] | None = None
    arrived: list[tuple[int, str]] | None = None
    wrong_mac1: list[str] | None = None
    counters: dict[str, int] = dataclasses.field(default_factory=dict)
    device: DeviceSnapshot | None = None
    seconds: float = 0.0

    def drops(self, reason: str) -> int:
        """How many more were dropped for that reason."""
        if self.before is None or self.after is None:
            return 0
        return int(self.after["drops"].get(reason, 0) - self.before["drops"].get(reason, 0))

    def peer(self, key: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """A peer's statistics at both ends; None when there are none."""
        if self.before is None or self.after is None:
            return None
        found = [
            next((peer for peer in said["peers"] if peer["public_key"] == key), None)
            for said in (self.before, self.after)
        ]
        return (found[0], found[1]) if found[0] is not None and found[1] is not None else None


@dataclasses.dataclass(slots=True)
class Subject:
    """What is looked at: an interface, its file, or both.

    mistakes: lines about the file, when it could not be used; `config` is None then, as when there is none.
    given_file: whether the file was asked for, instead of the interface. other: the file of the other end.
    names: what people call the peers, by public key in base64. ping: addresses of peers that may be asked.
    patience: seconds that answers are waited for.
    """

    interface: str
    path: str | None = None
    config: Config | None = None
    mistakes: tuple[str, ...] = ()
    given_file: bool = False
    state: State | None = None
    device: DeviceSnapshot | None = None
    unreadable: str | None = None
    other: Config | None = None
    other_path: str = ""
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    ping: tuple[str, ...] = ()
    patience: float = 6.0
    watched: Watched = dataclasses.field(default_factory=Watched)

    def name(self, key: str) -> str | None:
        """What people call a peer."""
        return self.names.get(key)

    def called(self, key: str) -> str:
        """The word for a peer in a sentence."""
        return short(key, self.name(key))

    def finding(self, code: str, seen: str, *do: str, key: str | None = None, **more: Any) -> Finding:
        """One of a peer, or of the interface."""
        return Finding(code, seen, do, key, None if key is None else self.name(key), **more)

    def peers_of_file(self) -> list[Peer]:
        """Each peer of the file once."""
        return merge_peers(self.config.peers) if self.config is not None else []

    def endpoint_of_file(self, key: str) -> EndpointName | None:
        """Where the file says that a peer is."""
        return next(
            (value_of(p.endpoint) for p in self.peers_of_file() if p.public_key.value.base64 == key), None
        )

    @property
    def is_elsewhere(self) -> bool:
        """Whether its daemon answers, and the interface itself is in another network namespace."""
        return (
            sys.platform.startswith("linux") and self.device is not None and index_of(self.interface) is None
        )

    @property
    def up_command(self) -> str:
        """What brings it up."""
        return f"pywg up {self.path or self.interface}"


Check = Callable[[Subject], Iterable[Finding]]


def run(checks: Sequence[Check], subject: Subject) -> list[Finding]:
    """All findings of these checks, in the checks' order, made side by side. One that fails is a finding."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        return [
            finding for found in threads.map(lambda check: _run(check, subject), checks) for finding in found
        ]


def _run(check: Check, subject: Subject) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(subject))
    except PywgError as error:
        found.append(_failed(check, str(error)))
    except Exception as error:  # a check sees all that can be wrong with a system
        found.append(_failed(check, f"{type(error).__name__}: {error}"))
    return found


def _failed(check: Check, why: str) -> Finding:
    name = getattr(check, "__name__", "a check").replace("_", " ").strip()
    return Finding("check-failed", f"The check '{name}' could not be made: {printable(why)}.")
