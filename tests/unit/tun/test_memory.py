from __future__ import annotations

import errno

import pytest

from pywg.tun.base import TunGoneError, TunOffload, TunState
from pywg.tun.memory import QUEUE_LIMIT, MemoryTun


def test_delivered_packets_are_read_in_order_and_then_none() -> None:
    tun = MemoryTun()
    tun.deliver(b"one", b"two")
    assert [tun.read(), tun.read(), tun.read()] == [b"one", b"two", None]


def test_written_frames_are_taken_once() -> None:
    tun = MemoryTun()
    tun.write((b"on", bytearray(b"e")))
    tun.write([memoryview(b"two")])
    assert tun.take() == [b"one", b"two"]
    assert tun.take() == []


def test_with_vnet_hdr_packets_get_a_plain_header() -> None:
    tun = MemoryTun(offload=TunOffload(vnet_hdr=True))
    tun.deliver(b"packet")
    assert tun.read() == bytes(10) + b"packet"
    tun.write((bytes(10), b"answer"))
    assert tun.packets() == [b"answer"]


def test_both_queues_are_bounded() -> None:
    tun = MemoryTun()
    for _ in range(QUEUE_LIMIT + 1):
        tun.deliver(b"x")
        tun.write((b"y",))
    assert len(tun.take()) == QUEUE_LIMIT
    assert tun.dropped == 2


def test_the_state_changes_and_the_change_is_told() -> None:
    tun = MemoryTun("wg0", 1400)
    told = []
    tun.on_change = lambda: told.append(tun.state())
    tun.set_state(mtu=1280)
    tun.set_state(up=False)
    assert told == [TunState(1280, up=True), TunState(1280, up=False)]


def test_a_device_that_is_down_neither_takes_nor_gives() -> None:
    tun = MemoryTun()
    tun.set_state(up=False)
    tun.deliver(b"x")
    assert tun.read() is None
    with pytest.raises(OSError, match="down") as caught:
        tun.write((b"x",))
    assert caught.value.errno == errno.EIO


def test_a_removed_device_is_gone_for_every_use() -> None:
    tun = MemoryTun("wg7")
    tun.remove()
    for use in (tun.read, tun.state, lambda: tun.write((b"x",))):
        with pytest.raises(TunGoneError, match="wg7 was removed"):
            use()
