"""The model behind `pywg top`: rates, order, filter, and a picture that fits."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.noise.keys import PublicKey
from pywg.observe.top import Reading, Top, age_text, size_text, sparkline
from pywg.wire.endpoint import Endpoint

ALICE, BOB = PublicKey(b"a" * 32), PublicKey(b"b" * 32)
NAMES = {str(ALICE): "alice", str(BOB): "bob"}
WALL = 1_700_000_000.0


def reading(received: int = 0, sent: int = 0, drops: dict[str, int] | None = None) -> Reading:
    peers = [
        PeerSnapshot(ALICE, endpoint=Endpoint("192.0.2.1", 51820), rx_bytes=received, tx_bytes=sent),
        PeerSnapshot(BOB, last_handshake_ns=int((WALL - 30) * 1e9)),
    ]
    statistics: dict[str, Any] = {
        "is_up": True,
        "listen_port": 51820,
        "mtu": 1420,
        "datapath": "portable data path",
        "under_load": False,
        "peers": peers,
        "drops": drops or {},
    }
    return Reading("wg0", DeviceSnapshot(listen_port=51820, peers=peers), statistics, NAMES)


def shown(top: Top, width: int = 80, height: int = 24) -> list[str]:
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=False, legacy_windows=False
    )
    console.print(top.picture(width, height))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]


def two_looks(drops: dict[str, int] | None = None) -> Top:
    top = Top()
    top.update([reading()], 10.0, WALL)
    top.update([reading(2000, 500, drops)], 12.0, WALL)
    return top


def test_rates_are_of_the_time_between_two_looks() -> None:
    alice = two_looks().rows["wg0", str(ALICE)]
    assert (alice.rate_in, alice.rate_out) == (1000.0, 250.0)
    assert list(alice.history) == [1250.0]


def test_the_picture_has_names_ages_and_rates() -> None:
    text = "\n".join(shown(two_looks()))
    assert "wg0  up  port 51820  MTU 1420  portable data path  2 peers" in text
    assert "alice 192.0.2.1:51820" in " ".join(text.split())
    assert "never" in text
    assert "30s" in text


def test_on_a_narrow_terminal_peers_keep_their_names() -> None:
    lines = [line.split() for line in shown(two_looks(), 40, 24)]
    assert ["PEER", "SHAKEN", "IN/s", "OUT/s"] in lines
    assert any(line[:2] == ["alice", "never"] for line in lines)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 10), (40, 24), (200, 50)])
def test_the_picture_fits(width: int, height: int) -> None:
    top = two_looks({"bad-mac1": 7})
    for number in range(100):
        top.events.append(
            {"interface": "wg0", "kind": "x", "time": WALL, "text": f"event {number} " + "long " * 50}
        )
    lines = shown(top, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert any("event 99" in line for line in lines)
    assert any("q quit" in line for line in lines) or width < 80


def test_many_peers_fit_too() -> None:
    peers = [PeerSnapshot(PublicKey(bytes([number]) * 32)) for number in range(200)]
    top = Top()
    top.update([Reading("wg0", DeviceSnapshot(peers=peers))], 1.0, WALL)
    assert len(shown(top)) <= 24


def test_drops_are_told_by_reason_while_they_happen() -> None:
    top = two_looks({"bad-mac1": 20})
    assert "drops/s: bad-mac1 10" in shown(top)
    top.update([reading(2000, 500, {"bad-mac1": 20})], 13.0, WALL)
    assert not any("drops/s" in line for line in shown(top))


def names(top: Top) -> list[str]:
    return [row.name for row in top.chosen()]


def test_keys_sort_and_turn_the_order() -> None:
    top = two_looks()
    assert names(top) == ["alice", "bob"]
    top.press("r")
    assert names(top) == ["bob", "alice"]
    top.press("r")
    top.press("s")
    assert (top.sort, names(top)) == ("rate", ["alice", "bob"])
    top.press("s")
    assert (top.sort, names(top)) == ("handshake", ["bob", "alice"])


def test_the_filter_is_typed_and_taken_back() -> None:
    top = two_looks()
    for key in "/boq\x7f":
        assert top.press(key)
    assert (top.filter, names(top)) == ("bo", ["bob"])
    assert any("filter: bo" in line for line in shown(top))
    top.press("\r")
    assert names(top) == ["bob"]
    top.press("/")
    top.press("\x1b")
    assert names(top) == ["alice", "bob"]


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_keys_that_leave(key: str) -> None:
    assert not Top().press(key)


def test_an_interface_that_does_not_answer_says_why() -> None:
    top = Top()
    top.update([Reading("wg9", error="wg9 cannot be read: it has gone")], 1.0, WALL)
    assert "wg9 cannot be read: it has gone" in shown(top)[0]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0K"), (102400, "100K"), (1536 * 1024, "1.5M"), (5 * 1024**3, "5.0G")],
)
def test_sizes_are_short(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "never"), (-1, "0s"), (5, "5s"), (150, "2m"), (7300, "2h"), (200000, "2d")]
)
def test_ages_are_short(seconds: float | None, text: str) -> None:
    assert age_text(seconds) == text


def test_sparklines_reach_from_lowest_to_highest() -> None:
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 4, 8]) == "▁▅█"
