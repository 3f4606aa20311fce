"""The daemon, `pywgd [-f|--foreground] INTERFACE-NAME`: wireguard-go's command line and environment.

It opens the tunnel device and its configuration socket, goes into the background, and only then imports the
rest, so that whoever started it can go on at once: what is sent to the socket waits until it is read.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from pywg import __version__
from pywg.errors import PywgError

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from pywg.tun.base import Tun

USAGE = "Usage: pywgd [-f/--foreground] INTERFACE-NAME\n"
EXIT_SETUP_FAILED = 1
EXIT_USAGE = 2
DEFAULT_MTU = 1420


class Command(NamedTuple):
    """What the command line and the environment ask for."""

    interface: str
    foreground: bool


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:], os.environ))


def run(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run the daemon; returns its exit status: 0, EXIT_SETUP_FAILED or EXIT_USAGE."""
    if arguments == ["--version"]:
        from pywg.datapath import describe

        print(f"pywgd v{__version__}\n\nUserspace WireGuard daemon for {sys.platform}: {describe()}.")
        return 0
    command = parse(arguments, environment)
    if command is None:
        sys.stderr.write(USAGE)
        return EXIT_USAGE
    try:
        tun = open_tun(command.interface, environment)
        try:
            listener = open_uapi(tun.name, environment)
        except PywgError:
            tun.close()
            raise
    except PywgError as error:
        if environment.get("LOG_LEVEL") != "silent":
            sys.stderr.write(f"pywgd: {command.interface}: {error}\n")
        return EXIT_SETUP_FAILED
    if not command.foreground and os.fork():
        os._exit(0)  # device and socket are the child's now, and what was registered to run at exit
    if not command.foreground:
        detach(keep_output=environment.get("LOG_LEVEL", "silent") != "silent")
    return serve(tun, listener, environment)


def parse(arguments: list[str], environment: Mapping[str, str]) -> Command | None:
    """Read the command line; None when it is not of the form that USAGE tells."""
    foreground = environment.get("WG_PROCESS_FOREGROUND") == "1"
    match arguments:
        case ["-f" | "--foreground", interface] if not interface.startswith("-"):
            return Command(interface, True)
        case [interface] if interface and not interface.startswith("-"):
            return Command(interface, foreground)
    return None


def open_tun(interface: str, environment: Mapping[str, str]) -> Tun:
    """Make the tunnel device, or take over the descriptor in WG_TUN_FD. Raises PywgError."""
    from pywg.tun.linux import LinuxTun

    inherited = _descriptor("WG_TUN_FD", environment)
    if inherited is not None:
        return LinuxTun.from_fd(inherited)
    tun = LinuxTun.create(interface, DEFAULT_MTU)
    if (name_file := environment.get("WG_TUN_NAME_FILE")) is not None:
        try:
            with open(name_file, "w", encoding="utf-8") as file:  # noqa: PTH123  pathlib costs start-up time
                file.write(f"{tun.name}\n")
        except OSError as error:
            tun.close()
            raise PywgError(f"WG_TUN_NAME_FILE={name_file} can't be written: {error.strerror}") from None
    return tun


def open_uapi(interface: str, environment: Mapping[str, str]) -> socket.socket:
    """Listen on the interface's socket, or take over the descriptor in WG_UAPI_FD. Raises PywgError."""
    inherited = _descriptor("WG_UAPI_FD", environment)
    if inherited is not None:
        import socket

        return socket.socket(fileno=inherited)
    from pywg.uapi.listen import listen

    return listen(interface)


def _descriptor(variable: str, environment: Mapping[str, str]) -> int | None:
    text = environment.get(variable, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise PywgError(f"{variable}={text} is not the number of an open descriptor")
    try:
        os.fstat(int(text))
    except (OSError, OverflowError):
        raise PywgError(f"{variable}={text} is not open here") from None
    return int(text)


def detach(*, keep_output: bool) -> None:
    """Leave the terminal and its session; standard streams end at /dev/null, output only if not kept."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0,) if keep_output else (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def serve(tun: Tun, listener: socket.socket, environment: Mapping[str, str]) -> int:
    """Carry packets and answer the socket until one of device, socket and process is asked to end."""
    import asyncio
    import logging

    from pywg.cli import daemon

    level = {"verbose": logging.DEBUG, "debug": logging.DEBUG, "silent": logging.CRITICAL + 1}
    logging.basicConfig(
        level=level.get(environment.get("LOG_LEVEL", ""), logging.ERROR),
        format=f"%(levelname)s: ({tun.name}) %(asctime)s %(message)s",
        datefmt="%Y/%m/%d %H:%M:%S",
    )
    try:
        import uvloop
    except ImportError:
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with runner:
        runner.run(daemon.run(tun, listener))
    return 0


if __name__ == "__main__":
    main()
