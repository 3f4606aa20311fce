"""The endpoint monitor: a small process beside a running interface, for endpoints that may change.

It looks at the device as anybody could (its socket, or netlink for the kernel's WireGuard), hears of changes
of the network, asks for names, and sets endpoints as `endpoints.py` decides. It ends with the interface, or
when told to. An abstract socket whose name has the interface in it makes it the only one in its network
namespace, and is where it is told; nothing of it is in the file system, so nothing of it stays behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from pywg.config.model import Config, EndpointName
from pywg.errors import PywgError
from pywg.host import control
from pywg.host.endpoints import Action, Answer, EndpointKeeper, Resolve, SetEndpoint, Watched
from pywg.host.resolve import addresses_of
from pywg.noise.keys import PublicKey
from pywg.tun.netlink import drain, open_network_events
from pywg.uapi.format import DeviceChange, PeerChange
from pywg.uapi.path import socket_path
from pywg.wire.endpoint import Endpoint

SETTLE = 1.0
"""Seconds that a network has to settle after a change, before anything is asked or set."""

SLEPT = 2.0
"""Seconds of suspended time that count as a change of the network."""

_SHARE, _LONGEST_PAUSE = 20, 30.0
"""Looking at a device with many peers takes at most one part in so many of the time, with pauses of so many
seconds at the most."""

_READY_LIMIT = 10.0
_END_LIMIT = 5.0
_PEERCRED = struct.Struct("3i")

Say = Callable[[str], None]


# --- What up, down and reload call. -----------------------------------------------------------------------


def watched_peers(config: Config) -> list[Watched]:
    """The peers of a file whose endpoint may change: it is a name, or there are several.

    Of several sections on one peer the last one's endpoints stand.
    """
    found: dict[PublicKey, Watched] = {}
    for peer in config.peers:
        if peer.endpoint is not None:
            key = peer.public_key.value
            names = (peer.endpoint.value, *(name.value for name in peer.more_endpoints))
            found[key] = Watched(key, tuple(dict.fromkeys(names)))
    return [peer for peer in found.values() if len(peer.endpoints) > 1 or _is_name(peer.endpoints[0])]


def start_monitor(interface: str, peers: Sequence[Watched]) -> None:
    """Start the monitor in the background, in the place of one that runs. Raises PywgError when it does not.

    It outlives its caller. Its standard error is kept only when LOG_LEVEL asks for it, as the daemon's is.
    """
    stop_monitor(interface)
    keeps = os.environ.get("LOG_LEVEL", "") not in {"", "silent"}
    try:
        process = subprocess.Popen(
            command_line(interface),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if keeps else subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise PywgError(f"the endpoint monitor cannot be started: {error.strerror}") from None
    assert process.stdin is not None
    assert process.stdout is not None
    told = b""
    with process.stdout as answers, selectors.DefaultSelector() as selector:
        with contextlib.suppress(BrokenPipeError), process.stdin as words:
            words.write(written(peers))
        selector.register(answers, selectors.EVENT_READ)
        if selector.select(_READY_LIMIT):
            told = answers.readline()
        if told == b"ready\n":
            process.returncode = 0  # it stays when we go: nobody is to wait for it, or to warn of it
            return
    process.kill()
    process.wait()
    reason = told.decode(errors="replace").strip() or f"it said nothing for {_READY_LIMIT:.0f} s"
    raise PywgError(f"the endpoint monitor of {interface} did not start: {reason}")


def start_or_warn(interface: str, peers: Sequence[Watched], say: Say) -> None:
    """As `start_monitor`, for a tunnel that works without it as well."""
    try:
        start_monitor(interface, peers)
    except PywgError as error:
        say(f"Warning: {error}; endpoints stay as they are")


def command_line(interface: str, *, foreground: bool = False) -> list[str]:
    """The program and its arguments; it reads from standard input what `written` gives.

    No module is taken from the current directory, which may be anybody's.
    """
    options = ["-f"] if foreground else []
    return [sys.executable, "-P", "-m", "pywg.host.monitor", *options, interface]


def stop_monitor(interface: str) -> None:
    """End the monitor of an interface, if there is one, and wait until it has ended."""
    if sys.platform != "linux":
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(_END_LIMIT)
        try:
            connection.connect(_address(interface))
            if _is_ours(connection):
                connection.send(b"end")
                connection.recv(1)
        except OSError:
            return


def monitor_runs(interface: str) -> bool:
    """Whether an interface of this network namespace has a monitor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(_address(interface))
        except OSError:
            return False
        return _is_ours(connection)


