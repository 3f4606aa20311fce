"""A long run on the real data path: rekeys, roaming, reloads and churn of peers under load.

    python -m tests.soak --minutes 60

Two hosts with pywgd between them, a hub and a client, and beside the client one more peer after the other.
A paced stream runs through all of it, and TCP transfers one after another. Every `--cycle` seconds the hub's
file gets new peers in place of others and is reloaded, a peer that was added connects, is pinged and goes
again, and the client moves to its other address. Each minute's line tells memory, descriptors and threads of
both daemons; the last line is all figures as JSON. Ends with 1 when something leaked or a packet was lost,
and says what. Needs root, and touches nothing but namespaces of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import pathlib
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from tests.system.net import Host, Lab, Task, eventually, tool
from tests.system.tunnel import PORT, WG, Key

PYWG = str(pathlib.Path(sys.executable).with_name("pywg"))
UP = (PYWG, "up", "--backend", "userspace")
CONFIGURATION = "/run/wg0.conf"
CHURNED = 5
"""Peers that come and go with each reload of the hub; one of them is really there."""

GROWTH = 8 << 20
"""Bytes of memory that a daemon may gain after its first tenth of the run."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What a daemon has of the system at one time. memory: resident bytes; age: seconds since the start."""

    age: float
    memory: int
    descriptors: int
    threads: int


