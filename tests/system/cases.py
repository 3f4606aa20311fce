"""The bodies of the interoperability cases: each takes a lab and two programs and fails by an assertion.

`first` stands at the left, `second` at the right; which of them is ours is up to the caller, so every case
can also be run with a program against itself.
"""

from __future__ import annotations

import dataclasses
import json
import time

from tests.system.net import Lab, add_address, eventually, make_router, tool
from tests.system.programs import Program
from tests.system.tunnel import (
    PORT,
    WG,
    Key,
    Station,
    Tunnel,
    generate_psk,
    hostport,
    make_station,
    make_tunnel,
    start_station,
)
from tests.system.wire import COOKIE_REPLY, INITIATION, RESPONSE, Capture, Message

ECHO_PORT = 7000
STREAM_PORT = 7001
FLOODER = "192.0.2.99"

# --- Traffic -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What the sender of a paced stream tells at its end; tests/tools/paced.py says what each field means."""

    sent: int
    returned: int
    duplicated: int
    lost: list[int]
    refused: int
    longest_gap: float
    last_lost: float
    seen: int


class Paced:
    """A paced stream through the tunnel from one station to the other and back; it runs until `outcome`."""

    def __init__(self, source: Station, target: Station, seconds: float, interval: float = 0.02) -> None:
        self.seconds, self.interval = seconds, interval
        self._echo = tool(target.machine, "paced.py", "echo", target.inner[0], ECHO_PORT)
        eventually("the echo listens", lambda: "ready" in self._echo.output())
        count = round(seconds / interval)
        self._send = tool(source.machine, "paced.py", "send", target.inner[0], ECHO_PORT, count, interval)

    def wait_until_it_flows(self) -> None:
        def flows() -> bool:
            return "flowing" in self._send.output() or self._send.poll() is not None

        eventually("the paced stream flows", flows, timeout=self.seconds + 10)

    def outcome(self) -> Outcome:
        said = self._send.wait(self.seconds + 30)
        self._echo.stop()
        return Outcome(**json.loads(said.splitlines()[-1]))

    def lost_after(self, seconds: float, outcome: Outcome) -> list[int]:
        """The numbers of what was lost of what was sent later than this."""
        return [number for number in outcome.lost if number * self.interval > seconds]


class Transfer:
    """One TCP stream through the tunnel; `check` compares what went in with what came out."""

    def __init__(
        self, source: Station, target: Station, size: int, seconds: float = 0, six: bool = False
    ) -> None:
        address = target.inner[six]
        self.size = size
        self._receive = tool(target.machine, "stream.py", "receive", address, STREAM_PORT)
        eventually("the receiver listens", lambda: "ready" in self._receive.output())
        self._send = tool(source.machine, "stream.py", "send", address, STREAM_PORT, size, seconds)

    def check(self, timeout: float = 120.0) -> None:
        sent = self._send.wait(timeout).split()
        received = self._receive.wait(timeout).split()[1:]
        assert sent == received
        assert int(sent[0]) == self.size


def ping(source: Station, target: Station, *, seconds: int = 10, six: bool = False) -> None:
    """One echo request per second until an answer comes."""
    source.machine.run("ping", "-c1", f"-w{seconds}", target.inner[six], timeout=seconds + 10)


def connected(lab: Lab, first: Program, second: Program) -> Tunnel:
    """A tunnel that `first` has initiated and through which pings go."""
    tunnel = make_tunnel(lab, first, second)
    tunnel.configure(initiator=tunnel.left)
    ping(tunnel.left, tunnel.right)
    return tunnel


# --- Cases -------------------------------------------------------------------------------------------------


def pings_of_every_size(lab: Lab, first: Program, second: Program, *, psk: bool, outer: int) -> None:
    """`first` initiates; inside, both families; outside, IPv4 or IPv6."""
    tunnel = make_tunnel(lab, first, second)
    tunnel.configure(initiator=tunnel.left, psk=generate_psk() if psk else None, outer=outer)
    for address in tunnel.right.inner:
        # An MTU of 1420 leaves 1392 bytes after the headers of IPv4 and ICMP; the longest go in fragments.
        assert tool(tunnel.left.machine, "pings.py", address, 1400).wait(60) == "1401 answers\n"
    assert (":" in tunnel.left.peer_endpoint().removesuffix(f":{PORT}")) == (outer == 6)


