"""The daemon on a system that fails it: calls of the data path, disks, descriptors, networks and clocks."""

from __future__ import annotations

import dataclasses
import errno
import json
import mmap
import os
import pathlib
import re
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

from tests.system import cases
from tests.system.conftest import installed, missing
from tests.system.net import TOOLS, HostTask, Lab, eventually
from tests.system.programs import Program, Userspace
from tests.system.tunnel import WG, Station

CALLS = ("sendmsg", "sendmmsg", "recvmsg", "recvmmsg", "read", "write", "writev", "poll", "epoll")
CALLS += ("socket", "bind", "setsockopt", "accept", "recv", "ioctl")
ANY, UDP, TUN, NETLINK, UNIX = range(5)
RULE = struct.Struct("=iiiiQQ")


class Faults:
    """Makes calls of one daemon fail; tests/tools/faults.c does it."""

    def __init__(self, library: pathlib.Path, directory: pathlib.Path) -> None:
        self._library, self._path = library, directory / "faults"
        self._path.write_bytes(bytes(RULE.size * len(CALLS)))
        with self._path.open("r+b") as file:
            self._rules = mmap.mmap(file.fileno(), 0)

    def into(self, program: Program, **environment: str) -> Program:
        """The program, with the library in it."""
        assert isinstance(program, Userspace)
        more = {"LD_PRELOAD": self._library, "PYWG_FAULTS": self._path, "PYWG_FAULTS_IN": program.binary}
        added = tuple((name, str(value)) for name, value in {**more, **environment}.items())
        return dataclasses.replace(program, environment=(*program.environment, *added))

    @contextmanager
    def failing(self, call: str, kind: int, error: int, every: int = 1) -> Iterator[None]:
        """Let every so manieth call on a descriptor of this kind fail."""
        at = CALLS.index(call) * RULE.size
        struct.pack_into("=ii", self._rules, at + 4, kind, every)
        struct.pack_into("=i", self._rules, at, error)
        try:
            yield
        finally:
            struct.pack_into("=i", self._rules, at, 0)

    def failed(self, call: str) -> int:
        """How many calls have failed so far."""
        return int(RULE.unpack_from(self._rules, CALLS.index(call) * RULE.size)[5])


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The library that makes calls fail, compiled."""
    path = tmp_path_factory.mktemp("faults") / "faults.so"
    command = ["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", path, TOOLS / "faults.c", "-ldl"]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def faults(library: pathlib.Path, tmp_path: pathlib.Path) -> Faults:
    return Faults(library, tmp_path)


# --- What is looked at. -------------------------------------------------------------------------------------


def process_of(station: Station) -> pathlib.Path:
    assert isinstance(station.task, HostTask)
    return pathlib.Path(f"/proc/{station.task.pid}")


def processor_seconds(station: Station) -> float:
    """What the station's program has used of the processor."""
    fields = (process_of(station) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def statistics(station: Station) -> dict[str, object]:
    """What the daemon has counted."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(station.machine.host.path(f"/run/wireguard/{WG}.sock")))
        client.sendall(b"stats=1\n\n")
        answer = b""
        while not answer.endswith(b"\n\n"):
            answer += client.recv(65536)
    told = json.loads(answer.splitlines()[0])
    assert isinstance(told, dict)
    return told


def drops(station: Station) -> Counter[str]:
    told = statistics(station)["drops"]
    assert isinstance(told, dict)
    return Counter(told)


def pings(source: Station, target: Station, count: int = 24) -> int:
    """Send so many, eight at once, then one each 5 ms; how many were not answered."""
    told = source.machine.run(
        *f"ping -q -c {count} -l 8 -i 0.005 -W 0.3 -s 600 {target.inner[0]}".split(), check=False
    )
    found = re.search(r"(\d+) packets transmitted, (\d+) received", told)
    assert found, told
    return int(found[1]) - int(found[2])


def needs(datapath: str) -> None:
    if datapath == "compiled" and find_spec("pywg.datapath.compiled") is None:
        missing("the compiled data path is not built: make test-unit builds it where there is a compiler")


def assert_unharmed(station: Station) -> None:
    assert station.task is not None
    assert station.task.poll() is None, station.task.output()
    assert "Traceback" not in station.task.output()


# --- System calls of the data path. -------------------------------------------------------------------------

REFUSED = (
    "EPERM EACCES ENETUNREACH EHOSTUNREACH ENETDOWN EINVAL EMSGSIZE EIO ENOMEM ENODEV EADDRNOTAVAIL ENOBUFS"
)
BROKEN = "EIO ENOMEM EINVAL EFAULT ENOBUFS"

Case = tuple[str, int, str]
SENDING: dict[str, list[Case]] = {
    "compiled": [("sendmmsg", UDP, REFUSED), ("writev", TUN, BROKEN)],
    "portable": [("sendmsg", UDP, REFUSED), ("writev", TUN, BROKEN)],
}
"""Calls that lose what they were to pass on, and what they fail with."""
WAITING: dict[str, list[Case]] = {
    "compiled": [
        ("sendmmsg", UDP, "EAGAIN EINTR"),
        ("recvmmsg", UDP, f"EAGAIN EINTR EHOSTUNREACH {BROKEN}"),
        ("read", TUN, f"EAGAIN EINTR {BROKEN}"),
        ("writev", TUN, "EINTR"),
        ("poll", ANY, "EINTR ENOMEM EINVAL"),
    ],
    "portable": [
        ("sendmsg", UDP, "EAGAIN EINTR"),
        ("recvmsg", UDP, f"EAGAIN EINTR EHOSTUNREACH {BROKEN}"),
        ("read", TUN, f"EAGAIN EINTR {BROKEN}"),
        ("writev", TUN, "EINTR"),
        ("epoll", ANY, "EINTR"),
    ],
}
"""Calls that lose nothing: what they were for is still there, and they are made again."""


ATTEMPTS = 3
"""On a busy machine an answer may come too late to be counted by `ping`."""


@pytest.mark.parametrize("datapath", ["compiled", "portable"])
def test_whatever_call_of_the_data_path_fails_what_is_lost_is_counted_and_packets_go_on(
    lab: Lab, ours: Program, faults: Faults, datapath: str
) -> None:
    needs(datapath)
    tunnel = cases.connected(lab, installed("wireguard-go"), faults.into(ours, PYWG_DATAPATH=datapath))
    peer, station = tunnel.left, tunnel.right
    for call, kind, names in (*SENDING[datapath], *WAITING[datapath]):
        loses = (call, kind, names) in SENDING[datapath]
        for name in names.split():
            for attempt in range(ATTEMPTS):
                failed, before = faults.failed(call), drops(station)
                with faults.failing(call, kind, getattr(errno, name), every=3):
                    lost = pings(peer, station)
                failed = faults.failed(call) - failed
                counted = (drops(station) - before)["tun-write-failed" if call == "writev" else "send-failed"]
                if failed and lost == counted and (loses or not lost):
                    break
                assert attempt < ATTEMPTS - 1, f"{call} with {name}: {failed=} {lost=} {counted=}"
            assert_unharmed(station)
    eventually("no ping is lost any more", lambda: pings(peer, station) == 0)


@pytest.mark.parametrize("datapath", ["compiled", "portable"])
def test_calls_that_go_on_failing_burn_no_processor_time(
    lab: Lab, ours: Program, faults: Faults, datapath: str
) -> None:
    needs(datapath)
    tunnel = cases.connected(lab, installed("wireguard-go"), faults.into(ours, PYWG_DATAPATH=datapath))
    peer, station = tunnel.left, tunnel.right
    send, receive = ("sendmmsg", "recvmmsg") if datapath == "compiled" else ("sendmsg", "recvmsg")
    every_call = [("writev", TUN, errno.EIO), (send, UDP, errno.EPERM), (receive, UDP, errno.ENOMEM)]
    every_call += [("read", TUN, errno.EIO)]
    for call, kind, error in [
        *every_call,
        *([("poll", ANY, errno.ENOMEM)] if datapath == "compiled" else []),
    ]:
        used, failed, began = processor_seconds(station), faults.failed(call), time.monotonic()
        with faults.failing(call, kind, error):
            pings(peer, station)
            time.sleep(0.5)
        share = (processor_seconds(station) - used) / (time.monotonic() - began)
        assert faults.failed(call) > failed, f"{call} did not fail"
        assert share < 0.3, f"{share:.0%} of a processor while {call} fails"
        eventually(f"packets pass after {call} failed", lambda: pings(peer, station) == 0)
        assert_unharmed(station)
