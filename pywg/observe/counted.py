"""What one answer of `stats=1` alone tells: the findings of `show`, metrics and the daemon's own log.

Nothing is watched, sent or looked up, so less is known than the doctor finds out, and some is told with less
weight. Imports nothing but the registry: the daemon looks here too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pywg.observe.findings import Finding, Severity, short

RECENT = 30.0
"""Seconds in which what was counted is news."""

CLOCKS_APART = 60.0
"""Seconds by which a peer's clock, or the last handshake, is ahead of our clock before we wonder."""

_LONG_AGO = float("inf")


def from_statistics(said: dict[str, Any], wall: float | None = None) -> Iterator[Finding]:
    """The findings; `wall`: seconds since 1970, None: now."""
    if not said["is_up"]:
        yield Finding("interface-down", "The interface is down.")
        return
    if said["under_load"]:
        yield Finding("under-load", "Handshakes need a cookie now.")
    yield from _strangers(said)
    for peer in said["peers"]:
        yield from _handshakes(peer)
        yield from _clock(peer, time.time() if wall is None else wall)
        if (lost := peer.get("allowed_ips_lost")) is not None:
            seen = f"{lost['network']} was given to {short(lost['public_key'], None)}, and nothing is left."
            yield Finding("allowed-ips-twice", seen, (), peer["public_key"], peer["name"])


def behind_a_peer(peer: dict[str, Any]) -> str | None:
    """A sentence when the peer's clock was ahead of ours in its last initiation; None when it was not."""
    ahead = peer.get("clock_ahead")
    if ahead is None or ahead < CLOCKS_APART:
        return None
    called = short(peer["public_key"], peer["name"])
    return (
        f"The clock of {called} is {ahead:.0f} s ahead of the one here. If the one here is wrong, peers that "
        "have seen a later time refuse this host after its next start."
    )


def _handshakes(peer: dict[str, Any]) -> Iterator[Finding]:
    key, name, waiting = peer["public_key"], peer["name"], peer["waiting_since"]
    called, never = short(key, name), peer["last_handshake"] is None
    handshakes = peer["handshakes"]
    if handshakes["refused"].get("bad-tag") and (never or waiting is not None):
        yield Finding(
            "preshared-key-differs", f"The answer of {called} cannot be opened.", (), key, name, waiting
        )
    old = handshakes.get("refused_ago", {}).get("old-timestamp", _LONG_AGO)
    if old < RECENT and peer.get("session_age") is None:
        seen = f"{called} begins handshakes with a timestamp that is not later than its last one."
        yield Finding("clock-went-back", seen, (), key, name)
    if waiting is not None:
        seen = f"Initiations leave for {called}, and nothing comes back."
        off = None if never else Severity.WARNING  # it has been there, and may be off now
        yield Finding("handshake-unanswered", seen, (), key, name, waiting, off)


def _clock(peer: dict[str, Any], wall: float) -> Iterator[Finding]:
    key, name, last = peer["public_key"], peer["name"], peer["last_handshake"]
    if last is not None and last - wall > CLOCKS_APART:
        seen = f"The last handshake with {short(key, name)} was {last - wall:.0f} s from now."
        yield Finding("clock-behind", seen, (), key, name)
    elif (seen := behind_a_peer(peer) or "") != "":
        yield Finding("clock-behind", seen, (), key, name, severity=Severity.WARNING)


def _strangers(said: dict[str, Any]) -> Iterator[Finding]:
    """Those whom nobody knows: they cannot make more of it than one finding of each kind."""
    waiting = [peer for peer in said["peers"] if peer["waiting_since"] is not None]
    ago = said.get("dropped_ago", {})
    if ago.get("bad-mac1", _LONG_AGO) < RECENT:
        seen = "Handshake messages come that are for another public key than ours."
        if waiting:
            seen = (
                f"While {len(waiting)} of our peers do not answer, handshake messages come for another key."
            )
        weight = Severity.WARNING if waiting else Severity.NOTE
        yield Finding("other-key-for-us", seen, severity=weight)
    if ago.get("source-not-allowed", _LONG_AGO) < RECENT:
        seen = "Packets come out of the tunnel with addresses that their senders may not use."
        yield Finding("source-not-allowed", seen, severity=Severity.WARNING)
    stranger = said.get("stranger")
    if stranger is None or stranger["ago"] >= RECENT:
        return
    seen = f"At {stranger['endpoint']} is somebody with the public key {stranger['public_key']}."
    host = stranger["endpoint"].rpartition(":")[0]
    there = [peer for peer in waiting if (peer.get("endpoint") or "").rpartition(":")[0] == host]
    if len(there) == 1:
        yield Finding("peer-has-another-key", seen, (), there[0]["public_key"], there[0]["name"])
    else:
        yield Finding("stranger", seen)
