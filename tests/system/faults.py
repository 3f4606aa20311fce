"""Makes calls of one program fail, by a library that is preloaded into it: tests/tools/faults.c."""

from __future__ import annotations

import dataclasses
import mmap
import os
import pathlib
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.system.net import TOOLS
from tests.system.programs import Program, Userspace

CALLS = ("sendmsg", "sendmmsg", "recvmsg", "recvmmsg", "read", "write", "writev", "poll", "epoll")
CALLS += ("socket", "bind", "setsockopt", "accept", "recv", "ioctl", "getsockname", "open", "send")
CALLS += ("setrlimit",)
ANY, UDP, TUN, NETLINK, UNIX = range(5)
RULE = struct.Struct("=iiiIQQQ")
CLOCKS = struct.Struct("=qq")
SUCCEED = -1
"""In place of an errno: the call says that it succeeded, and is not made."""


def compile_library(path: pathlib.Path) -> pathlib.Path:
    """Make the library there."""
    command = ["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", path, TOOLS / "faults.c"]
    subprocess.run([*command, "-ldl", "-lpthread"], check=True)
    return path


class Faults:
    """Makes calls of one program fail, and its clocks jump."""

    def __init__(self, library: pathlib.Path, directory: pathlib.Path) -> None:
        self._library, self._path = library, directory / "faults"
        self._path.write_bytes(bytes(RULE.size * len(CALLS) + CLOCKS.size))
        with self._path.open("r+b") as file:
            self._rules = mmap.mmap(file.fileno(), 0)

    def environment(self, name: str) -> dict[str, str]:
        """What brings the library into programs of this name, and leaves all others alone."""
        return {
            "LD_PRELOAD": os.fspath(self._library),
            "PYWG_FAULTS": os.fspath(self._path),
            "PYWG_FAULTS_IN": name,
        }

    def into(self, program: Program, **environment: str) -> Program:
        """The program, with the library in it."""
        assert isinstance(program, Userspace)
        added = {**self.environment(program.binary), **environment}
        return dataclasses.replace(program, environment=(*program.environment, *added.items()))

    @contextmanager
    def failing(
        self, call: str, kind: int, error: int, every: int = 1, *, only: int = 0, times: int = 1
    ) -> Iterator[None]:
        """Let calls on a descriptor of this kind fail: every so manieth, or `times` from number -`every` on.

        only: the family of a socket, `option(level, name)` of setsockopt, the request of an ioctl; 0: any.
        """
        at = CALLS.index(call) * RULE.size
        RULE.pack_into(self._rules, at, 0, kind, every, only, times, 0, 0)
        struct.pack_into("=i", self._rules, at, error)
        try:
            yield
        finally:
            struct.pack_into("=i", self._rules, at, 0)

    def set_wall_clock_off(self, seconds: int) -> None:
        """Have the wall clock say so much more than is true."""
        struct.pack_into("=q", self._rules, RULE.size * len(CALLS), seconds)

    def sleep(self, seconds: int) -> None:
        """Have the machine wake up from so many seconds of sleep, the only one until now."""
        struct.pack_into("=q", self._rules, RULE.size * len(CALLS) + 8, seconds)

    def failed(self, call: str) -> int:
        """How many calls have failed since they were told to."""
        return int(RULE.unpack_from(self._rules, CALLS.index(call) * RULE.size)[6])


def option(level: int, name: int) -> int:
    """An option of a socket, as `Faults.failing` takes it."""
    return level << 16 | name
