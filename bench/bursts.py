"""Bursts through one compiled data path, for valgrind to count: `python -m bench.bursts COUNT`.

Which build of it, says PYTHONPATH. `bench.instructions` runs this and reads the counts.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.instructions import SIZES, STAGES
from pywg.datapath.compiled import CompiledDataPath
from pywg.datapath.tap import Wanted
from pywg.tun.base import TunOffload
from tests import twins

WARM_UP = 3  # bursts, until whatever is made when it is first needed is there
SEGMENT, SMALL = 1360, 64  # bytes
INDEX = 11  # of the session with the first of the peers
OURS, THEIRS = twins.OURS[4], "10.1.0.1"


def play(bursts: int) -> None:
    """What is counted: bursts of each size before a capture and after one, each in a thread of its own."""
    with contextlib.ExitStack() as stack:  # the threads live until the end, so that no two have one number
        for packets in SIZES.values():
            rig = twins.Rig(CompiledDataPath, TunOffload(vnet_hdr=True, tso=True, uso=True))
            twins.set_up(rig)
            rig.path.set_tap(None)
            counters = itertools.count()
            _exchange(rig, packets, WARM_UP, counters)
            for stage in STAGES:
                if stage == "ended":
                    rig.path.set_tap(Wanted())
                    _exchange(rig, packets, WARM_UP, counters)
                    rig.path.set_tap(None)
                thread = stack.enter_context(ThreadPoolExecutor(1))
                thread.submit(_exchange, rig, packets, bursts, counters).result()
            rig.close()


def _exchange(rig: twins.Rig, packets: int, bursts: int, counters: Iterator[int]) -> None:
    """So many bursts each way. Raises AssertionError unless each passes."""
    payload = bytes(SEGMENT * packets if packets > 1 else SMALL)
    whole = twins.packet(OURS, THEIRS, payload, protocol=6, sequence=1)
    frame = twins.super_packet(whole, SEGMENT) if packets > 1 else twins.PLAIN + whole
    inner = [
        twins.packet(THEIRS, OURS, payload[at : at + SEGMENT], protocol=6, sequence=1 + at)
        for at in range(0, len(payload), SEGMENT)
    ]
    for _ in range(bursts):
        rig.tun.deliver(frame)
        rig.arrive(0, [twins.data_message(INDEX, next(counters), packet) for packet in inner])
        rig.path.step(0.0)
        outcome = rig.outcome(rig.path.drain(0.0))
        passed = [sum(map(len, outcome.sent.values())), sum(map(len, outcome.written.values()))]
        assert min(passed) > 0, passed


if __name__ == "__main__":
    play(int(sys.argv[1]))
