"""A wire with delay, jitter, reordering, duplication and loss, for systems whose kernel has no netem.

    relay.py LEFT RIGHT [--delay MS] [--jitter MS] [--reorder P] [--duplicate P] [--loss P]
                        [--rate MBIT] [--queue MS] [--seed N]

Runs on a host that stands between two others. LEFT and RIGHT are its interfaces, with addresses of two
different networks; the other hosts use it as their gateway. What comes in by LEFT is led into one TUN device,
and what the relay writes into a second one leaves by RIGHT; and the other way round. The settings hold for
each direction:

    --delay      milliseconds for every packet, so a round trip takes twice as long
    --jitter     up to so many milliseconds more, drawn for each packet; none overtakes another
    --reorder    the share of packets (0 to 1) that leave at once and so overtake those before them
    --duplicate  the share of packets that arrive twice
    --loss       the share of packets that are lost
    --rate       Mbit/s at which both interfaces send (tc tbf), with a queue of --queue milliseconds

Prints "ready" when packets pass. Ends on SIGTERM or SIGINT with one line of JSON: for each direction how many
packets were taken, lost, duplicated, reordered and written. The devices go with it; rules and settings stay,
as they go with the host.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import heapq
import itertools
import json
import os
import pathlib
import random
import select
import signal
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
LARGEST = 65535
BURST = 64  # packets read from one device before the other has its turn
TUN_QUEUE = 10_000  # packets that wait until they are read
TBF_BURST = 32 * 1024  # bytes


@dataclasses.dataclass
class Direction:
    """What happens to the packets of one direction. Times are seconds, shares 0 to 1."""

    chance: random.Random
    delay: float = 0.0
    jitter: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    loss: float = 0.0
    taken: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    written: int = 0
    _last: float = 0.0

    def take(self, now: float) -> list[float]:
        """When the packet that came at `now` is to leave: never, once, or twice."""
        self.taken += 1
        if self._happens(self.loss):
            self.lost += 1
            return []
        if self._happens(self.reorder):
            self.reordered += 1
            due = now
        else:
            due = max(self._last, now + self.delay + self.jitter * self.chance.random())
            self._last = due
        if self._happens(self.duplicate):
            self.duplicated += 1
            return [due, due]
        return [due]

    def counts(self) -> dict[str, int]:
        names = ("taken", "lost", "duplicated", "reordered", "written")
        return {name: getattr(self, name) for name in names}

    def _happens(self, share: float) -> bool:
        return share > 0 and self.chance.random() < share


def open_tun(name: str, mtu: int) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    run(f"ip link set {name} mtu {mtu} txqueuelen {TUN_QUEUE} up")
    return descriptor


def run(command: str) -> None:
    subprocess.run(command.split(), check=True)


def setting(name: str, value: str) -> None:
    path = pathlib.Path("/proc/sys/net", name)
    if path.exists():
        path.write_text(value)


def lead(interface: str, device: str, table: int) -> None:
    """Send all that comes in by `interface` and is not for this host into `device`."""
    setting(f"ipv4/conf/{interface}/rp_filter", "0")
    setting(f"ipv4/conf/{device}/rp_filter", "0")
    for family in ("-4", "-6"):
        run(f"ip {family} rule add iif {interface} lookup {table} pref {table}")
        run(f"ip {family} route add default dev {device} table {table}")


def limit(interface: str, megabits: float, queue: float) -> None:
    """Let an interface send at so many Mbit/s, with a queue of so many milliseconds."""
    bits = int(megabits * 1e6)
    waiting = int(bits / 8 * queue / 1e3) + TBF_BURST
    run(f"tc qdisc replace dev {interface} root tbf rate {bits}bit burst {TBF_BURST} limit {waiting}")


def mtu_of(interface: str) -> int:
    return int(json.loads(subprocess.check_output(["ip", "-j", "link", "show", interface]))[0]["mtu"])


def is_multicast(packet: bytes) -> bool:
    """Whether this host itself sent it, to greet its IPv6 neighbours; routers forward none of these."""
    return packet[0] >> 4 == 6 and packet[24] == 0xFF


def carry(ends: dict[int, tuple[int, Direction]]) -> None:
    """Carry packets until a signal ends it. ends: the device to read, the one to write, the direction."""
    waiting: list[tuple[float, int, int, bytes, Direction]] = []
    order = itertools.count()
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, out, packet, direction = heapq.heappop(waiting)
            with contextlib.suppress(OSError):  # the device is down: lost, as on a real wire
                os.write(out, packet)
                direction.written += 1
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select(list(ends), [], [], pause)
        for source in readable:
            out, direction = ends[source]
            now = time.monotonic()
            for _ in range(BURST):
                try:
                    packet = os.read(source, LARGEST)
                except BlockingIOError:
                    break
                if is_multicast(packet):
                    continue
                for due in direction.take(now):
                    heapq.heappush(waiting, (due, next(order), out, packet, direction))


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("left")
    parser.add_argument("right")
    for name in ("delay", "jitter", "reorder", "duplicate", "loss", "rate"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    parser.add_argument("--queue", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    options = parse(arguments)
    setting("ipv4/conf/all/rp_filter", "0")
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        setting(name, "1")
    devices, directions = [], []
    for number, interface in enumerate((options.left, options.right)):
        devices.append(open_tun(f"relay{number}", mtu_of(interface)))
        lead(interface, f"relay{number}", 200 + number)
        if options.rate:
            limit(interface, options.rate, options.queue)
        directions.append(
            Direction(
                random.Random(options.seed + number),
                options.delay / 1e3,
                options.jitter / 1e3,
                options.reorder,
                options.duplicate,
                options.loss,
            )
        )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # a wire is there before all that uses it
    print("ready", flush=True)
    try:
        carry({devices[0]: (devices[1], directions[0]), devices[1]: (devices[0], directions[1])})
    finally:
        names = ("left_to_right", "right_to_left")
        print(
            json.dumps({name: direction.counts() for name, direction in zip(names, directions, strict=True)})
        )


if __name__ == "__main__":
    main(sys.argv[1:])
