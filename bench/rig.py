"""Two hosts and a tunnel between them, made for one sample and removed after it.

A host is a network and a mount namespace; both run the same program. `left` asks and sends first, `right`
serves. On a far path a third host stands between them, with a relay that delays packets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from bench import procfs
from bench.programs import REPOSITORY, Program
from pywg.noise.keys import PrivateKey
from tests.system.net import CommandError, Host, HostTask, Lab, eventually

WG = "wg0"
PORT = 51820
OUTER = ("192.0.2.1", "192.0.2.129")
OUTER_LENGTH = 25
INNER = ("10.77.0.1", "10.77.0.2")
MTU = 1420
START_LIMIT = 20.0
POLL = 0.0005
RELAY = REPOSITORY / "tests" / "tools" / "relay.py"

T = TypeVar("T")


class MeasureError(Exception):
    """A sample could not be taken; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Far:
    """A path with a rate in Mbit/s, a round trip time and a queue in ms."""

    rate: float
    round_trip: float
    queue: float = 50.0


@dataclasses.dataclass(slots=True)
class Used:
    """CPU seconds of the two daemons while a load ran."""

    left: float = 0.0
    right: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Started:
    """Seconds from the start of a daemon until its socket takes a connection, and until it answers one."""

    accepts: float
    answers: float


@dataclasses.dataclass
class Rig:
    """Two joined hosts, the program that runs there, and its processes by host (none on the bare path)."""

    lab: Lab
    program: Program
    left: Host
    right: Host
    keys: dict[str, PrivateKey]
    daemons: dict[str, HostTask] = dataclasses.field(default_factory=dict)

    @property
    def target(self) -> str:
        """The address by which `left` reaches `right`."""
        return OUTER[1] if self.program.is_bare else INNER[1]

    def start(self, host: Host) -> Started:
        """Start the daemon of a host, and wait until it answers on its socket."""
        path = self.program.path()
        assert path is not None
        place = host.path(f"/run/wireguard/{WG}.sock")
        begun = time.monotonic()
        task = host.start(path, *self.program.options, WG, env=self.program.variables())
        self.daemons[host.name] = task
        deadline = begun + START_LIMIT
        accepts = 0.0
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.settimeout(START_LIMIT)
                client.connect(str(place))
                accepts = accepts or time.monotonic() - begun
                client.sendall(b"get=1\n\n")
                if b"errno=0" in _read_answer(client):
                    return Started(accepts, time.monotonic() - begun)
            if task.poll() is not None or time.monotonic() > deadline:
                raise MeasureError(
                    f"{self.program.name} does not answer on its socket: {task.output().strip()}"
                )
            time.sleep(POLL)

    def run_to_end(self, host: Host, *command: str, env: dict[str, str]) -> None:
        """Run a command and see its end at once; waiting with a limit would look only every 50 ms."""
        task = host.start(*command, env=env)
        deadline = time.monotonic() + START_LIMIT
        while task.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL)
        task.wait(0.1)

    def peer_text(self, side: str, allowed: str = "") -> str:
        """The [Peer] section by which the host `side` knows the other one."""
        other = "right" if side == "left" else "left"
        number = 1 if side == "left" else 0
        lines = ["[Peer]", f"PublicKey = {self.keys[other].public_key.base64}"]
        lines.append(f"AllowedIPs = {allowed or f'{INNER[number]}/32'}")
        if side == "left":
            lines.append(f"Endpoint = {OUTER[1]}:{PORT}")
        return "\n".join(lines) + "\n"

    def interface_text(self, side: str) -> str:
        """The [Interface] section of the host `side`, for `wg setconf`."""
        return f"[Interface]\nPrivateKey = {self.keys[side].base64}\nListenPort = {PORT}\n"

    def setconf(self, host: Host, text: str) -> float:
        """Give a daemon its whole configuration by `wg setconf`; returns the seconds that took."""
        host.write("/run/wg.conf", text)
        begun = time.monotonic()
        host.run("wg", "setconf", WG, "/run/wg.conf", timeout=120)
        return time.monotonic() - begun

    def address(self, host: Host) -> None:
        """Give a tunnel device its address and MTU, and set it up."""
        number = 0 if host.name == "left" else 1
        host.run("ip", "address", "add", f"{INNER[number]}/24", "dev", WG)
        host.run("ip", "link", "set", WG, "mtu", str(MTU), "up")

    def open(self) -> None:
        """Start both daemons with each other as their only peer; on return packets pass."""
        if not self.program.is_bare:
            for host in (self.left, self.right):
                self.start(host)
                self.setconf(host, self.interface_text(host.name) + self.peer_text(host.name))
                self.address(host)
        self.wait_for_ping()

    def wait_for_ping(self) -> None:
        self.left.run("ping", "-q", "-i", "0.02", "-c", "1", "-w", "15", self.target)

    @contextlib.contextmanager
    def cpu(self) -> Iterator[Used]:
        """CPU time of the daemons within the block; read it after the block."""
        pids = {name: task.pid for name, task in self.daemons.items()}
        before = {name: procfs.cpu_seconds(pid) for name, pid in pids.items()}
        used = Used()
        yield used
        for name, pid in pids.items():
            setattr(used, name, procfs.cpu_seconds(pid) - before[name])

    def rss(self, host: Host) -> float:
        """Memory of a host's daemon in MB."""
        return procfs.rss_mb(self.daemons[host.name].pid)

    @contextlib.contextmanager
    def serve(self, port: int, *command: str | os.PathLike[str]) -> Iterator[HostTask]:
        """Run a server on `right`, seen listening on a TCP port before the block begins; ended after it."""
        task = self.right.start(*command)
        try:
            self._await(task, f"listens on port {port}", lambda: procfs.listens(self.right.pid, port))
            yield task
        finally:
            task.stop()

    def _await(self, task: HostTask, what: str, question: Callable[[], T]) -> T:
        def asked() -> T:
            if task.poll() is not None:
                raise MeasureError(f"{task.command} ended: {task.output().strip()[-500:]}")
            return question()

        return eventually(f"{task.command} {what}", asked)


