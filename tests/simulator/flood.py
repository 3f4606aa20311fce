"""Floods in the simulated network: at a hub that needs time for its work, so that it comes under load.

Two machines have sessions with it and go on talking, through their rekeys; others call it for the first time
while strangers send whatever they can think of. In a network that loses nothing, nothing may be lost.
"""

from __future__ import annotations

import dataclasses
import math

from pywg.noise import cookie
from pywg.wire.endpoint import Endpoint
from tests.simulator.invariants import ASK, JITTER, REKEY_TIMEOUT, Violation, at_most
from tests.simulator.machine import Machine
from tests.simulator.simulation import Plan, Simulation

CALM = dict.fromkeys(
    ("talk", "nap", "crash", "move", "cut", "clock", "keepalive", "new_key", "hub"), math.inf
)
FLOODER = "203.0.113.66"
SPOOFED = "198.18"
INITIATION, DATA = b"\1\0\0\0", b"\4\0\0\0"
COOKIE_REPLY = 3
OLD, NEW = 2, 6
"""Machines that have sessions when the flood begins, and machines that call then."""
AGED, LASTS, ALONE = 100.0, 25.0, 6.0
"""Seconds: the sessions' age when the flood begins, how long that lasts, and until others call."""
TRIES = 3
"""A new machine's: for the cookie, for the answer, and one for bad luck."""

ANSWERED = ("right MAC1", "right MAC1, spoofed", "replayed")
UNANSWERED = ("wrong MAC1", "unknown session", "garbage")
PORTS = {kind: 1000 + number for number, kind in enumerate((*ANSWERED, *UNANSWERED))}


@dataclasses.dataclass(frozen=True, slots=True)
class Flood:
    """Datagrams per second of each kind; pace: the seconds that the hub takes for one turn."""

    pace: float
    rates: dict[str, float]


ONE_SOURCE = Flood(
    0.25,
    {"right MAC1": 2000, "replayed": 40, "wrong MAC1": 20, "unknown session": 20, "garbage": 20},
)
"""Many more than the hub has time for, from one address."""
MANY_SOURCES = Flood(
    0.1,
    {"right MAC1, spoofed": 450, "replayed": 30, "wrong MAC1": 20, "unknown session": 20, "garbage": 20},
)
"""More handshakes than the hub has time for, but no more than it has time to answer with cookies."""


class FloodedSimulation(Simulation):
    """A hub, OLD machines that know it well, NEW ones that do not, and a flood."""

    def __init__(self, flood: Flood, seed: int) -> None:
        self.flood = flood
        self.is_flooded = False
        self.from_flooders = self.to_flooders = 0
        self.connected: dict[int, float] = {}
        """Of the new machines, after how many seconds each had a session."""
        super().__init__(Plan(peers=OLD + NEW, **CALM), seed)
        for machine in self.machines:
            machine.link.clean = True
        self.mac1_key = cookie.mac1_key(self.hub.public_key)
        self.genuine: list[bytes] = []

    def play(self) -> None:
        """Sessions, their first hundred seconds, the flood, and the quiet after it. Raises Violation."""
        for machine in self.machines[1 : 1 + OLD]:
            self.send(machine, self.hub, ASK)
        self.run(AGED)
        self.genuine = [flight.data for flight in self.weather._tape if flight.data[:4] == INITIATION]
        self.is_flooded = True
        end = self.now + LASTS
        self._pour(end)
        for machine in self.machines[1 : 1 + OLD]:
            self._converse(machine, end)
        for machine in self.machines[1 + OLD :]:
            self.later(ALONE + self.chance.random(), self._call, machine, end)
        self.run(LASTS)
        self.is_flooded = False
        self.run(REKEY_TIMEOUT)
        if len(self.packets):
            raise Violation(f"{len(self.packets)} packets were lost during the flood")
        if self.to_flooders > self.from_flooders:
            raise Violation(f"{self.to_flooders} bytes for {self.from_flooders} of the flood")

    def _step(self, machine: Machine) -> None:
        super()._step(machine)
        if machine is self.hub and self.is_flooded and not machine.stalled:
            at_most(len(self.machines), len(machine.device._handshake_limiter), "sources counted", "hub")
            machine.stalled = True
            self.later(self.flood.pace, self._go_on)

    # --- Those who mean well. ------------------------------------------------------------------------------

    def _converse(self, machine: Machine, end: float) -> None:
        if self.now < end:
            self.send(machine, self.hub, ASK)
            if self.hub.peer(machine).endpoint is not None:  # else it has not called yet
                self.send(self.hub, machine, ASK)
            self.later(0.5, self._converse, machine, end)

    def _call(self, machine: Machine, end: float) -> None:
        """Talk from now on; see that it does not take too long until there is a session."""
        self.connected[machine.number] = math.inf
        self._converse(machine, end)
        bound = TRIES * (REKEY_TIMEOUT + JITTER + 2 * self.flood.pace)
        self.later(bound, self._see_connected, machine, bound)
        self._look(machine, self.now)

    def _look(self, machine: Machine, began: float) -> None:
        if machine.peer(self.hub).last_handshake_ns:
            self.connected[machine.number] = self.now - began
        else:
            self.later(0.1, self._look, machine, began)

    def _see_connected(self, machine: Machine, bound: float) -> None:
        if math.isinf(self.connected[machine.number]):
            raise Violation(f"{machine.name} could not connect within {bound:.1f} s of the flood")

    # --- Those who do not. ---------------------------------------------------------------------------------

    def _pour(self, end: float) -> None:
        """What the flooders send in one turn of the hub."""
        if self.now >= end:
            return
        self.later(self.flood.pace, self._pour, end)
        self.weather.sender = None
        for kind, rate in self.flood.rates.items():
            count = round(rate * self.flood.pace)
            data = self._datagram(kind)
            for _ in range(count):
                source = Endpoint(FLOODER, PORTS[kind])
                if "spoofed" in kind:
                    random = self.chance.randbytes(4)
                    source = Endpoint(f"{SPOOFED}.{random[0]}.{random[1]}", 1024 + random[2] + random[3])
                    self.count["spoofed sources"] += 1
                if kind not in ("right MAC1", "replayed"):
                    data = self._datagram(kind)
                self.count[f"flood: {kind}"] += 1
                self.network.transmit(data, source, self.hub.endpoint)

    def _datagram(self, kind: str) -> bytes:
        random = self.chance.randbytes
        if kind == "replayed":
            return self.chance.choice(self.genuine)
        if kind == "unknown session":
            return DATA + random(16 * self.chance.randrange(1, 90) + 12)
        if kind == "garbage":
            return bytes([self.chance.choice((0, 1, 2, 3, 4, 5, 255))]) + random(self.chance.randrange(300))
        body = INITIATION + random(112)
        mac1 = random(16) if kind == "wrong MAC1" else cookie.mac1(self.mac1_key, body)
        return body + mac1 + bytes(16)

    def note(self, data: bytes, source: Endpoint, destination: Endpoint) -> None:
        super().note(data, source, destination)
        if _is_flooder(source):
            self.from_flooders += len(data)
        if not _is_flooder(destination):
            return
        self.to_flooders += len(data)
        kind = {port: kind for kind, port in PORTS.items()}.get(destination.port, "")
        if destination.host == FLOODER and kind in UNANSWERED:
            raise Violation(f"the hub answers {kind}")
        if data[0] != COOKIE_REPLY:
            raise Violation(f"a flooder got a message of type {data[0]}")


def _is_flooder(endpoint: Endpoint) -> bool:
    return endpoint.host == FLOODER or endpoint.host.startswith(f"{SPOOFED}.")
