"""The route monitor on macOS: a process beside a tunnel that does again what a change of network undid.

`python -m pywg.host.darwin_monitor NAME` begins when its standard input closes. It hears of changes by
`route -n monitor`: then direct routes to the endpoints follow the default gateway, and every network service
gets the tunnel's name servers. When the interface is gone, however that came, it takes back what the tunnel
changed, and ends.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time

from pywg.errors import PywgError
from pywg.host import control
from pywg.host.darwin_state import MONITOR_MODULE, Tunnel, name_file, real_interface
from pywg.host.names import interface_exists

SETTLE = 0.2
"""Seconds that a change may go on before it is looked at."""

AGAIN = 2.0
"""Seconds after which it is looked at once more: the system sets name servers after its routes."""

_END_LIMIT = 5.0


class _EndError(Exception):
    """We were told to end."""


def start(tunnel: Tunnel) -> None:
    """Start the monitor of a tunnel in the background, and keep its number. Raises PywgError."""
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", MONITOR_MODULE, tunnel.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
    except OSError as error:
        raise PywgError(f"the route monitor cannot be started: {error.strerror}") from None
    assert process.stdin is not None
    tunnel.monitor = process.pid
    process.returncode = 0  # nobody waits for it
    try:
        tunnel.write()
    except PywgError:
        os.kill(process.pid, signal.SIGTERM)
        raise
    finally:
        process.stdin.close()  # only now it reads what was kept


def stop(tunnel: Tunnel) -> None:
    """End the monitor, and wait for it."""
    deadline = time.monotonic() + _END_LIMIT
    with contextlib.suppress(ProcessLookupError):
        while tunnel.monitor_runs and time.monotonic() < deadline:
            os.kill(tunnel.monitor, signal.SIGTERM)
            time.sleep(0.05)


def watch(tunnel: Tunnel) -> None:
    """Follow the network until the interface is gone. Raises PywgError when it cannot be followed."""
    try:
        events = subprocess.Popen(
            ["route", "-n", "monitor"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
    except OSError as error:
        raise PywgError(f"route cannot be started: {error.strerror}") from None
    assert events.stdout is not None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(events.stdout, selectors.EVENT_READ)
            again: float | None = time.monotonic() + AGAIN  # for what changed while we were started
            while interface_exists(tunnel.interface):
                timeout = None if again is None else max(0.0, again - time.monotonic())
                if selector.select(timeout):
                    if not os.read(events.stdout.fileno(), 65536):
                        return
                    time.sleep(SETTLE)
                    again = time.monotonic() + AGAIN
                else:
                    again = None
                renew(tunnel)
    finally:
        events.terminate()
        events.wait()


def renew(tunnel: Tunnel) -> None:
    """Do again what a change may have undone; what fails now may succeed after the next change."""
    with contextlib.suppress(PywgError):
        tunnel.renew_routes(endpoint_hosts(tunnel.interface))
    with contextlib.suppress(PywgError):
        tunnel.set_resolver()


def endpoint_hosts(interface: str) -> list[str]:
    """The addresses of all endpoints of a running device. Raises PywgError."""
    return [peer.endpoint.host for peer in control.get(interface).peers if peer.endpoint is not None]


def main(name: str) -> None:
    """Watch over one tunnel."""

    def end(*_: object) -> None:
        raise _EndError

    signal.signal(signal.SIGTERM, end)
    try:
        sys.stdin.read()
        tunnel = Tunnel.read(name)
        if tunnel is None:
            return
        watch(tunnel)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # whoever ends us now finds it cleaned
        tunnel.clean(_say_nothing)
        if real_interface(name) == tunnel.interface:
            name_file(name).unlink(missing_ok=True)
    except _EndError:
        return


def _say_nothing(_: str) -> None:
    """Nobody reads it."""


if __name__ == "__main__":
    main(sys.argv[1])
