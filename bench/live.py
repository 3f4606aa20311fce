"""A tunnel that stays up while slices of a load are measured on it, and what is switched there meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

from bench import procfs, traffic
from bench.programs import REPOSITORY, Program
from bench.rig import INNER, WG, MeasureError, Rig, open_rig
from tests.system.net import Host, HostTask, eventually

TRAFFIC = REPOSITORY / "bench" / "traffic.py"
PORTS = {"tcp": 5401, "udp": 5402}
METRICS = "127.0.0.1:9586"
READERS = 8
WARM_UP = 0.05  # seconds that a load flows before it is looked at
DRAIN = 0.01  # seconds until what was on its way has arrived
UAPI_LIMIT = 20.0
SERVED_LIMIT = 30.0
CAPTURE = "capture=1\nwhat=both\nsnaplen=65535\nname=wg0\n\n"


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """What arrived in so many seconds, in how many packets (TCP: reads), and the daemons' CPU nanoseconds.

    aside: CPU nanoseconds of programs that look at the daemons.
    """

    seconds: float
    bytes: int
    pieces: int
    cpu_sender: int
    cpu_receiver: int
    aside: int = 0


@dataclasses.dataclass(slots=True)
class Load:
    """A sender at the left and a receiver at the right; the sender is stopped unless it `flows`."""

    rig: Rig
    sender: HostTask
    counts: pathlib.Path

    @contextlib.contextmanager
    def flows(self) -> Iterator[None]:
        """Let the sender send within the block, and for WARM_UP before it."""
        self.sender.signal(signal.SIGCONT)
        try:
            time.sleep(WARM_UP)
            yield
        finally:
            self.sender.signal(signal.SIGSTOP)
            time.sleep(DRAIN)

    def slice(self, seconds: float, beside: tuple[HostTask, ...] = ()) -> Slice:
        """Look at the load for so long. beside: the programs whose time is `aside`."""
        pids = [self.rig.daemons[name].pid for name in ("left", "right")] + [task.pid for task in beside]
        before, had, begun = cpu_of(pids), traffic.read_counts(self.counts), time.monotonic()
        time.sleep(seconds)
        after, has, ended = cpu_of(pids), traffic.read_counts(self.counts), time.monotonic()
        used = [now - then for now, then in zip(after, before, strict=True)]
        if has == had:
            raise MeasureError(f"nothing arrived within {seconds:g} s: {self.sender.output().strip()[-300:]}")
        return Slice(
            round(ended - begun, 6), has[0] - had[0], has[1] - had[1], used[0], used[1], sum(used[2:])
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Live:
    """Two hosts with a tunnel, and the loads on it, by kind."""

    rig: Rig
    loads: dict[str, Load]


def cpu_of(pids: list[int]) -> list[int]:
    return [procfs.cpu_nanoseconds(pid) for pid in pids]


@contextlib.contextmanager
def open_live(program: Program, kinds: tuple[str, ...]) -> Iterator[Live]:
    """Two hosts with a tunnel, and stopped loads of these kinds on it."""
    with open_rig(program) as rig:
        rig.left.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/tcp_slow_start_after_idle")
        yield Live(rig, {kind: _start_load(rig, kind) for kind in kinds})


def _start_load(rig: Rig, kind: str) -> Load:
    counts = rig.lab.directory / f"{kind}.counts"
    traffic.make_counts(counts)
    place = (kind, INNER[1], str(PORTS[kind]))
    receiver = rig.right.start(sys.executable, "-IS", TRAFFIC, "receive", *place, counts)
    eventually("the receiver listens", lambda: _is_open(rig.right, kind) or receiver.poll() is not None)
    sender = rig.left.start(sys.executable, "-IS", TRAFFIC, "send", *place)
    load = Load(rig, sender, counts)

    def flows() -> bool:
        for task in (sender, receiver):
            if task.poll() is not None:
                raise MeasureError(f"{task.command} ended: {task.output().strip()[-500:]}")
        return traffic.read_counts(counts)[0] > 0

    eventually("the load arrives", flows)
    sender.signal(signal.SIGSTOP)
    return load


def _is_open(host: Host, kind: str) -> bool:
    if kind == "tcp":
        return procfs.listens(host.pid, PORTS[kind])
    rows = pathlib.Path(f"/proc/{host.pid}/net/udp").read_text().splitlines()[1:]
    return any(int(row.split()[1].rpartition(":")[2], 16) == PORTS[kind] for row in rows)


def is_stopped(task: HostTask) -> bool:
    """Whether a signal has stopped it."""
    stat = pathlib.Path(f"/proc/{task.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


# Switches: each is off at first, and goes on and off again while the load flows.


class Metrics:
    """`pywg metrics` at both hosts, asked once each time it is switched on; off it is stopped by a signal."""

    def __init__(self, rig: Rig) -> None:
        pywg, port = pathlib.Path(sys.executable).with_name("pywg"), int(METRICS.rpartition(":")[2])
        self.servers: tuple[HostTask, ...] = ()
        self._scrapers: list[tuple[HostTask, pathlib.Path]] = []
        for host in (rig.left, rig.right):
            server = host.start(pywg, "metrics", WG, "--listen", METRICS)
            eventually("metrics are served", partial(procfs.listens, host.pid, port), SERVED_LIMIT)
            counts = rig.lab.directory / f"{host.name}.scraped"
            traffic.make_counts(counts)
            url = f"http://{METRICS}/metrics"
            scraper = host.start(sys.executable, "-I", TRAFFIC, "scrape", url, counts)
            eventually("metrics were asked for", partial(is_stopped, scraper))
            server.signal(signal.SIGSTOP)
            self.servers += (server,)
            self._scrapers.append((scraper, counts))

    def on(self) -> None:
        for server in self.servers:
            server.signal(signal.SIGCONT)
        for scraper, _ in self._scrapers:
            scraper.signal(signal.SIGCONT)

    def off(self) -> None:
        for scraper, _ in self._scrapers:
            eventually("metrics were answered", partial(is_stopped, scraper))
        for server in self.servers:
            server.signal(signal.SIGSTOP)

    def scrapes(self) -> int:
        """How many answers there were, of both hosts."""
        return sum(traffic.read_counts(counts)[1] for _, counts in self._scrapers)


class Events:
    """Readers of events at both daemons who ask for statistics once: each is a second of `pywg top`."""

    servers: tuple[HostTask, ...] = ()

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._readers: list[socket.socket] = []

    def on(self) -> None:
        for host in [self._rig.left, self._rig.right] * READERS:
            reader = connect(host)
            reader.sendall(b"events=1\n\n")
            if b"watching" not in reader.recv(65536):
                raise MeasureError("pywgd sends no events")
            self._readers.append(reader)
            with connect(host) as client:
                client.sendall(b"stats=1\n\n")
                if b'"peers"' not in client.recv(1 << 20):
                    raise MeasureError("pywgd has no statistics")

    def off(self) -> None:
        while self._readers:
            self._readers.pop().close()


class Capture:
    """A capture of everything at both daemons, which is read and thrown away."""

    servers: tuple[HostTask, ...] = ()

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._streams: list[tuple[socket.socket, threading.Thread]] = []
        self.bytes = 0

    def on(self) -> None:
        for host in (self._rig.left, self._rig.right):
            stream = connect(host)
            stream.sendall(CAPTURE.encode())
            thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
            thread.start()
            self._streams.append((stream, thread))

    def off(self) -> None:
        for stream, _ in self._streams:
            stream.shutdown(socket.SHUT_WR)
        while self._streams:
            stream, thread = self._streams.pop()
            thread.join(UAPI_LIMIT)
            stream.close()

    def _read(self, stream: socket.socket) -> None:
        room = bytearray(1 << 20)
        with contextlib.suppress(OSError):
            while size := stream.recv_into(room):
                self.bytes += size


Switch = Metrics | Events | Capture


def connect(host: Host) -> socket.socket:
    """A connection with a host's daemon."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(UAPI_LIMIT)
    client.connect(str(host.path(f"/run/wireguard/{WG}.sock")))
    return client
