"""Feeds the compiled data path random frames, datagrams and commands until the time is up.

Run by `run_asan.py` under AddressSanitizer: step by step, and each third time with the data path's own
threads while commands go on; by `run_tsan.py` with threads each time. Says each seed, so that a failure can
be played again: `--seed N --rounds 1`.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import select
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from pywg import clock
from pywg.datapath.compiled import CompiledDataPath, ciphers, try_open_untrusted, try_seal
from pywg.noise import cookie
from pywg.tun.base import TunOffload
from tests import twins

OFFLOADS = [TunOffload(), TunOffload(vnet_hdr=True, tso=True), TunOffload(vnet_hdr=True, tso=True, uso=True)]
MAC1_KEY = bytes(range(32))


def mac1(head: bytes) -> bytes:
    return cookie.mac1(MAC1_KEY, head)


def one_round(seed: int, steps: int, *, threads: bool) -> int:
    """Random events on one data path; the number of packets that came out of it."""
    choice = random.Random(seed)
    offload = choice.choice(OFFLOADS)
    cipher = choice.choice(ciphers())
    rig = twins.Rig(lambda tun: CompiledDataPath(tun, cipher=cipher), offload, gso=choice.random() < 0.8)
    came_out = 0
    if threads:
        rig.expires = clock.now() + 1000
    try:
        rig.path.set_identity(MAC1_KEY)
        twins.set_up(rig)
        if threads:
            rig.path.start()
        events = twins.Events(choice)
        for step in range(steps):
            for _ in range(choice.choice([1, 2, 6])):
                events.next(offload, mac1)(rig)
            if threads:
                select.select([rig.path.fileno(), *rig.remotes], [], [], 0.001)
            outcome = rig.settle(clock.now() if threads else float(step % 50))
            came_out += sum(map(len, outcome.sent.values())) + sum(map(len, outcome.written.values()))
            if choice.randrange(50) == 0:
                rig.path.set_bind(None)
                rig.path.set_bind(rig.bind)
            if choice.randrange(5) == 0:
                until = (clock.now() if threads else float(step % 50)) + choice.choice([0.0, 1.0, 5.0])
                rig.path.ask_for_cookies(choice.randbytes(32), bytes(32), until)
    finally:
        rig.close()
    return came_out


def seals(choice: random.Random) -> None:
    """Every library on buffers that end where they end."""
    for cipher in ciphers():
        size = choice.randrange(2100)
        sealed = try_seal(cipher, choice.randbytes(32), choice.getrandbits(64), choice.randbytes(size))
        try_open_untrusted(cipher, choice.randbytes(32), 1, sealed[: choice.randrange(size + 17)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--threads", action="store_true", help="each time")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    end = time.monotonic() + options.seconds
    rounds = came_out = 0
    while time.monotonic() < end and (options.rounds is None or rounds < options.rounds):
        print(f"seed {seed}", flush=True)
        seals(random.Random(seed))
        came_out += one_round(seed, 60, threads=options.threads or seed % 3 == 0)
        seed += 1
        rounds += 1
    print(f"{rounds} rounds, {came_out} packets came out")


if __name__ == "__main__":
    main()