def written(peers: Iterable[Watched]) -> bytes:
    """What the monitor reads at its start; there are no secrets in it."""
    return json.dumps(
        [
            {"public_key": peer.public_key.base64, "endpoints": [[n.host, n.port] for n in peer.endpoints]}
            for peer in peers
        ]
    ).encode()


def read(text: bytes) -> list[Watched]:
    """The other way round."""
    return [
        Watched(
            PublicKey.from_base64(peer["public_key"]),
            tuple(EndpointName(host, port) for host, port in peer["endpoints"]),
        )
        for peer in json.loads(text)
    ]


def _is_name(name: EndpointName) -> bool:
    family = socket.AF_INET6 if ":" in name.host else socket.AF_INET
    try:
        socket.inet_pton(family, name.host.partition("%")[0])
    except OSError:
        return True
    return False


def _address(interface: str) -> str:
    return f"\0pywg-monitor/{interface}"


def _is_ours(connection: socket.socket) -> bool:
    """Anybody may take a name like ours: only root's and our own processes count."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    return _PEERCRED.unpack(credentials)[1] in (0, os.geteuid())


# --- The process. -----------------------------------------------------------------------------------------


class Monitor:
    """One interface's monitor. `say` gets one line for each change."""

    def __init__(self, interface: str, peers: Iterable[Watched], lock: socket.socket, say: Say) -> None:
        self._interface = interface
        self._say = say
        self._keeper = EndpointKeeper(peers, random.random, _now())
        self._lock = lock
        self._lookups = Lookups()
        self._identity = _identity(interface)
        self._mark = 0
        self._changed_at: float | None = None
        self._ways: dict[Endpoint, str | None] = {}
        self._slept = _suspended()
        self._complained = False

    def run(self) -> None:
        """Return when the interface is gone, or somebody said that this is the end."""
        with open_network_events() as events, selectors.DefaultSelector() as selector:
            selector.register(events, selectors.EVENT_READ, events)
            selector.register(self._lock, selectors.EVENT_READ, self._lock)
            selector.register(self._lookups.fileno(), selectors.EVENT_READ)
            self._do(self._keeper.start(_now()))
            self._look()  # the first time takes longer than the others: what it needs is imported
            look = self._keeper.next_look(_now())
            while _is_there(self._interface, self._identity):
                if _now() >= look:
                    began = time.monotonic()
                    self._look()
                    took = time.monotonic() - began
                    pause = min(_SHARE * took, _LONGEST_PAUSE)
                    look = max(self._keeper.next_look(_now()), _now() + pause)
                due = look if self._changed_at is None else min(look, self._changed_at + SETTLE)
                ready = selector.select(max(0.0, due - _now()))
                for key, _ in ready:
                    if key.data is events:
                        drain(events)
                        self._changed_at = self._changed_at or _now()
                    elif key.data is self._lock:
                        if self._is_told_to_end():
                            return
                    else:
                        self._take_answers()
                self._notice_changes()

    def _look(self) -> None:
        try:
            device = control.get(self._interface)
        except PywgError as error:
            if not self._complained and _is_there(self._interface, self._identity):
                self._complained = True
                self._say(str(error))
            return
        self._complained = False
        self._mark = device.fwmark
        self._do(self._keeper.observe(device.peers, time.time_ns(), _now()))

    def _take_answers(self) -> None:
        for name, endpoints in self._lookups.take():
            ways = {endpoint: way_to(endpoint, self._mark) for endpoint in endpoints}
            self._ways |= ways
            answers = [Answer(endpoint, ways[endpoint] is not None) for endpoint in endpoints]
            answers.sort(key=lambda answer: not answer.reachable)
            self._do(self._keeper.resolved(name, answers, _now()))

    def _notice_changes(self) -> None:
        """Only a sleep and a change of the way to an endpoint count: routers announce things all the time."""
        slept = _suspended()
        if slept > self._slept + SLEPT:
            self._ways.clear()
            self._changed_at = self._changed_at or _now()
        self._slept = slept
        if self._changed_at is None or _now() < self._changed_at + SETTLE:
            return
        self._changed_at = None
        ways = {endpoint: way_to(endpoint, self._mark) for endpoint in self._keeper.known_endpoints()}
        if ways != self._ways or not ways:
            self._ways = ways
            self._do(self._keeper.network_changed(_now()))

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Resolve):
                self._lookups.ask(action.name)
            else:
                self._set(action)

    def _set(self, action: SetEndpoint) -> None:
        change = PeerChange(action.public_key, update_only=True, endpoint=action.endpoint)
        key = action.public_key.base64
        try:
            control.apply(self._interface, DeviceChange(peers=[change]))
        except PywgError as error:
            self._say(str(error))
        else:
            self._say(f"peer({key[:4]}…{key[39:43]}): endpoint {action.endpoint}: {action.reason}")

    def _is_told_to_end(self) -> bool:
        connection, _ = self._lock.accept()
        with connection:
            connection.settimeout(1.0)
            try:
                told = _is_ours(connection) and connection.recv(16) == b"end"
            except OSError:
                return False
            if told:
                self._lock.close()  # before the connection: whoever waits for its end may take the name
            return told


