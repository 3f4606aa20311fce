"""The world of the simulation: a hub, its machines, what they say to each other, and what befalls them.

Time jumps from one thing that is due to the next, so idle months cost nothing. All chance comes from one
number, and a running hash of all datagrams and packets tells whether two runs were the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import math
import random
import struct
from collections import Counter
from collections.abc import Callable

from pywg.bind.memory import Nat
from pywg.device.device import Device
from pywg.device.peer import Peer
from pywg.device.session import PeerId
from pywg.noise.keys import PresharedKey
from pywg.wire.endpoint import Endpoint
from tests.simulator.invariants import ANSWER, ASK, FORGED, MARK, KeyBook, PacketBook, Violation
from tests.simulator.machine import Machine, SimulatedDataPath
from tests.simulator.network import Link, Weather, machine_behind, some_link
from tests.simulator.recovery import Recovery
from tests.spec.world import Host, World, udp_packet

MINUTE, HOUR, DAY, YEAR = 60.0, 3600.0, 86400.0, 365 * 86400.0
ICMP, ICMPV6 = 1, 58
STEPS_AT_ONE_TIME = 100_000
NATS = 4


@dataclasses.dataclass(slots=True)
class Plan:
    """What is simulated. Times are seconds; those of what befalls a machine are means between two times.

    datapath: makes the data path of a machine; tests put in broken ones.
    """

    peers: int = 1
    seconds: float = HOUR
    talk: float = 2 * HOUR
    nap: float = 12 * HOUR
    crash: float = DAY
    move: float = 6 * HOUR
    cut: float = 6 * HOUR
    clock: float = DAY
    keepalive: float = DAY
    new_key: float = 2 * DAY
    hub: float = 12 * HOUR
    datapath: Callable[[Machine], SimulatedDataPath] = SimulatedDataPath

    @classmethod
    def of(cls, peers: int, seconds: float, calm: float = 1.0) -> Plan:
        """Rates for these: the shorter the run, the more the hub suffers. calm: how much rarer all is."""
        plan = cls(peers=peers, seconds=seconds, hub=min(12 * HOUR, seconds / 6))
        rates = ("talk", "nap", "crash", "move", "cut", "clock", "keepalive", "new_key", "hub")
        return dataclasses.replace(plan, **{name: calm * getattr(plan, name) for name in rates})


class Simulation(World):
    """A hub and `plan.peers` machines, from a seed."""

    def __init__(self, plan: Plan, seed: int) -> None:
        super().__init__(seed)
        self.plan = plan
        self._began = self.now
        self.chance = random.Random(f"{seed} life")
        self.count: Counter[str] = Counter()
        self.slowest = {True: 0.0, False: 0.0}
        self.weather = Weather(self)
        self.network.faults = [self.weather]
        self.stranger = Endpoint("203.0.113.66", 666)
        self.packets = PacketBook()
        self.keys = KeyBook(lambda: self.now)
        self._trace = hashlib.blake2b(digest_size=16)
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._number = 0
        self._due: list[tuple[float, int]] = []
        self._ready: dict[int, Machine] = {}
        self._addresses = 0
        self._at: dict[str, Machine] = {}
        self.machines: list[Machine] = []
        self.network.nats = [Nat((), f"203.0.113.{number + 1}") for number in range(NATS)]
        self._populate()

    def _populate(self) -> None:
        chance = self.chance
        none = Link(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        self.hub = self._machine(["192.0.2.1", "2001:db8::1"], ["10.0.0.1", "fd00::1"], none)
        for number in range(1, self.plan.peers + 1):
            inner = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", f"fd00::{number + 1:x}"]
            if number == 1:
                inner[0] = "10.255.255.1"
            ipv6 = chance.random() < 0.3
            machine = self._machine([self._new_address(ipv6)], inner, some_link(chance))
            if not ipv6 and chance.random() < 0.3:
                nat = chance.choice(self.network.nats)
                nat.inside = nat.inside | {machine.outer[0]}
                machine.nat = nat
            psk = PresharedKey.generate(chance.randbytes) if chance.random() < 0.5 else None
            endpoint = Endpoint(self.hub.outer[ipv6], self.hub.bind.port)
            machine.know(self.hub, endpoint=endpoint, psk=psk, allowed=["10.0.0.0/8", "fd00::/64"])
            allowed = [f"{inner[0]}/32", f"{inner[1]}/128"]
            self.hub.know(machine, endpoint=False, psk=psk, allowed=allowed)
        for machine in self.machines[1:]:
            for mean, happens in (
                (self.plan.talk, self._talk),
                (self.plan.nap, self._nap),
                (self.plan.crash, self._crash),
                (self.plan.move, self._move),
                (self.plan.cut, self._cut_link),
                (self.plan.clock, self._jump_clock),
                (self.plan.keepalive, self._keep_alive),
                (self.plan.new_key, self._renew_peer),
            ):
                self._again_and_again(mean, happens, machine)
        self._again_and_again(self.plan.hub, self._trouble_at_the_hub, self.hub)

    def _machine(self, outer: list[str], inner: list[str], link: Link) -> Machine:
        machine = Machine(self, len(self.machines), outer, inner, self.chance.getrandbits(64), link)
        self.machines.append(machine)
        for address in outer:
            self._at[address] = machine
        return machine

    def _new_address(self, ipv6: bool) -> str:
        self._addresses += 1
        number = self._addresses
        if ipv6:
            return f"2001:db8:1::{number:x}"
        return f"{11 + (number >> 24)}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    def host(self, name: str, outer: object, inner: object) -> Host:
        raise NotImplementedError("machines are made from the plan")

    # --- Time. ---------------------------------------------------------------------------------------------

    def later(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        """Let something happen so much later."""
        self._number += 1
        heapq.heappush(self._agenda, (self.now + seconds, self._number, action, arguments))

    def _again_and_again(self, mean: float, happens: Callable[[Machine], None], machine: Machine) -> None:
        if math.isinf(mean):
            return

        def once() -> None:
            happens(machine)
            self.later(self.chance.expovariate(1 / mean), once)

        self.later(self.chance.expovariate(1 / mean), once)

    def wake(self, machine: Machine) -> None:
        """Something waits for the machine."""
        self._ready[machine.number] = machine

    def play(self) -> None:
        """The whole of the plan."""
        self.run(self.plan.seconds)

    def run(self, seconds: float = 0.0) -> None:
        """Let `seconds` pass, stopping at whatever is due on the way. Raises Violation."""
        end = self.now + seconds
        while True:
            self.settle()
            upcoming = min(
                self.network.next_delivery() or math.inf,
                self._due[0][0] if self._due else math.inf,
                self._agenda[0][0] if self._agenda else math.inf,
            )
            if upcoming > end:
                break
            self.now = upcoming
        self.now = end

    def settle(self) -> None:
        for _ in range(STEPS_AT_ONE_TIME):
            self.network.advance(self.now)
            while self._agenda and self._agenda[0][0] <= self.now:
                _, _, action, arguments = heapq.heappop(self._agenda)
                action(*arguments)
            while self._due and self._due[0][0] <= self.now:
                when, number = heapq.heappop(self._due)
                if self.machines[number].due == when:
                    self.wake(self.machines[number])
            if not self._ready:
                return
            batch = sorted(self._ready.items())
            self._ready.clear()
            for _, machine in batch:
                self._step(machine)
        raise Violation(f"something goes round in circles at {self.now:.3f} s")

    def _step(self, machine: Machine) -> None:
        if machine.asleep or machine.stalled:
            return
        self.count["steps"] += 1
        machine.engine.turn()
        for packet in machine.tun.packets():
            self._emerged(machine, packet)
        machine.check()
        due = machine.engine.next_turn()
        if machine.tun.waiting or machine.bind.waiting or (due is not None and due <= self.now):
            self.wake(machine)
        if due is not None and due != machine.due:
            heapq.heappush(self._due, (due, machine.number))
        machine.due = due

    # --- What is known of it. ------------------------------------------------------------------------------

    def note(self, data: bytes, source: Endpoint, destination: Endpoint) -> None:
        """A datagram was sent: it goes into the trace."""
        self.count["datagrams"] += 1
        self._trace.update(struct.pack("<dI", self.now, len(data)) + data)
        self._trace.update(f"{source} {destination}".encode())

    def elapsed(self) -> float:
        """Seconds of virtual time since the beginning."""
        return self.now - self._began

    def trace(self) -> str:
        """The hash of all that was sent and delivered so far."""
        return self._trace.hexdigest()

    def machine_at(self, host: str, port: int) -> Machine | None:
        """Whose address and port this is, seen from outside."""
        machine = self._at.get(host)
        if machine is None:
            inside = machine_behind(self.network.nats, host, port)
            machine = None if inside is None else self._at.get(inside)
        return machine

    def audit(self, machine: Machine, device: Device, peer: PeerId, born: float) -> None:
        """Have a machine's keys looked at, unless it has forgotten all in a crash; if it sleeps, later."""
        if machine.device is not device or machine.is_off:
            return
        if machine.asleep or machine.stalled:
            machine.audits.append((peer, born))
        else:
            machine.audit(peer, born)

    def audit_initiation(self, machine: Machine, device: Device, peer: Peer, sent: float) -> None:
        """Have it looked at that an initiation's ephemeral key is gone, unless the machine does not run."""
        if machine.device is device and not machine.asleep and not machine.stalled:
            machine.audit_initiation(peer, sent)

    def recovered(self, took: float, *, knowing: bool) -> None:
        """A session is back. knowing: neither end believed in one that the other had lost."""
        self.count["recoveries" if knowing else "recoveries from a lost session"] += 1
        self.slowest[knowing] = max(self.slowest[knowing], took)

    # --- Packets. ------------------------------------------------------------------------------------------

    def send(self, one: Machine, other: Machine, purpose: int) -> None:
        """A packet from one machine to the other, if the sender is awake; size and family by chance."""
        if one.asleep:
            return
        chance = self.chance
        family = chance.random() < 0.3
        source, filler = one.addresses[family], chance.choice((0, 40, 500, 1300))
        if purpose == FORGED:
            source = self._somebody_else(one, other, family)
        way = (other.number,) if one.is_hub or other.is_hub else (0, other.number)

        def make(number: int) -> bytes:
            payload = MARK.pack(purpose, one.number, other.number, number)
            return udp_packet(source, other.addresses[family], payload + bytes([number & 255]) * filler)

        packet = self.packets.send(make, way, self.now, forged=purpose == FORGED)
        self.count["packets"] += 1
        one.tun.deliver(packet)

    def _somebody_else(self, one: Machine, other: Machine, family: bool) -> str:
        """A source that is not the sender's: nobody's, the receiver's, or (to the hub) another peer's."""
        outside = ("172.16.0.1", "fd01::1")[family]
        if one.is_hub or self.chance.random() < 0.3:
            return outside
        owner = self.chance.choice(self.machines)
        return outside if owner is one else owner.addresses[family]

    def _emerged(self, machine: Machine, packet: bytes) -> None:
        protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
        if protocol in (ICMP, ICMPV6):
            self.count["senders told"] += 1
            return
        self._trace.update(packet)
        arrived = self.packets.arrived(machine.number, packet)
        if arrived is None:  # the hub passes it on
            machine.tun.deliver(packet)
            return
        self.count["packets delivered"] += 1
        purpose, sender, sent = arrived
        spoke = self.machines[sender] if machine.is_hub else machine
        if spoke.recovery is not None and 0 in (sender, machine.number):
            spoke.recovery.arrived(machine, sent)
        if purpose == ASK and self.chance.random() < 0.7:
            self.later(self.chance.uniform(0, 0.1), self.send, machine, self.machines[sender], ANSWER)

    # --- What befalls a machine. ---------------------------------------------------------------------------

    def _talk(self, machine: Machine) -> None:
        """A conversation, sometimes one that begins with a burst, or with forged sources in it."""
        chance = self.chance
        other = self.hub
        if len(self.machines) > 2 and chance.random() < 0.3:
            other = chance.choice([each for each in self.machines[1:] if each is not machine])
        if chance.random() < 0.2:
            machine, other = other, machine
        self.count["conversations"] += 1
        at = 0.0
        for _ in range(200 if chance.random() < 0.02 else 0):
            self.later(at, self.send, machine, other, ASK)
        pace = 10 ** chance.uniform(-1, 1.5)
        for _ in range(1 + int(chance.expovariate(1 / 6))):
            self.later(at, self.send, machine, other, FORGED if chance.random() < 0.05 else ASK)
            at += chance.expovariate(1 / pace)

    def expect_recovery(self, machine: Machine) -> None:
        """From now on nothing hinders the machine and the hub, if that is so; see that they know."""
        if machine.recovery is not None:
            machine.recovery.abandon()
        link = machine.link
        hindered = (
            machine.asleep
            or self.hub.asleep
            or self.hub.stalled
            or self.weather.all_cut
            or not (link.up and link.down)
        )
        if hindered or self.hub.device.peer(machine.public_key) is None:
            return
        for one, other in ((machine, self.hub), (self.hub, machine)):
            if one.next_timestamp() <= other.peer(one).last_timestamp:
                self.count["refused for an old clock"] += 1
                return
        machine.recovery = Recovery(self, machine)

    def _hinder(self, machine: Machine) -> None:
        if machine.recovery is not None:
            machine.recovery.abandon()

    def _spell(self, shortest: float, longest: float) -> float:
        """A duration, of any order of magnitude alike."""
        return math.exp(self.chance.uniform(math.log(shortest), math.log(longest)))

    def _nap(self, machine: Machine) -> None:
        """Suspended: time goes on, nothing else does."""
        if machine.asleep:
            return
        self.count["sleeps"] += 1
        self._hinder(machine)
        machine.asleep = True
        self.later(self._spell(1.0, 12 * HOUR), self._wake_up, machine)

    def _wake_up(self, machine: Machine) -> None:
        machine.asleep = False
        self._run_again(machine)
        self.expect_recovery(machine)

    def _run_again(self, machine: Machine) -> None:
        self.wake(machine)
        audits, machine.audits = machine.audits, []
        for peer, born in audits:
            self.later(0.001, self.audit, machine, machine.device, peer, born)

    def _crash(self, machine: Machine) -> None:
        """Down for a while; sometimes the clock is wrong when it starts, and is set right later."""
        if machine.asleep:
            return
        self.count["crashes"] += 1
        self._hinder(machine)
        machine.crash()
        if self.chance.random() < 0.2:
            machine.wall_offset_ns = -int(self._spell(1.0, YEAR) * 1e9)
        self.later(self._spell(0.1, 10 * MINUTE), self._start, machine)

    def _start(self, machine: Machine) -> None:
        machine.start()
        if machine.wall_offset_ns:
            self.later(self._spell(1.0, HOUR), self._set_clock_right, machine)
        self.expect_recovery(machine)

    def _set_clock_right(self, machine: Machine) -> None:
        machine.wall_offset_ns = 0
        self.expect_recovery(machine)

    def _jump_clock(self, machine: Machine) -> None:
        """The wall clock is set, back by up to a year, or forward; nothing comes of it while it runs."""
        self.count["clock jumps"] += 1
        back = self.chance.random() < 0.7
        machine.wall_offset_ns = int((-self._spell(1.0, YEAR) if back else self._spell(1.0, HOUR)) * 1e9)
        self.later(self._spell(1.0, DAY), self._set_clock_right, machine)

    def _move(self, machine: Machine) -> None:
        """Another address, or behind a NAT: another port."""
        if machine.is_off:
            return
        self.count["moves"] += 1
        self._hinder(machine)
        if machine.nat is not None and self.chance.random() < 0.5:
            machine.nat.rebind()
        else:
            for address in machine.outer:
                del self._at[address]
            was = machine.outer[0]
            machine.move(self._new_address(":" in was))
            self._at[machine.outer[0]] = machine
            if machine.nat is not None:
                machine.nat.inside = machine.nat.inside - {was} | {machine.outer[0]}
        self.expect_recovery(machine)

    def _cut_link(self, machine: Machine) -> None:
        """Nothing passes, or nothing in one direction."""
        self.count["cuts"] += 1
        self._hinder(machine)
        which = self.chance.choice(("both", "both", "up", "down"))
        machine.link.up, machine.link.down = which == "down", which == "up"
        spell = self._spell(0.5, HOUR)
        if self.chance.random() < 0.5:
            self.later(spell * self.chance.random(), self._talk, machine)
        self.later(spell, self._mend_link, machine)

    def _mend_link(self, machine: Machine) -> None:
        machine.link.up = machine.link.down = True
        self.expect_recovery(machine)

    def _keep_alive(self, machine: Machine) -> None:
        """Persistent keepalives for a while."""
        if machine.is_off:
            return
        self._set_keepalive(machine, machine.device, self.chance.choice((5, 25, 120)))
        self.later(self._spell(MINUTE, HOUR), self._set_keepalive, machine, machine.device, 0)

    def _set_keepalive(self, machine: Machine, device: Device, interval: int) -> None:
        if machine.device is device:
            machine.engine.set_persistent_keepalive(machine.peer(self.hub), interval)
            machine.engine.commit()
            self.wake(machine)

    def _renew_peer(self, machine: Machine) -> None:
        """The hub's owner removes the peer, and adds it again later; both get a new preshared key."""
        hub = self.hub
        if hub.is_off or machine.is_off or hub.device.peer(machine.public_key) is None:
            return
        self.count["peers renewed"] += 1
        self._hinder(machine)
        hub.engine.remove_peer(hub.peer(machine))
        hub.engine.commit()
        self.wake(hub)
        settings = hub.peers_set.pop(machine.number)
        self.later(self._spell(0.1, 10 * MINUTE), self._add_again, machine, settings)

    def _add_again(self, machine: Machine, settings: dict[str, object]) -> None:
        psk = PresharedKey.generate(self.chance.randbytes)
        if self.hub.is_off:
            self.hub.peers_set[machine.number] = settings | {"psk": psk}
        else:
            self.hub.know(machine, **(settings | {"psk": psk}))
            self.wake(self.hub)
        machine.peers_set[0]["psk"] = psk
        if not machine.is_off:
            machine.engine.set_preshared_key(machine.peer(self.hub), psk)
        self.later(1.0, self.expect_recovery, machine)  # after a response under the old one

    def _trouble_at_the_hub(self, hub: Machine) -> None:
        """It crashes, is cut off, or stands still while everybody calls."""
        if hub.asleep or hub.stalled or self.weather.all_cut:
            return
        for machine in self.machines[1:]:
            self._hinder(machine)
        which = self.chance.randrange(3)
        self.count[("hub crashes", "partitions", "herds")[which]] += 1
        if which == 0:
            hub.crash()
            self.later(self._spell(0.1, MINUTE), self._hub_is_back, hub.start)
        elif which == 1:
            self.weather.all_cut = True
            self.later(self._spell(1.0, 10 * MINUTE), self._hub_is_back, self._heal_all)
        else:
            for machine in self.machines[1:]:
                self.later(0.0, self.send, machine, hub, ASK)
            stall = self.chance.uniform(0.1, 1.0)
            hub.stalled = True
            self.later(stall, self._hub_is_back, self._go_on)

    def _heal_all(self) -> None:
        self.weather.all_cut = False

    def _go_on(self) -> None:
        self.hub.stalled = False
        self._run_again(self.hub)

    def _hub_is_back(self, how: Callable[[], None]) -> None:
        how()
        for machine in self.machines[1:]:
            if len(self.machines) < 300 or self.chance.random() < 0.2:
                self.expect_recovery(machine)
