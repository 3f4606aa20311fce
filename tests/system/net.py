"""Hosts made of network namespaces, for tests that run real programs: `Lab` makes, joins and removes them.

A host is a network and a mount namespace with its own /run (so its own UAPI sockets) and no name outside this
process, so any number of test processes run at once. The namespaces live as long as a holder process whose
standard input this process keeps open; when that closes, for whatever reason, every process inside is killed.
Works as root and as the root of a user namespace.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self, TypeVar

TOOLS = pathlib.Path(__file__).resolve().parents[1] / "tools"

T = TypeVar("T")


class CommandError(AssertionError):
    """A command ended with a status other than 0, or did not end in time."""


def eventually(what: str, question: Callable[[], T], timeout: float = 10.0, every: float = 0.02) -> T:
    """Ask until the answer is true, then return it; fail with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(every)


class Task(Protocol):
    """A program started in the background on a machine."""

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""

    def output(self) -> str:
        """What it has printed so far, on both streams."""

    def wait(self, timeout: float = 30.0, *, check: bool = True) -> str:
        """Wait for its end and return what it printed; raises CommandError."""

    def signal(self, number: int) -> None:
        """Send it a signal."""

    def stop(self) -> None:
        """End it: SIGTERM, after five seconds SIGKILL."""


class Machine(Protocol):
    """Something with its own network, where commands run: a namespace, or a guest with its own kernel."""

    name: str

    def run(
        self,
        *command: str | os.PathLike[str],
        input: str | None = None,
        timeout: float = 30.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> str:
        """Run a command to its end and return what it printed on both streams; raises CommandError."""

    def start(self, *command: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> Task:
        """Start a command in the background."""

    def write(self, path: str, text: str) -> None:
        """Write a file of mode 600 under the machine's own /run (or another file system of its own)."""

    def attach(self, interface: str) -> str:
        """Take over the host's `interface` as an uplink; returns the name it has on this machine."""

    @property
    def host(self) -> Host:
        """The namespace the machine lives in."""


class HostTask:
    """A process in a host's namespaces; its output goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: pathlib.Path, command: str) -> None:
        self.process, self.log, self.command = process, log, command

    @property
    def pid(self) -> int:
        return self.process.pid

    def poll(self) -> int | None:
        return self.process.poll()

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, timeout: float = 30.0, *, check: bool = True) -> str:
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise CommandError(f"{self.command} still runs after {timeout:g} s:\n{self.output()}") from None
        if check and status:
            raise CommandError(f"{self.command} ended with {status}:\n{self.output()}")
        return self.output()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Host:
    """One network and mount namespace."""

    def __init__(self, name: str, directory: pathlib.Path) -> None:
        self.name, self.directory = name, directory
        self._count = itertools.count()
        self._links = itertools.count()
        self._tasks: list[HostTask] = []
        self._holder = subprocess.Popen(
            [
                "unshare",
                "--net",
                "--mount",
                "--",
                sys.executable,
                "-I",
                "-S",
                str(TOOLS / "hold_namespaces.py"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            self.close()
            raise CommandError(f"no namespaces for the host {name}")

    @property
    def pid(self) -> int:
        """The process whose /proc/PID/ns are the host's namespaces (for nsenter and `ip link ... netns`)."""
        return self._holder.pid

    @property
    def host(self) -> Host:
        return self

    def path(self, path: str) -> pathlib.Path:
        """Where a file that only the host sees can be reached from outside."""
        return pathlib.Path(f"/proc/{self.pid}/root{path}")

    def write(self, path: str, text: str) -> None:
        target = self.path(path)
        target.touch(0o600)
        target.write_text(text)

    def _inside(self, command: tuple[str | os.PathLike[str], ...]) -> list[str]:
        return [
            "nsenter",
            f"--target={self.pid}",
            "--net",
            "--mount",
            "--",
            *(os.fspath(part) for part in command),
        ]

    def run(
        self,
        *command: str | os.PathLike[str],
        input: str | None = None,
        timeout: float = 30.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> str:
        try:
            done = subprocess.run(
                self._inside(command),
                input=input,
                stdin=subprocess.DEVNULL if input is None else None,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=timeout,
                env={**os.environ, **env} if env else None,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            printed = (error.stdout or b"").decode(errors="replace")
            raise CommandError(
                f"{self.name}: {_shown(command)} still ran after {timeout:g} s:\n{printed}"
            ) from None
        if check and done.returncode:
            raise CommandError(f"{self.name}: {_shown(command)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def start(self, *command: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> HostTask:
        program = pathlib.Path(command[0]).name
        log = self.directory / f"{self.name}-{next(self._count):02}-{program}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                self._inside(command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **env} if env else None,
            )
        task = HostTask(process, log, f"{self.name}: {_shown(command)}")
        self._tasks.append(task)
        return task

    def attach(self, interface: str) -> str:
        return interface

    def next_interface(self) -> str:
        """A name for one more interface: eth0, eth1, ..."""
        return f"eth{next(self._links)}"

    def close(self) -> None:
        """Kill whatever runs in the host and let its namespaces go."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        try:
            self._holder.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._holder.pid, signal.SIGKILL)
            self._holder.wait()
        self._holder.stdout.close()
        for task in self._tasks:
            task.process.wait(10)


def _shown(command: tuple[str | os.PathLike[str], ...]) -> str:
    return " ".join(os.fspath(part) for part in command)


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """One wire between two machines: what its ends are called there, and where all of it can be captured."""

    left: Machine
    left_interface: str
    right: Machine
    right_interface: str
    tap_host: Host
    tap_interface: str


class Lab:
    """Makes hosts and joins them; a context manager that removes everything at its end.

    with Lab(directory) as lab:
        left, right = lab.host("left"), lab.host("right")
        lab.join(left, right, ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"])
        left.run("ping", "-c1", "192.0.2.2")
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.hosts: list[Host] = []
        self.closers: list[Callable[[], None]] = []
        self.witnesses: list[tuple[str, Callable[[], str]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything; safe to call twice."""
        while self.closers:
            self.closers.pop()()
        while self.hosts:
            self.hosts.pop().close()

    def evidence(self, lines: int = 60) -> str:
        """For a failure's report: what the programs printed, and what `self.witnesses` say."""
        texts = [(log.name, log.read_text(errors="replace")) for log in sorted(self.directory.glob("*.log"))]
        for name, witness in self.witnesses:
            try:
                texts.append((name, witness()))
            except Exception as error:
                texts.append((name, f"{type(error).__name__}: {error}"))
        return "\n".join(
            f"--- {name}\n" + "\n".join(text.splitlines()[-lines:]) for name, text in texts if text.strip()
        )

    def host(self, name: str) -> Host:
        """One more host; nothing but a loopback interface is in it."""
        host = Host(name, self.directory)
        self.hosts.append(host)
        return host

    def join(
        self,
        left: Machine,
        right: Machine,
        left_addresses: list[str],
        right_addresses: list[str],
        *,
        mtu: int = 1500,
    ) -> Link:
        """Join two machines by a veth pair and give its ends these addresses (CIDR)."""
        left_end, right_end = left.host.next_interface(), right.host.next_interface()
        left.host.run(
            *f"ip link add name {left_end} mtu {mtu} type veth".split(),
            *f"peer name {right_end} mtu {mtu} netns {right.host.pid}".split(),
        )
        left.host.run("ip", "link", "set", left_end, "up")
        right.host.run("ip", "link", "set", right_end, "up")
        link = Link(left, left.attach(left_end), right, right.attach(right_end), left.host, left_end)
        for machine, interface, addresses in (
            (left, link.left_interface, left_addresses),
            (right, link.right_interface, right_addresses),
        ):
            for address in addresses:
                add_address(machine, interface, address)
        return link


def add_address(machine: Machine, interface: str, address: str) -> None:
    """Give an interface one more address (CIDR), usable at once."""
    nodad = ["nodad"] if ":" in address else []
    machine.run("ip", "addr", "add", address, "dev", interface, *nodad)


def make_router(host: Host, *, nat_out: str | None = None, entries_last: int = 2) -> None:
    """Let `host` forward packets; with `nat_out`, hide what leaves by that interface behind its address.

    The entries of the translation table for UDP last `entries_last` seconds after the last packet.
    """
    settings = {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1}
    if nat_out:
        settings["netfilter/nf_conntrack_udp_timeout"] = entries_last
        settings["netfilter/nf_conntrack_udp_timeout_stream"] = entries_last
        families = "".join(
            f"table {family} nat {{\n chain out {{\n  type nat hook postrouting priority 100\n"
            f'  oifname "{nat_out}" masquerade\n }}\n}}\n'
            for family in ("ip", "ip6")
        )
        host.run("nft", "-f", "-", input=families)
    for name, value in settings.items():
        host.run("sh", "-c", f"echo {value} >/proc/sys/net/{name}")


def tool(machine: Machine, name: str, *arguments: object) -> Task:
    """Start one of the scripts in tests/tools on a machine."""
    return machine.start(sys.executable, "-IS", TOOLS / name, *map(str, arguments))
