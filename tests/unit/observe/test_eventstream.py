"""Events in words."""

import re

import pytest

from pywg.observe.eventstream import in_words

KEY = "q0uvLrwCLl0DyPBKLpMDHcPSMHpR8BbTs5nDWZjYA4k="
BASE = {"interface": "wg0", "kind": "x", "time": 0.0, "text": "sent an initiation"}


@pytest.mark.parametrize(
    ("more", "brief", "words"),
    [
        ({}, False, "wg0 sent an initiation"),
        ({"peer": KEY}, False, "wg0 peer q0uv…YA4k: sent an initiation"),
        ({"peer": KEY, "endpoint": "h:1"}, False, "wg0 peer q0uv…YA4k at h:1: sent an initiation"),
        ({"peer": KEY, "name": "alice"}, False, "wg0 peer alice (q0uv…YA4k): sent an initiation"),
        (
            {"peer": KEY, "name": "alice", "endpoint": "h:1"},
            False,
            "wg0 peer alice (q0uv…YA4k, h:1): sent an initiation",
        ),
        ({"peer": KEY, "name": "alice", "endpoint": "h:1"}, True, "wg0 alice: sent an initiation"),
        ({"peer": KEY, "endpoint": "h:1"}, True, "wg0 q0uv…YA4k: sent an initiation"),
    ],
)
def test_events_in_words(more: dict[str, str], brief: bool, words: str) -> None:
    said = in_words(BASE | more, brief=brief)
    assert re.fullmatch(r"\d\d:\d\d:\d\d ", said[:9])
    assert said[9:] == words


def test_what_a_daemon_says_does_not_move_the_cursor() -> None:
    said = in_words(BASE | {"text": "a\x1b[2Jb", "name": "c\nd", "peer": KEY})
    assert said.isprintable()
    assert "\\x1b[2J" in said
