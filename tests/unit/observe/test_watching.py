"""Messages as they pass an interface, before the kernel has looked at them."""

from __future__ import annotations

import struct

import pytest

from pywg.observe.watching import seen_untrusted
from tests.spec.world import udp_packet

PORT = 51820
CARRIED = b"\1" + bytes(147)


def whole(source: str, target: str, at: int) -> bytes:
    packet = udp_packet(source, target, CARRIED)
    return packet[:at] + struct.pack("!HH", PORT, PORT) + packet[at + 4 :]


@pytest.mark.parametrize(
    ("source", "target", "at"), [("10.0.0.1", "10.0.0.2", 20), ("fd00::1", "fd00::2", 40)]
)
def test_what_is_carried_and_the_far_address_are_seen_both_ways(source: str, target: str, at: int) -> None:
    packet = whole(source, target, at)
    assert seen_untrusted(packet, PORT, outgoing=True) == (CARRIED, target)
    assert seen_untrusted(packet, PORT, outgoing=False) == (CARRIED, source)
    assert seen_untrusted(packet, PORT + 1, outgoing=False) is None
    assert seen_untrusted(packet[: at + 8], PORT, outgoing=False) is None


def test_a_header_that_says_it_is_shorter_than_any_is_passed_over() -> None:
    packet = b"\x41" + bytes(3) + struct.pack("!HH", PORT, PORT) + bytes([0, 17, 0, 0, 1])
    assert len(packet) == 13
    assert seen_untrusted(packet, PORT, outgoing=False) is None
    assert seen_untrusted(b"", PORT, outgoing=False) is None
