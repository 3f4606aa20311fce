"""The configuration socket of the real daemon: beside wireguard-go's on generated requests, and abused."""

from __future__ import annotations

import dataclasses
import pathlib
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pywg.device.snapshot import DeviceSnapshot
from pywg.noise.keys import PrivateKey
from pywg.uapi.client import Client
from tests.system.commands import INTERFACE
from tests.system.conftest import missing
from tests.system.net import Host, HostTask, Lab
from tests.system.programs import PROGRAMS

pytestmark = pytest.mark.usefixtures("namespaces")

PRIVATE = "c809f3e5317e9575c9b5ed78b638b7ce530dabe85ddab614220241801ddf0669"
ALICE, BOB, CAROL = "01" * 32, "02" * 32, "03" * 32
PSK = "fe" * 32
TAKEN_PORT = 7777


@dataclasses.dataclass
class Daemon:
    """One daemon on a host of its own."""

    host: Host
    task: HostTask

    @property
    def directory(self) -> pathlib.Path:
        return self.host.path("/run/wireguard")

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.directory / f"{INTERFACE}.sock"))
        connection.settimeout(30)
        return connection

    def ask(self, request: bytes) -> bytes:
        """Everything that is answered to a request, when nothing comes behind it."""
        with self.connect() as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            with suppress(ConnectionResetError):
                while part := connection.recv(65536):
                    answer += part
            return answer

    def set(self, *lines: str) -> bytes:
        return self.ask(("\n".join(["set=1", *lines]) + "\n\n").encode())

    def get(self) -> DeviceSnapshot:
        with Client.open(INTERFACE, self.directory) as client:
            return client.get()

    def told(self) -> list[object]:
        """What the daemon has been told, comparable between two of them."""
        device = self.get()
        port = device.listen_port if device.listen_port < 32768 else "free"
        peers = sorted(
            (
                bytes(peer.public_key),
                bytes(peer.preshared_key),
                str(peer.endpoint),
                peer.persistent_keepalive_interval,
                [str(network) for network in peer.allowed_ips],
            )
            for peer in device.peers
        )
        return [device.private_key, port, device.fwmark, *peers]

    def peak_memory(self) -> int:
        """The most bytes of memory that the daemon has had."""
        status = pathlib.Path(f"/proc/{self.daemon_pid()}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def daemon_pid(self) -> int:
        """nsenter replaces itself with the program, so it is the task's own process."""
        return self.task.pid


def bring_up(lab: Lab, name: str) -> Daemon:
    program = PROGRAMS[name]
    if sentence := program.missing():
        missing(sentence)
    host = lab.host(name)
    task = program.bring_up(host, INTERFACE)
    assert isinstance(task, HostTask)
    return Daemon(host, task)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    """Ours and wireguard-go's, with a port taken on both hosts and the interfaces up: ports are bound."""
    with Lab(tmp_path_factory.mktemp("pair")) as lab:
        daemons = bring_up(lab, "pywgd"), bring_up(lab, "wireguard-go")
        for daemon in daemons:
            daemon.host.run("sh", "-c", f"exec ncat -u -l -k {TAKEN_PORT} >/dev/null 2>&1 &")
            daemon.host.run("ip", "link", "set", INTERFACE, "up")
        yield daemons


@pytest.fixture
def ours(lab: Lab) -> Daemon:
    return bring_up(lab, "pywgd")


# --- Beside wireguard-go. ---------------------------------------------------------------------------------

hex_keys = st.sampled_from([PRIVATE, PSK, "00" * 32, "AB" * 32, "ab" * 31, "xy" * 32, "", "ab " * 21 + "a"])
public_keys = st.sampled_from([ALICE, BOB, CAROL, ALICE, BOB, CAROL, "00" * 32, ALICE.upper(), "01", ""])
numbers = st.sampled_from(["0", "1", "25", "00080", "65535", "65536", "4294967295", "4294967296"])
numbers |= st.sampled_from(["-1", "+1", " 1", "1 ", "0x1", "1_0", "", "9" * 40, "\u0661"])
free_ports = st.sampled_from(["0", "1000", "2000", "00080", "65535", "65536", "x", str(TAKEN_PORT)])
flags = st.sampled_from(["true", "true", "true", "false", "", "1", "TRUE"])
endpoints = st.sampled_from(
    [
        "192.0.2.1:5",
        "[2001:db8::1]:7",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "192.0.2.1",
        "[::1]",
        "::1:5",
        "[[::1]]:5",
    ]
)
endpoints |= st.sampled_from(
    ["[192.0.2.1]:5", "example.com:5", "192.0.2.01:5", "192.0.2.1:007", "", ":5", "[]:5"]
)
networks = st.sampled_from(
    ["10.0.0.0/8", "10.0.0.1/8", "10.1.0.0/16", "0.0.0.0/0", "::/0", "2001:db8::1/32", "1:0:2:0:3:0:4:0/128"]
)
odd_networks = st.sampled_from(
    [
        "10.0.0.0",
        "10.0.0.0/33",
        "10.0.0.0/08",
        "10.0.0.0/",
        "/8",
        "010.0.0.0/8",
        "::/129",
        "fe80::1%lo/64",
        "",
        "/",
    ]
)
network_values = (
    st.builds(str.__add__, st.sampled_from(["", "", "", "-", "+", "--"]), networks) | odd_networks
)


def line(key: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return values.map(lambda value: f"{key}={value}")


device_lines = st.one_of(
    line("private_key", hex_keys),
    line("listen_port", free_ports),
    line("fwmark", numbers),
    line("replace_peers", flags),
)
peer_lines = st.one_of(
    line("preshared_key", hex_keys),
    line("endpoint", endpoints),
    line("persistent_keepalive_interval", numbers),
    line("replace_allowed_ips", flags),
    line("allowed_ip", network_values),
    line("allowed_ip", networks),
    line("update_only", flags),
    line("remove", flags),
    line("protocol_version", st.sampled_from(["1", "2", "01", ""])),
)
stray_lines = (
    device_lines | peer_lines | st.sampled_from(["junk", "=", "a=b", "=b", " ", "\t", "get=1", "x" * 70_000])
)
sections = st.builds(
    lambda key, lines: [f"public_key={key}", *lines], public_keys, st.lists(peer_lines, max_size=5)
)
requests = st.builds(
    lambda device, peers, strays: [*device, *(text for peer in peers for text in peer), *strays],
    st.lists(device_lines, max_size=2),
    st.lists(sections, max_size=3),
    st.lists(stray_lines, max_size=1) | st.just([]),
)


def check(pair: tuple[Daemon, Daemon], lines: list[list[str]], end: str = "\n\n") -> None:
    ours, theirs = pair
    reset = ["replace_peers=true", "private_key=" + "00" * 32, "fwmark=0", "listen_port=0"]
    for daemon in pair:
        assert daemon.set(*reset) == b"errno=0\n\n"
    for request in lines:
        text = ("\n".join(["set=1", *request]) + end).encode()
        answers = [daemon.ask(text) for daemon in pair]
        assert answers[0] == answers[1], request
        assert ours.told() == theirs.told(), request


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(requests, min_size=1, max_size=3))
@example([[f"private_key={PRIVATE}", f"public_key={ALICE}", "allowed_ip=::/0", "endpoint=192.0.2.1:5"]])
@example([[f"public_key={ALICE}", "allowed_ip=::/0"], [f"public_key={BOB}", "allowed_ip=::/0"]])
@example([[f"public_key={ALICE}", "allowed_ip=::/0"], [f"public_key={BOB}", "allowed_ip=-::/0"]])
@example([[f"public_key={ALICE}", f"preshared_key={PSK}"], [f"public_key={ALICE}", "update_only=true"]])
@example([[f"public_key={ALICE}", "remove=true", "allowed_ip=::/0", "remove=false"]])
def test_requests_do_what_they_do_to_wireguard_go(
    pair: tuple[Daemon, Daemon], lines: list[list[str]]
) -> None:
    check(pair, lines)


def test_our_own_key_as_a_peer_is_ignored_as_by_wireguard_go(pair: tuple[Daemon, Daemon]) -> None:
    own = PrivateKey.from_hex(PRIVATE).public_key.hex
    check(
        pair,
        [
            [f"private_key={PRIVATE}", f"public_key={own}", "allowed_ip=::/0", f"public_key={ALICE}"],
            [f"public_key={own}", "allowed_ip=bad"],
            ["private_key=" + "00" * 32, f"public_key={own}", "allowed_ip=::/0"],
            [f"private_key={PRIVATE}"],  # makes the peer ourselves: it goes
        ],
    )


@pytest.mark.parametrize("end", ["", "\n", "\r\n\r\n"], ids=repr)
def test_requests_end_as_with_wireguard_go(pair: tuple[Daemon, Daemon], end: str) -> None:
    check(pair, [[f"public_key={ALICE}", "allowed_ip=::/0"], ["fwmark=5"]], end)


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\n",
        b"get=1",
        b"get=1\n",
        b"get=1\nx",
        b"get=2\n\n",
        b"get=1\r\n\r\n",
        b"set=1",
        b"set=1\n",
        b"set=1\n\n",
        b"set=1\n\nset=1\n\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_odd_requests_are_answered_as_by_wireguard_go(pair: tuple[Daemon, Daemon], request_: bytes) -> None:
    ours, theirs = (daemon.ask(request_) for daemon in pair)
    if request_ == b"set=1\n\nset=1\n\n":
        # wireguard-go loses what arrives with the end of a request; we answer both.
        assert (ours, theirs) == (b"errno=0\n\n" * 2, b"errno=0\n\n")
    elif request_ == b"get=1\n":
        assert ours in (theirs, b"errno=-22\n\n")  # theirs hangs up
    else:
        assert ours == theirs


# --- Under abuse. -----------------------------------------------------------------------------------------

NETWORKS = "\n".join(f"allowed_ip=10.{i >> 16}.{i >> 8 & 255}.{i & 255}/32" for i in range(100_000))


def test_100_000_allowed_ips_in_one_request_hold_up_no_other_client(ours: Daemon) -> None:
    answers: list[bytes] = []
    big = threading.Thread(target=lambda: answers.append(ours.set(f"public_key={ALICE}", NETWORKS)))
    big.start()
    answered = 0
    while big.is_alive():
        assert ours.set(f"fwmark={answered}") == b"errno=0\n\n"
        answered += 1
    big.join()
    assert answers == [b"errno=0\n\n"]
    assert answered > 20
    (peer,) = ours.get().peers
    assert len(peer.allowed_ips) == 100_000


def test_clients_that_stall_or_vanish_or_never_end_harm_nobody(ours: Daemon) -> None:
    assert ours.set(f"public_key={ALICE}", "\n".join(NETWORKS.splitlines()[:20_000])) == b"errno=0\n\n"
    before = ours.peak_memory()
    held = []
    for start in (b"", b"se", b"set=1\n", b"set=1\nfwmark=1\npublic", b"get=1\n", b"get=1\n\n" * 30):
        for _ in range(10):
            connection = ours.connect()
            connection.sendall(start)
            held.append(connection)
    for start in (b"set=1\nfwmark=9\n", b"get=1\n\n", b"x"):
        for _ in range(50):
            with ours.connect() as connection:
                connection.sendall(start)
    for flood in (b"x" * 65536, b"junk=1\n" * 9000, b"allowed_ip=10.0.0.0/8\n" * 3000):
        with ours.connect() as connection, suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(f"set=1\npublic_key={BOB}\n".encode())
            for _ in range(100_000_000 // len(flood) // 10):
                connection.sendall(flood)
    assert ours.set("fwmark=7") == b"errno=0\n\n"
    assert ours.get().fwmark == 7
    for connection in held:
        connection.close()
    assert ours.peak_memory() - before < 48 << 20
    assert ours.task.poll() is None
