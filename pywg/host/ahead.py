"""A daemon that is started ahead of its turn, to import what it needs while `up` still reads the file.

Until it is told to begin it makes nothing; when it never is, it ends with whoever started it. This module
imports little, as it is there to be early.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAM_VARIABLE = "WG_QUICK_USERSPACE_IMPLEMENTATION"
"""wg-quick's environment variable: another program to start in pywgd's place."""

WAIT_VARIABLE = "PYWG_WAIT_FD"
"""Where pywgd finds the descriptor that it waits at."""


def daemon_command() -> list[str]:
    """The program that is started with the interface's name: pywgd, as it belongs to this installation."""
    if other := os.environ.get(PROGRAM_VARIABLE):
        return [other]
    beside = Path(sys.executable).with_name("pywgd")
    if os.access(beside, os.X_OK):
        return [str(beside)]
    return [sys.executable, "-m", "pywg.cli.pywgd"]


def daemon_ahead(
    argument: str, backend: str | None, *, dry: bool
) -> contextlib.AbstractContextManager[DaemonAhead | None]:
    """A daemon for what `pywg up` was given, if that is going to need one, as far as can be told now.

    argument: a file or a name, whose interface may turn out to be another one.
    """
    interface = Path(argument).name.removesuffix(".conf")
    by_kernel = backend == "kernel" or (backend is None and Path("/sys/module/wireguard").is_dir())
    if dry or by_kernel or not interface or interface.startswith("-"):
        return contextlib.nullcontext()
    return DaemonAhead(interface)


class DaemonAhead:
    """A context manager: what was not begun in it is ended with it, and has made nothing."""

    def __init__(self, interface: str) -> None:
        """Start pywgd for an interface; where that fails, or it is to be another program, do nothing."""
        self._interface = interface
        self._process: subprocess.Popen[bytes] | None = None
        self._told = -1
        if os.environ.get(PROGRAM_VARIABLE):
            return
        try:
            waiting, self._told = os.pipe()
        except OSError:
            return
        try:
            self._process = subprocess.Popen(
                [*daemon_command(), interface],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[waiting],
                env={**os.environ, WAIT_VARIABLE: str(waiting)},
            )
        except OSError:
            pass
        finally:
            os.close(waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._close()

    def begin(self, interface: str) -> subprocess.Popen[bytes] | None:
        """Let it make the interface, and give it away; None when there is none for that interface."""
        process = self._process
        if process is None or interface != self._interface:
            return None
        try:
            os.write(self._told, b"\n")
        except OSError:
            return None  # it has ended, which the next one will tell why
        self._process = None
        self._close()
        return process

    def _close(self) -> None:
        if self._told >= 0:
            os.close(self._told)
            self._told = -1
