"""Starting the daemon of an interface, and waiting for its end. Everything else about it goes over UAPI."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import time

from pywg.errors import PywgError
from pywg.host.ahead import PROGRAM_VARIABLE, daemon_command
from pywg.host.names import interface_exists
from pywg.host.state import is_alive
from pywg.uapi.client import has_daemon
from pywg.uapi.path import socket_path

_START_LIMIT = 30.0
_READY_LIMIT = 10.0
_END_LIMIT = 5.0
_PAUSE = 0.01


def shown_command() -> str:
    """What the step is called on the screen."""
    return os.environ.get(PROGRAM_VARIABLE) or "pywgd"


def spawn_daemon(interface: str) -> subprocess.Popen[bytes]:
    """Start it; the process ends when the daemon has gone into the background. Raises PywgError.

    A Ctrl-C on the terminal is for its starter alone, which knows what to undo.
    """
    command = daemon_command()
    if shutil.which(command[0]) is None:
        raise PywgError(f"{PROGRAM_VARIABLE} names the program {command[0]}, which is not installed")
    try:
        return subprocess.Popen([*command, interface], stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        raise PywgError(f"{command[0]} cannot be started: {error.strerror}") from None


def finish_start(process: subprocess.Popen[bytes]) -> None:
    """Wait until the daemon is in the background. Raises PywgError when it failed; then it is not running."""
    try:
        status = _wait(process, _START_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise PywgError(
            f"{shown_command()} did not go into the background within {_START_LIMIT:.0f} s, and was ended"
        ) from None
    if status:
        raise PywgError(f"{shown_command()} ended with status {status}; the reason is above, if it gave one")


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int:
    """As `process.wait`, which looks only every 50 ms. Raises subprocess.TimeoutExpired."""
    deadline = time.monotonic() + seconds
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(process.pid)
            try:
                select.select([descriptor], [], [], seconds)
            finally:
                os.close(descriptor)
    return process.wait(max(0.0, deadline - time.monotonic()))


def wait_until_ready(interface: str) -> None:
    """Wait for the device and the socket, which pywgd and wireguard-go make before they go on.

    Raises PywgError.
    """
    deadline = time.monotonic() + _READY_LIMIT
    while not (interface_exists(interface) and has_daemon(interface)):
        if time.monotonic() > deadline:
            raise PywgError(
                f"{shown_command()} made no interface {interface} with a socket {socket_path(interface)} "
                f"within {_READY_LIMIT:.0f} s"
            )
        time.sleep(_PAUSE)


def wait_until_ended(interface: str) -> None:
    """Wait, for a few seconds at most, until the daemon of a removed interface has removed its socket.

    Else it might remove the socket of its successor.
    """
    deadline = time.monotonic() + _END_LIMIT
    while has_daemon(interface) and time.monotonic() < deadline:
        time.sleep(_PAUSE)


def wait_until_process_ended(identity: str) -> None:
    """Wait until the daemon is in the background that somebody started who was killed since."""
    deadline = time.monotonic() + _START_LIMIT
    while is_alive(identity) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
