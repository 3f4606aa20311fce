"""The daemon and `pywg up` where calls fail that make things: at the start, at a change, at link up."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import resource
import socket
import subprocess
import sys
import time

import pytest

from tests.system import cases
from tests.system.conftest import installed
from tests.system.faults import ANY, NETLINK, SUCCEED, UDP, UNIX, Faults, option
from tests.system.net import Host, Lab, eventually
from tests.system.programs import Program
from tests.system.test_faults import answers, assert_unharmed, binary_of, pings, process_output
from tests.system.test_up_down import PYWG, assert_nothing_left, status_of
from tests.system.tunnel import PORT, WG, Key, Tunnel

TUNSETIFF, TUNGETIFF, TUNSETOFFLOAD, TUNGETDEVNETNS = 0x400454CA, 0x800454D2, 0x400454D0, 0x54E3
TUNSETVNETHDRSZ = 0x400454D8
SIOCSIFMTU, SIOCGIFMTU, SIOCGIFFLAGS = 0x8922, 0x8921, 0x8913
UDP_SEGMENT, UDP_GRO = 103, 104
SOL_NETLINK, LISTEN_ALL_NSID = 270, 8

Call = tuple[str, int, int]
"""Name, kind of descriptor, and which of them, as `Faults.failing` takes it."""


def numbers(names: str) -> list[int]:
    return [getattr(errno, name) for name in names.split()]


FATAL: list[tuple[Call, str, str]] = [
    (("open", ANY, 0), "ENOENT ENODEV ENXIO", "/dev/net/tun is missing. Load the module with 'modprobe tun'"),
    (("open", ANY, 0), "EACCES EPERM", "it needs root or CAP_NET_ADMIN"),
    (("open", ANY, 0), "EMFILE", "`ulimit -n`"),
    (("open", ANY, 0), "ENFILE", "`sysctl fs.file-nr`"),
    (("open", ANY, 0), "ENOMEM", "`free -m`"),
    (("ioctl", ANY, TUNSETIFF), "EPERM", "it needs root or CAP_NET_ADMIN"),
    (("ioctl", ANY, TUNSETIFF), "EBUSY", "the interface wg0 exists already"),
    (("ioctl", ANY, TUNSETIFF), "ENOMEM ENFILE ENOBUFS", "the tunnel device wg0 cannot be made"),
    (("ioctl", ANY, TUNGETIFF), "EINVAL ENOMEM", "the tunnel device wg0 cannot be used"),
    (("ioctl", ANY, SIOCSIFMTU), "EPERM EINVAL EBUSY", "the MTU of wg0 cannot be set to 1420"),
    (("socket", ANY, socket.AF_UNIX), "EMFILE ENFILE ENOMEM ENOBUFS", "wg0"),
    (("socket", ANY, socket.AF_UNIX), "EACCES EAFNOSUPPORT", "wg0"),
    (("bind", UNIX, 0), "EACCES EADDRINUSE EADDRNOTAVAIL EROFS ENOSPC ENOMEM", "wg0.sock cannot be made"),
]
"""What the daemon cannot do without, what it fails with, and what the sentence has in it."""

DISPENSABLE: list[tuple[Call, str]] = [
    (("ioctl", ANY, TUNSETOFFLOAD), "EINVAL"),
    (("ioctl", ANY, TUNSETVNETHDRSZ), "EINVAL"),
    (("ioctl", ANY, TUNGETDEVNETNS), "EINVAL"),
    (("ioctl", ANY, SIOCGIFFLAGS), "EPERM"),
    (("ioctl", ANY, SIOCGIFMTU), "EPERM"),
    (("socket", ANY, socket.AF_INET6), "EAFNOSUPPORT"),
    (("bind", UDP, socket.AF_INET6), "EADDRNOTAVAIL"),
    (("socket", ANY, socket.AF_NETLINK), "EAFNOSUPPORT EMFILE"),
    (("bind", NETLINK, 0), "ENOMEM"),
    (("recv", NETLINK, 0), "ENOBUFS EINTR"),
    (("setsockopt", NETLINK, option(SOL_NETLINK, LISTEN_ALL_NSID)), "EPERM"),
    *[
        (("setsockopt", UDP, option(level, name)), "ENOPROTOOPT")
        for level, name in (
            (socket.SOL_UDP, UDP_SEGMENT),
            (socket.SOL_UDP, UDP_GRO),
            (socket.SOL_SOCKET, 33),  # SO_RCVBUFFORCE
            (socket.SOL_SOCKET, 32),  # SO_SNDBUFFORCE
            (socket.SOL_IP, 8),  # IP_PKTINFO
            (socket.SOL_IP, 13),  # IP_RECVTOS
            (socket.SOL_IP, 10),  # IP_MTU_DISCOVER
            (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
            (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS),
        )
    ],
]
"""What it goes on without."""

DATAPATHS_DIFFER = {socket.AF_INET6, option(socket.SOL_UDP, UDP_SEGMENT), option(socket.SOL_UDP, UDP_GRO)}
"""Which of these calls both data paths are tried without."""


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_without_what_it_needs_the_daemon_says_so_in_a_sentence_and_leaves_nothing(
    lab: Lab, ours: Program, faults: Faults, background: bool
) -> None:
    host = lab.host("host")
    cases_here = FATAL[::3] if background else FATAL
    for (call, kind, only), names, said in cases_here:
        for number in numbers(names)[: 1 if background else None]:
            with faults.failing(call, kind, number, only=only):
                command = [binary_of(ours), *([] if background else ["-f"]), WG]
                status, printed = status_of(host, *command, env=faults.environment("pywgd"))
                what = f"{call} with {errno.errorcode[number]}: {printed}"
                assert faults.failed(call), what
            assert status == 1, what
            assert len(printed.splitlines()) == 1, what
            assert printed.startswith("pywgd: wg0: "), what
            assert said in printed, what
            assert_nothing_left(host)


def test_a_limit_of_open_files_that_is_too_low_is_raised_or_told(lab: Lab, ours: Program) -> None:
    host = lab.host("host")
    for options in ("-f", ""):
        command = f"ulimit -n 20; exec {binary_of(ours)} {options} {WG}"
        status, printed = status_of(host, "bash", "-c", command)
        assert status == 1
        assert printed.startswith("pywgd: wg0: this process may open only 20 files; pywgd needs 64")
        assert_nothing_left(host)
    host.run("bash", "-c", f"ulimit -S -n 20; exec {binary_of(ours)} {WG}")
    host.run("ip", "link", "set", WG, "up")
    eventually("it listens", lambda: host.run("wg", "show", WG, "listen-port") != "0\n")


@pytest.mark.parametrize("datapath", ["compiled", "portable"])
def test_without_what_is_only_useful_the_daemon_carries_packets(
    lab: Lab, ours: Program, faults: Faults, datapath: str
) -> None:
    tunnel = cases.connected(lab, faults.into(ours, PYWG_DATAPATH=datapath), installed("wireguard-go"))
    station, peer = tunnel.left, tunnel.right
    for (call, kind, only), names in DISPENSABLE:
        if datapath == "portable" and only not in DATAPATHS_DIFFER:
            continue
        for name in names.split():
            station.stop()
            with faults.failing(call, kind, getattr(errno, name), only=only, every=1 + (call == "recv")):
                station.start()
                station.setconf(station.settings)
                eventually(f"packets pass without {call} ({name})", lambda: pings(station, peer, 1) == 0, 20)
                assert faults.failed(call), f"{call} {only:#x} did not fail"
            assert_unharmed(station)


def test_a_port_that_cannot_be_opened_is_told_and_the_old_one_stays(faulty: Tunnel, faults: Faults) -> None:
    station, peer = faulty.left, faulty.right
    told = {
        "socket": "EMFILE ENFILE ENOMEM ENOBUFS EACCES",
        "bind": "EACCES EADDRINUSE ENOMEM",
        "getsockname": "ENOBUFS",
        "setsockopt": "ENOPROTOOPT",
    }
    families = {"socket": socket.AF_INET, "bind": socket.AF_INET6, "getsockname": 0}
    families["setsockopt"] = option(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    for call, names in told.items():
        for number in numbers(names):
            kind = ANY if call == "socket" else UDP
            with faults.failing(call, kind, number, only=families[call]):
                status, printed = status_of(station.machine.host, "wg", "set", WG, "listen-port", "5002")
                assert faults.failed(call), call
            assert (status, printed) == (1, f"Unable to modify interface: {os.strerror(number)}")
            assert pings(station, peer, 4) == 0, "the old port stays"
            assert station.wg("show", WG, "listen-port") == f"{PORT}\n"
    mark = option(socket.SOL_SOCKET, socket.SO_MARK)
    for number in numbers("EPERM ENOMEM"):
        with faults.failing("setsockopt", UDP, number, only=mark):
            status, printed = status_of(station.machine.host, "wg", "set", WG, "fwmark", "7")
        assert (status, printed) == (1, f"Unable to modify interface: {os.strerror(number)}")
    station.wg("set", WG, "listen-port", "5002")
    eventually("packets pass by the new port", lambda: pings(station, peer, 1) == 0)
    assert_unharmed(station)


def test_a_device_that_cannot_go_up_says_why_and_goes_up_by_itself_when_it_can(
    faulty: Tunnel, faults: Faults
) -> None:
    station, peer = faulty.left, faulty.right
    run = station.machine.run
    for call, kind, only, names in (
        ("socket", ANY, socket.AF_INET, "EMFILE ENOBUFS"),
        ("bind", UDP, socket.AF_INET, "EADDRINUSE EACCES"),
        ("getsockname", UDP, 0, "ENOBUFS"),
    ):
        for number in numbers(names):
            run("ip", "link", "set", WG, "down")
            eventually("it is down", lambda: "down" in process_output(station).splitlines()[-1])
            with faults.failing(call, kind, number, only=only):
                run("ip", "link", "set", WG, "up")
                eventually("it is told", lambda: "can't go up" in process_output(station).splitlines()[-1])
                said = process_output(station).splitlines()[-1]
                if number != errno.EADDRINUSE:
                    assert os.strerror(number) in said
                if number == errno.ENOBUFS:
                    time.sleep(1.2)
                    assert said == process_output(station).splitlines()[-1], "it is told once"
                assert answers(station)
            eventually("packets pass", lambda: pings(station, peer, 1) == 0)
    assert_unharmed(station)


def test_a_client_that_cannot_be_taken_harms_nobody(faulty: Tunnel, faults: Faults) -> None:
    station, peer = faulty.left, faulty.right
    path = str(station.machine.host.path(f"/run/wireguard/{WG}.sock"))
    for number in numbers("ECONNABORTED EINTR EMFILE ENFILE ENOBUFS ENOMEM EPERM EPROTO"):
        with faults.failing("accept", ANY, number, every=2 if number == errno.EINTR else 1):
            with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
                one.connect(path)
                other.connect(path)
                eventually(f"accept fails with {errno.errorcode[number]}", lambda: faults.failed("accept"))
            assert pings(station, peer, 8) == 0
        eventually(f"it answers after {errno.errorcode[number]}", lambda: answers(station))
        assert_unharmed(station)


DEFAULT_ROUTE = """[Interface]
PrivateKey = {private}
Address = 10.9.0.1/24, fd09::1/64
[Peer]
PublicKey = {public}
Endpoint = 192.0.2.9:51820
AllowedIPs = 0.0.0.0/0, ::/0
"""


def everything(host: Host) -> str:
    """All that `up` may change on a host, but for the empty chains that firewalls leave."""
    commands = ["ip -br link", "ip -br addr", "ip route show table all", "ip -6 route show table all"]
    commands += ["ip rule", "ip -6 rule", "ls /run/wireguard /run/pywg 2>/dev/null", "nft list tables"]
    lines = host.run("sh", "-c", "; ".join(commands), check=False).splitlines()
    return "\n".join(line for line in lines if not line.startswith("table ip"))


def test_wherever_netlink_fails_up_undoes_everything_and_says_what_failed(lab: Lab, faults: Faults) -> None:
    host = lab.host("host")
    keys = Key.generate(), Key.generate()
    path = "/run/wg0.conf"
    host.write(path, DEFAULT_ROUTE.format(private=keys[0].private, public=keys[1].public))
    host.run(PYWG, "up", path)
    host.run(PYWG, "down", path)
    before = everything(host)
    failed = 0
    for call, kind, only, error, calls, times in (
        ("send", NETLINK, 0, errno.ENOBUFS, range(2, 32, 7), 2),  # what gets no answer is asked once more
        ("recv", NETLINK, 0, errno.ENOMEM, range(2, 32, 8), 1),
        ("socket", ANY, socket.AF_NETLINK, errno.EMFILE, (1,), 1),
    ):
        for number in calls:
            with faults.failing(call, kind, error, every=-number, only=only, times=times):
                status, printed = status_of(host, PYWG, "up", path, env=faults.environment("pywg"))
                assert faults.failed(call), f"there is no {call} number {number}"
            *_, last = printed.splitlines()
            what = f"{call} number {number}: {printed}"
            assert "Traceback" not in printed, what
            if status == 0:  # it goes on without what it was for
                host.run(PYWG, "down", path)
            else:
                failed += 1
                assert status == 1, what
                assert last.startswith(("pywg: ", f"{path}:")), what
                assert os.strerror(error) in last, what
            assert everything(host) == before, what
    assert failed > 3


RELOADED = """[Interface]
PrivateKey = {private}
Address = {address}
MTU = {mtu}
[Peer]
PublicKey = {public}
AllowedIPs = {allowed}
"""


def test_a_lost_answer_of_netlink_stops_no_reload(lab: Lab, faults: Faults) -> None:
    host, path = lab.host("host"), "/run/wg0.conf"
    keys = {"private": Key.generate().private, "public": Key.generate().public}
    one = {"address": "10.9.0.1/24, fd09::1/64", "mtu": 1400, "allowed": "10.8.0.0/24, fd08::/64"}
    other = {"address": "10.9.0.2/24, fd0a::1/64", "mtu": 1410, "allowed": "10.7.0.0/24, fd07::/64"}
    files = [RELOADED.format(**keys, **values) for values in (one, other)]
    states = []
    for file in files:
        host.write(path, file)
        host.run(PYWG, "reload" if states else "up", path)
        states.append(everything(host))
    assert states[0] != states[1]
    for turn, number in enumerate(range(11, 23, 3)):
        host.write(path, files[turn % 2])
        with faults.failing("recv", NETLINK, errno.ENOBUFS, every=-number):
            status, printed = status_of(host, PYWG, "reload", path, env=faults.environment("pywg"))
            assert faults.failed("recv"), f"there is no recv number {number}"
        assert status == 0, f"recv number {number}: {printed}"
        assert everything(host) == states[turn % 2], f"recv number {number}: {printed}"


BOUND = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
"""Without these rights root, too, is bound by a folder's mode, and may still read pywg itself."""


