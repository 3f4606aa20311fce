"""A hostile peer with a right key, before the real daemon and the kernel's own segmentation and forwarding.

The daemon's machine forwards what comes out of the tunnel to a third machine, where it is compared with what
the peer has sent. Meanwhile another peer's stream passes, which does not notice.
"""

from __future__ import annotations

import dataclasses
import struct
import sys
from collections.abc import Iterable

import pytest

from pywg.wire import ip
from tests import twins
from tests.hostile import TRICKS
from tests.system import cases
from tests.system.cases import Paced, Transfer
from tests.system.conftest import installed
from tests.system.net import TOOLS, Lab, eventually, make_router, tool
from tests.system.programs import Program, Userspace
from tests.system.test_bad_input import MEBIBYTE, resident
from tests.system.tunnel import PORT, WG, Key

HOSTILE = ("10.77.0.66", "fd77::66")
BEHIND = ("10.88.0.2", "fd88::2")
ROUNDS = 3


def forwarded(packet: bytes) -> bytes | None:
    """What a router makes of it: a hop less; None, when a right router drops it."""
    there = bytearray(packet)
    if packet[0] >> 4 == 6:
        there[7] -= 1
        return bytes(there)
    if ip.internet_checksum(packet[: (packet[0] & 15) * 4]):
        return None
    there[8] -= 1
    there[10:12] = bytes(2)
    there[10:12] = struct.pack("!H", ip.internet_checksum(there[: (packet[0] & 15) * 4]))
    return bytes(there)


def by_flow(packets: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    flows: dict[bytes, list[bytes]] = {}
    for packet in packets:
        flows.setdefault(twins.flow_of(packet), []).append(twins.comparable(packet))
    return flows


@pytest.mark.parametrize("datapath", ["compiled", "portable"])
def test_what_a_hostile_peer_sends_arrives_as_it_was_and_harms_nobody(
    lab: Lab, ours: Program, datapath: str
) -> None:
    if isinstance(ours, Userspace):
        ours = dataclasses.replace(ours, environment=(*ours.environment, ("PYWG_DATAPATH", datapath)))
    tunnel = cases.connected(lab, installed("wireguard-go"), ours)
    friend, station = tunnel.left, tunnel.right

    behind = lab.host("behind")
    link = lab.join(
        station.machine, behind, ["10.88.0.1/24", "fd88::1/64"], [f"{BEHIND[0]}/24", f"{BEHIND[1]}/64"]
    )
    make_router(station.machine.host)
    tool(station.machine, "sniff.py", link.left_interface, "only-offloads").wait()
    sniffer = tool(behind, "sniff.py", link.right_interface)

    enemy, key = lab.host("enemy"), Key.generate()
    lab.join(enemy, station.machine, ["198.51.100.66/24"], ["198.51.100.1/24"])
    enemy.write("/run/key", key.private)
    station.wg("set", WG, "peer", key.public, "allowed-ips", f"{HOSTILE[0]}/32,{HOSTILE[1]}/128")

    before = resident(station)
    paced = Paced(friend, station, seconds=8)
    paced.wait_until_it_flows()
    eventually("the sniffer listens", lambda: "ready" in sniffer.output())
    sender = enemy.start(
        *(sys.executable, TOOLS / "hostile_peer.py", "/run/key", station.key.public),
        *("198.51.100.1", str(PORT), str(ROUNDS)),
        *(f"{source}={destination}" for source, destination in zip(HOSTILE, BEHIND, strict=True)),
    )
    outcome = paced.outcome()
    sent = int(sender.wait(60))

    packets = [
        packet
        for _ in range(ROUNDS)
        for source, destination in zip(HOSTILE, BEHIND, strict=True)
        for trick in TRICKS
        for packet in trick.packets(source, destination)
    ]
    assert sent == len(packets) > 1000
    expected = [there for packet in packets if (there := forwarded(packet)) is not None]

    def seen() -> list[bytes]:
        lines = sniffer.output().split("\n")[1:-1]
        return [packet for packet in map(bytes.fromhex, lines) if is_from_the_tunnel(packet)]

    eventually("all has arrived behind", lambda: len(seen()) >= len(expected))
    arrived = by_flow(seen())
    for flow, those in by_flow(expected).items():
        assert arrived.pop(flow) == those
    assert arrived == {}, "nothing arrives that may not"

    assert outcome.lost == []
    assert outcome.duplicated == 0
    assert resident(station) - before < 32 * MEBIBYTE
    assert station.task is not None
    assert "Traceback" not in station.task.output()
    Transfer(friend, station, 5_000_000).check()


def is_from_the_tunnel(packet: bytes) -> bool:
    """Whether it is neither the kernels' talk among neighbours nor an answer to our own tricks."""
    protocol = packet[9] if packet[0] >> 4 == 4 else packet[6]
    return protocol in (6, 17, 44, 60)
