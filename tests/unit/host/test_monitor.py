"""The parts of the endpoint monitor around its decisions."""

from __future__ import annotations

import os
import selectors
import socket
import sys

import pytest

from pywg.config.model import Dialect, EndpointName
from pywg.config.parse import parse
from pywg.errors import PywgError
from pywg.host import monitor
from pywg.host.endpoints import Watched
from pywg.noise.keys import PublicKey
from pywg.wire.endpoint import Endpoint

ALICE, BOB, CAROL = (PublicKey(letter * 32) for letter in (b"a", b"b", b"c"))
NAME = EndpointName("vpn.example.org", "51820")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets and SO_MARK are Linux's")


def peer(key: PublicKey, *lines: str) -> str:
    return "\n".join(["[Peer]", f"PublicKey = {key.base64}", *lines, ""])


def test_peers_with_a_name_or_several_endpoints_are_watched() -> None:
    text = (
        peer(ALICE, "Endpoint = vpn.example.org:51820")
        + peer(BOB, "Endpoint = 192.0.2.1:1", "#pywg Endpoint = [2001:db8::1]:1")
        + peer(CAROL, "Endpoint = [fe80::1%eth0]:1")
        + peer(PublicKey(b"d" * 32))
    )
    assert monitor.watched_peers(parse(text, "wg0.conf", Dialect.WG_QUICK)) == [
        Watched(ALICE, (NAME,)),
        Watched(BOB, (EndpointName("192.0.2.1", "1"), EndpointName("2001:db8::1", "1"))),
    ]


def test_the_later_section_of_a_peer_counts() -> None:
    text = peer(ALICE, "Endpoint = vpn.example.org:51820") + peer(ALICE, "Endpoint = 192.0.2.1:1")
    assert monitor.watched_peers(parse(text, "wg0.conf", Dialect.WG_QUICK)) == []


def test_what_is_written_for_the_monitor_is_what_it_reads() -> None:
    peers = [Watched(ALICE, (NAME, EndpointName("fe80::1%eth0", "1"))), Watched(BOB, (NAME,))]
    assert monitor.read(monitor.written(peers)) == peers


def test_lookups_are_answered_in_their_order_and_failures_are_answers() -> None:
    answers = {NAME: [Endpoint("192.0.2.1", 51820)]}

    def addresses(name: EndpointName) -> list[Endpoint]:
        if name not in answers:
            raise PywgError("no such name")
        return answers[name]

    lookups = monitor.Lookups(addresses)
    other = EndpointName("other.example.org", "1")
    lookups.ask(other)
    lookups.ask(NAME)
    found = []
    with selectors.DefaultSelector() as selector:
        selector.register(lookups.fileno(), selectors.EVENT_READ)
        while len(found) < 2:
            assert selector.select(10)
            found += lookups.take()
    assert found == [(other, []), (NAME, answers[NAME])]


def test_the_way_to_an_endpoint_is_the_address_that_it_would_be_sent_from() -> None:
    assert monitor.way_to(Endpoint("127.0.0.1", 1), 0) == "127.0.0.1"
    assert monitor.way_to(Endpoint("fe80::1", 1, 1 << 30), 0) is None


def test_there_is_one_lock_for_an_interface() -> None:
    name = f"t{os.getpid()}"
    with monitor.take_lock(name):
        assert monitor.monitor_runs(name)
        with pytest.raises(PywgError, match=f"{name} has a monitor already"):
            monitor.take_lock(name)
    assert not monitor.monitor_runs(name)
    monitor.stop_monitor(name)
    monitor.take_lock(name).close()


def test_a_monitor_of_an_interface_that_is_not_there_ends_at_once() -> None:
    ready = []
    peers = [Watched(ALICE, (EndpointName("192.0.2.1", "1"),))]
    monitor.watch(f"t{os.getpid()}", peers, print, lambda: ready.append(True))
    assert ready == [True]


def test_an_interface_is_told_from_another_of_its_name() -> None:
    loopback = monitor._identity("lo")
    assert loopback == (socket.if_nametoindex("lo"), None)
    assert monitor._is_there("lo", loopback)
    assert not monitor._is_there("lo", (4711, None))
    assert not monitor._is_there("lo", (loopback[0], (1, 2)))
