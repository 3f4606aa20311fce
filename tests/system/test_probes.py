"""What bpftrace sees through the probes is what happened; the one-liners are those of the documents."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest

from pywg.datapath import describe
from tests.documents import ROOT, Page
from tests.probes import attached, probes_of
from tests.system.cases import ping
from tests.system.conftest import missing
from tests.system.net import HostTask, Lab, eventually
from tests.system.programs import Program
from tests.system.tunnel import WG, Station, Tunnel, make_tunnel

ONE_LINERS = [
    block.text for block in Page(ROOT / "docs/reference/probes.md").blocks() if "usdt:" in block.text
]
DAEMON = "$(pgrep -f 'pywgd.* wg0$')"
READY = 60.0
"""Seconds in which bpftrace has compiled and attached, on a machine that has much else to do."""


@pytest.fixture(scope="module", autouse=True)
def tracing() -> None:
    """bpftrace is there, and the kernel lets it trace; if it forbids that, the tests are skipped."""
    if not describe().startswith("compiled"):
        pytest.skip(f"the probes are in the compiled data path: {describe()}")
    if shutil.which("bpftrace") is None:
        missing("bpftrace is not installed: tools/system-packages test")
    # This attaches a probe to a function of bpftrace's own.
    done = subprocess.run(
        ["bpftrace", "-e", "BEGIN { exit(); }"], capture_output=True, text=True, timeout=READY
    )
    if done.returncode:
        forbidden = re.search(
            r".*(?:not permitted|denied|as the root user|/sys/.*No such file).*", done.stderr
        )
        assert forbidden, done.stderr
        pytest.skip(f"the kernel forbids tracing here: {forbidden[0]}")


@pytest.fixture
def tunnel(lab: Lab, ours: Program) -> Tunnel:
    """Nothing has gone through it yet."""
    made = make_tunnel(lab, ours, ours)
    made.configure(initiator=made.left)
    return made


def daemon(station: Station) -> int:
    assert isinstance(station.task, HostTask)
    return station.task.pid


class Tracer:
    """A one-liner that runs, attached; what it prints is known when it has ended."""

    def __init__(self, wanted: str, watched: Station, directory: pathlib.Path) -> None:
        (text,) = [text for text in ONE_LINERS if wanted in text]
        # Of all daemons here that have a wg0, this one. `exec` so that the signal reaches bpftrace.
        command = text.replace(f'"{DAEMON}"', str(daemon(watched))).replace("bpftrace ", "exec bpftrace ", 1)
        self._log = directory / f"{len(list(directory.iterdir()))}.trace"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", command],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"},
            )
        try:
            eventually("bpftrace has attached", lambda: self._is_attached(text, daemon(watched)), READY)
        except BaseException:
            self._kill()
            raise

    def _is_attached(self, text: str, pid: int) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        module = next(
            pathlib.Path(line.split()[-1])
            for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
            if "/datapath/compiled." in line
        )
        probes = [probe for probe in probes_of(module) if f":pywg:{probe.name}" in text]
        assert probes
        # A probe is counted before its program is there; when all are, bpftrace sleeps.
        sleeps_in = pathlib.Path(f"/proc/{self._process.pid}/wchan").read_text()
        return (
            all(attached(pid, module, probe) for probe in probes)
            and "ep" in sleeps_in
            and "poll" in sleeps_in
        )

    def end(self) -> str:
        """What it saw."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(READY)
        return self._log.read_text()

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def _kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def short(key: str) -> str:
    return f"{key[:4]}…{key[39:43]}"


def statistics(station: Station) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(station.machine.host.path(f"/run/wireguard/{WG}.sock")))
        client.sendall(b"stats=1\n\n")
        with client.makefile() as answer:
            return dict(json.loads(answer.readline()))


def bursts(station: Station) -> tuple[int, int]:
    counts = statistics(station)["bursts"]
    return counts["out"]["count"], counts["in"]["count"]