class Lookups:
    """Asks the system for the addresses of names, one after the other, in a thread of its own."""

    def __init__(self, addresses: Callable[[EndpointName], list[Endpoint]] | None = None) -> None:
        self._addresses = addresses or addresses_of
        self._questions: queue.SimpleQueue[EndpointName] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[EndpointName, list[Endpoint]]] = queue.SimpleQueue()
        self._woken, self._wake = os.pipe()
        threading.Thread(target=self._run, daemon=True).start()

    def fileno(self) -> int:
        """Readable when there are answers."""
        return self._woken

    def ask(self, name: EndpointName) -> None:
        """Put a name in line."""
        self._questions.put(name)

    def take(self) -> list[tuple[EndpointName, list[Endpoint]]]:
        """The answers that have come; no address: the name could not be resolved."""
        count = len(os.read(self._woken, 64))
        return [self._answers.get() for _ in range(count)]

    def _run(self) -> None:
        while True:
            name = self._questions.get()
            try:
                endpoints = self._addresses(name)
            except PywgError:
                endpoints = []
            self._answers.put((name, endpoints))
            os.write(self._wake, b"\n")


def way_to(endpoint: Endpoint, mark: int) -> str | None:
    """The local address from which this host would send to an endpoint; None: there is no way.

    mark: that of the device's own datagrams, which may have routes of their own. Nothing is sent.
    """
    try:
        with socket.socket(endpoint.family, socket.SOCK_DGRAM) as probe:
            if mark:
                with contextlib.suppress(PermissionError):
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            probe.connect(endpoint.sockaddr)
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _suspended() -> float:
    """Seconds that this machine has slept since it started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


Identity = tuple[int | None, tuple[int, int] | None]


def _identity(interface: str) -> Identity:
    """What tells this interface from another one of its name: its index here, and its daemon's socket."""
    index: int | None
    file: tuple[int, int] | None
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        index = None
    try:
        status = socket_path(interface).lstat()
        file = status.st_dev, status.st_ino
    except OSError:
        file = None
    return index, file


def _is_there(interface: str, first: Identity) -> bool:
    """A daemon's interface may be moved to another namespace, where its socket stays the same one."""
    index, file = _identity(interface)
    if index is not None:
        return index == first[0] and (first[1] is None or file == first[1])
    return file is not None and file == first[1]


def take_lock(interface: str) -> socket.socket:
    """Become the only monitor of an interface here. Raises PywgError."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        lock.bind(_address(interface))
        lock.listen()
    except OSError:
        lock.close()
        raise PywgError(f"{interface} has a monitor already") from None
    return lock


def watch(interface: str, peers: Iterable[Watched], say: Say, ready: Callable[[], None]) -> None:
    """Be the monitor of an interface; returns when that is gone. Raises PywgError when it cannot begin."""
    with take_lock(interface) as lock:
        monitor = Monitor(interface, peers, lock, say)
        ready()
        monitor.run()


def main(arguments: Sequence[str]) -> int:
    """`python -m pywg.host.monitor [-f] INTERFACE`, the peers on standard input; tells `ready` when it is."""
    foreground = arguments[:1] == ["-f"]
    interface = arguments[-1]
    peers = read(sys.stdin.buffer.read())
    say = _logger(interface, foreground)
    try:
        watch(interface, peers, say, lambda: None if foreground else _detach())
    except PywgError as error:
        (say if foreground else print)(str(error))
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _detach() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(null, stream)
    os.close(null)
    os.chdir("/")


def _logger(interface: str, foreground: bool) -> Say:
    level = os.environ.get("LOG_LEVEL", "")
    if level == "silent":
        return lambda _: None
    if foreground or level:

        def to_stderr(line: str) -> None:
            stamp = time.strftime("%Y/%m/%d %H:%M:%S")
            with contextlib.suppress(OSError):
                sys.stderr.write(f"INFO: ({interface}) {stamp} {line}\n")
                sys.stderr.flush()

        return to_stderr
    import syslog  # noqa: PLC0415  only here

    syslog.openlog("pywg-monitor", syslog.LOG_PID, syslog.LOG_DAEMON)
    return lambda line: syslog.syslog(syslog.LOG_INFO, f"{interface}: {line}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