def a_wrong_psk_lets_nothing_through(lab: Lab, first: Program, second: Program) -> None:
    """The counterpart of the cases with a PSK: it is really used."""
    tunnel = make_tunnel(lab, first, second)
    tunnel.right.configure(tunnel.left, psk=generate_psk())
    tunnel.left.configure(tunnel.right, psk=generate_psk(), endpoint=hostport(tunnel.right.outer[0]))
    said = tunnel.left.machine.run("ping", "-c3", "-i0.2", "-W1", tunnel.right.inner[0], check=False)
    assert " 0 received" in said


def tcp_each_way(lab: Lab, first: Program, second: Program, *, megabytes: int, outer: int = 4) -> None:
    """IPv4 inside one way, IPv6 the other way."""
    tunnel = make_tunnel(lab, first, second)
    tunnel.configure(initiator=tunnel.left, outer=outer)
    Transfer(tunnel.left, tunnel.right, megabytes * 1_000_000).check()
    Transfer(tunnel.right, tunnel.left, megabytes * 1_000_000, six=True).check()


def the_endpoint_moves(lab: Lab, first: Program, second: Program, *, port: bool = True) -> None:
    """The address of `first` changes while a TCP stream and a paced stream run, and then its port."""
    tunnel = connected(lab, first, second)
    moving, staying = tunnel.left, tunnel.right
    transfer = Transfer(moving, staying, 8_000_000, seconds=6)
    paced = Paced(moving, staying, seconds=7)
    paced.wait_until_it_flows()
    time.sleep(1)
    new = moving.outer[0] + "0"  # 192.0.2.10
    add_address(moving.machine, moving.uplink, f"{new}/24")
    moving.machine.run("ip", "addr", "del", f"{moving.outer[0]}/24", "dev", moving.uplink)
    eventually("the endpoint has the new address", lambda: staying.peer_endpoint() == hostport(new))
    time.sleep(1)
    if port:
        moving.wg("set", WG, "listen-port", str(PORT + 1))
        eventually(
            "the endpoint has the new port", lambda: staying.peer_endpoint() == hostport(new, PORT + 1)
        )
    outcome = paced.outcome()
    assert outcome.longest_gap < 2.5
    # Beside the TCP stream a busy machine drops a datagram now and then.
    assert len(paced.lost_after(5.5, outcome)) <= 5, "the stream goes on after the moves"
    transfer.check()


def the_key_changes(lab: Lab, first: Program, second: Program) -> None:
    """`first` gets a new private key, while a paced stream runs; the other side is told its public key."""
    tunnel = make_tunnel(lab, first, second)
    changing, staying = tunnel.left, tunnel.right
    for station in (changing, staying):
        other = tunnel.other(station)
        station.configure(other, endpoint=hostport(other.outer[0]))
    ping(tunnel.left, tunnel.right)
    paced = Paced(staying, changing, seconds=10)
    paced.wait_until_it_flows()
    time.sleep(1)
    old, new = changing.key, Key.generate()
    # Two requests: boringtun stops reading one at a removed peer.
    staying.wg(*f"set {WG} peer {old.public} remove".split())
    staying.wg(
        *f"set {WG} peer {new.public} endpoint {hostport(changing.outer[0])}".split(),
        *f"allowed-ips {changing.inner[0]}/32,{changing.inner[1]}/128".split(),
    )
    changing.machine.write("/run/new.key", new.private + "\n")
    changing.wg("set", WG, "private-key", "/run/new.key")
    changing.key = new
    outcome = paced.outcome()
    assert outcome.longest_gap < 7.5
    assert outcome.last_lost < 8.5, "the stream goes on"
    ping(changing, staying)


def keepalive_holds_a_nat_open(lab: Lab, first: Program, second: Program, *, keepalive: bool = True) -> None:
    """`first` is behind a router that forgets it after 2 idle seconds; after 5, `second` speaks to it."""
    inside, outside = make_station(lab, first, "inside", 1), make_station(lab, second, "outside", 2)
    router = lab.host("router")
    lab.join(inside.machine, router, ["10.0.0.2/24"], ["10.0.0.1/24"])
    link = lab.join(router, outside.machine, ["192.0.2.1/24"], [f"{outside.outer[0]}/24"])
    inside.machine.run("ip", "route", "add", "default", "via", "10.0.0.1")
    make_router(router, nat_out=link.left_interface)
    for station in (inside, outside):
        start_station(lab, station)
    tunnel = Tunnel(lab, inside, outside, link)
    tunnel.configure(initiator=inside, keepalive=1 if keepalive else 0)
    ping(inside, outside)
    assert outside.peer_endpoint().startswith("192.0.2.1:")
    time.sleep(5)
    said = outside.machine.run("ping", "-c3", "-i0.3", "-W2", inside.inner[0], check=False)
    assert " 3 received" in said if keepalive else " 0 received" in said, said


