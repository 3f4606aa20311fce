"""How soon a session is back, once nothing hinders it and both ends have something to send.

REKEY_TIMEOUT, its jitter and two round trips, from the first packet on. Longer only where an end can't know
better: one that still believes in a session which the other has lost finds out after KEEPALIVE_TIMEOUT and
REKEY_TIMEOUT without an answer; and an initiation that was answered with a cookie is repeated REKEY_TIMEOUT
later. No bound holds while a machine that has started with a wrong clock is refused for its old timestamps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulator import invariants
from tests.simulator.invariants import JITTER, KEEPALIVE_TIMEOUT, PROBE, REKEY_TIMEOUT, Violation

if TYPE_CHECKING:
    from tests.simulator.machine import Machine
    from tests.simulator.simulation import Simulation

RETRY = REKEY_TIMEOUT + JITTER
PROBE_EVERY = 0.5


class Recovery:
    """One machine and the hub, from the moment that nothing hinders them until packets flow both ways."""

    def __init__(self, world: Simulation, machine: Machine) -> None:
        self._world = world
        self._machine = machine
        self._hub = world.hub
        self._begun: float | None = None
        self._bound = 0.0
        self._knowing = True
        self._arrived: set[int] = set()
        self._refusals = self._hub_refusals()
        self._cookies = machine.link.cookies
        machine.link.clean = True
        world.later(world.chance.random(), self._probe)

    def is_over(self) -> bool:
        """Whether it is done, or something has come between."""
        return self._machine.recovery is not self

    def abandon(self) -> None:
        """Something has come between."""
        self._machine.recovery = None
        self._machine.link.clean = False

    def arrived(self, at: Machine, sent: float) -> None:
        """A packet between the two arrived; what was sent before is no sign."""
        if self._begun is None or sent < self._begun:
            return
        self._arrived.add(at.number)
        if len(self._arrived) == 2:
            took = self._world.now - self._begun
            self._world.recovered(took, knowing=self._knowing)
            self.abandon()

    def _probe(self) -> None:
        if self.is_over():
            return
        world, machine, hub = self._world, self._machine, self._hub
        if self._begun is None:
            self._begun = world.now
            self._bound = self._first_bound()
        elif world.now > self._begun + self._bound + self._refused():
            missing = {machine.number, hub.number} - self._arrived
            raise Violation(
                f"no packet arrived at {sorted(world.machines[number].name for number in missing)} within "
                f"{self._bound + self._refused():.2f} s after {machine.name} and the hub could talk again"
            )
        world.send(machine, hub, PROBE)
        world.send(hub, machine, PROBE)
        world.later(PROBE_EVERY, self._probe)

    def _first_bound(self) -> float:
        round_trip = 2 * self._machine.link.one_way
        bound = RETRY + 2 * round_trip + PROBE_EVERY
        if not (_is_shared(self._machine, self._hub) and _is_shared(self._hub, self._machine)):
            self._knowing = False
            bound += KEEPALIVE_TIMEOUT + RETRY + PROBE_EVERY
        return bound

    def _refused(self) -> float:
        """What cookies and limits of a hub under load add."""
        refused = self._machine.link.cookies - self._cookies
        if self._hub_refusals() > self._refusals:
            refused += 1
        return refused * RETRY

    def _hub_refusals(self) -> int:
        return sum(self._hub.device.drops[reason] for reason in invariants.UNDER_LOAD)


def _is_shared(one: Machine, other: Machine) -> bool:
    """Whether the session that one would send under, if there is one, is one that the other still has."""
    now = one.world.now
    live = one.datapath._current.get(one.peer(other).id)
    if live is None or now >= live.session.expires:
        return True
    theirs = other.datapath._live.get(live.session.remote_index)
    margin = 2 * (one.link.one_way + other.link.one_way)
    return (
        theirs is not None
        and theirs.session.remote_index == live.session.local_index
        and now + margin < min(theirs.session.expires, live.session.expires)
    )
