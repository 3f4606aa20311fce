"""Checks of what handshakes came to: from statistics, events and what was seen on the wire.

WireGuard answers nobody whom it does not know, so much is told apart only by what is missing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pywg.observe.checks import Subject
from pywg.observe.counted import CLOCKS_APART, behind_a_peer
from pywg.observe.findings import Finding, Severity
from pywg.observe.watching import has_session, refused

CLOCK_SLACK = 5.0
"""Seconds by which a handshake may lie in the future."""

_CLOCKS = ("/var/lib/systemd/timesync/clock", "/etc/fake-hwclock.data", "/var/log/wtmp")
"""Files that systems write again and again, some of them so that their clock never goes back."""

_INITIATION, _RESPONSE = 1, 2
_SAME_PSK = "pywg genpsk  # the same PresharedKey in both files, or in none"
_HANDLED = (
    "unknown-peer",
    "bad-mac1",
    "bad-tag",
    "bad-key",
    "old-timestamp",
    "initiation-flood",
    "queue-full",
)


def answers_that_do_not_open(subject: Subject) -> Iterator[Finding]:
    """A response that opens with no key: the peer knows us, so its preshared key is another."""
    for key, _, after in _pairs(subject):
        waits = after["waiting_since"] is not None or after["last_handshake"] is None
        waits = waits and after["handshakes"]["refused"].get("bad-tag", 0)
        if refused(subject, key, "bad-tag") or waits:
            has = "We have one for it." if after["has_preshared_key"] else "We have none for it."
            yield subject.finding(
                "preshared-key-differs",
                f"{subject.called(key)} answers, so each knows the other's public key, but its answer does "
                f"not open: the preshared keys differ. {has}",
                _SAME_PSK,
                key=key,
            )


def answers_that_are_not_taken(subject: Subject) -> Iterator[Finding]:
    """Initiations arrive, we answer, and no session comes of it."""
    for key, before, after in _pairs(subject):
        came = after["handshakes"]["initiations_received"] - before["handshakes"]["initiations_received"]
        if came and after["session_age"] is None:
            yield subject.finding(
                "session-unconfirmed",
                f"{subject.called(key)} at {after['endpoint']} began {_times(came)} and was answered, but "
                "uses no session: its preshared key differs from ours, or our answers do not reach it.",
                _SAME_PSK,
                "pywg doctor  # on the other host: it sees which",
                key=key,
            )


def clocks(subject: Subject) -> Iterator[Finding]:
    """Timestamps that are not later than the last one."""
    for key, _, after in _pairs(subject):
        if refused(subject, key, "old-timestamp") and after["session_age"] is None:
            yield subject.finding(
                "clock-went-back",
                f"{subject.called(key)} begins handshakes with a timestamp that is not later than its last "
                "one: its clock went back, or two hosts have its key.",
                "timedatectl  # on the other host: is the time right? Waiting until it has caught up helps "
                "too",
                f"pywg set {subject.interface} peer {key} remove",
                f"# and then: {_again(subject)}",
                key=key,
            )
    for _, _, after in _pairs(subject):
        if (seen := behind_a_peer(after)) is not None:
            ntp = "timedatectl set-ntp true  # here, or there: whose clock is wrong"
            yield subject.finding(
                "clock-behind", seen, ntp, key=after["public_key"], severity=Severity.WARNING
            )
    last, key = max(
        ((peer.last_handshake_ns / 1e9, str(peer.public_key)) for peer in _peers(subject)), default=(0.0, "")
    )
    written, path = max(_written(subject), default=(0.0, ""))
    if last > time.time() + CLOCK_SLACK:
        seen = f"The last handshake with {subject.called(key)} was {last - time.time():.0f} s from now"
    elif written > time.time() + CLOCKS_APART:
        seen = f"{path} was written {written - time.time():.0f} s from now"
    else:
        return
    yield subject.finding(
        "clock-behind",
        f"{seen}: the clock here went back. Peers take our initiations for repeated ones until it is later "
        "than in the last one that they took.",
        "timedatectl set-ntp true",
    )


def _written(subject: Subject) -> Iterator[tuple[float, str]]:
    """When files were last written that tell of a time that has been."""
    for path in (subject.path, *_CLOCKS):
        with contextlib.suppress(OSError):
            if path is not None:
                yield Path(path).stat().st_mtime, path


def strangers(subject: Subject) -> Iterator[Finding]:
    """Initiations by keys that no peer has: often a peer of whom we have another key."""
    without = [p for p in _peers(subject) if not has_session(subject, str(p.public_key))]
    seen: set[str] = set()
    for event in subject.watched.events:
        if event["kind"] != "stranger" or event["peer"] in seen:
            continue
        seen.add(event["peer"])
        host = _host(event["endpoint"] or "")
        there = [p for p in without if p.endpoint is not None and p.endpoint.host == host]
        there = there or [p for p in without if p.endpoint is None]
        add = f"pywg set {subject.interface} peer {event['peer']} allowed-ips ADDRESS"
        if len(there) == 1:
            key = str(there[0].public_key)
            yield subject.finding(
                "peer-has-another-key",
                f"At {event['endpoint']} is somebody with the public key {event['peer']}; for the peer "
                f"{subject.called(key)} we have {key}.",
                f"# if they are the same: PublicKey = {event['peer']} in {subject.path or 'the file'}, then:",
                f"pywg reload {subject.interface}",
                key=key,
            )
        else:
            yield subject.finding(
                "stranger",
                f"Somebody at {event['endpoint']} with the public key {event['peer']} begins handshakes "
                "and gets no answer.",
                f"{add}  # if it is to be a peer",
            )


def another_key_for_us(subject: Subject) -> Iterator[Finding]:
    """MAC1 is made with the receiver's public key: a mistake of a peer's, or a stranger who tries ports."""
    watched, device = subject.watched, subject.device
    count = watched.drops("bad-mac1")
    if not count or device is None or device.private_key is None:
        return
    do = (
        "# on the other host, in the [Peer] section for this host:",
        f"PublicKey = {device.private_key.public_key.base64}",
    )
    without = [p for p in _peers(subject) if not has_session(subject, str(p.public_key))]
    callers = set(watched.wrong_mac1 or ())
    for peer in without:
        if peer.endpoint is not None and peer.endpoint.host in callers:
            key = str(peer.public_key)
            yield subject.finding(
                "other-key-for-us",
                f"From {peer.endpoint.host}, where {subject.called(key)} is, come handshake messages that "
                "are for another public key than ours.",
                *do,
                key=key,
            )
    strangers = sorted(callers - {p.endpoint.host for p in without if p.endpoint is not None})
    if watched.wrong_mac1 is not None and not strangers:
        return
    who = f" from {', '.join(strangers[:3])}" if strangers else ""
    seen = (
        f"{_times(count)} in {watched.seconds:.0f} s a handshake message came{who} that is for another "
        "public key than ours"
    )
    if not without:
        weight, seen = Severity.NOTE, f"{seen}. All peers have sessions, so it is nobody's whom we know."
    elif strangers:
        weight = Severity.WARNING
        seen = f"{seen}: of a peer that is somewhere else now, or of a stranger who tries ports."
    else:
        weight, seen = Severity.ERROR, f"{seen}."
    yield subject.finding("other-key-for-us", seen, *do, severity=weight)


def load(subject: Subject) -> Iterator[Finding]:
    """Cookies are asked for."""
    after = subject.watched.after
    if after is not None and after["under_load"]:
        yield subject.finding(
            "under-load",
            f"Handshakes need a cookie now; {after['handshake_queue']} messages wait. Many peers began at "
            "once, or somebody floods the port.",
            f"pywg top {subject.interface}",
        )


def datagrams_on_the_wire(subject: Subject) -> Iterator[Finding]:
    """What the daemon says that it sent and what left; what arrived and what the daemon got."""
    watched = subject.watched
    if watched.left is None or watched.arrived is None:
        return
    answers = {host for kind, host in watched.arrived if kind == _RESPONSE}
    firewall = "nft list ruleset  # or: iptables-save; look for drop and reject"
    port = subject.device.listen_port if subject.device is not None else 0
    got = sum(map(watched.drops, _HANDLED))
    connected = set()  # whose initiation may have come just before one counted
    for key, before, after in _pairs(subject):
        got += after["handshakes"]["initiations_received"] - before["handshakes"]["initiations_received"]
        host = _host(after["endpoint"] or "")
        if after["session_age"] is not None:
            connected.add(host)
        sent = after["handshakes"]["initiations_sent"] - before["handshakes"]["initiations_sent"]
        if sent and host not in {remote for kind, remote in watched.left if kind == _INITIATION}:
            yield subject.finding(
                "not-sent",
                f"The daemon sent {_count(sent, 'initiation')} to {after['endpoint']}, and none left this "
                "host: the local firewall drops them.",
                firewall,
                f"nft insert rule inet filter output udp sport {port} accept  # as your tables are called",
                key=key,
            )
        is_lost = after["session_age"] is None and not refused(subject, key, "bad-tag")
        if (
            host in answers
            and is_lost
            and not watched.drops("unexpected")
            and not watched.drops("under-load")
        ):
            yield subject.finding(
                "dropped-on-arrival",
                f"The answer of {after['endpoint']} reaches this host, but not the daemon: the local "
                "firewall drops it.",
                firewall,
                f"nft insert rule inet filter input udp dport {port} accept  # as your tables are called",
                key=key,
            )
    here = {p.endpoint.host for p in _peers(subject) if p.endpoint is not None}
    calls = sorted({host for kind, host in watched.arrived if kind == _INITIATION} - connected)
    if calls and not got and watched.before is not None and (not here or here.intersection(calls)):
        yield subject.finding(
            "dropped-on-arrival",
            f"Initiations from {', '.join(calls[:3])} for port {port} reach this host, but not the daemon: "
            "the local firewall drops them.",
            firewall,
            f"nft insert rule inet filter input udp dport {port} accept  # as your tables are called",
        )


def silence(subject: Subject) -> Iterator[Finding]:
    """Nobody answers."""
    ours = subject.device.private_key if subject.device is not None else None
    for key, _, after in _pairs(subject):
        if after["waiting_since"] is None:
            continue
        sent, where = after["handshakes"]["initiations_sent"], after["endpoint"]
        waited = round(after["waiting_since"])
        has_called = after["last_handshake"] is not None and after["handshakes"]["initiations_received"]
        if has_called and subject.config is not None and subject.endpoint_of_file(key) is None:
            yield subject.finding(
                "nat-mapping-lost",
                f"{subject.called(key)} called from {where} {_ago(after['last_handshake'])} and has not "
                f"answered there for {waited} s: it is off, or a router between forgot the way to it.",
                "# in the file of that peer, in the [Peer] section for this host:",
                "PersistentKeepalive = 25",
                key=key,
            )
        ever = (
            "It has never answered."
            if after["last_handshake"] is None
            else (f"The last handshake was {_ago(after['last_handshake'])}.")
        )
        nothing = ""
        if subject.watched.arrived is not None:
            some = any(host == _host(where or "") for _, host in subject.watched.arrived)
            nothing = "" if some else " Nothing at all arrives from there."
        yield subject.finding(
            "handshake-unanswered",
            f"{_count(sent, 'initiation')} left for {where}, the first unanswered one {waited} s ago. {ever}"
            f"{nothing} Either nobody listens there, or something on the way drops, or the two do not have "
            "each other's public key: then WireGuard is silent.",
            "pywg doctor  # on the other host, while this one tries",
            f"pywg doctor {subject.interface} --other FILE  # with a copy of the other's file",
            *(
                ["# there, in the [Peer] section for this host:", f"PublicKey = {ours.public_key.base64}"]
                if ours
                else []
            ),
            f"pywg show all public-key  # there; it is to be {key}",
            key=key,
            lasted=after["waiting_since"],
        )


def silence_of_other_daemons(subject: Subject) -> Iterator[Finding]:
    """The same where there are only bytes to go by."""
    device, later = subject.device, subject.watched.device
    if device is None or later is None or subject.watched.before is not None:
        return
    yield subject.finding(
        "not-pywgd", f"{subject.interface} is not run by pywgd, which would tell why handshakes fail."
    )
    before = {peer.public_key: peer for peer in device.peers}
    for peer in later.peers:
        was, key = before.get(peer.public_key), str(peer.public_key)
        silent = was is not None and peer.rx_bytes == was.rx_bytes and peer.tx_bytes > was.tx_bytes
        if silent and not has_session(subject, key):
            yield subject.finding(
                "handshake-unanswered",
                f"Initiations leave for {peer.endpoint}, and nothing comes back. Either nobody listens "
                "there, or something on the way drops, or the two do not have each other's keys.",
                f"pywg doctor {subject.interface} --other FILE  # with a copy of the other's file",
                key=key,
            )


def nobody_can_begin(subject: Subject) -> Iterator[Finding]:
    """Packets for a peer of whom nobody knows where it is."""
    count = subject.watched.drops("no-endpoint")
    if count:
        yield subject.finding(
            "no-endpoint",
            f"{_count(count, 'packet')} were for peers without an endpoint: they have to call first.",
            "# give the peer an Endpoint = HOST:PORT, or let it begin (PersistentKeepalive = 25 there)",
        )


def endpoints_that_flap(subject: Subject) -> Iterator[Finding]:
    """One key at two places."""
    places: dict[str, list[str]] = {}
    for event in subject.watched.events:
        if event["kind"] == "endpoint-moved" and event["peer"]:
            places.setdefault(event["peer"], []).append(event["endpoint"])
    for key, seen in places.items():
        if len(set(seen)) > 1:
            yield subject.finding(
                "endpoint-flaps",
                f"{subject.called(key)} was heard from {' and '.join(sorted(set(seen))[:3])} in turn: two "
                "hosts may have its private key, or it has two ways out.",
                "pywg genkey  # a key of its own for each host",
                key=key,
            )


CHECKS = (
    answers_that_do_not_open,
    answers_that_are_not_taken,
    clocks,
    strangers,
    another_key_for_us,
    load,
    datagrams_on_the_wire,
    silence,
    silence_of_other_daemons,
    nobody_can_begin,
    endpoints_that_flap,
)


def _pairs(subject: Subject) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The peers that were there at both ends of the watch, by key."""
    watched = subject.watched
    if watched.before is None or watched.after is None:
        return
    before = {peer["public_key"]: peer for peer in watched.before["peers"]}
    for peer in watched.after["peers"]:
        if peer["public_key"] in before:
            yield peer["public_key"], before[peer["public_key"]], peer


def _peers(subject: Subject) -> Any:
    device = subject.watched.device or subject.device
    return device.peers if device is not None else ()


def _again(subject: Subject) -> str:
    return (
        f"pywg reload {subject.path or subject.interface}, which adds it again and forgets its last timestamp"
    )


def _host(endpoint: str) -> str:
    return endpoint.rpartition(":")[0].strip("[]").partition("%")[0]


def _ago(seconds: float) -> str:
    return f"{max(0.0, time.time() - seconds):.0f} s ago"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
