"""The commands of macOS and Windows: which are run, what is read from their output, and what failures say."""

from __future__ import annotations

import ipaddress
import json
import sys

import pytest

from pywg.errors import PywgError
from pywg.host import darwin, networksetup, windows
from pywg.host.command import run
from pywg.host.darwin import DarwinNetwork, EndpointRoutes
from pywg.host.darwin_state import Tunnel
from pywg.host.networksetup import Resolver
from pywg.host.windows import Way, WindowsNetwork
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

STAND_IN = """
import json, pathlib, sys
here = pathlib.Path(__file__).parent
with (here / "log").open("a") as log:
    log.write(" ".join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]) + "\\n")
answers = json.loads((here / "answers").read_text())
status, text = next((a for start, a in answers.items() if " ".join(sys.argv[1:]).startswith(start)), (0, ""))
print(text, end="")
sys.exit(status)
"""


class Programs:
    """Programs on PATH that write down how they were called and give prepared answers."""

    def __init__(self, folder):
        self._folder = folder
        self.answers = {}

    def answer(self, start, text, status=0):
        self.answers[start] = [status, text]
        (self._folder / "answers").write_text(json.dumps(self.answers))

    def calls(self):
        log = self._folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.write_text("")
        return lines


@pytest.fixture
def programs(tmp_path, monkeypatch):
    for name in ("route", "ifconfig", "netstat", "networksetup", "netsh", "powershell"):
        (tmp_path / name).write_text(f"#!{sys.executable} -SE\n{STAND_IN}")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "answers").write_text("{}")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYWG_STATE_DIR", str(tmp_path / "state"))
    return Programs(tmp_path)


def test_a_failed_command_is_told_with_its_last_line(programs):
    programs.answer("add", "route: first\nroute: writing to routing socket: File exists\n\n", 77)
    with pytest.raises(
        PywgError, match=r"^`route add x' failed: route: writing to routing socket: File exists$"
    ):
        run(["route", "add", "x"])
    assert "File exists" in run(["route", "add", "x"], check=False)
    with pytest.raises(PywgError, match="nonesuch cannot be started"):
        run(["nonesuch"])


def test_direct_routes_follow_gateways_and_endpoints(programs):
    routes = EndpointRoutes([4])
    assert routes.renew(["198.51.100.1", "2001:db8::1", "198.51.100.1"], {4: "192.0.2.2"})
    assert programs.calls() == ["route -q -n add -inet 198.51.100.1 -gateway 192.0.2.2"]
    assert not routes.renew(["198.51.100.1"], {4: "192.0.2.2", 6: "fe80::1%en0"})
    assert programs.calls() == []
    assert routes.renew(["198.51.100.1", "198.51.100.9"], {4: "192.0.2.3"})
    assert programs.calls() == [
        "route -q -n delete -inet 198.51.100.1",
        "route -q -n add -inet 198.51.100.1 -gateway 192.0.2.3",
        "route -q -n add -inet 198.51.100.9 -gateway 192.0.2.3",
    ]
    routes.renew(["198.51.100.9"], {4: "192.0.2.3"})
    assert programs.calls() == ["route -q -n delete -inet 198.51.100.1"]
    routes.remove()
    assert programs.calls() == ["route -q -n delete -inet 198.51.100.9"]


def test_without_a_gateway_an_endpoint_is_not_reached_through_the_tunnel(programs):
    programs.answer("-q -n", "route: File exists\n", 1)
    routes = EndpointRoutes([4, 6])
    routes.renew(["198.51.100.1", "2001:db8::1"], {})
    assert programs.calls() == [
        "route -q -n add -inet 198.51.100.1 127.0.0.1 -blackhole",
        "route -q -n add -inet6 2001:db8::1 ::1 -blackhole",
    ]


def test_gateways_are_read_from_the_routing_table(programs):
    head = "Routing tables\n\nInternet:\nDestination        Gateway            Flags   Netif Expire\n"
    programs.answer(
        "-nr -f inet6", f"{head}default   link#15   UCSIg   en5\ndefault   fe80::1%en0   UGcg   en0\n"
    )
    programs.answer("-nr -f inet", f"{head}127   127.0.0.1   UCS   lo0\n")
    assert DarwinNetwork().gateways() == {6: "fe80::1%en0"}


def test_the_mtu_of_a_way_is_its_interface_s(programs):
    programs.answer("-n get -inet 198.51.100.1", "   route to: x\n  interface: en0\n      flags: <UP>\n")
    programs.answer("-n get -inet default", "route: writing to routing socket: not in table\n", 1)
    programs.answer("en0", "en0: flags=8863<UP,BROADCAST> mtu 9000\n\tether 00:00:00:00:00:00\n")
    network = DarwinNetwork()
    assert network.path_mtu(Endpoint("198.51.100.1", 51820)) == 9000
    assert network.default_mtu() is None


