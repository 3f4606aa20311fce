"""The daemon on a system that fails it: calls of the data path, disks, descriptors, networks and clocks."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import re
import resource
import signal
import socket
import sys
import time
from collections import Counter
from importlib.util import find_spec

import pytest

from tests.system import cases
from tests.system.conftest import installed, missing
from tests.system.faults import ANY, TUN, UDP, Faults
from tests.system.net import HostTask, Lab, eventually
from tests.system.programs import Program, Userspace
from tests.system.tunnel import WG, Key, Station, Tunnel

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
    if found is None:
        return count  # it did not even begin: there is no route
    return int(found[1]) - int(found[2])


def answers(station: Station) -> bool:
    return station.machine.run("wg", "show", WG, check=False).startswith("interface:")


def binary_of(program: Program) -> str:
    assert isinstance(program, Userspace)
    path = program.path()
    assert path is not None
    return path


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
                before = drops(station)
                with faults.failing(call, kind, getattr(errno, name), every=3):
                    lost = pings(peer, station)
                failed = faults.failed(call)
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
        used, began = processor_seconds(station), time.monotonic()
        with faults.failing(call, kind, error):
            pings(peer, station)
            time.sleep(0.5)
        share = (processor_seconds(station) - used) / (time.monotonic() - began)
        assert faults.failed(call), f"{call} did not fail"
        assert share < 0.3, f"{share:.0%} of a processor while {call} fails"
        eventually(f"packets pass after {call} failed", lambda: pings(peer, station) == 0)
        assert_unharmed(station)


# --- What else a system runs out of, or takes away. ---------------------------------------------------------


def test_out_of_descriptors_packets_go_on_and_commands_work_again_when_there_are_some(
    lab: Lab, ours: Program
) -> None:
    tunnel = cases.connected(lab, installed("wireguard-go"), ours)
    peer, station = tunnel.left, tunnel.right
    assert isinstance(station.task, HostTask)
    before = resource.prlimit(station.task.pid, resource.RLIMIT_NOFILE)
    used = max(int(entry.name) for entry in (process_of(station) / "fd").iterdir()) + 1
    resource.prlimit(station.task.pid, resource.RLIMIT_NOFILE, (used, before[1]))
    seconds, began = processor_seconds(station), time.monotonic()
    path = str(station.machine.host.path(f"/run/wireguard/{WG}.sock"))
    with contextlib.ExitStack() as held:
        for _ in range(20):
            client = held.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(path)
        eventually("packets go on", lambda: pings(peer, station) == 0)
        time.sleep(1)
        assert (processor_seconds(station) - seconds) / (time.monotonic() - began) < 0.5
    resource.prlimit(station.task.pid, resource.RLIMIT_NOFILE, before)
    eventually("it answers again", lambda: answers(station))
    assert pings(peer, station) == 0
    assert_unharmed(station)


def test_killed_at_any_moment_it_starts_afresh(lab: Lab, ours: Program) -> None:
    tunnel = cases.connected(lab, ours, installed("wireguard-go"))
    station = tunnel.left
    binary = binary_of(ours)
    for number in range(8):
        assert isinstance(station.task, HostTask)
        station.task.signal(signal.SIGKILL)
        station.task.process.wait()
        half_way = station.machine.host.start(binary, "-f", WG)
        time.sleep(0.06 * number)
        half_way.signal(signal.SIGKILL)
        half_way.wait(check=False)
        station.start()
        station.setconf(station.settings)
    eventually("packets pass", lambda: pings(station, tunnel.right, 1) == 0, timeout=30)


def test_a_full_disk_keeps_no_packet_and_up_goes_on_without_its_state(lab: Lab, ours: Program) -> None:
    """The log's disk, and that of the state that `up` keeps."""
    tunnel = cases.connected(lab, ours, installed("wireguard-go"))
    station, peer = tunnel.left, tunnel.right
    run = station.machine.run
    run("sh", "-ec", "mkdir /run/full; mount -t tmpfs -o size=4k tmpfs /run/full")
    run("sh", "-c", "cat /dev/zero >/run/full/log", check=False)
    station.stop()
    command = f"exec {binary_of(ours)} -f {WG} >>/run/full/log 2>&1"
    task = station.machine.host.start("sh", "-c", command, env={"LOG_LEVEL": "debug"})
    station.task, station.is_up = task, False
    eventually("it listens", lambda: answers(station))
    station.setconf(station.settings)
    eventually("packets pass", lambda: pings(station, peer, 1) == 0, timeout=30)
    assert pings(station, peer) == 0
    assert task.poll() is None
    station.machine.write(
        "/run/wg9.conf", f"[Interface]\nPrivateKey = {Key.generate().private}\nAddress = 10.9.0.1/24\n"
    )
    pywg = str(pathlib.Path(sys.executable).with_name("pywg"))
    told = run(pywg, "up", "/run/wg9.conf", env={"PYWG_STATE_DIR": "/run/full"}, check=False)
    assert "No space left on device" in told
    assert "Traceback" not in told
    assert "wg9" in run("ip", "-brief", "link")
    run(pywg, "down", "/run/wg9.conf", env={"PYWG_STATE_DIR": "/run/full"})
    assert "wg9" not in run("ip", "-brief", "link")


