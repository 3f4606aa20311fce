"""The weather between the machines: every link loses, repeats, delays, reorders, corrupts, or is cut.

And somebody on the way who keeps datagrams and sends them again, minutes or hours later.
"""

from __future__ import annotations

import dataclasses
import random
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pywg.bind.memory import Flight, MemoryBind, Nat
from tests.simulator.invariants import JITTER, REKEY_TIMEOUT

if TYPE_CHECKING:
    from tests.simulator.machine import Machine
    from tests.simulator.simulation import Simulation

COOKIE_REPLY = 3
RETRY = REKEY_TIMEOUT + JITTER + 0.001
TAPE = 256
"""Datagrams that the one on the way keeps."""


@dataclasses.dataclass(slots=True)
class Link:
    """Between one machine and the hub. Probabilities are per datagram; times are seconds, one way."""

    delay: float
    jitter: float
    loss: float
    repetition: float
    reordering: float
    corruption: float
    replay: float
    up: bool = True
    """Whether datagrams to the hub pass."""
    down: bool = True
    """Whether datagrams from the hub pass."""
    clean: bool = False
    """For a while nothing is lost, and nothing is out of order by more than the jitter."""
    cookies: int = 0
    """Cookie replies that came this way."""

    @property
    def one_way(self) -> float:
        """The longest that a datagram takes while the link is clean."""
        return self.delay + self.jitter


def some_link(chance: random.Random) -> Link:
    """From a good line to a very bad one."""
    quality = chance.random() ** 2  # most are good
    return Link(
        delay=chance.uniform(0.001, 0.2),
        jitter=chance.uniform(0.0, 0.1) * quality,
        loss=0.2 * quality,
        repetition=0.1 * quality,
        reordering=0.1 * quality,
        corruption=0.05 * quality,
        replay=0.02,
    )


class SimulatedBind(MemoryBind):
    """A bind that says who sends, and wakes its machine when something arrives."""

    def __init__(self, machine: Machine, port: int) -> None:
        super().__init__(machine.world.network, machine.outer, port)
        self._machine = machine

    def send(self, datagrams, endpoint, tos):  # type: ignore[no-untyped-def]  # as in MemoryBind
        self._machine.world.weather.sender = self._machine
        return super().send(datagrams, endpoint, tos)

    def _take(self, flight: Flight) -> bool:
        if self._machine.asleep:
            return False
        self._machine.world.wake(self._machine)
        if self._machine.nat is None:
            self._machine.world.weather.keep(flight)
        return super()._take(flight)


class Weather:
    """What becomes of each datagram; a `Fault` of the memory network."""

    def __init__(self, world: Simulation) -> None:
        self._world = world
        self.sender: Machine | None = None
        """Whose datagrams are being sent; None: those of the one on the way."""
        self.all_cut = False
        self._arrived = 0
        self._tape: deque[Flight] = deque(maxlen=TAPE)
        self._stray = Link(0.05, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def __call__(self, flight: Flight, chance: random.Random) -> Iterable[Flight]:
        world, sender = self._world, self.sender
        world.note(flight.data, flight.source, flight.destination)
        machine = sender if sender is not None and not sender.is_hub else self._machine_at(flight)
        link = self._stray if machine is None else machine.link
        up = sender is not None and not sender.is_hub
        if sender is not None and machine is not None and flight.data[:1] == b"\1":
            peer = sender.peer(machine if sender.is_hub else world.hub)
            world.later(RETRY, world.audit_initiation, sender, sender.device, peer, world.now)
        if self.all_cut or not (link.up if up else link.down):
            return ()
        if flight.data[:1] == bytes([COOKIE_REPLY]):
            link.cookies += 1
            world.count["cookie replies"] += 1
        flight.due += link.delay + chance.random() * link.jitter
        if sender is None:
            return (flight,)
        if self._tape and chance.random() < link.replay:
            self._replay(chance)
            self.sender = sender
        if link.clean:
            return (flight,)
        if chance.random() < link.loss:
            return ()
        if chance.random() < link.reordering:
            flight.due += chance.random() * 2.0
        if chance.random() < link.corruption:
            flight.data = _corrupted(flight.data, chance)
        if chance.random() < link.repetition:
            again = dataclasses.replace(flight, due=flight.due + chance.random())
            return (flight, again)
        return (flight,)

    def keep(self, flight: Flight) -> None:
        """The one on the way keeps some of what has arrived.

        What never did is another matter: whoever brings that first has spoken for the peer, and gets the
        answers, in every WireGuard.
        """
        self._arrived += 1
        if len(self._tape) < TAPE or self._arrived % 16 == 0:
            self._tape.append(dataclasses.replace(flight))

    def _replay(self, chance: random.Random) -> None:
        """Send something old again, from where it came or from elsewhere."""
        old = self._tape[chance.randrange(len(self._tape))]
        world = self._world
        source = old.source if chance.random() < 0.5 else world.stranger
        if old.data[:1] in (b"\1", b"\2"):
            # A machine that has just started may take these for new, and follow them: no fault, but it would
            # keep the machines from finding each other within the bound, or at all.
            source = old.source
            machines = (world.machine_at(end.host, end.port) for end in (old.source, old.destination))
            if any(machine is None or machine.link.clean for machine in machines):
                return
        self.sender = None
        world.count["datagrams replayed"] += 1
        world.network.transmit(old.data, source, old.destination, old.tos)

    def _machine_at(self, flight: Flight) -> Machine | None:
        return self._world.machine_at(flight.destination.host, flight.destination.port)


def _corrupted(data: bytes, chance: random.Random) -> bytes:
    """One bit flipped, the end cut off, or something else altogether."""
    how = chance.randrange(4)
    if how == 0:
        return data[: chance.randrange(len(data) + 1)]
    if how == 1:
        return data[:1] + chance.randbytes(chance.randrange(200))
    altered = bytearray(data)
    altered[chance.randrange(len(altered))] ^= 1 << chance.randrange(8)
    return bytes(altered)


def machine_behind(nats: Iterable[Nat], host: str, port: int) -> str | None:
    """Which address inside has this address and port outside."""
    return next((nat.owner(port) for nat in nats if nat.public == host), None)
