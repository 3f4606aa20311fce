"""Floods at the daemon's port, as fast as the system takes them, while packets pass and a peer connects."""

from __future__ import annotations

import base64
import hashlib
import os
import pathlib
import random
import struct
import subprocess

import pytest

from tests.system import cases
from tests.system.cases import Paced
from tests.system.conftest import installed
from tests.system.net import TOOLS, Host, HostTask, Lab, eventually
from tests.system.programs import Program
from tests.system.test_bad_input import MEBIBYTE, resident
from tests.system.test_faults import assert_unharmed, drops
from tests.system.tunnel import PORT, WG, Station, Tunnel, hostport, make_station, make_tunnel, start_station
from tests.system.wire import INITIATION, Capture

FLOODED, FLOODER = "203.0.113.1", "203.0.113.2"
SPOOFED = "10.0.0.0/8"
SECONDS = 2.0


@pytest.fixture(scope="session")
def sender(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The program that floods, compiled."""
    path = tmp_path_factory.mktemp("flood") / "flood"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", path, TOOLS / "flood.c"], check=True)
    return path


def initiation(public_key: str) -> bytes:
    """A handshake initiation with the right MAC1 and nothing else right (WireGuard paper, section 5.4.4)."""
    key = hashlib.blake2s(b"mac1----" + base64.b64decode(public_key)).digest()
    body = struct.pack("<I", 1) + os.urandom(112)
    return body + hashlib.blake2s(body, key=key, digest_size=16).digest() + bytes(16)


def typed(kind: int, size: int) -> bytes:
    return (bytes([kind, 0, 0, 0]) + os.urandom(size))[:size]


def floods(public_key: str, genuine: bytes) -> dict[str, tuple[list[bytes], bool]]:
    """By name: the datagrams, and whether their sources are spoofed."""
    wrong, right = [typed(1, 148) for _ in range(256)], [initiation(public_key) for _ in range(256)]
    lengths = (random.randrange(1473) for _ in range(1024))
    return {
        "wrong MAC1": (wrong, False),
        "wrong MAC1, spoofed sources": (wrong, True),
        "right MAC1": (right, False),
        "right MAC1, spoofed sources": (right, True),
        "replayed": ([genuine], False),
        "unknown sessions": ([typed(4, 16 * size) for size in range(2, 91)], False),
        "garbage": ([typed(random.choice((0, 1, 2, 3, 4, 5, 255)), size) for size in lengths], False),
        "tiny": ([os.urandom(size) for size in range(5)], False),
        "largest": ([typed(kind, 65507) for kind in range(5)], False),
    }


class Flood:
    """A flood under way; rate: datagrams per second, 0: as many as the system takes."""

    def __init__(
        self,
        flooder: Host,
        sender: pathlib.Path,
        datagrams: list[bytes],
        seconds: float,
        *,
        spoofed: bool = False,
        port: int = PORT,
        rate: int = 0,
    ) -> None:
        self.seconds = seconds
        path = flooder.directory / "datagrams"
        path.write_bytes(b"".join(struct.pack("!H", len(each)) + each for each in datagrams))
        command = f"exec {sender} {FLOODED} {port} {seconds} {rate} {int(spoofed)} <{path}"
        self.task = flooder.start("sh", "-c", command)

    def sent(self) -> int:
        """Wait for its end; how many datagrams it was."""
        return int(self.task.wait(self.seconds + 30))


def flooded_tunnel(lab: Lab, ours: Program) -> tuple[Tunnel, Host, bytes]:
    """A tunnel, another host with a wire of its own to our end, and an initiation that our end has taken."""
    tunnel = make_tunnel(lab, installed("wireguard-go"), ours)
    flooder = lab.host("flooder")
    lab.join(tunnel.right.machine, flooder, [f"{FLOODED}/24"], [f"{FLOODER}/24"])
    tunnel.right.machine.run("ip", "route", "add", SPOOFED, "via", FLOODER)
    capture = Capture(tunnel.link)
    tunnel.configure(initiator=tunnel.left)
    cases.ping(tunnel.left, tunnel.right)

    def initiations() -> list[bytes]:
        return [message.content for message in capture.messages() if message.type == INITIATION]

    return tunnel, flooder, eventually("the initiation was captured", initiations)[-1]


def test_no_flood_costs_a_session_a_packet_or_the_daemon_its_memory(
    lab: Lab, ours: Program, sender: pathlib.Path
) -> None:
    tunnel, flooder, genuine = flooded_tunnel(lab, ours)
    peer, station = tunnel.left, tunnel.right
    kinds = floods(station.key.public, genuine)
    before = resident(station)
    paced = Paced(peer, station, seconds=len(kinds) * (SECONDS + 0.5))
    paced.wait_until_it_flows()
    for name, (datagrams, spoofed) in kinds.items():
        counted = drops(station)
        sent = Flood(flooder, sender, datagrams, SECONDS, spoofed=spoofed).sent()
        dropped = sum((drops(station) - counted).values())
        print(f"{name}: {sent / SECONDS:.0f} a second, {dropped} of {sent} dropped")
        assert dropped > 100, name  # of the others a full socket buffer told nobody
        assert resident(station) - before < 32 * MEBIBYTE, name
        assert_unharmed(station)
    outcome = paced.outcome()
    # The largest fill the socket's buffer, which is the kernel's, 55 at a time.
    assert len(outcome.lost) <= outcome.sent // 50
    assert outcome.duplicated == 0


@pytest.mark.parametrize("spoofed", [False, True], ids=["one source", "spoofed sources"])
def test_a_new_peer_connects_during_a_flood_of_initiations_with_the_right_mac1(
    lab: Lab, ours: Program, sender: pathlib.Path, spoofed: bool
) -> None:
    """The second try brings a cookie, or the third, where the first found no time for an answer."""
    tunnel, flooder, genuine = flooded_tunnel(lab, ours)
    station = tunnel.right
    new = newcomer(lab, station)
    datagrams, _ = floods(station.key.public, genuine)["right MAC1"]
    before = resident(station)
    flood = Flood(flooder, sender, datagrams, 60, spoofed=spoofed)
    eventually("the flood is felt", lambda: drops(station)["under-load"] or drops(station)["bad-tag"] > 100)
    paced = Paced(tunnel.left, station, seconds=4)
    new.configure(station, endpoint=hostport("198.51.100.1"), keepalive=1)
    eventually("the new peer connects", new.latest_handshake, timeout=40)
    outcome = paced.outcome()
    assert isinstance(flood.task, HostTask)
    assert flood.task.poll() is None, "the flood goes on"
    flood.task.stop()
    assert_unharmed(station)
    assert len(outcome.lost) <= outcome.sent // 10  # a short stream, beside other tests
    assert resident(station) - before < 32 * MEBIBYTE


def newcomer(lab: Lab, station: Station) -> Station:
    """A station that has not spoken with this one, but is known to it."""
    new = make_station(lab, installed("wireguard-go"), "new", 3)
    lab.join(station.machine, new.machine, ["198.51.100.1/24"], ["198.51.100.3/24"])
    start_station(lab, new)
    station.wg("set", WG, "peer", new.key.public, "allowed-ips", f"{new.inner[0]}/32")
    return new
