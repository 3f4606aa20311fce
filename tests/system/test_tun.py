"""Real tunnel devices: followed through all that can be done to them, and their offloads with real TCP.

Each scenario runs inside a host of its own, as a program: this very file, with the scenario's name.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import hashlib
import os
import pathlib
import select
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from pywg.datapath.offload import VNET_HDR, Coalescer, split_untrusted
from pywg.errors import PywgError
from pywg.tun.base import TunGoneError, TunOffload, TunState
from pywg.tun.linux import ALL_OFFLOADS, LinuxTun
from tests.system.net import Lab

pytestmark = pytest.mark.usefixtures("namespaces")

ROOT = pathlib.Path(__file__).resolve().parents[2]
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 1, 2, 0x1000, 0x4000


def inside_a_host(scenario: Callable[[], None]) -> Callable[[Lab], None]:
    @functools.wraps(scenario)
    def test(lab: Lab) -> None:
        host = lab.host("box")
        host.run(sys.executable, __file__, scenario.__name__, env={"PYTHONPATH": str(ROOT)}, timeout=60)

    del test.__wrapped__  # type: ignore[attr-defined]  # pytest would look for the scenario's own arguments
    SCENARIOS[scenario.__name__] = scenario
    return test


SCENARIOS: dict[str, Callable[[], None]] = {}


def ip(*words: object) -> None:
    subprocess.run(["ip", *(str(word) for word in words)], check=True)


@contextmanager
def another_namespace() -> Iterator[int]:
    """The process number that stands for a new network namespace."""
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=-1, stdout=-1) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield holder.pid
        holder.communicate()


def ip_there(pid: int, *words: object) -> None:
    there = ["nsenter", f"--target={pid}", "--net", "ip"]
    subprocess.run([*there, *(str(word) for word in words)], check=True)


def state_becomes(tun: LinuxTun, mtu: int, up: bool) -> None:
    """Wait for `changes_fileno` until the state is that."""
    while (state := tun.state()) != TunState(mtu, up):
        assert select.select([tun.changes_fileno()], [], [], 5)[0], f"nothing more is told, still {state}"


def raised(function: Callable[[], object]) -> Exception:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was wrong")


def sentence(function: Callable[[], object]) -> str:
    error = raised(function)
    assert type(error) is PywgError
    return str(error)


def open_device(name: str, flags: int) -> int:
    """As another program would, before it hands the descriptor on."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("=16sH22x", name.encode(), flags))
    return fd


@inside_a_host
def test_a_new_device_is_down_with_its_mtu_and_gone_when_closed() -> None:
    tun = LinuxTun.create("wg0", 1380)
    assert (tun.name, tun.state()) == ("wg0", TunState(1380, up=False))
    assert tun.read() is None
    assert not os.get_inheritable(tun.fileno())
    tun.close()
    tun.close()
    assert not pathlib.Path("/sys/class/net/wg0").exists()


@inside_a_host
def test_a_change_of_mtu_and_state_is_followed() -> None:
    tun = LinuxTun.create("wg0")
    ip("link", "set", "wg0", "mtu", 1300)
    state_becomes(tun, 1300, up=False)
    ip("link", "set", "wg0", "up")
    state_becomes(tun, 1300, up=True)
    ip("link", "set", "wg0", "down")
    state_becomes(tun, 1300, up=False)
    assert not select.select([tun.changes_fileno()], [], [], 0)[0]


@inside_a_host
def test_a_renamed_device_is_followed() -> None:
    tun = LinuxTun.create("wg0")
    ip("link", "set", "wg0", "name", "tunnel7")
    assert tun.name == "tunnel7"
    ip("link", "set", "tunnel7", "mtu", 1350, "up")
    state_becomes(tun, 1350, up=True)


@inside_a_host
def test_a_device_moved_to_other_namespaces_is_followed() -> None:
    tun = LinuxTun.create("wg0")
    with another_namespace() as first, another_namespace() as second:
        ip("link", "set", "wg0", "netns", first)
        ip("tuntap", "add", "wg0", "mode", "tun")  # one of the same name here must not be taken for it
        ip_there(first, "link", "set", "wg0", "mtu", 1310, "up")
        state_becomes(tun, 1310, up=True)
        ip_there(first, "link", "set", "wg0", "netns", second)
        ip_there(second, "link", "set", "wg0", "mtu", 1320)
        state_becomes(tun, 1320, up=False)
        ip_there(second, "link", "set", "wg0", "up")
        state_becomes(tun, 1320, up=True)
        assert tun.name == "wg0"
        ip_there(second, "link", "delete", "wg0")
        assert isinstance(raised(tun.state), TunGoneError)


@inside_a_host
def test_without_the_right_to_look_elsewhere_the_last_mtu_stays() -> None:
    tun = LinuxTun.create("wg0", 1333)
    with another_namespace() as elsewhere:
        ip("link", "set", "wg0", "netns", elsewhere)
        drop_capabilities()
        assert tun.state().mtu == 1333
        assert tun.name == "wg0"