@dataclasses.dataclass
class Side:
    """One end of the tunnel, and what was seen of its daemon."""

    host: Host
    process: int = 0
    samples: list[Sample] = dataclasses.field(default_factory=list)

    def find(self) -> None:
        """Find the daemon's process."""
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if (
                    entry.name.isdigit()
                    and (entry / "comm").read_text() == "pywgd\n"
                    and (entry / "ns/net").samefile(f"/proc/{self.host.pid}/ns/net")
                ):
                    self.process = int(entry.name)
                    return
        raise AssertionError(f"no daemon runs on the {self.host.name}")

    def look(self, age: float) -> Sample:
        """Take a sample. Raises OSError when the daemon has ended."""
        folder = pathlib.Path(f"/proc/{self.process}")
        status = dict(re.findall(r"^(\w+):\s+(\d+)", (folder / "status").read_text(), re.MULTILINE))
        descriptors = sum(1 for _ in (folder / "fd").iterdir())
        sample = Sample(age, int(status["VmRSS"]) * 1024, descriptors, int(status["Threads"]))
        self.samples.append(sample)
        return sample

    def statistics(self) -> dict[str, Any]:
        """What the daemon has counted."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(self.host.path(f"/run/wireguard/{WG}.sock")))
            client.sendall(b"stats=1\n\n")
            answer = b""
            while not answer.endswith(b"\n\n"):
                answer += client.recv(1 << 16)
        told: dict[str, Any] = json.loads(answer.splitlines()[0])
        return told

    def settled(self) -> list[Sample]:
        """The samples but for those of the first tenth, when caches fill."""
        return self.samples[len(self.samples) // 10 :]

    def figures(self) -> dict[str, Any]:
        first, last = self.settled()[0], self.samples[-1]
        return {
            "memory_first": first.memory,
            "memory_last": last.memory,
            "memory_most": max(sample.memory for sample in self.samples),
            "descriptors_first": first.descriptors,
            "descriptors_last": last.descriptors,
            "descriptors_most": max(sample.descriptors for sample in self.samples),
            "threads_first": first.threads,
            "threads_last": last.threads,
            "drops": self.statistics()["drops"],
        }

    def complaints(self) -> Iterator[str]:
        """What grew."""
        first, last = self.settled()[0], self.samples[-1]
        if last.memory - first.memory > GROWTH:
            yield f"the {self.host.name}'s memory grew from {first.memory} to {last.memory} bytes"
        for what in ("descriptors", "threads"):
            before, after = getattr(first, what), getattr(last, what)
            if after > before:
                yield f"the {self.host.name} has {after} {what}, after {before}"


class Soak:
    """The run. minutes: how long; cycle: seconds between two changes; rate: bytes/s of the transfers."""

    def __init__(self, lab: Lab, minutes: float, cycle: float, rate: int, interval: float) -> None:
        self.lab, self.seconds, self.cycle, self.rate, self.interval = (
            lab,
            minutes * 60,
            cycle,
            rate,
            interval,
        )
        self.keys = {name: Key.generate() for name in ("hub", "client")}
        self.done = {"cycles": 0, "reloads": 0, "moves": 0, "peers": 0, "transfers": 0, "bytes": 0}

    def build(self) -> None:
        """Make the hosts, and bring the tunnel up."""
        self.hub, self.client = Side(self.lab.host("hub")), Side(self.lab.host("client"))
        self.lab.join(
            self.hub.host,
            self.client.host,
            ["192.0.2.1/24", "2001:db8::1/64"],
            ["192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64"],
        )
        self.write_hub([])
        self.client.host.write(
            CONFIGURATION,
            f"[Interface]\nPrivateKey = {self.keys['client'].private}\nAddress = 10.77.0.2/24\n"
            f"[Peer]\nPublicKey = {self.keys['hub'].public}\nEndpoint = 192.0.2.1:{PORT}\n"
            "AllowedIPs = 10.77.0.0/24\nPersistentKeepalive = 25\n",
        )
        for side in (self.hub, self.client):
            side.host.run(*UP, CONFIGURATION, env={"LOG_LEVEL": ""})
            side.find()
        self.client.host.run("ping", "-c1", "-w10", "10.77.0.1", timeout=20)

    def write_hub(self, keys: list[Key]) -> None:
        """The hub's file: the client, and these peers."""
        text = f"[Interface]\nPrivateKey = {self.keys['hub'].private}\nListenPort = {PORT}\n"
        text += "Address = 10.77.0.1/24\n"
        text += f"[Peer]\nPublicKey = {self.keys['client'].public}\nAllowedIPs = 10.77.0.2/32\n"
        for number, key in enumerate(keys):
            text += f"[Peer]\nPublicKey = {key.public}\n"
            text += f"AllowedIPs = 10.77.0.{100 + number}/32, 10.78.{number}.0/24\n"
        self.hub.host.write(CONFIGURATION, text)

    def change_everything(self, number: int) -> None:
        """One cycle: other peers on the hub, one of them comes and goes, and the client moves."""
        keys = [Key.generate() for _ in range(CHURNED)]
        self.write_hub(keys)
        self.hub.host.run(PYWG, "reload", CONFIGURATION)
        self.done["reloads"] += 1
        guest = "/run/wg1.conf"
        self.client.host.write(
            guest,
            f"[Interface]\nPrivateKey = {keys[0].private}\nAddress = 10.77.0.100/32\nTable = off\n"
            f"[Peer]\nPublicKey = {self.keys['hub'].public}\nEndpoint = 192.0.2.1:{PORT}\n"
            "AllowedIPs = 10.77.0.1/32\n",
        )
        self.client.host.run(*UP, guest, env={"LOG_LEVEL": ""})
        self.client.host.run("ping", "-c3", "-i0.2", "-w10", "-I", "wg1", "10.77.0.1", timeout=20)
        self.client.host.run(PYWG, "down", guest)
        self.done["peers"] += CHURNED
        self.move(f"192.0.2.{2 + (number + 1) % 2}")
        self.done["moves"] += 1
        self.done["cycles"] += 1

    def move(self, source: str) -> None:
        """Give the client this address, until the hub answers there.

        Both addresses stay, so that nothing under way is lost. So it may take more than one try: an
        answer to the old address, which arrives behind the change, tells the client that it is still good.
        """
        run = self.client.host.run
        run(*f"ip route replace 192.0.2.0/24 dev eth0 src {source}".split())

        def has_moved() -> bool:
            if source in self.hub.host.run("wg", "show", WG, "endpoints"):
                return True
            for change in ("add", "del"):
                run(*f"ip route {change} 198.51.100.0/24 dev eth0".split())
            return False

        eventually("the hub knows where the client is", has_moved, 30, every=0.5)

    def transfer(self) -> tuple[Task, Task]:
        """Start one that takes as long as a cycle."""
        receive = tool(self.hub.host, "stream.py", "receive", "10.77.0.1", 7001)
        eventually("the receiver listens", lambda: "ready" in receive.output())
        size = round(self.rate * self.cycle)
        send = tool(self.client.host, "stream.py", "send", "10.77.0.1", 7001, size, self.cycle)
        return send, receive

    def run(self) -> dict[str, Any]:
        """Play all of it; the figures. Raises AssertionError, CommandError or OSError when a part fails."""
        self.build()
        echo = tool(self.hub.host, "paced.py", "echo", "10.77.0.1", 7000)
        eventually("the echo listens", lambda: "ready" in echo.output())
        count = round(self.seconds / self.interval)
        paced = tool(self.client.host, "paced.py", "send", "10.77.0.1", 7000, count, self.interval)
        start = time.monotonic()
        print("begun", flush=True)
        next_line = 0.0
        while time.monotonic() - start < self.seconds:
            begun = time.monotonic()
            send, receive = self.transfer()
            self.change_everything(self.done["cycles"])
            time.sleep(max(0.0, begun + self.cycle - time.monotonic()))
            sent = send.wait(60 + 10 * self.cycle).split()
            assert sent == receive.wait().split()[1:], "the transfer arrived as it was sent"
            self.done["transfers"] += 1
            self.done["bytes"] += int(sent[0])
            age = time.monotonic() - start
            seen = [side.look(age) for side in (self.hub, self.client)]
            if age >= next_line:
                next_line += 60
                print(f"{age / 60:5.1f} min", *(_line(sample) for sample in seen), sep="   ", flush=True)
        outcome = json.loads(paced.wait(60).splitlines()[-1])
        echo.stop()
        age = time.monotonic() - start
        for side in (self.hub, self.client):
            side.look(age)
        peer = next(
            peer
            for peer in self.client.statistics()["peers"]
            if peer["public_key"] == self.keys["hub"].public
        )
        return {
            "minutes": round(age / 60, 1),
            **self.done,
            "handshakes": peer["handshakes"]["completed"],
            "paced": {key: outcome[key] for key in ("sent", "returned", "duplicated", "longest_gap")},
            "lost": len(outcome["lost"]),
            "hub": self.hub.figures(),
            "client": self.client.figures(),
        }

    def complaints(self, figures: dict[str, Any]) -> list[str]:
        """What must not have happened."""
        found = [*self.hub.complaints(), *self.client.complaints()]
        if figures["lost"] or figures["paced"]["duplicated"]:
            found.append(f"of the paced stream {figures['lost']} were lost: {figures['paced']}")
        return found


def _line(sample: Sample) -> str:
    return f"{sample.memory / 2**20:6.1f} MiB {sample.descriptors:3} fds {sample.threads:2} threads"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--cycle", type=float, default=15, help="seconds between two changes (15)")
    parser.add_argument("--rate", type=int, default=1_000_000, help="bytes per second of the transfers")
    parser.add_argument("--interval", type=float, default=0.02, help="of the paced stream, in seconds (0.02)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Lab(pathlib.Path(directory)) as lab:
        soak = Soak(lab, options.minutes, options.cycle, options.rate, options.interval)
        try:
            figures = soak.run()
        except BaseException:
            print(lab.evidence(), flush=True)
            raise
        complaints = soak.complaints(figures)
    for complaint in complaints:
        print(complaint)
    print(json.dumps(figures), flush=True)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