def test_the_network_may_go_and_come_be_renamed_and_lose_ipv6(lab: Lab, ours: Program) -> None:
    tunnel = cases.connected(lab, installed("wireguard-go"), ours)
    peer, station = tunnel.left, tunnel.right
    run, uplink = station.machine.run, station.uplink
    changes = {
        "down and up": [f"ip link set {uplink} down", f"ip link set {uplink} up"],
        "renamed": [
            f"ip link set {uplink} down",
            f"ip link set {uplink} name other0",
            "ip link set other0 up",
        ],
        "without IPv6": ["sysctl -qw net.ipv6.conf.all.disable_ipv6=1"],
        "with IPv6": ["sysctl -qw net.ipv6.conf.all.disable_ipv6=0"],
        "tunnel down and up": [f"ip link set {WG} down", f"ip link set {WG} up"],
    }
    for name, commands in changes.items():
        for command in commands:
            run(*command.split())
            pings(station, peer, 4)
        eventually(f"packets pass: {name}", lambda: pings(station, peer, 4) == 0, timeout=30)
        assert_unharmed(station)


def test_a_wall_clock_set_back_harms_no_running_daemon_and_a_restarted_one_tells_of_it(
    faulty: Tunnel, faults: Faults
) -> None:
    station, peer = faulty.left, faulty.right
    faults.set_wall_clock_off(-365 * 86400)
    for state in ("down", "up"):  # the session is forgotten
        station.machine.run("ip", "link", "set", WG, state)
    cases.ping(station, peer)
    assert "wall clock" not in process_output(station)
    faults.set_wall_clock_off(1_700_000_000 - int(time.time()))
    station.restart()
    assert "the wall clock says 2023-11-14" in process_output(station)
    assert pings(station, peer, 1) == 1, "the peer has seen a later time of ours"
    faults.set_wall_clock_off(0)
    cases.ping(station, peer, seconds=20)


def process_output(station: Station) -> str:
    assert station.task is not None
    return station.task.output()


# --- A machine that has slept. ------------------------------------------------------------------------------


def only_peer(station: Station) -> dict[str, object]:
    peers = statistics(station)["peers"]
    assert isinstance(peers, list)
    (peer,) = peers
    assert isinstance(peer, dict)
    return peer


def initiations(station: Station) -> int:
    handshakes = only_peer(station)["handshakes"]
    assert isinstance(handshakes, dict)
    return int(handshakes["initiations_sent"])


@pytest.mark.parametrize("datapath", ["compiled", "portable"])
def test_a_daemon_that_wakes_up_forgets_its_keys_and_the_next_packet_begins_a_session(
    lab: Lab, ours: Program, faults: Faults, datapath: str
) -> None:
    """The clock that counts sleep jumps, the one of the event loop's timers does not: as in a suspend."""
    needs(datapath)
    tunnel = cases.connected(lab, faults.into(ours, PYWG_DATAPATH=datapath), installed("wireguard-go"))
    station, peer = tunnel.left, tunnel.right
    assert pings(station, peer) == 0
    sent, passed = initiations(station), only_peer(station)["tx_packets"]
    faults.sleep(20)
    eventually("the keepalive is sent", lambda: only_peer(station)["tx_packets"] != passed)
    slept = 600
    faults.sleep(slept)
    eventually("keys are forgotten", lambda: "540 s, forgetting all keys" in process_output(station))
    assert only_peer(station)["session_age"] is None
    assert initiations(station) == sent, "nobody has asked for a session"
    assert pings(station, peer) == 0
    assert initiations(station) == sent + 1
    faults.sleep(slept + 60)
    assert pings(station, peer) == 0
    assert initiations(station) == sent + 1, "a session of a minute is as good as new"
    faults.sleep(slept + 130)
    assert pings(station, peer) == 0, "it is still good, while the next one begins"
    eventually("it is renewed after 120 s", lambda: initiations(station) == sent + 2)
    faults.sleep(slept + 130 + 170)
    assert pings(station, peer) == 0
    assert initiations(station) == sent + 3
    assert_unharmed(station)


def test_a_daemon_that_wakes_up_with_persistent_keepalives_calls_by_itself(
    faulty: Tunnel, faults: Faults
) -> None:
    station, peer = faulty.left, faulty.right
    faulty.configure(initiator=station, keepalive=25)
    assert pings(station, peer) == 0
    sent = initiations(station)
    faults.sleep(600)
    eventually("it calls", lambda: initiations(station) == sent + 1)
    eventually("packets pass the other way", lambda: pings(peer, station, 1) == 0)
    assert initiations(station) == sent + 1
    assert_unharmed(station)
