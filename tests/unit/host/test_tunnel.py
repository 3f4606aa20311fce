"""What is decided before the system is touched: what is refused, which MTU, which routes."""

from __future__ import annotations

import pytest

from pywg.config.model import Dialect
from pywg.config.parse import parse
from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.host.names import interface_exists, interface_meant, may_administer_network, require_network_rights
from pywg.host.routing import choose_mtu, routes_to_add
from pywg.noise.keys import PublicKey
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

ONE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def config(text: str):
    return parse(text, "wg0.conf", Dialect.WG_QUICK)


def networks(*texts: str):
    return {Network.parse(text) for text in texts}


class Paths:
    """Stands for the routing table: the MTU of the way to each host, and of the default route."""

    def __init__(self, default=None, **paths):
        self.default, self.paths = default, paths

    def path_mtu(self, endpoint):
        return self.paths.get(endpoint.host)

    def default_mtu(self):
        return self.default


def device(*hosts):
    peers = [PeerSnapshot(PublicKey(bytes([i] * 32)), endpoint=Endpoint(h, 1)) for i, h in enumerate(hosts)]
    return DeviceSnapshot(peers=[*peers, PeerSnapshot(PublicKey(bytes(32)))])


@pytest.mark.parametrize(
    ("text", "hosts", "paths", "mtu"),
    [
        ("MTU=1300", ["192.0.2.1"], Paths(**{"192.0.2.1": 9000}), 1300),
        ("", [], Paths(), 1420),
        ("", [], Paths(default=1400), 1320),
        ("", ["192.0.2.1"], Paths(default=1400), 1320),
        ("", ["192.0.2.1", "192.0.2.2"], Paths(default=1000, **{"192.0.2.1": 1500, "192.0.2.2": 1492}), 1412),
        ("", ["127.0.0.1"], Paths(**{"127.0.0.1": 65536}), 65456),
        ("", [], Paths(default=100), 68),
    ],
)
def test_the_mtu_is_the_file_s_or_that_of_the_narrowest_path_less_80(text, hosts, paths, mtu):
    assert choose_mtu(config(f"[Interface]\n{text}\n"), device(*hosts), paths) == mtu


def test_routes_come_longest_prefix_first():
    wanted = networks("10.0.0.0/8", "10.1.2.3/32", "fd00::/8", "fd00::1/128", "10.1.0.0/16")
    assert [str(network) for network in routes_to_add(wanted, set())] == [
        "fd00::1/128",
        "10.1.2.3/32",
        "10.1.0.0/16",
        "10.0.0.0/8",
        "fd00::/8",
    ]


def test_what_an_address_covers_needs_no_route():
    wanted = networks("10.0.0.2/32", "10.0.0.0/24", "10.0.0.0/16", "fd00::2/128", "10.0.1.0/24")
    covered = networks("10.0.0.0/24", "fd00::/64")
    assert [str(network) for network in routes_to_add(wanted, covered)] == ["10.0.1.0/24", "10.0.0.0/16"]


def test_an_interface_is_known_by_its_name():
    assert interface_exists("lo")
    assert not interface_exists("nosuchinterface")
    assert not interface_exists("x" * 40)


def test_an_argument_of_down_tells_the_interface_without_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("wg0", "./wg0.conf", "/gone/wg0.conf", "wg1.conf", "/gone/no name.conf", "/gone/wg0", "")
    assert [interface_meant(argument) for argument in arguments] == ["wg0", "wg0", "wg0", "wg1", *[None] * 3]


def test_missing_rights_are_told(monkeypatch):
    monkeypatch.setattr("pywg.host.names.may_administer_network", lambda: False)
    with pytest.raises(Exception, match="CAP_NET_ADMIN; run it as root: sudo pywg up wg0"):
        require_network_rights("pywg up wg0")


def test_rights_are_read_from_the_process(monkeypatch, tmp_path):
    status = tmp_path / "status"

    class Here:
        def __init__(self, _):
            pass

        def read_text(self, **_):
            return status.read_text()

    monkeypatch.setattr("pywg.host.names.Path", Here)
    status.write_text("Name:\tx\nCapEff:\t000001ffffffffff\n")
    assert may_administer_network()
    status.write_text("Name:\tx\nCapEff:\t0000000000000000\n")
    assert not may_administer_network()
