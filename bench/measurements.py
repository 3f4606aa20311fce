"""Everything that is measured. Each measurement makes its own hosts and takes one sample of one program.

A sample is a dictionary from the short names of the measurement's figures to numbers; a figure that a program
does not have (the CPU time of the bare path) is left out.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import ipaddress
import json
import pathlib
import random
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator

from bench import ethr, initiations, iperf
from bench.programs import ETHR, ETHR_INSTALL, REPOSITORY, Program
from bench.rig import INNER, MTU, OUTER, PORT, WG, Far, MeasureError, Rig, open_hosts, open_rig
from bench.stats import quantile

Values = dict[str, float]
PINGPONG = REPOSITORY / "bench" / "pingpong.py"
PINGPONG_PORT = 5301
PING_INTERVAL = 0.01
FAR = Far(rate=100, round_trip=34)
FAR_WARM_UP = 3.0  # seconds of a transfer until it has found the rate
SMALL = 64  # bytes; of such packets only the number matters
WINDOW = 32
HANDSHAKE_PEERS = 2000
HANDSHAKES_PER_SECOND = 12_000  # so many are prepared for each second
LOAD_WORKERS = 2
HANDSHAKE_LOAD_MIN = 4.0  # seconds: some compute a secret once per peer at its first handshake, others before
MEMORY_LOAD_MIN = 3.0


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """seconds: of each load. directory: for what samples share; it goes with the run."""

    seconds: float
    directory: pathlib.Path


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """One number of a sample.

    label: what it is of; figures of one measurement with the same label tell the same thing in other units.
    better: "higher", "lower", or empty where it is no merit. beside: the program its ratio is to, if that is
    a fixed one. fault: it counts what should not happen, and is told only where it did.
    """

    name: str
    label: str
    unit: str
    better: str
    beside: str = ""
    fault: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """name, group: how it is chosen. run: takes one sample. cost: its seconds, given the seconds of a load.

    bare: whether the path without a tunnel has it. tool: a program it needs beside those of every run.
    scale: the x of a growth curve.
    """

    name: str
    group: str
    help: str
    figures: tuple[Figure, ...]
    run: Callable[[Program, Settings], Values]
    cost: Callable[[float], float]
    bare: bool = True
    tool: str = ""
    scale: int = 0

    def missing(self) -> str | None:
        if self.tool and not shutil.which(self.tool):
            return f"{self.name}: `{self.tool}` is not on PATH; install it: {ETHR_INSTALL}"
        return None


# Throughput and CPU


def tcp(program: Program, settings: Settings, *, streams: int) -> Values:
    options = ("-P", str(streams)) if streams > 1 else ()
    with open_rig(program) as rig:
        forward = iperf.run(rig, settings.seconds, *options)
        back = iperf.run(rig, settings.seconds, *options, reverse=True)
    values = {"forward": forward.gigabits, "back": back.gigabits}
    if not program.is_bare:
        gib = forward.gib + back.gib
        sender, receiver = forward.cpu_sender + back.cpu_sender, forward.cpu_receiver + back.cpu_receiver
        values |= {
            "cpu": (sender + receiver) / 2 / gib,
            "cpu_sender": sender / gib,
            "cpu_receiver": receiver / gib,
        }
    return values


def udp(program: Program, settings: Settings, *, size: int) -> Values:
    with open_rig(program) as rig:
        got = iperf.run(rig, settings.seconds, "-u", "-b", "0", "-l", str(size))
    values = {"kpps": got.kpps, "lost": got.lost * 100}
    if size > SMALL:
        values["gigabits"] = got.gigabits
    if not program.is_bare and got.packets:
        values["cpu"] = (got.cpu_sender + got.cpu_receiver) / 2 / got.packets * 1e6
    return values


# Latency


def ping(program: Program, settings: Settings) -> Values:
    count = max(50, int(settings.seconds / PING_INTERVAL))
    with open_rig(program) as rig:
        said = rig.left.run(
            *("ping", "-n", "-i", str(PING_INTERVAL), "-c", str(count), rig.target),
            timeout=settings.seconds + 20,
        )
    times = ping_times(said)
    return {
        "mean": statistics.mean(times),
        "p50": quantile(times, 0.5),
        "p99": quantile(times, 0.99),
        "lost": 100 * (1 - len(times) / count),
    }


def ping_times(text: str) -> list[float]:
    """Microseconds of each answer that ping printed. Raises MeasureError when there is none."""
    times = [float(match) * 1e3 for match in re.findall(r" time=([0-9.]+) ms", text)]
    if not times:
        raise MeasureError(f"ping had no answer: {text.strip()[-300:]}")
    return times


def pingpong(program: Program, settings: Settings) -> Values:
    python, port = sys.executable, str(PINGPONG_PORT)
    with (
        open_rig(program) as rig,
        rig.serve(PINGPONG_PORT, python, PINGPONG, "serve", rig.target, port),
    ):
        said = rig.left.run(
            python, PINGPONG, "ask", rig.target, port, f"{settings.seconds:g}", timeout=settings.seconds + 20
        )
    summary = json.loads(said)
    return {name: float(summary[name]) for name in ("mean", "p50", "p99")}


# Memory and start


def memory(program: Program, settings: Settings) -> Values:
    seconds = max(MEMORY_LOAD_MIN, settings.seconds)
    with open_rig(program) as rig:
        idle = max(rig.rss(host) for host in (rig.left, rig.right))
        iperf.run(rig, seconds, "-u", "-b", "0", "-l", "64")
        iperf.run(rig, seconds, "-u", "-b", "0", "-l", "1372")
        iperf.run(rig, seconds, "-P", "8")
        sender, receiver = rig.rss(rig.left), rig.rss(rig.right)
    return {
        "idle": idle,
        "loaded": max(sender, receiver),
        "loaded_sender": sender,
        "loaded_receiver": receiver,
    }


def start(program: Program, settings: Settings) -> Values:  # noqa: ARG001
    with open_hosts(program) as rig:
        started = rig.start(rig.left)
        return {"accepts": started.accepts, "answers": started.answers, "rss": rig.rss(rig.left)}


def up(program: Program, settings: Settings) -> Values:  # noqa: ARG001
    if program.is_ours:
        command = [str(pathlib.Path(sys.executable).with_name("pywg")), "up"]
    else:
        if pathlib.Path("/sys/module/wireguard").exists():
            raise MeasureError("wg-quick would take this kernel's own WireGuard in the program's place")
        command = ["wg-quick", "up"]
    path = program.path()
    assert path is not None
    variables = program.variables()
    if not program.is_ours:
        variables["WG_QUICK_USERSPACE_IMPLEMENTATION"] = path
    with open_hosts(program) as rig:
        rig.start(rig.right)
        rig.setconf(rig.right, rig.interface_text("right") + rig.peer_text("right"))
        rig.address(rig.right)
        file = f"/run/{WG}.conf"
        interface = rig.interface_text("left") + f"Address = {INNER[0]}/24\nMTU = {MTU}\n"
        rig.left.write(file, interface + rig.peer_text("left"))
        begun = time.monotonic()
        # The daemon keeps its output open, so it goes to a file, not to a pipe whose end would be waited for.
        rig.run_to_end(rig.left, *command, file, env=variables)
        done = time.monotonic()
        rig.wait_for_ping()
        first_ping = time.monotonic()
    return {"up": done - begun, "first_ping": first_ping - begun}


# Handshakes


def handshakes(program: Program, settings: Settings) -> Values:
    seconds = max(HANDSHAKE_LOAD_MIN, settings.seconds)
    file = _initiations(settings.directory, seconds)
    with open_hosts(program) as rig:
        rig.start(rig.right)
        rig.setconf(rig.right, initiations.configuration(HANDSHAKE_PEERS, PORT))
        rig.address(rig.right)
        # Peers send from a whole network, all of which is at the left host.
        network = str(initiations.SOURCES)
        rig.left.run("ip", "route", "add", "local", network, "dev", "lo")
        rig.right.run("ip", "route", "add", network, "via", OUTER[0])
        with rig.cpu() as used:
            said = rig.left.run(
                *(sys.executable, "-m", "bench.load", file, OUTER[1], str(PORT)),
                *(str(HANDSHAKE_PEERS), str(WINDOW), f"{seconds:g}", str(LOAD_WORKERS)),
                timeout=seconds + 90,
                env={"PYTHONPATH": str(REPOSITORY)},
            )
    got = json.loads(said.strip().splitlines()[-1])
    if not got["answered"]:
        raise MeasureError(f"no handshake was answered: {said}")
    return {
        "rate": got["answered"] / got["seconds"],
        "cpu": used.right / got["answered"] * 1e6,
        "p50": got["p50"],
        "p99": got["p99"],
        "lost": 100 * got["lost"] / got["sent"],
        "cookies": got["cookies"],
        "generator": got["cpu"] / got["answered"] * 1e6,
    }


def _initiations(directory: pathlib.Path, seconds: float) -> pathlib.Path:
    """Initiations for one sample, made once in a run."""
    count = int(seconds * HANDSHAKES_PER_SECOND)
    file = directory / f"initiations-{HANDSHAKE_PEERS}-{count}"
    if not file.exists():
        unfinished = file.with_suffix(".part")
        initiations.prepare(unfinished, HANDSHAKE_PEERS, count)
        unfinished.rename(file)
    return file


# Growth


def grown_peers(program: Program, settings: Settings, *, peers: int) -> Values:
    others = "".join(
        f"[Peer]\nPublicKey = {_key_text(number)}\nAllowedIPs = {initiations.inner(number)}/32\n"
        for number in range(1, peers)
    )
    with _hub(program) as rig:
        return _grown(rig, settings, rig.peer_text("right") + others)


def grown_ips(program: Program, settings: Settings, *, ips: int) -> Values:
    allowed = ", ".join([f"{INNER[0]}/32", *prefixes(ips - 1)])
    with _hub(program) as rig:
        return _grown(rig, settings, rig.peer_text("right", allowed))


def prefixes(count: int) -> list[str]:
    """So many different networks of 20 to 32 bits within 10.128.0.0/9, the same ones every time."""
    chance = random.Random(20)
    found: dict[str, None] = {}
    while len(found) < count:
        length = chance.choice((20, 22, 24, 26, 28, 30, 32, 32, 32, 32))
        base = (10 << 24 | 1 << 23 | chance.getrandbits(23)) >> 32 - length << 32 - length
        found[f"{ipaddress.IPv4Address(base)}/{length}"] = None
    return list(found)


def _key_text(number: int) -> str:
    """Some public key: any 32 bytes are one."""
    return base64.b64encode(random.Random(number).randbytes(32)).decode()


@contextlib.contextmanager
def _hub(program: Program) -> Iterator[Rig]:
    """Two hosts of which the right one, the hub, has no configuration yet."""
    with open_hosts(program) as rig:
        for host in (rig.left, rig.right):
            rig.start(host)
            rig.address(host)
        rig.setconf(rig.left, rig.interface_text("left") + rig.peer_text("left"))
        yield rig


def _grown(rig: Rig, settings: Settings, text: str) -> Values:
    taken = rig.setconf(rig.right, rig.interface_text("right") + text)
    dumps = []
    for _ in range(3):
        begun = time.monotonic()
        rig.right.run("wg", "show", WG, "dump", timeout=120)
        dumps.append(time.monotonic() - begun)
    rig.wait_for_ping()
    with rig.cpu() as used:
        time.sleep(settings.seconds)
    transfer = iperf.run(rig, settings.seconds)
    return {
        "setconf": taken,
        "dump": statistics.median(dumps),
        "rss": rig.rss(rig.right),
        "idle": used.right / settings.seconds * 100,
        "tcp": transfer.gigabits,
    }


# A far path


def far(program: Program, settings: Settings) -> Values:
    seconds = max(5.0, settings.seconds)
    with open_rig(program, FAR) as rig:
        said = rig.left.run("ping", "-n", "-i", "0.1", "-c", "20", rig.target)
        forward = iperf.run(rig, seconds, omit=FAR_WARM_UP)
        back = iperf.run(rig, seconds, reverse=True, omit=FAR_WARM_UP)
    return {
        "forward": forward.gigabits * 1e3,
        "back": back.gigabits * 1e3,
        "ping": statistics.median(ping_times(said)) / 1e3,
    }


def far_ethr(program: Program, settings: Settings) -> Values:
    seconds = max(8, round(settings.seconds))
    with open_rig(program, FAR) as rig:
        said, _ = ethr.run(rig, seconds, "-t", "b")
        _, latency = ethr.run(rig, 4, "-t", "l", "-i", "20")
    bits, _, _ = ethr.totals(said, "TCP", seconds)
    return {"forward": bits / 1e6, "p50": ethr.latencies(latency)["p50"] / 1e3}


# ethr


def ethr_tcp(program: Program, settings: Settings, *, streams: int) -> Values:
    seconds = max(2, round(settings.seconds))
    with open_rig(program) as rig:
        said, _ = ethr.run(rig, seconds, "-t", "b", "-n", str(streams))
    return {"forward": ethr.totals(said, "TCP", seconds)[0] / 1e9}


def ethr_udp(program: Program, settings: Settings) -> Values:
    seconds = max(2, round(settings.seconds))
    with open_rig(program) as rig:
        large, _ = ethr.run(rig, seconds, "-p", "udp", "-t", "b", "-l", "1372")
        small, _ = ethr.run(rig, seconds, "-p", "udp", "-t", "p")
    return {
        "gigabits": ethr.totals(large, "UDP", seconds)[0] / 1e9,
        "kpps": ethr.totals(small, "UDP", seconds)[2] / 1e3,
    }


def ethr_connections(program: Program, settings: Settings) -> Values:
    seconds = max(2, round(settings.seconds))
    with open_rig(program) as rig:
        said, _ = ethr.run(rig, seconds, "-t", "c")
    return {"rate": ethr.totals(said, "TCP", seconds)[1]}


def ethr_latency(program: Program, settings: Settings) -> Values:
    with open_rig(program) as rig:
        _, said = ethr.run(rig, max(2, round(settings.seconds)), "-t", "l", "-i", "1000")
    found = ethr.latencies(said)
    return {name: found[name] for name in ("avg", "p50", "p99")}


def _tcp(name: str, streams: int, what: str) -> Measurement:
    figures = (
        Figure("forward", f"TCP, {what}", "Gbit/s", "higher"),
        Figure("back", f"TCP, {what}, back", "Gbit/s", "higher"),
        Figure("cpu", f"CPU per end, TCP, {what}", "s/GiB", "lower"),
        Figure("cpu_sender", f"CPU of the sender, TCP, {what}", "s/GiB", "lower"),
        Figure("cpu_receiver", f"CPU of the receiver, TCP, {what}", "s/GiB", "lower"),
    )
    run = functools.partial(tcp, streams=streams)
    return Measurement(
        name, "throughput", f"TCP, {what}, both ways, with CPU", figures, run, lambda s: 2 * s + 4
    )


def _udp(name: str, size: int) -> Measurement:
    figures = (
        Figure("kpps", f"UDP, {size} bytes, delivered", "kpps", "higher"),
        Figure("gigabits", f"UDP, {size} bytes, delivered", "Gbit/s", "higher"),
        Figure("lost", f"UDP, {size} bytes, lost", "%", "lower"),
        Figure("cpu", f"CPU per end, UDP, {size} bytes", "us/packet", "lower"),
    )
    run = functools.partial(udp, size=size)
    return Measurement(name, "throughput", f"UDP of {size} bytes, unlimited", figures, run, lambda s: s + 3)


def _growth(kind: str, scale: int, run: Callable[[Program, Settings], Values]) -> Measurement:
    word = {"peers": "peer", "ips": "allowed IP"}[kind]
    many = f"{scale:,} {word}{'s' if scale > 1 else ''}".replace(",", " ")
    figures = (
        Figure("setconf", f"wg setconf, {many}", "s", "lower"),
        Figure("dump", f"wg show dump, {many}", "s", "lower"),
        Figure("rss", f"RSS, {many}", "MB", "lower"),
        Figure("idle", f"CPU when idle, {many}", "%", "lower", fault=True),
        Figure("tcp", f"TCP, 1 stream, {many}", "Gbit/s", "higher"),
    )
    help = f"a hub with {many}: configure, list, memory, idle CPU, TCP"
    return Measurement(
        f"{kind}{scale}", kind, help, figures, run, lambda s: 2 * s + 6, bare=False, scale=scale
    )


MEASUREMENTS: dict[str, Measurement] = {
    measurement.name: measurement
    for measurement in (
        _tcp("tcp1", 1, "1 stream"),
        _tcp("tcp8", 8, "8 streams"),
        _udp("udp64", 64),
        _udp("udp1372", 1372),
        Measurement(
            "ping",
            "latency",
            "round trips of an idle tunnel",
            (
                Figure("mean", "ping, mean", "us", "lower"),
                Figure("p50", "ping, p50", "us", "lower"),
                Figure("p99", "ping, p99", "us", "lower"),
                Figure("lost", "ping, lost", "%", "lower", fault=True),
            ),
            ping,
            lambda s: s + 2,
        ),
        Measurement(
            "pingpong",
            "latency",
            "one byte to and fro over TCP",
            (
                Figure("mean", "TCP ping-pong, mean", "us", "lower"),
                Figure("p50", "TCP ping-pong, p50", "us", "lower"),
                Figure("p99", "TCP ping-pong, p99", "us", "lower"),
            ),
            pingpong,
            lambda s: s + 3,
        ),
        Measurement(
            "memory",
            "memory",
            "RSS before and after UDP and TCP load",
            (
                Figure("idle", "RSS, 1 peer, idle", "MB", "lower"),
                Figure("loaded", "RSS, 1 peer, after load", "MB", "lower"),
                Figure("loaded_sender", "RSS, 1 peer, after load, sender", "MB", "lower"),
                Figure("loaded_receiver", "RSS, 1 peer, after load, receiver", "MB", "lower"),
            ),
            memory,
            lambda s: 3 * max(MEMORY_LOAD_MIN, s) + 5,
            bare=False,
        ),
        Measurement(
            "start",
            "startup",
            "from the daemon's start to its socket",
            (
                Figure("accepts", "start to socket ready", "s", "lower"),
                Figure("answers", "start to first answer on the socket", "s", "lower"),
                Figure("rss", "RSS, nothing configured", "MB", "lower"),
            ),
            start,
            lambda _: 1.5,
            bare=False,
        ),
        Measurement(
            "up",
            "startup",
            "from `pywg up` (`wg-quick up` for others) to the first ping",
            (
                Figure("up", "up returns", "s", "lower"),
                Figure("first_ping", "up to first ping", "s", "lower"),
            ),
            up,
            lambda _: 2.5,
            bare=False,
        ),
        Measurement(
            "handshakes",
            "handshakes",
            f"initiations of {HANDSHAKE_PEERS} peers, {WINDOW} at a time",
            (
                Figure("rate", "handshakes answered", "1/s", "higher"),
                Figure("cpu", "CPU per handshake answered", "us", "lower"),
                Figure("p50", "handshake answered after, p50", "ms", "lower"),
                Figure("p99", "handshake answered after, p99", "ms", "lower"),
                Figure("lost", "handshakes lost", "%", "lower", fault=True),
                Figure("cookies", "cookies asked for", "", "lower", fault=True),
                Figure("generator", "CPU of the generator per handshake", "us", ""),
            ),
            handshakes,
            lambda s: max(HANDSHAKE_LOAD_MIN, s) + 6,
            bare=False,
        ),
        *(_growth("peers", n, functools.partial(grown_peers, peers=n)) for n in (1, 100, 10_000)),
        *(_growth("ips", n, functools.partial(grown_ips, ips=n)) for n in (1, 1000, 100_000)),
        Measurement(
            "far",
            "path",
            f"a link of {FAR.rate:g} Mbit/s with {FAR.round_trip:g} ms round trip",
            (
                Figure("forward", "100 Mbit/s, 34 ms: TCP", "Mbit/s", "higher", "bare"),
                Figure("back", "100 Mbit/s, 34 ms: TCP, back", "Mbit/s", "higher", "bare"),
                Figure("ping", "100 Mbit/s, 34 ms: ping", "ms", "lower", "bare"),
            ),
            far,
            lambda s: 2 * (max(5.0, s) + FAR_WARM_UP) + 5,
        ),
        Measurement(
            "ethr-far",
            "ethr",
            "ethr on the link of `far`",
            (
                Figure("forward", "ethr, 100 Mbit/s, 34 ms: TCP", "Mbit/s", "higher", "bare"),
                Figure("p50", "ethr, 100 Mbit/s, 34 ms: latency p50", "ms", "lower", "bare"),
            ),
            far_ethr,
            lambda s: max(8.0, s) + 12,
            tool=ETHR,
        ),
        *(
            Measurement(
                f"ethr-tcp{n}",
                "ethr",
                f"ethr: TCP bandwidth, {n} connection{'s' if n > 1 else ''}",
                (Figure("forward", f"ethr: TCP, {n} connection{'s' if n > 1 else ''}", "Gbit/s", "higher"),),
                functools.partial(ethr_tcp, streams=n),
                lambda s: s + 5,
                tool=ETHR,
            )
            for n in (1, 8)
        ),
        Measurement(
            "ethr-udp",
            "ethr",
            "ethr: UDP bandwidth (1372 bytes) and packets, at the server",
            (
                Figure("gigabits", "ethr: UDP, 1372 bytes, delivered", "Gbit/s", "higher"),
                Figure("kpps", "ethr: UDP, 1 byte, delivered", "kpps", "higher"),
            ),
            ethr_udp,
            lambda s: 2 * s + 8,
            tool=ETHR,
        ),
        Measurement(
            "ethr-connections",
            "ethr",
            "ethr: TCP connections per second",
            (Figure("rate", "ethr: TCP connections", "1/s", "higher"),),
            ethr_connections,
            lambda s: s + 5,
            tool=ETHR,
        ),
        Measurement(
            "ethr-latency",
            "ethr",
            "ethr: TCP latency",
            (
                Figure("avg", "ethr: latency, mean", "us", "lower"),
                Figure("p50", "ethr: latency, p50", "us", "lower"),
                Figure("p99", "ethr: latency, p99", "us", "lower"),
            ),
            ethr_latency,
            lambda s: s + 5,
            tool=ETHR,
        ),
    )
}

ALIASES: dict[str, tuple[str, ...]] = {
    "cpu": ("tcp1", "tcp8"),
    "rss": ("memory",),
    "rtt": ("ping",),
    "growth": tuple(name for name, m in MEASUREMENTS.items() if m.scale),
    "iperf3": ("tcp1", "tcp8", "udp64", "udp1372"),
}
"""Other words for what can be chosen; groups are chosen by their names too."""


def choose(words: list[str]) -> list[Measurement]:
    """The measurements that names, groups and aliases stand for, each once, in the order of the catalogue.

    Raises LookupError with the word that stands for nothing.
    """
    chosen: set[str] = set()
    for word in words:
        names = [name for name, m in MEASUREMENTS.items() if word in (name, m.group)] or ALIASES.get(word, ())
        if not names:
            raise LookupError(word)
        chosen.update(names)
    return [measurement for name, measurement in MEASUREMENTS.items() if name in chosen]
