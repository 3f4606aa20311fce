"""The programs that speak WireGuard: how each is found, started and stopped. All are then driven by `wg`.

`Userspace` covers every program with wireguard-go's command line; `Kernel` is a guest whose kernel has it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
from typing import Protocol

from tests.system.guest import Guest
from tests.system.net import Host, Lab, Machine, Task, eventually

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "pywg"
INSTALL = "tests/peers/install"
PLAIN = (("NO_COLOR", "1"),)


class Program(Protocol):
    """One implementation of WireGuard."""

    @property
    def name(self) -> str:
        """What the tables call it."""

    def missing(self) -> str | None:
        """None when it can run here; else a sentence that says what installs it."""

    def machine(self, lab: Lab, host: Host) -> Machine:
        """The machine on which it runs when it is to stand at `host`."""

    def bring_up(self, machine: Machine, interface: str) -> Task | None:
        """Make the interface; returns the program's process, if there is one."""

    def take_down(self, machine: Machine, interface: str, task: Task | None) -> None:
        """Remove the interface, and end the process."""


@dataclasses.dataclass(frozen=True)
class Userspace:
    """A program that takes the place of wireguard-go: it runs as long as its interface exists."""

    name: str
    binary: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    def path(self) -> str | None:
        """Where the binary is: our own environment, the cache, then PATH."""
        folders = [REPOSITORY / ".venv" / "bin", CACHE / "bin"]
        return shutil.which(self.binary, path=":".join(map(str, folders))) or shutil.which(self.binary)

    def missing(self) -> str | None:
        if self.path():
            return None
        return f"{self.name} is not installed: {INSTALL} {self.name}"

    def machine(self, lab: Lab, host: Host) -> Machine:
        return host

    def bring_up(self, machine: Machine, interface: str) -> Task:
        path = self.path()
        assert path is not None
        task = machine.start(path, *self.arguments, interface, env=dict(self.environment))
        socket = machine.host.path(f"/run/wireguard/{interface}.sock")

        def listens() -> bool:
            assert task.poll() is None, f"{self.name} ended at once:\n{task.output()}"
            return socket.exists() and "interface:" in machine.run("wg", "show", interface, check=False)

        eventually(f"{self.name} answers on {interface}.sock", listens)
        return task

    def take_down(self, machine: Machine, interface: str, task: Task | None) -> None:
        assert task is not None
        task.stop()
        eventually(
            f"{interface} is gone",
            lambda: "does not exist" in machine.run("ip", "link", "show", interface, check=False),
        )


@dataclasses.dataclass(frozen=True)
class Kernel:
    """WireGuard of Linux itself, in a guest."""

    name: str = "kernel"

    def path(self) -> pathlib.Path | None:
        """The guest's kernel: $PYWG_KERNEL_PEER, then the cache."""
        named = os.environ.get("PYWG_KERNEL_PEER")
        for candidate in ([pathlib.Path(named)] if named else []) + [CACHE / "linux.wg"]:
            if os.access(candidate, os.X_OK):
                return candidate
        return None

    def missing(self) -> str | None:
        return None if self.path() else f"no kernel for a guest: {INSTALL} kernel"

    def machine(self, lab: Lab, host: Host) -> Machine:
        path = self.path()
        assert path is not None
        guest = Guest(path, host)
        lab.closers.append(guest.close)
        lab.witnesses.append((f"{guest.name}'s kernel log", guest.kernel_log))
        return guest

    def bring_up(self, machine: Machine, interface: str) -> None:
        machine.run("ip", "link", "add", "name", interface, "type", "wireguard")

    def take_down(self, machine: Machine, interface: str, task: Task | None) -> None:
        machine.run("ip", "link", "del", interface)


PROGRAMS: dict[str, Program] = {
    program.name: program
    for program in (
        Userspace("pywgd", "pywgd", ("-f",), (("LOG_LEVEL", "verbose"),)),
        Userspace("wireguard-go", "wireguard", ("-f",), (("LOG_LEVEL", "verbose"),)),
        Userspace("boringtun", "boringtun-cli", ("-f", "-v", "debug", "--disable-drop-privileges"), PLAIN),
        Userspace("gotatun", "gotatun", ("-f", "-v", "debug", "--disable-drop-privileges"), PLAIN),
        Kernel(),
    )
}
OTHERS = [name for name in PROGRAMS if name != "pywgd"]


def with_unconnected_sockets(program: Program) -> Program:
    """boringtun connects a socket to each peer, unless told not to; other programs stay as they are."""
    if isinstance(program, Userspace) and program.name == "boringtun":
        return dataclasses.replace(program, arguments=(*program.arguments, "--disable-connected-udp"))
    return program
