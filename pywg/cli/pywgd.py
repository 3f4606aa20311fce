"""The daemon, `pywgd [-f|--foreground] INTERFACE-NAME`: wireguard-go's command line and environment.

It makes the tunnel device and its configuration socket, goes into the background, and only then imports the
rest, so that whoever started it can go on at once: what is sent to the socket waits until it is read.

Environment, as wireguard-go reads it:
- LOG_LEVEL: verbose or debug, error (as when it is not set), silent. In the background output is kept only if
  this is set, and not to silent; a caller that waits for the end of our output then waits for the daemon's.
- WG_PROCESS_FOREGROUND=1: as -f.
- WG_TUN_FD, WG_UAPI_FD: descriptors of an open TUN device and of a listening unix socket, used instead of new
  ones. The device's MTU is set to 1420 where we may.
- PYWG_USER (ours): the user to become when device and socket are there.
- PYWG_WAIT_FD (ours): a pipe to wait at, all imported and nothing made: a byte lets us begin, its end end.
- WG_KEYLOGFILE (ours): a file to add the secrets of handshakes to, for Wireshark.
- WG_TUN_NAME_FILE: where to write the name of the device that was made, for patterns such as `wg%d`.

Exit status: 0 when it was told to end, or has gone into the background; 1 when that failed, with a sentence
on standard error; 2 for a command line that is not understood (wireguard-go: 0).

In the background it leaves its caller's session, terminal, descriptors and working directory. When it fails
there with nowhere to print to, the reason goes to syslog. From before the socket is made until the event loop
runs, signals wait, so that whenever SIGTERM, SIGINT or SIGHUP arrives, it ends in order and leaves nothing.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple

from pywg import __version__
from pywg.cli import streams
from pywg.errors import PywgError, is_shortage, remedy

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from pywg.tun.base import Tun
    from pywg.uapi.path import SocketFile

USAGE = "Usage: pywgd [-f/--foreground] INTERFACE-NAME\n"
EXIT_SETUP_FAILED = 1
EXIT_USAGE = 2
DEFAULT_MTU = 1420

TAKEOVER_TIME = 1.0
"""Seconds that we wait for a socket's daemon to end: the interface is gone already when this one starts."""

DESCRIPTORS = 64
"""Files that a daemon may have open at the least; it takes 30, and one more for each client."""

GARBAGE = 10_000
"""New objects between two looks for garbage; with Python's 700, a sixth of the time of a large request.

In return older objects are looked at twice as often, so that memory stays as flat as it was.
"""


class Command(NamedTuple):
    """What the command line and the environment ask for."""

    interface: str
    foreground: bool


class Uapi(NamedTuple):
    """The socket that we are configured over, and its file, if it has one here."""

    listener: socket.socket
    file: SocketFile | None

    def close(self) -> None:
        """Remove and close it, if that was not done yet."""
        if self.file is not None and self.listener.fileno() >= 0:
            self.file.remove()
        self.listener.close()


def main() -> None:
    """The console script."""
    streams.settle()
    sys.exit(run(sys.argv[1:], os.environ))