def drop_capabilities() -> None:
    """Of this process, for good (capset(2) with nothing)."""
    import ctypes

    header = struct.pack("=II", 0x20080522, 0)
    assert ctypes.CDLL(None, use_errno=True).capset(header, bytes(24)) == 0


@inside_a_host
def test_a_removed_device_is_noticed() -> None:
    tun = LinuxTun.create("wg0")
    ip("link", "delete", "wg0")
    assert select.select([tun.changes_fileno()], [], [], 5)[0]
    assert select.select([tun.fileno()], [], [], 5)[0], "the descriptor turns readable too"
    for use in (tun.read, tun.state, lambda: tun.write([b"\x45" + bytes(40)])):
        error = raised(use)
        assert isinstance(error, TunGoneError)
        assert str(error) == "the tunnel device wg0 was removed"


@inside_a_host
def test_a_device_that_is_down_refuses_packets_and_works_again_when_up() -> None:
    tun = LinuxTun.create("wg0", want=TunOffload())
    packet = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20, 0, 0, 64, 59, 0, bytes(4), bytes(4))
    error = raised(lambda: tun.write([packet]))
    assert isinstance(error, OSError)
    assert error.errno == errno.EIO
    ip("link", "set", "wg0", "up")
    tun.write([packet])


@inside_a_host
def test_every_combination_of_offloads_can_be_had() -> None:
    for want in (ALL_OFFLOADS, TunOffload(vnet_hdr=True, tso=True), TunOffload(vnet_hdr=True), TunOffload()):
        tun = LinuxTun.create("wg0", want=want)
        assert tun.offload == want
        ip("addr", "add", "192.0.2.1/24", "dev", "wg0")
        ip("link", "set", "wg0", "up")
        subprocess.run(["ping", "-c1", "-W0.1", "192.0.2.2"], stdout=subprocess.DEVNULL)
        frames = list(iter(tun.read, None))
        start = VNET_HDR.size if want.vnet_hdr else 0
        assert any(frame[start] == 0x45 and frame[start + 9] == 1 for frame in frames)
        tun.close()


@inside_a_host
def test_what_is_wrong_with_a_name_is_told() -> None:
    for name in ("", "x" * 16, "a/b", "a b", "..", "a:b"):
        assert f"'{name}' is no interface name" in sentence(lambda name=name: LinuxTun.create(name))
    assert (
        sentence(lambda: LinuxTun.create("lo"))
        == "the interface lo exists already and is no TUN device of this kind"
    )
    tun = LinuxTun.create("wg0")
    assert "wg0 exists already and is in use" in sentence(lambda: LinuxTun.create("wg0"))
    assert "cannot be set to 70000" in sentence(lambda: tun.set_mtu(70000))


@inside_a_host
def test_a_missing_device_node_is_told_with_what_helps() -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", "/dev/net"], check=True)
    told = sentence(lambda: LinuxTun.create("wg0"))
    assert "/dev/net/tun is missing" in told
    assert "modprobe tun" in told
    assert "mknod /dev/net/tun c 10 200" in told
    assert "--device /dev/net/tun" in told


@inside_a_host
def test_missing_rights_are_told() -> None:
    drop_capabilities()
    assert "it needs root or CAP_NET_ADMIN" in sentence(lambda: LinuxTun.create("wg0"))


@inside_a_host
def test_an_inherited_descriptor_is_taken_over_as_it_was_opened() -> None:
    for flags, want, offload in (
        (IFF_VNET_HDR, ALL_OFFLOADS, ALL_OFFLOADS),
        (IFF_VNET_HDR, TunOffload(), TunOffload(vnet_hdr=True)),
        (0, ALL_OFFLOADS, TunOffload()),
    ):
        fd = open_device("wg3", IFF_TUN | IFF_NO_PI | flags)
        os.set_inheritable(fd, True)
        tun = LinuxTun.from_fd(fd, 1370, want)
        assert (tun.name, tun.offload, tun.state()) == ("wg3", offload, TunState(1370, up=False))
        assert tun.read() is None
        assert not os.get_inheritable(fd)
        tun.close()
        assert not pathlib.Path("/sys/class/net/wg3").exists()


@inside_a_host
def test_a_descriptor_of_something_else_is_told_and_closed() -> None:
    for fd, told in (
        (os.open("/dev/null", os.O_RDWR), "is no tunnel device"),
        (os.open("/dev/net/tun", os.O_RDWR), "is no tunnel device"),
        (open_device("tap0", IFF_TAP | IFF_NO_PI), "is a TAP device; it must be a TUN device"),
    ):
        assert told in sentence(lambda fd=fd: LinuxTun.from_fd(fd))
        assert not pathlib.Path(f"/proc/self/fd/{fd}").exists()
    assert "is no tunnel device: Bad file descriptor" in sentence(lambda: LinuxTun.from_fd(999))