def _read_answer(client: socket.socket) -> bytes:
    """An answer ends with an empty line, or with the connection."""
    answer = b""
    while not answer.endswith(b"\n\n"):
        data = client.recv(65536)
        if not data:
            break
        answer += data
    return answer


@contextlib.contextmanager
def open_hosts(program: Program, far: Far | None = None) -> Iterator[Rig]:
    """Two joined hosts on which nothing runs yet; everything is removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="pywg-bench-") as directory, Lab(pathlib.Path(directory)) as lab:
        left, right = lab.host("left"), lab.host("right")
        addresses = [f"{address}/{OUTER_LENGTH if far else 24}" for address in OUTER]
        if far:
            _join_far(lab, left, right, addresses, far)
        else:
            lab.join(left, right, addresses[:1], addresses[1:])
        keys = {side: PrivateKey.generate(os.urandom) for side in ("left", "right")}
        yield Rig(lab, program, left, right, keys)


def _join_far(lab: Lab, left: Host, right: Host, addresses: list[str], far: Far) -> None:
    middle = lab.host("middle")
    gateways = ("192.0.2.126", "192.0.2.254")
    interfaces = []
    for host, address, gateway in zip((left, right), addresses, gateways, strict=True):
        link = lab.join(host, middle, [address], [f"{gateway}/{OUTER_LENGTH}"])
        interfaces.append(link.right_interface)
        host.run("ip", "route", "add", "default", "via", gateway)
    relay = middle.start(
        sys.executable,
        RELAY,
        *interfaces,
        *("--delay", str(far.round_trip / 2), "--rate", str(far.rate), "--queue", str(far.queue)),
    )
    eventually("the relay is ready", lambda: "ready" in relay.output() or relay.poll() is not None)
    if relay.poll() is not None:
        raise MeasureError(f"the relay ended: {relay.output()}")


@contextlib.contextmanager
def open_rig(program: Program, far: Far | None = None) -> Iterator[Rig]:
    """Two hosts between which packets pass, by the program's tunnel or on the bare path."""
    with open_hosts(program, far) as rig:
        rig.open()
        yield rig


__all__ = ["CommandError", "Far", "MeasureError", "Rig", "Started", "Used", "open_hosts", "open_rig"]