def run(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run the daemon; returns its exit status: 0, EXIT_SETUP_FAILED or EXIT_USAGE."""
    if arguments == ["--version"]:
        return print_version()
    if arguments in (["-h"], ["--help"]):
        return tell(USAGE)
    command = parse(arguments, environment)
    if command is None:
        sys.stderr.write(USAGE)
        return EXIT_USAGE
    if not hasattr(os, "fork"):
        sys.stderr.write(f"pywgd: {command.interface}: no daemon for Windows yet: pywg up stays and is one\n")
        return EXIT_SETUP_FAILED
    try:
        if not may_begin(environment):
            return 0
        ending = hold_signals()
        require_descriptors()
        if not command.foreground:  # there it is told in time when the data path is opened
            from pywg.datapath import check_choice

            check_choice()
        if environment.get("PYWG_USER") and sys.platform == "linux":  # and so is this
            from pywg.host.privileges import account_of

            account_of(environment)
        tun = open_tun(command.interface, environment)
        try:
            uapi = open_uapi(tun.name, environment)
        except PywgError:
            tun.close()
            raise
    except PywgError as error:
        if environment.get("LOG_LEVEL") != "silent":
            sys.stderr.write(f"pywgd: {command.interface}: {error}\n")
        return EXIT_SETUP_FAILED
    if not command.foreground:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            detached, detaching = os.pipe()
            child = os.fork()
        except OSError as error:
            uapi.close()
            reason = f"{error.strerror}{remedy(error.errno)}"
            sys.stderr.write(f"pywgd: {command.interface}: cannot go into the background: {reason}\n")
            return EXIT_SETUP_FAILED
        if child:
            os.close(detaching)
            os.read(detached, 1)  # until it has left: the hangup of a terminal that goes with us must miss it
            for number in signal.sigpending() & ending:
                os.kill(child, number)
            os._exit(0)  # device and socket are the child's now, and what was registered to run at exit
        kept = {tun.fileno(), tun.changes_fileno(), uapi.listener.fileno()}
        detach(null, kept, keeps_output(environment))
    return serve(tun, uapi, ending, command, environment)


def may_begin(environment: Mapping[str, str]) -> bool:
    """Wait where PYWG_WAIT_FD says, and import the rest before; false when it ends without a word.

    Raises PywgError when that is not the number of a descriptor that can be read.
    """
    descriptor = _descriptor("PYWG_WAIT_FD", environment)
    if descriptor is None:
        return True
    with contextlib.suppress(Exception):  # what fails here fails again when it is needed, and is told
        import_rest()
    try:
        return bool(os.read(descriptor, 1))
    except OSError as error:
        raise PywgError(f"PYWG_WAIT_FD={descriptor} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)


def import_rest() -> None:
    """Import what `run` and `serve` import where they need it."""
    import asyncio  # noqa: F401
    import resource  # noqa: F401

    from pywg.cli import daemon  # noqa: F401
    from pywg.datapath import load
    from pywg.host import privileges  # noqa: F401
    from pywg.tun import system  # noqa: F401
    from pywg.uapi import listen  # noqa: F401

    load()
    import uvloop  # noqa: F401


def print_version() -> int:
    """Print the version and what would carry packets; returns the exit status."""
    from pywg.datapath import describe

    try:
        datapath = describe()
    except PywgError as error:
        sys.stderr.write(f"pywgd: {error}\n")
        return EXIT_SETUP_FAILED
    return tell(f"pywgd v{__version__}\n\nUserspace WireGuard daemon for {sys.platform}: {datapath}.\n")


def tell(text: str) -> int:
    """Print what was asked for; returns the exit status."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        sys.stderr.write(f"pywgd: the output cannot be written: {error.strerror}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer goes there
        return EXIT_SETUP_FAILED
    return 0


def parse(arguments: list[str], environment: Mapping[str, str]) -> Command | None:
    """Read the command line; None when it is not of the form that USAGE tells."""
    foreground = environment.get("WG_PROCESS_FOREGROUND") == "1"
    match arguments:
        case ["-f" | "--foreground", interface] if interface and not interface.startswith("-"):
            return Command(interface, True)
        case [interface] if interface and not interface.startswith("-"):
            return Command(interface, foreground)
    return None


def keeps_output(environment: Mapping[str, str]) -> bool:
    """Whether a daemon in the background goes on printing where its caller printed."""
    return environment.get("LOG_LEVEL", "") not in {"", "silent"}


def require_descriptors() -> None:
    """Raise the limit of open files where it is very low. Raises PywgError when it may not be raised.

    Later it would be met somewhere in the event loop, which ends the process for it without a word.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= DESCRIPTORS:
        return
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        raise PywgError(
            f"this process may open only {hard} files; pywgd needs {DESCRIPTORS}: raise that with "
            f"`ulimit -n {DESCRIPTORS}`, or LimitNOFILE= of its service"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))


def hold_signals() -> set[signal.Signals]:
    """Let the signals that end us wait until `daemon.run` takes them; returns which those are.

    The first process of a container never sees a signal that it does not ask for, unless it lets it wait.
    """
    ending = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
        ending.remove(signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    return ending


def open_tun(interface: str, environment: Mapping[str, str]) -> Tun:
    """Make the tunnel device, or take over the descriptor in WG_TUN_FD. Raises PywgError."""
    from pywg.datapath import wanted_offload
    from pywg.tun.system import create_tun, tun_from_fd

    inherited = _descriptor("WG_TUN_FD", environment)
    if inherited is not None:
        tun = tun_from_fd(inherited, wanted_offload())
        with contextlib.suppress(PywgError):  # whoever opened it for us may have more rights than we have
            tun.set_mtu(DEFAULT_MTU)
        return tun
    tun = create_tun(interface, DEFAULT_MTU, wanted_offload())
    if name_file := environment.get("WG_TUN_NAME_FILE"):
        try:
            with open(name_file, "w", encoding="utf-8") as file:  # noqa: PTH123  pathlib costs start-up time
                file.write(f"{tun.name}\n")
        except OSError as error:
            tun.close()
            raise PywgError(f"WG_TUN_NAME_FILE={name_file} can't be written: {error.strerror}") from None
    return tun


def open_uapi(interface: str, environment: Mapping[str, str]) -> Uapi:
    """Listen on the interface's socket, or take over the descriptor in WG_UAPI_FD. Raises PywgError."""
    from pywg.uapi.path import SocketFile, socket_path

    inherited = _descriptor("WG_UAPI_FD", environment)
    listener = _listen(interface) if inherited is None else _take_over(inherited)
    file = SocketFile.at(socket_path(interface)) if inherited is None else SocketFile.of(listener)
    if file is None and inherited is None:
        listener.close()
        raise PywgError("its socket was removed while it was made")
    return Uapi(listener, file)


def _listen(interface: str) -> socket.socket:
    """Listen on the interface's socket, as soon as a predecessor that ends right now has removed its own."""
    import time

    from pywg.uapi.listen import DaemonRunsError, listen

    deadline = time.monotonic() + TAKEOVER_TIME
    while True:
        try:
            return listen(interface)
        except DaemonRunsError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _take_over(descriptor: int) -> socket.socket:
    import socket

    try:
        listener = socket.socket(fileno=descriptor)
    except OSError:
        raise PywgError(f"WG_UAPI_FD={descriptor} is not a unix socket that listens") from None
    listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if not listens or listener.family != socket.AF_UNIX:
        listener.close()
        raise PywgError(f"WG_UAPI_FD={descriptor} is not a unix socket that listens")
    listener.set_inheritable(False)
    return listener


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


def detach(null: int, ours: set[int], keep_output: bool) -> None:
    """Leave the caller's session and terminal, and close all its descriptors; its output too, if not kept.

    null: /dev/null, opened.
    """
    os.setsid()
    for stream in (0,) if keep_output else (0, 1, 2):
        os.dup2(null, stream)
    first = 3
    most = os.sysconf("SC_OPEN_MAX")
    if sys.platform == "darwin":  # there it may be any number, and each is closed by a call
        most = 1 + max(int(name) for name in os.listdir("/dev/fd"))  # noqa: PTH208
    for descriptor in sorted({*ours, most}):
        os.closerange(first, descriptor)
        first = max(first, descriptor + 1)


def serve(
    tun: Tun, uapi: Uapi, ending: set[signal.Signals], command: Command, environment: Mapping[str, str]
) -> int:
    """Carry packets and answer the socket until one of device, socket and process is told to end."""
    from pywg.tun.base import TunGoneError

    interface = tun.name
    try:
        import asyncio

        from pywg.cli import daemon
        from pywg.datapath import load
        from pywg.observe import logs

        logs.start(interface, environment, to_syslog=not (command.foreground or keeps_output(environment)))
        try:
            import uvloop
        except ImportError:
            runner = asyncio.Runner()
        else:
            runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        key_log = None
        if path := environment.get("WG_KEYLOGFILE"):
            from pywg.observe.keylog import open_file

            key_log = open_file(path)
        if not command.foreground:
            os.chdir("/")  # not earlier: modules, and the key log, may be at relative paths
        if sys.platform == "linux":
            from pywg.host import privileges

            load()
            privileges.keep_secrets_in_memory()
            account = privileges.account_of(environment)
            if account is not None and uapi.file is not None:
                privileges.share_folder(uapi.file.path.parent, account)
            privileges.drop(account)
        if os.getpid() == 1:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans of a container come to us; none stays
        gc.freeze()  # what is there now stays: nobody need look at it again
        gc.set_threshold(GARBAGE, 5, 5)
        with runner:
            runner.run(daemon.run(tun, uapi.listener, uapi.file, ending, key_log))
    except Exception as error:
        tun.close()
        uapi.close()
        if isinstance(error, TunGoneError):
            return 0
        if environment.get("LOG_LEVEL") != "silent":
            report(error, interface, to_syslog=not (command.foreground or keeps_output(environment)))
        return EXIT_SETUP_FAILED
    return 0


def report(error: Exception, interface: str, *, to_syslog: bool) -> None:
    """Say why the daemon ends: a sentence for an error with one, else all that is known."""
    lines = [str(error)]
    code = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None)
    if is_shortage(code):
        lines = [f"{os.strerror(code)}{remedy(code)}"]
    elif not isinstance(error, PywgError):
        import traceback

        lines = "".join(traceback.format_exception(error)).splitlines()
    if to_syslog:
        import syslog

        syslog.openlog("pywgd", syslog.LOG_PID, syslog.LOG_DAEMON)
        for line in lines:
            syslog.syslog(syslog.LOG_ERR, f"{interface}: {line}")
    else:
        for line in lines:
            sys.stderr.write(f"pywgd: {interface}: {line}\n")


if __name__ == "__main__":
    main()
