"""A guest: Linux with WireGuard in its kernel, run as an ordinary program inside a host's namespace.

It sees the files of the outside read-only, so the same programs run in it, and has a /run of its own. Its
uplink is bridged to whatever interface it is told to attach, so it stands on the wire in its host's place.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

from tests.system.net import TOOLS, CommandError, Host

INIT = pathlib.Path(__file__).resolve().parents[1] / "peers" / "kernel" / "guest-init"
UPLINK = "vec0"


class GuestTask:
    """A command in the background of a guest, in a process group of its own."""

    def __init__(self, guest: Guest, stem: str, group: int, command: str) -> None:
        self._guest, self._stem, self._group, self.command = guest, stem, group, command
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            said = self._guest.sh(f"cat {self._stem}.status 2>/dev/null || true").strip()
            self._status = int(said) if said else None
        return self._status

    def output(self) -> str:
        return self._guest.sh(f"cat {self._stem}.out")

    def wait(self, timeout: float = 30.0, *, check: bool = True) -> str:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise CommandError(f"{self.command} still runs after {timeout:g} s:\n{self.output()}")
            time.sleep(0.05)
        if check and self._status:
            raise CommandError(f"{self.command} ended with {self._status}:\n{self.output()}")
        return self.output()

    def signal(self, number: int) -> None:
        self._guest.sh(f"kill -{number} -- -{self._group} 2>/dev/null || true")

    def stop(self) -> None:
        self.signal(signal.SIGKILL)


class Guest:
    """One running guest; a `Machine` for the tests."""

    def __init__(self, kernel: pathlib.Path, host: Host, *, boot_timeout: float = 60.0) -> None:
        self.name = f"{host.name}-guest"
        self._host = host
        self._count = itertools.count()
        self._lock = threading.Lock()
        self._buffer = b""
        for command in (
            "ip link add name br0 mtu 1500 type bridge mcast_snooping 0",
            "ip tuntap add mode tap name tap0 vnet_hdr",
            "ip link set tap0 master br0 up",
            "ip link set br0 up",
        ):
            host.run(*command.split())
        home = host.directory / f"{self.name}.home"
        home.mkdir()
        # gro=1: without it TCP towards the guest collapses. TMPDIR: the guest's memory is a file there.
        # fmt: off
        self._process = subprocess.Popen(
            ["nsenter", f"--target={host.pid}", "--net", "--mount", "--", str(kernel), "mem=256M",
             "rootfstype=hostfs", "rootflags=/", "ro", f"init={INIT}", "con0=fd:0,fd:1", "con=none",
             "ssl=none", "quiet", f"{UPLINK}:transport=tap,ifname=tap0,depth=128,gro=1"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": "/dev/shm"},
        )
        # fmt: on
        self.release = self._read_until(b"@ready", boot_timeout)[1].strip()
        self.sh(f"ip link set {UPLINK} up")
        host.start(sys.executable, "-IS", TOOLS / "nudge.py", "tap0")

    @property
    def host(self) -> Host:
        return self._host

    def _read_until(self, mark: bytes, timeout: float) -> tuple[list[str], str]:
        """The lines before the one that begins with `mark`, and what follows the mark on that one."""
        assert self._process.stdout is not None
        deadline, lines = time.monotonic() + timeout, list[str]()
        while True:
            while b"\n" in self._buffer:
                line, self._buffer = self._buffer.split(b"\n", 1)
                line = line.rstrip(b"\r")
                if line.startswith(mark):
                    return lines, line[len(mark) :].decode()
                lines.append(line.decode(errors="replace"))
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise CommandError(f"{self.name}: nothing in {timeout:g} s after:\n" + "\n".join(lines[-40:]))
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise CommandError(f"{self.name}: it died after:\n" + "\n".join(lines[-40:]))
            self._buffer += chunk

    def sh(self, line: str, *, timeout: float = 30.0, check: bool = True) -> str:
        """Run one line of shell and return what it printed on both streams; raises CommandError."""
        assert "\n" not in line
        assert self._process.stdin is not None
        with self._lock:
            # The token tells this answer from a late one of a command that was given up.
            token = f"@{next(self._count)}"
            self._process.stdin.write(f"{token} {line}\n".encode())
            lines, status = self._read_until(token.encode() + b" ", timeout)
        text = "\n".join(lines)  # the guest ends the last line before it gives the status
        if check and int(status):
            raise CommandError(f"{self.name}: {line} ended with {status}:\n{text}")
        return text

    def run(
        self,
        *command: str | os.PathLike[str],
        input: str | None = None,
        timeout: float = 30.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> str:
        line = _line(command, env)
        if input is not None:
            line = f"printf %b {shlex.quote(_escaped(input))} | {line}"
        return self.sh(line, timeout=timeout, check=check)

    def start(self, *command: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> GuestTask:
        stem = f"/run/task{next(self._count)}"
        line = f"exec >{stem}.out 2>&1 </dev/null; {_line(command, env)}; echo $? >{stem}.status"
        group = int(self.sh(f": >{stem}.out; setsid sh -c {shlex.quote(line)} >/dev/null 2>&1 & echo $!"))
        return GuestTask(self, stem, group, f"{self.name}: {_line(command, env)}")

    def write(self, path: str, text: str) -> None:
        target = shlex.quote(path)
        self.sh(f"umask 077; printf %b {shlex.quote(_escaped(text))} >{target}")

    def attach(self, interface: str) -> str:
        self._host.run("ip", "link", "set", interface, "master", "br0")
        return UPLINK

    def kernel_log(self) -> str:
        """What the guest's kernel has said."""
        return self.sh("dmesg --color=never | grep wireguard: || true")

    def close(self) -> None:
        """Turn it off: it has nothing to save."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def _line(command: tuple[str | os.PathLike[str], ...], env: Mapping[str, str] | None) -> str:
    settings = [f"{name}={value}" for name, value in (env or {}).items()]
    words = [*(["env", *settings] if settings else []), *(os.fspath(part) for part in command)]
    return shlex.join(words)


def _escaped(text: str) -> str:
    """`text` as printf's %b reads it, on one line."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")
