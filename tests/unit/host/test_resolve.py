"""Names of endpoints are resolved with wg's patience."""

from __future__ import annotations

import socket

import pytest

from pywg.config.model import EndpointName
from pywg.config.positions import ConfigError, Located, Position
from pywg.errors import PywgError
from pywg.host.resolve import resolve_all, resolve_endpoint, retries_allowed
from pywg.wire.endpoint import Endpoint

NAME = EndpointName("vpn.example", "51820")


class NameServer:
    """Fails so often, then answers; counts what it was asked, and the time that was waited."""

    def __init__(self, failures, address=("192.0.2.1", 51820)):
        self.failures, self.address = list(failures), address
        self.asked, self.waits, self.lines = [], [], []

    def lookup(self, host, port, *hints):
        self.asked.append((host, port))
        if self.failures:
            raise self.failures.pop(0)
        family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        return [(family, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "", self.address)]

    def resolve(self, name=NAME):
        return resolve_endpoint(name, self.lines.append, sleep=self.waits.append, lookup=self.lookup)


def again():
    return socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def test_an_address_is_taken_as_it_is():
    assert resolve_endpoint(EndpointName("2001:db8::1", "5"), print) == Endpoint("2001:db8::1", 5)
    assert resolve_endpoint(EndpointName("192.0.2.1", "domain"), print) == Endpoint("192.0.2.1", 53)


def test_the_first_address_of_a_name_is_taken():
    assert NameServer([], ("2001:db8::1", 7, 0, 3)).resolve() == Endpoint("2001:db8::1", 7, 3)


def test_a_passing_failure_is_told_and_tried_again_with_growing_waits():
    server = NameServer([again(), again(), OSError(5, "I/O error")])
    assert server.resolve() == Endpoint("192.0.2.1", 51820)
    assert server.waits == pytest.approx([1.0, 1.2, 1.44])
    assert server.lines[0] == (
        "Temporary failure in name resolution: 'vpn.example:51820'. Trying again in 1.00 seconds..."
    )


def test_it_is_tried_again_15_times():
    server = NameServer(again() for _ in range(100))
    with pytest.raises(PywgError, match=r"'vpn\.example:51820' cannot be resolved: Temporary failure"):
        server.resolve()
    assert len(server.asked) == 16
    assert len(server.waits) == 15


@pytest.mark.parametrize("number", [socket.EAI_NONAME, socket.EAI_FAIL, socket.EAI_NODATA])
def test_a_permanent_failure_is_not_tried_again(number):
    server = NameServer([socket.gaierror(number, "no such name")] * 2)
    with pytest.raises(PywgError, match="cannot be resolved: no such name"):
        server.resolve()
    assert len(server.asked) == 1


def test_the_environment_says_how_often(monkeypatch):
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", "2")
    server = NameServer(again() for _ in range(100))
    with pytest.raises(PywgError):
        server.resolve()
    assert len(server.asked) == 3
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", "infinity")
    server = NameServer(again() for _ in range(100))
    assert server.resolve() == Endpoint("192.0.2.1", 51820)
    assert max(server.waits) == 20.0


@pytest.mark.parametrize("text", ["", "-1", "x", "1" * 20])
def test_nonsense_in_the_environment_is_told(monkeypatch, text):
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", text)
    with pytest.raises(PywgError, match="WG_ENDPOINT_RESOLUTION_RETRIES is"):
        retries_allowed()


def test_a_name_that_cannot_be_one_is_told():
    with pytest.raises(PywgError, match="cannot be resolved: this is no host name"):
        resolve_endpoint(EndpointName("a" * 300 + "\u00e9.example", "1"), print)


def test_a_name_without_an_ip_address_is_told():
    with pytest.raises(PywgError, match="has neither an IPv4 nor an IPv6 address"):
        resolve_endpoint(NAME, print, lookup=lambda *_: [(socket.AF_UNIX, 0, 0, "", "x")])


def test_a_file_s_names_are_asked_for_once_each_and_all_failures_told():
    bad, good = EndpointName("bad.example", "1"), EndpointName("good.example", "2")
    worse = EndpointName("worse.example", "3")
    asked = []

    def lookup(host, port, *hints):
        asked.append(host)
        if host != "good.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, 0, 0, "", ("192.0.2.2", 2))]

    def at(name, line):
        return Located(name, Position("wg0.conf", line, 12))

    with pytest.raises(ConfigError) as caught:
        resolve_all([at(bad, 4), at(good, 7), at(bad, 9), at(worse, 12)], print, lookup=lookup)
    assert str(caught.value).split("\n") == [
        "wg0.conf:4:12: Endpoint: 'bad.example:1' cannot be resolved: Name or service not known",
        "wg0.conf:12:12: Endpoint: 'worse.example:3' cannot be resolved: Name or service not known",
    ]
    assert asked == ["bad.example", "good.example", "worse.example"]
    assert resolve_all([at(good, 1), at(good, 2)], print, lookup=lookup) == {good: Endpoint("192.0.2.2", 2)}