def handshake_anew(tunnel: Tunnel) -> None:
    """Left forgets its peer and adds it again, and a handshake lets a ping through."""
    tunnel.left.wg("set", WG, "peer", tunnel.right.key.public, "remove")
    tunnel.left.setconf(tunnel.left.settings)
    assert tunnel.left.latest_handshake() == 0
    ping(tunnel.left, tunnel.right, seconds=20)
    assert tunnel.left.latest_handshake() > 0


@pytest.mark.parametrize(
    "tool", ["bpftrace -l usdt:{module}:*", "tplist-bpfcc -l {module}", "readelf --notes --wide {module}"]
)
def test_the_tools_list_every_probe(tool: str) -> None:
    from pywg.datapath import compiled

    module = pathlib.Path(compiled.__file__)
    command = tool.format(module=module).split()
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    said = subprocess.run(command, capture_output=True, text=True, timeout=READY, check=True).stdout
    known = {probe.name for probe in probes_of(module)}
    assert known
    assert set(re.findall(r"(?:pywg:|Name: )(\w+)", said)) == known


def test_bpftrace_counts_the_handshakes_that_happened(tunnel: Tunnel, tmp_path: pathlib.Path) -> None:
    key = short(tunnel.right.key.public)
    with (
        Tracer("@begun", tunnel.left, tmp_path) as by_peer,
        Tracer("$module", tunnel.left, tmp_path) as everywhere,
    ):
        for _ in range(3):
            handshake_anew(tunnel)
        seen = by_peer.end()
        assert f"@ended[{key}, ]: 3\n" in seen
        begun = re.search(rf"@begun\[{key}, \]: (\d+)\n", seen)
        assert begun
        assert int(begun[1]) >= 3
        lines = everywhere.end().splitlines()
    assert len([line for line in lines if line == f"{daemon(tunnel.left)} {key} "]) == 3
    other_side = f"{daemon(tunnel.right)} {short(tunnel.left.key.public)} "
    assert len([line for line in lines if line == other_side]) == 3


def test_bpftrace_sees_drops_with_their_reasons(tunnel: Tunnel, tmp_path: pathlib.Path) -> None:
    with Tracer("pywg:drop", tunnel.left, tmp_path) as tracer:
        for _ in range(7):  # nothing of WireGuard's
            tunnel.right.machine.run("bash", "-c", f"echo >/dev/udp/{tunnel.left.outer[0]}/51820")
        tunnel.left.machine.run("ping", "-c2", "-i0.2", "-W5", "10.77.0.99", check=False)  # nobody's address
        ping(tunnel.left, tunnel.right)  # behind all that in the socket's queue
        seen = tracer.end()
    # The data path found out about the datagrams, the control plane about the packets.
    assert re.search(r"@\[truncated, in\]: 7\n", seen), seen
    assert re.search(r"@\[no-route, out\]: 2\n", seen), seen


def test_bpftrace_times_the_bursts_that_the_daemon_counts(tunnel: Tunnel, tmp_path: pathlib.Path) -> None:
    ping(tunnel.left, tunnel.right)
    before = bursts(tunnel.left)
    with (
        Tracer("@us", tunnel.left, tmp_path) as times,
        Tracer("@packets", tunnel.left, tmp_path) as packets,
    ):
        begun = bursts(tunnel.left)
        tunnel.left.machine.run("ping", "-c20", "-i0.02", tunnel.right.inner[0])
        ended = bursts(tunnel.left)
        histograms = times.end() + packets.end()
    after = bursts(tunnel.left)
    for place, direction in enumerate(("out", "in")):
        assert ended[place] - begun[place] >= 20
        for name in ("us", "packets"):
            found = re.search(rf"@{name}\[{direction}\]: *\n((?:[\[(].*\n)+)", histograms)
            assert found, histograms
            counted = sum(int(count) for count in re.findall(r"[\])] +(\d+) \|", found[1]))
            # Packets of the system's own may have passed before and after.
            assert ended[place] - begun[place] <= counted <= after[place] - before[place]
