"""The compiled data path does what the portable one does: same packets and reports on the same input."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pywg.datapath.portable import PortableDataPath
from pywg.noise import cookie
from pywg.tun.base import TunOffload
from tests import twins

compiled = pytest.importorskip("pywg.datapath.compiled", reason="build it with: pip install .")

OFFLOADS = [TunOffload(), TunOffload(vnet_hdr=True), TunOffload(vnet_hdr=True, tso=True, uso=True)]
MAC1_KEY = bytes(range(32))


def mac1(head: bytes) -> bytes:
    return cookie.mac1(MAC1_KEY, head)


def play(choice: random.Random, offload: TunOffload, *, gso: bool, gro: bool, steps: int) -> None:
    """Apply random events to both, and compare after each step."""
    rigs = []
    try:
        rigs.append(twins.Rig(PortableDataPath, offload, gso=gso, gro=gro))
        rigs.append(twins.Rig(compiled.CompiledDataPath, offload, gso=gso, gro=gro))
        for rig in rigs:
            rig.path.set_identity(MAC1_KEY)
            twins.set_up(rig)
        events = twins.Events(choice)
        now = 1.0
        for _ in range(steps):
            happening: list[Callable[[twins.Rig], None]] = [
                events.next(offload, mac1) for _ in range(choice.choice([1, 1, 2, 6]))
            ]
            now += choice.choice([0.0, 0.0, 0.5, 2.0, 20.0])
            outcomes = []
            for rig in rigs:
                for event in happening:
                    event(rig)
                outcomes.append(rig.settle(now))
            assert outcomes[0] == outcomes[1]
    finally:
        for rig in rigs:
            rig.close()


@pytest.mark.parametrize("offload", OFFLOADS, ids=["plain", "vnet", "super"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**64), gso=st.booleans(), gro=st.booleans())
def test_any_sequence_of_events_has_the_same_outcome(
    offload: TunOffload, seed: int, gso: bool, gro: bool
) -> None:
    play(random.Random(seed), offload, gso=gso, gro=gro, steps=8)


def test_a_session_at_its_end_without_an_endpoint_has_the_same_outcome() -> None:
    """Found by chance: what cannot be sent uses no counters up."""
    play(random.Random(54230), OFFLOADS[2], gso=False, gro=False, steps=8)


@pytest.mark.parametrize("seed", range(6))
def test_a_long_sequence_of_events_has_the_same_outcome(seed: int) -> None:
    play(random.Random(seed), OFFLOADS[2], gso=True, gro=True, steps=100)