SEND = """
import hashlib, random, socket, sys
kind, address = sys.argv[1:]
data = random.Random(1).randbytes(8 << 20)
family = socket.AF_INET6 if ":" in address else socket.AF_INET
if kind == "tcp":
    with socket.create_connection((address, 5001)) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        print(sock.recv(64).decode())
else:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.connect((address, 5001))
    sock.setsockopt(17, 103, 1000)  # UDP_SEGMENT
    whole = hashlib.sha256()
    for at in range(0, 64 * 30_500, 30_500):
        sock.send(data[at : at + 30_500])
        sock.recv(1)
        whole.update(data[at : at + 30_500])
    print(whole.hexdigest())
"""

RECEIVE = """
import hashlib, socket, sys
kind, address = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
whole = hashlib.sha256()
if kind == "tcp":
    with socket.create_server((address, 5001), family=family) as server:
        print("ready", flush=True)
        sock = server.accept()[0]
        while data := sock.recv(1 << 20):
            whole.update(data)
        sock.sendall(whole.hexdigest().encode())
else:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((address, 5001))
    print("ready", flush=True)
    for _ in range(64):
        for length in [1000] * 30 + [500]:
            data, source = sock.recvfrom(2000)
            assert len(data) == length, len(data)
            whole.update(data)
        sock.sendto(b"!", source)
print(whole.hexdigest())
"""


def carry_between_two_devices(
    want: TunOffload, kind: str, addresses: tuple[str, str]
) -> tuple[str, str, list[int]]:
    """Send through one device, split, coalesce, write into the other, which lives elsewhere.

    Returns the hashes at both ends, and of each frame read how many packets it became.
    """
    with (
        closing(LinuxTun.create("near", want=want)) as near,
        closing(LinuxTun.create("far", want=want)) as far,
        another_namespace() as elsewhere,
    ):
        ip("link", "set", "far", "netns", elsewhere)
        for run, name, address in (
            (ip, "near", addresses[0]),
            (functools.partial(ip_there, elsewhere), "far", addresses[1]),
        ):
            nodad = ["nodad"] if ":" in address else []
            run("addr", "add", f"{address}/{64 if nodad else 24}", "dev", name, *nodad)
            run("link", "set", name, "up")
        there = ["nsenter", f"--target={elsewhere}", "--net"]
        with (
            subprocess.Popen(
                [*there, sys.executable, "-c", RECEIVE, kind, addresses[1]], stdout=-1, text=True
            ) as receiver,
        ):
            assert receiver.stdout is not None
            assert receiver.stdout.readline() == "ready\n"
            with subprocess.Popen(
                [sys.executable, "-c", SEND, kind, addresses[1]], stdout=-1, text=True
            ) as sender:
                counts = relay(near, far, lambda: sender.poll() is not None)
                assert sender.stdout is not None
                hashes = sender.stdout.read().strip(), receiver.stdout.read().strip()
    return *hashes, counts


def relay(near: LinuxTun, far: LinuxTun, done: Callable[[], bool]) -> list[int]:
    counts = []
    coalescer = Coalescer(near.offload)
    other = {near.fileno(): (near, far), far.fileno(): (far, near)}
    while not done():
        for fd in select.select(list(other), [], [], 0.1)[0]:
            source, sink = other[fd]
            packets = []
            for _ in range(64):
                frame = source.read()
                if frame is None:
                    break
                split = split_untrusted(frame) if source.offload.vnet_hdr else [frame]
                packets += split
                if source is near:
                    counts.append(len(split))
            for parts in coalescer.frames(packets):
                sink.write(parts)
    return counts


PAIRS = (("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2"))


def carried_whole(kind: str, want: TunOffload) -> list[int]:
    counts: list[int] = []
    for addresses in PAIRS:
        sent, arrived, seen = carry_between_two_devices(want, kind, addresses)
        assert sent == arrived
        assert len(sent) == len(hashlib.sha256().hexdigest())
        counts += [max(seen)]
    return counts


@inside_a_host
def test_tcp_super_packets_of_the_kernel_arrive_whole() -> None:
    assert min(carried_whole("tcp", ALL_OFFLOADS)) > 20


@inside_a_host
def test_udp_super_packets_of_the_kernel_arrive_whole() -> None:
    tun = LinuxTun.create("probe", want=ALL_OFFLOADS)
    uso = tun.offload.uso
    tun.close()
    assert min(carried_whole("udp", ALL_OFFLOADS)) >= (31 if uso else 1)


@inside_a_host
def test_tcp_arrives_whole_without_super_packets() -> None:
    for want in (TunOffload(vnet_hdr=True), TunOffload()):
        assert set(carried_whole("tcp", want)) == {1}


if __name__ == "__main__":
    SCENARIOS[sys.argv[1]]()