def test_who_may_not_look_into_the_folder_of_files_is_told_to_be_root(lab: Lab) -> None:
    host = lab.host("host")
    host.run("sh", "-c", "mkdir -p /etc/wireguard && mount -t tmpfs -o mode=000 tmpfs /etc/wireguard")
    for command in ("up", "down", "reload", "save", "strip", "doctor"):
        status, printed = status_of(host, *BOUND, PYWG, command, "wg0")
        assert status == 1, (command, printed)
        assert "root" in printed, (command, printed)
        assert len(printed.splitlines()) == 1, (command, printed)


def test_who_may_not_look_into_the_folder_of_sockets_is_told_to_be_root(lab: Lab) -> None:
    host = lab.host("host")
    host.run("sh", "-c", "mkdir -p /run/wireguard && chmod 000 /run/wireguard")
    for command in ("show", "show wg0", "showconf wg0", "set wg0 fwmark 1", "events wg0", "capture wg0 -w x"):
        status, printed = status_of(host, *BOUND, PYWG, *command.split())
        assert status == 1, (command, printed)
        assert printed.endswith("Permission denied; try again as root"), (command, printed)
        assert len(printed.splitlines()) == 1, (command, printed)


LOCKED = """
import json
from pywg.host.privileges import keep_secrets_in_memory

def kilobytes(of):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(of))

before = kilobytes("VmLck")
keep_secrets_in_memory()
after = kilobytes("VmLck")
more = bytearray(64 << 20)
print(json.dumps([before, after, kilobytes("VmLck"), kilobytes("VmRSS")]))
"""


def test_memory_is_locked_where_its_limit_may_be_raised_and_grows_as_ever(faults: Faults) -> None:
    """Raising the limit takes CAP_SYS_RESOURCE, which containers rarely have: here it only seems to be."""
    if not _may_lock():
        pytest.skip("locking memory takes CAP_IPC_LOCK in the first user namespace")
    name = pathlib.Path(sys.executable).name
    with faults.failing("setrlimit", ANY, SUCCEED, only=resource.RLIMIT_MEMLOCK):
        done = subprocess.run(
            [sys.executable, "-c", LOCKED],
            env={**os.environ, **faults.environment(name)},
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        )
        assert faults.failed("setrlimit") == 1
    before, after, grown, resident = json.loads(done.stdout)
    assert before == 0
    assert after > 10_000
    assert grown > after + 60_000
    assert resident < grown, "what is not used takes no memory"


def _may_lock() -> bool:
    """Whether that is so; the root of a user namespace has the capability, and may not."""
    program = "import ctypes; raise SystemExit(ctypes.CDLL(None).mlockall(1) != 0)"
    return subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