def no_packet_is_lost_over_a_rekey(lab: Lab, first: Program, second: Program) -> None:
    """`first` initiates, and initiates again 120 s later; a stream of 50 packets a second notices nothing."""
    tunnel = make_tunnel(lab, first, second)
    capture = Capture(tunnel.link)
    tunnel.configure(initiator=tunnel.left)
    ping(tunnel.left, tunnel.right)
    outcome = Paced(tunnel.left, tunnel.right, seconds=130).outcome()
    responses = [message for message in capture.messages() if message.type == RESPONSE]
    assert len(responses) == 2, f"{len(responses)} handshakes"
    assert 119 < responses[1].time - responses[0].time < 128
    assert responses[1].source == tunnel.right.outer[0], "the initiator rekeys"
    assert outcome.lost == []
    assert outcome.duplicated == 0


def the_initiator_answers_a_cookie(lab: Lab, first: Program, second: Program) -> None:
    """`second` is under load, so `first` gets a cookie for its initiation, and comes back with it."""
    tunnel = make_tunnel(lab, first, second)
    machine, responder = tunnel.left.machine, tunnel.right.outer[0]
    # From the initiator's own address, because gotatun counts per address; a guest is too slow to flood.
    source = tunnel.left.outer[0]
    if machine is not machine.host:
        source = FLOODER
        add_address(machine.host, "br0", f"{FLOODER}/24")
    capture = Capture(tunnel.link)
    tunnel.right.configure(tunnel.left)
    flood = tool(machine.host, "flood.py", source, responder, PORT, tunnel.right.key.public, 20)
    eventually("the responder is under load", lambda: "loaded" in flood.output())

    def start_over() -> list[Message]:
        """A first initiation and its answer."""
        before = len(capture.messages())
        tunnel.left.configure(tunnel.right, endpoint=hostport(responder))
        machine.start("ping", "-c3", "-i0.3", "-w1", tunnel.right.inner[0])
        eventually("an initiation was answered", lambda: len(capture.messages()) >= before + 2)
        return capture.messages()[before:]

    # boringtun and gotatun count anew every second, so an initiation may slip through.
    for _ in range(5):
        messages = start_over()
        if messages[1].type == COOKIE_REPLY:
            break
    assert [message.type for message in messages[:2]] == [INITIATION, COOKIE_REPLY]
    assert not messages[0].has_mac2
    assert len(messages[1].content) == 64
    machine.run("ping", "-c1", "-w12", tunnel.right.inner[0])

    def later() -> list[Message]:
        return capture.messages()[capture.messages().index(messages[1]) + 1 :]

    eventually("the capture has the response", lambda: any(message.type == RESPONSE for message in later()))
    retries = [message for message in later() if message.type == INITIATION]
    assert retries[0].has_mac2
    assert 4.9 < retries[0].time - messages[0].time < 5.6, "a cookie does not make the initiator hurry"


def handshakes_carry_tos(lab: Lab, first: Program, second: Program, *, outer: int, tos: int) -> None:
    """The initiation of `first` has this outer TOS byte or traffic class."""
    tunnel = make_tunnel(lab, first, second)
    capture = Capture(tunnel.link)
    tunnel.configure(initiator=tunnel.left, outer=outer)
    ping(tunnel.left, tunnel.right)
    marks = {message.tos for message in capture.messages() if message.type == INITIATION}
    assert marks == {tos}


def the_restarted_side_comes_back(lab: Lab, first: Program, second: Program) -> None:
    """`first` is ended and started anew, and initiates; `second` still has the old session."""
    tunnel = connected(lab, first, second)
    tunnel.left.restart()
    ping(tunnel.left, tunnel.right)
    Transfer(tunnel.right, tunnel.left, 1_000_000).check()


def a_restart_of_the_other_side_is_noticed(lab: Lab, first: Program, second: Program) -> None:
    """`second` is restarted and never speaks first; `first` notices after 15 s and some jitter."""
    tunnel = connected(lab, first, second)
    paced = Paced(tunnel.left, tunnel.right, seconds=30)
    paced.wait_until_it_flows()
    time.sleep(2)
    tunnel.right.restart()
    outcome = paced.outcome()
    assert outcome.lost, "the restarted side has lost its sessions"
    assert 10 < outcome.longest_gap < 22
    assert outcome.last_lost < 26
