"""Garbage and forgeries on the daemon's real socket while real traffic passes, which does not notice."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import socket

from tests.system import cases
from tests.system.cases import Paced, Transfer
from tests.system.conftest import installed
from tests.system.net import HostTask, Lab, tool
from tests.system.programs import Program
from tests.system.tunnel import PORT, WG, Station, hostport

MEBIBYTE = 1 << 20


def resident(station: Station) -> int:
    """The memory of a station's program in bytes."""
    assert isinstance(station.task, HostTask)
    status = pathlib.Path(f"/proc/{station.task.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def test_no_packet_is_lost_or_doubled_while_garbage_and_forgeries_arrive(lab: Lab, ours: Program) -> None:
    tunnel = cases.connected(lab, installed("wireguard-go"), ours)
    peer, station = tunnel.left, tunnel.right
    before = resident(station)
    paced = Paced(peer, station, seconds=10)
    paced.wait_until_it_flows()
    sender = tool(peer.machine, "garbage.py", peer.uplink, station.outer[0], PORT, 9)
    outcome = paced.outcome()
    sent = json.loads(sender.wait())
    assert sent["random"] > 1000
    assert min(sent[name] for name in ("replayed", "flipped", "cut", "longer", "retyped")) > 200
    assert outcome.lost == []
    assert outcome.duplicated == 0
    assert station.peer_endpoint() == hostport(peer.outer[0])
    assert resident(station) - before < 32 * MEBIBYTE
    assert station.task is not None
    assert "Traceback" not in station.task.output()
    Transfer(station, peer, 10_000_000).check()


def test_bombs_on_the_configuration_socket_harm_nobody(lab: Lab, ours: Program) -> None:
    """Thousands of connections, a line of 100 MB, writers of a byte at a time; while packets pass."""
    tunnel = cases.connected(lab, installed("wireguard-go"), ours)
    peer, station = tunnel.left, tunnel.right
    path = str(station.machine.host.path(f"/run/wireguard/{WG}.sock"))
    before = resident(station)
    paced = Paced(peer, station, seconds=4)
    paced.wait_until_it_flows()

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)  # blocking, so that a full backlog is waited for
        connection.settimeout(30)
        return connection

    with contextlib.ExitStack() as held:
        for number in range(3000):
            connection = connect()
            if number < 500:
                held.callback(connection.close)
            else:
                connection.close()
        slow = held.enter_context(connect())
        slow.sendall(b"set=1\nfwm")
        endless = held.enter_context(connect())
        endless.sendall(b"set=1\n")
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < 100_000_000:
                endless.sendall(b"x" * 65536)
                sent += 65536
        assert sent < 10_000_000, "it is hung up on"
        for byte in b"ark=1\n\n":
            slow.sendall(bytes([byte]))
        assert slow.recv(100) == b"errno=0\n\n"
        assert station.wg("show", WG, "fwmark").strip() == "0x1"
    outcome = paced.outcome()
    assert outcome.lost == []
    assert resident(station) - before < 32 * MEBIBYTE
    assert station.task is not None
    assert "Traceback" not in station.task.output()
