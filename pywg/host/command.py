"""Programs of the system, run for what they do or say: how macOS and Windows are changed."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

from pywg.config.positions import printable
from pywg.errors import PywgError

PATIENCE = 60.0
"""Seconds that a program may take."""


def run(command: Sequence[str], *, check: bool = True) -> str:
    """Run a program to its end; returns what it printed.

    check: raise PywgError, with the last line that it printed, when its exit status is not 0. One that is not
    installed, or does not end, always raises.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PywgError(f"`{shown(command)}' did not end within {PATIENCE:.0f} s") from None
    except OSError as error:
        raise PywgError(f"{command[0]} cannot be started: {error.strerror}") from None
    if check and done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        reason = printable(lines[-1]) if lines else f"it ended with status {done.returncode}"
        raise PywgError(f"`{shown(command)}' failed: {reason}")
    return done.stdout


def shown(command: Sequence[str]) -> str:
    """The command as a person would type it."""
    return shlex.join(command)
