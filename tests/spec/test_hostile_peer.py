"""A peer with right keys and no manners, before both data paths: what comes out is what went in, in order.

Super-packets are taken apart again as the kernel does it; each trick below is one that a coalescer could fall
for. What the outcome has to be follows from the packets themselves, not from either data path.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable

import pytest

from pywg.datapath.portable import PortableDataPath
from pywg.errors import DropReason
from pywg.tun.base import TunOffload
from tests import twins
from tests.hostile import TRICKS, Trick, never
from tests.twins import Rig

try:
    from pywg.datapath import compiled
except ImportError:
    compiled = None  # type: ignore[assignment]

PATHS: dict[str, Callable[..., object]] = {"portable": PortableDataPath}
if compiled is not None:
    PATHS["compiled"] = compiled.CompiledDataPath
OFFLOADS = {"plain": TunOffload(), "super": TunOffload(vnet_hdr=True, tso=True, uso=True)}
PEER, US = {4: "10.1.0.1", 6: "fd01::1"}, {4: "10.50.0.1", 6: "fd50::1"}


def carried(
    make: Callable[..., object], offload: TunOffload, plaintexts: Iterable[bytes]
) -> tuple[dict[bytes, list[bytes]], dict[DropReason, int], int]:
    """What came out of the tunnel, by flow; what was dropped; and how many frames were written for it."""
    rig = Rig(make, offload)  # type: ignore[arg-type]
    try:
        twins.set_up(rig)
        messages = [twins.data_message(11, i, plaintext) for i, plaintext in enumerate(plaintexts)]
        for _, run in itertools.groupby(messages, key=len):
            sizes = list(run)
            for start in range(0, len(sizes), 40):
                rig.arrive(0, sizes[start : start + 40])
        frames: list[bytes] = []
        take = rig.tun.take
        rig.tun.take = lambda: frames.extend(taken := take()) or taken  # type: ignore[func-returns-value, method-assign]
        outcome = rig.settle(1.0)
        return outcome.written, dict(outcome.drops), len(frames)
    finally:
        rig.close()


def by_flow(packets: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    flows: dict[bytes, list[bytes]] = {}
    for packet in packets:
        flows.setdefault(twins.flow_of(packet), []).append(twins.comparable(packet))
    return flows


@pytest.mark.parametrize("offload", OFFLOADS)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.name)
def test_a_trick_comes_out_as_it_went_in(trick: Trick, version: int, path: str, offload: str) -> None:
    packets = trick.packets(PEER[version], US[version])
    written, drops, frames = carried(PATHS[path], OFFLOADS[offload], packets)
    assert written == by_flow(packets)
    assert drops == {}
    if offload == "super" and not trick.may_join:
        assert frames == len(packets), "none of them may be part of a super-packet"
    if offload == "plain":
        assert frames == len(packets)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("version", [4, 6])
def test_neighbours_without_tricks_are_joined(version: int, path: str) -> None:
    """The counterpart: the tests above do not pass because nothing is ever joined."""
    packets = TRICKS[0].packets(PEER[version], US[version])
    assert TRICKS[0].name == "none"
    written, _, frames = carried(PATHS[path], OFFLOADS["super"], packets)
    assert written == by_flow(packets)
    assert frames == 2, "one of TCP, one of UDP"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("version", [4, 6])
def test_what_must_not_come_out_does_not(version: int, path: str) -> None:
    bad = never(PEER[version], US[version])
    expected: dict[DropReason, int] = {}
    for reason, _ in bad:
        expected[reason] = expected.get(reason, 0) + 1
    written, drops, _ = carried(PATHS[path], OFFLOADS["super"], [packet for _, packet in bad])
    assert written == {}
    assert drops == expected


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("version", [4, 6])
def test_what_lies_behind_the_length_that_a_packet_tells_is_cut_off(version: int, path: str) -> None:
    """Padding is for the sender to choose: up to a whole further packet, which must not come out either."""
    whole = twins.packet(PEER[version], US[version], b"x" * 50, protocol=17)
    behind = twins.packet("192.168.0.1" if version == 4 else "fd09::1", US[version], b"hidden" * 20)
    written, drops, _ = carried(PATHS[path], OFFLOADS["super"], [whole + behind, whole])
    assert written == by_flow([whole, whole])
    assert drops == {}


@pytest.mark.parametrize("path", PATHS)
def test_more_than_fits_into_one_super_packet_comes_out_in_several(path: str) -> None:
    packets = [
        twins.packet(
            PEER[4], US[4], struct.pack("!I", i) * 340, protocol=6, sequence=i * 1360, identification=i
        )
        for i in range(120)
    ]
    written, _, frames = carried(PATHS[path], OFFLOADS["super"], packets)
    assert written == by_flow(packets)
    assert 3 <= frames < 20
