"""Sends prepared initiations to a hub, so many at a time, and counts the responses; run inside a host.

    python -m bench.load FILE ADDRESS PORT PEERS WINDOW SECONDS WORKERS

Every peer sends from its own address and waits at least PAUSE between two of its initiations, as peers have
to. A cookie reply is taken, and the initiation repeated with MAC2. Prints one line of JSON: sent, answered,
cookies, lost (no answer within PATIENCE), checked (responses whose cryptography was verified afterwards),
seconds from the first message to the last response, cpu (seconds of this program), p50 and p99 (milliseconds
from message to response).
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import mmap
import multiprocessing
import pathlib
import resource
import select
import socket
import sys
import time
from multiprocessing.synchronize import Barrier
from typing import Any

from bench.initiations import SIZE, Sender, hub_key, source
from bench.stats import quantile
from pywg.errors import BadPacket
from pywg.noise.cookie import COOKIE_LIFETIME, NO_MAC, cookie_key, mac2
from pywg.noise.primitives import xaead_open
from pywg.wire.messages import CookieReply, Response, parse_untrusted

PAUSE = 0.03
PATIENCE = 1.0
CHECK_EVERY = 50
FULL = 256


@dataclasses.dataclass(slots=True)
class Peer:
    """One peer: its socket, its cookie, and the initiation that it waits to have answered."""

    number: int
    socket: socket.socket
    next: int
    cookie: bytes = b""
    cookie_born: float = 0.0
    waits_for: int = -1
    sent_at: float = 0.0


@dataclasses.dataclass(slots=True)
class Result:
    """What one worker has counted. Times are of the monotonic clock."""

    begun: float = 0.0
    ended: float = 0.0
    sent: int = 0
    answered: int = 0
    cookies: int = 0
    lost: int = 0
    checked: int = 0
    cpu: float = 0.0
    delays: list[float] = dataclasses.field(default_factory=list)


class Worker:
    """Carries the initiations of some of the peers."""

    def __init__(
        self, messages: mmap.mmap, hub: tuple[str, int], mine: list[int], peers: int, window: int
    ) -> None:
        self.messages, self.peers, self.window = messages, peers, window
        self.count = len(messages) // SIZE
        self.cookie_key = cookie_key(hub_key().public_key)
        self.result = Result()
        self.samples: list[tuple[int, Response]] = []
        self.poll = select.epoll()
        self.by_descriptor: dict[int, Peer] = {}
        self.idle: collections.deque[Peer] = collections.deque()
        self.flying: dict[int, Peer] = {}
        for number in mine:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            sock.bind((source(number), 0))
            sock.connect(hub)
            self.poll.register(sock, select.EPOLLIN)
            peer = Peer(number, sock, number)
            self.by_descriptor[sock.fileno()] = peer
            self.idle.append(peer)

    def run(self, seconds: float) -> None:
        self.result.begun = self.result.ended = now = time.monotonic()
        end = now + seconds
        while now < end:
            self.fill(now)
            if not self.flying and not (self.idle and self.idle[0].next < self.count):
                break  # all that was prepared is sent
            for descriptor, _ in self.poll.poll(0.005, FULL):
                self.receive(self.by_descriptor[descriptor])
            now = time.monotonic()
            for peer in [peer for peer in self.flying.values() if now - peer.sent_at > PATIENCE]:
                self.result.lost += 1
                self.landed(peer)

    def fill(self, now: float) -> None:
        """Send until so many are on their way as may be."""
        while len(self.flying) < self.window and self.idle:
            peer = self.idle[0]
            if peer.next >= self.count or now - peer.sent_at < PAUSE:
                return
            self.idle.popleft()
            peer.waits_for, peer.next = peer.next, peer.next + self.peers
            peer.sent_at = now
            self.flying[peer.number] = peer
            self.send(peer, now)
            self.result.sent += 1

    def send(self, peer: Peer, now: float) -> None:
        at = peer.waits_for * SIZE
        message = self.messages[at : at + SIZE]
        fresh = peer.cookie and now - peer.cookie_born < COOKIE_LIFETIME
        with contextlib.suppress(OSError):  # it counts as lost
            peer.socket.send(message + (mac2(peer.cookie, message) if fresh else NO_MAC))

    def receive(self, peer: Peer) -> None:
        try:
            message = parse_untrusted(peer.socket.recv(2048))
        except (OSError, BadPacket):
            return
        now = time.monotonic()
        if isinstance(message, Response) and message.receiver == peer.waits_for:
            self.result.answered += 1
            self.result.ended = now
            self.result.delays.append(now - peer.sent_at)
            if peer.waits_for % CHECK_EVERY == 0:
                self.samples.append((peer.waits_for, message))
            self.landed(peer)
        elif isinstance(message, CookieReply) and message.receiver == peer.waits_for:
            at = peer.waits_for * SIZE
            peer.cookie = xaead_open(
                self.cookie_key, message.nonce, message.cookie, self.messages[at + SIZE - 16 : at + SIZE]
            )
            peer.cookie_born = now
            self.result.cookies += 1
            self.send(peer, now)

    def landed(self, peer: Peer) -> None:
        del self.flying[peer.number]
        peer.waits_for = -1
        self.idle.append(peer)

    def check(self) -> None:
        """Verify the responses that were kept. Raises BadPacket."""
        for number, response in self.samples:
            sender = Sender.of(number % self.peers)
            sender.check_response_untrusted(number, response.ephemeral, response.nothing)
            self.result.checked += 1


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What the workers share: the file of messages, where the hub is, and how much of what."""

    file: pathlib.Path
    hub: tuple[str, int]
    peers: int
    window: int
    seconds: float
    workers: int


def work(job: Job, which: int, together: Barrier, results: Any) -> None:
    """One worker process, with every so many-th peer and its share of the window."""
    with job.file.open("rb") as stream:
        messages = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
    mine = list(range(which, job.peers, job.workers))
    share = job.window // job.workers + (which < job.window % job.workers)
    worker = Worker(messages, job.hub, mine, job.peers, share)
    together.wait()
    before = time.process_time()
    worker.run(job.seconds)
    worker.result.cpu = time.process_time() - before
    worker.check()
    results.put(worker.result)


def merge(results: list[Result]) -> dict[str, float]:
    """The results of all workers as one."""
    total: dict[str, float] = {
        name: sum(getattr(result, name) for result in results)
        for name in ("sent", "answered", "cookies", "lost", "checked", "cpu")
    }
    total["seconds"] = max(result.ended for result in results) - min(result.begun for result in results)
    delays = [delay for result in results for delay in result.delays]
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        total[name] = quantile(delays, share) * 1e3 if delays else 0.0
    return total


def main(arguments: list[str]) -> None:
    file, address, port, peers, window, seconds, workers = arguments
    hub = address, int(port)
    job = Job(pathlib.Path(file), hub, int(peers), int(window), float(seconds), int(workers))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, job.peers + 64), max(hard, job.peers + 64)))
    context = multiprocessing.get_context("fork")
    together, results = context.Barrier(job.workers), context.Queue()
    processes = [
        context.Process(target=work, args=(job, which, together, results)) for which in range(job.workers)
    ]
    for process in processes:
        process.start()
    try:
        merged = merge([results.get(timeout=job.seconds + 60) for _ in processes])
    finally:
        for process in processes:
            process.join(1)
            process.kill()
    print(json.dumps(merged), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