def test_a_network_that_leads_there_already_gets_no_second_route(programs):
    programs.answer("-n get -inet6 fd07::/64", "  interface: utun4\n")
    network = DarwinNetwork()
    network.add_route("utun4", Network.parse("fd07::/64"))
    network.add_route("utun4", Network.parse("10.0.0.0/8"))
    assert [call for call in programs.calls() if " add " in call] == [
        "route -q -n add -inet 10.0.0.0/8 -interface utun4"
    ]


def test_addresses_of_a_point_to_point_interface():
    four, six = ipaddress.ip_interface("10.7.0.1/24"), ipaddress.ip_interface("fd07::1/64")
    shown = [" ".join(darwin.address_command("utun4", address)) for address in (four, six)]
    assert shown == [
        "ifconfig utun4 inet 10.7.0.1/24 10.7.0.1 alias",
        "ifconfig utun4 inet6 fd07::1/64 alias",
    ]


def test_name_servers_are_noted_set_where_they_differ_and_given_back(programs):
    sentence = "There aren't any DNS Servers set on Thunderbolt Bridge.\n"
    programs.answer("-listall", "An asterisk (*) denotes ...\nWi-Fi\n*Thunderbolt Bridge\n")
    programs.answer("-getdnsservers Wi-Fi", "192.0.2.53\n2001:db8::53\n")
    programs.answer("-getsearchdomains Wi-Fi", "home.example\n")
    programs.answer("-get", sentence)
    saved = {"gone": Resolver(["192.0.2.1"], ["Empty"])}
    assert networksetup.save(saved)
    assert saved == {
        "Wi-Fi": Resolver(["192.0.2.53", "2001:db8::53"], ["home.example"]),
        "Thunderbolt Bridge": Resolver(["Empty"], ["Empty"]),
    }
    assert not networksetup.save(saved)
    programs.calls()
    networksetup.apply(Resolver(["192.0.2.53", "2001:db8::53"], ["home.example"]), saved)
    assert [call for call in programs.calls() if " -set" in call] == [
        "networksetup -setdnsservers Thunderbolt Bridge 192.0.2.53 2001:db8::53",
        "networksetup -setsearchdomains Thunderbolt Bridge home.example",
    ]
    networksetup.restore(saved)
    assert [call for call in programs.calls() if " -set" in call] == [
        "networksetup -setdnsservers Wi-Fi 192.0.2.53 2001:db8::53",
        "networksetup -setsearchdomains Wi-Fi home.example",
        "networksetup -setdnsservers Thunderbolt Bridge Empty",
        "networksetup -setsearchdomains Thunderbolt Bridge Empty",
    ]


def test_a_service_that_refuses_keeps_the_others_from_nothing(programs):
    programs.answer("-listall", "...\nA\nB\n")
    programs.answer("-setdnsservers A", "** Error: The amount of parameters was not correct.\n", 4)
    saved = {name: Resolver(["192.0.2.53"], ["Empty"]) for name in ("A", "B")}
    with pytest.raises(PywgError, match="The amount of parameters"):
        networksetup.restore(saved)
    assert "networksetup -setdnsservers B 192.0.2.53" in programs.calls()


def test_what_a_tunnel_keeps_is_read_as_it_was_written(programs, tmp_path):
    assert Tunnel.read("home") is None
    routes = EndpointRoutes([4, 6], ["198.51.100.1"], {4: "192.0.2.2"})
    saved = {"Wi-Fi": Resolver(["Empty"], ["home.example"])}
    tunnel = Tunnel("home", "utun4", routes, Resolver(["10.7.0.53"], []), saved, 4711)
    tunnel.write()
    assert Tunnel.read("home") == tunnel
    assert (tmp_path / "state" / "home.json").stat().st_mode & 0o777 == 0o600
    tunnel.forget()
    assert Tunnel.read("home") is None


def test_a_way_on_windows_is_the_route_that_powershell_finds(programs):
    network = WindowsNetwork()
    programs.answer("-NoProfile", '{"InterfaceIndex": 12, "NextHop": "192.0.2.2"}')
    assert network.way_to("198.51.100.1") == Way(12, "192.0.2.2")
    programs.answer("-NoProfile", '{"InterfaceIndex": 12, "NextHop": "0.0.0.0"}')
    assert network.way_to("192.0.2.9") is None
    programs.answer("-NoProfile", "Find-NetRoute : not found\n", 1)
    assert network.way_to("198.51.100.1") is None
    programs.answer("-NoProfile", '[{"NlMtu": 1492}, {"NlMtu": 1500}]')
    assert network.path_mtu(Endpoint("2001:db8::1", 51820)) == 1492


def test_a_direct_route_on_windows_is_taken_back_by_what_it_was_made_of():
    add, delete = windows.endpoint_commands("2001:db8::1", Way(12, "fe80::1"))
    where = "prefix=2001:db8::1/128 interface=12 nexthop=fe80::1"
    assert " ".join(add) == f"netsh interface ipv6 add route {where} metric=0 store=active"
    assert " ".join(delete) == f"netsh interface ipv6 delete route {where} store=active"
