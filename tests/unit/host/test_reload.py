"""What a reload changes: a new file, what the old one gave, and the interface as it is, make a plan."""

from __future__ import annotations

import ipaddress

import pytest

from pywg.config.model import Dialect, EndpointName
from pywg.config.parse import parse
from pywg.config.positions import ConfigError
from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.host.reload import Plan, Running, peer_changes, peers_to_move, peers_to_remove, plan
from pywg.host.state import given_by
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.uapi.format import AllowedIpChange, DeviceChange, PeerChange
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

ALICE, BOB = PublicKey(b"a" * 32), PublicKey(b"b" * 32)
HERE, THERE = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2)
OLD = f"""
[Interface]
Address = 10.0.0.1/24, fd00::1/64
[Peer]
PublicKey = {ALICE.base64}
Endpoint = 192.0.2.1:1
AllowedIPs = 10.0.0.2/32, 10.1.0.0/16
"""


def net(text: str):
    return Network.parse(text)


def nets(*texts: str):
    return frozenset(map(net, texts))


def addresses(*texts: str):
    return [ipaddress.ip_interface(text) for text in texts]


def read(text: str):
    return parse(text, "wg0.conf", Dialect.WG_QUICK)


def running(**changes) -> Running:
    """The interface that OLD makes."""
    values = {
        "device": DeviceSnapshot(
            listen_port=4000,
            peers=[PeerSnapshot(ALICE, endpoint=HERE, allowed_ips=[net("10.0.0.2/32"), net("10.1.0.0/16")])],
        ),
        "addresses": addresses("10.0.0.1/24", "fd00::1/64", "fe80::1/64"),
        "mtu": 1420,
        "routes": nets("10.1.0.0/16"),
        "networks": nets("10.0.0.0/24", "10.1.0.0/16", "fd00::/64"),
    }
    return Running(**{**values, **changes})


def planned(new: str, now: Running | None = None, old: str = OLD) -> Plan:
    endpoints = {
        EndpointName("192.0.2.1", "1"): HERE,
        EndpointName("192.0.2.2", "2"): THERE,
    }
    return plan(read(new), endpoints, given_by(read(old)), now or running())


def test_the_same_file_is_an_empty_plan() -> None:
    found = planned(OLD)
    assert found.device == DeviceChange()
    assert peer_changes(found.peers, running().device, found.move, single=True) == []
    assert [*found.add_addresses, *found.delete_addresses, *found.add_routes, *found.delete_routes] == []
    assert found.mtu is None


def test_addresses_of_a_hook_and_of_the_system_stay() -> None:
    now = running(addresses=addresses("10.0.0.1/24", "fd00::1/64", "fe80::1/64", "10.9.0.1/24"))
    found = planned(OLD.replace("10.0.0.1/24", "10.0.0.7/24"), now)
    assert found.add_addresses == addresses("10.0.0.7/24")
    assert found.delete_addresses == addresses("10.0.0.1/24")


def test_without_knowledge_of_the_old_file_all_but_link_local_addresses_go() -> None:
    found = plan(read("[Interface]\nAddress = 10.0.0.1/24\n"), {}, {}, running())
    assert found.delete_addresses == addresses("fd00::1/64")


def test_routes_follow_allowed_ips_and_a_hook_s_stay() -> None:
    now = running(routes=nets("10.1.0.0/16", "10.8.0.0/16"))
    found = planned(OLD.replace("10.1.0.0/16", "10.2.0.0/16, 10.2.3.0/24"), now)
    assert found.delete_routes == [net("10.1.0.0/16")]
    assert found.add_routes == [net("10.2.3.0/24"), net("10.2.0.0/16")]


def test_what_an_address_covered_gets_a_route_when_the_address_goes() -> None:
    found = planned(OLD.replace("10.0.0.1/24", "10.5.0.1/24"))
    assert found.add_routes == [net("10.0.0.2/32")]


def test_another_table_gets_all_routes_and_the_old_one_loses_them() -> None:
    found = planned(OLD.replace("[Peer]", "Table = 77\n[Peer]"))
    assert (found.old_table, found.table) == (254, 77)
    assert found.delete_routes == [net("10.1.0.0/16")]
    assert found.add_routes == [net("10.0.0.2/32"), net("10.1.0.0/16")]
    assert planned(OLD.replace("[Peer]", "Table = off\n[Peer]")).table is None


def test_default_routes_come_go_and_stay() -> None:
    new = OLD.replace("10.1.0.0/16", "10.1.0.0/16, ::/0")
    now = running(device=DeviceSnapshot(peers=[PeerSnapshot(ALICE, allowed_ips=[net("::/0")])]))
    everything = [net("::/0")]
    came, went, stayed = planned(new), planned(OLD, now, new), planned(new, now, new)
    assert (came.add_defaults, came.keep_defaults, came.delete_defaults) == (everything, [], [])
    assert (went.add_defaults, went.keep_defaults, went.delete_defaults) == ([], [], everything)
    assert (stayed.add_defaults, stayed.keep_defaults, stayed.delete_defaults) == ([], everything, [])
    for found in (came, went, stayed):
        assert net("::/0") not in [*found.add_routes, *found.delete_routes]


def test_in_a_table_of_its_own_a_default_route_is_one_as_any() -> None:
    old = OLD.replace("[Peer]", "Table = 5\n[Peer]")
    found = planned(old.replace("10.1.0.0/16", "0.0.0.0/0"), running(routes=frozenset()), old)
    assert found.add_routes == [net("10.0.0.2/32"), net("0.0.0.0/0")]
    assert found.add_defaults == []


def test_default_routes_that_nobody_knows_and_their_mark_do_not_change() -> None:
    new = OLD.replace("10.1.0.0/16", "::/0")
    with pytest.raises(ConfigError, match=r"wg0\.conf: AllowedIPs: `pywg up` did not bring this tunnel up"):
        plan(read(new), {}, {}, running())
    now = running(device=DeviceSnapshot(fwmark=7, peers=[PeerSnapshot(ALICE, allowed_ips=[net("::/0")])]))
    with pytest.raises(ConfigError, match=r"wg0\.conf:3:10: FwMark: it cannot change"):
        planned(new.replace("Address", "FwMark = 8\nAddress"), now, new)


@pytest.mark.parametrize(
    ("old", "new", "mtu"),
    [("", "", None), ("", "MTU = 1300", 1300), ("MTU = 1420", "", 0), ("MTU = 1300", "MTU = 1420", None)],
)
def test_the_mtu_changes_when_the_file_s_does(old: str, new: str, mtu: int | None) -> None:
    texts = [OLD.replace("[Peer]", f"{line}\n[Peer]") for line in (old, new)]
    assert planned(texts[1], old=texts[0]).mtu == mtu


def test_a_key_a_port_and_a_mark_are_set_when_the_file_has_them_and_they_differ() -> None:
    key = PrivateKey.generate(lambda count: bytes(range(count)))
    new = OLD.replace("Address", f"PrivateKey = {key.base64}\nListenPort = 5000\nFwMark = 9\nAddress")
    assert planned(new).device == DeviceChange(key, 5000, 9)
    device = DeviceSnapshot(key, 5000, 9, running().device.peers)
    assert planned(new, running(device=device), new).device == DeviceChange()
    assert planned(OLD, running(device=device), new).device == DeviceChange(fwmark=0)
    assert planned(OLD, running(device=device), OLD).device == DeviceChange()


def test_only_a_changed_endpoint_moves_a_peer() -> None:
    roamed = DeviceSnapshot(peers=[PeerSnapshot(ALICE, endpoint=THERE)])
    assert peers_to_move(read(OLD), given_by(read(OLD)), roamed) == set()
    other = OLD.replace("192.0.2.1:1", "192.0.2.2:2")
    assert peers_to_move(read(other), given_by(read(OLD)), running().device) == {ALICE}
    assert peers_to_move(read(OLD), {}, roamed) == {ALICE}
    assert peers_to_move(read(OLD), {}, running().device) == set()
    assert peers_to_move(read(OLD), given_by(read(OLD)), DeviceSnapshot()) == {ALICE}


def test_peers_are_changed_by_what_differs_alone() -> None:
    psk = PresharedKey(b"p" * 32)
    device = DeviceSnapshot(
        peers=[PeerSnapshot(ALICE, psk, HERE, 0, 0, 0, 25, [net("10.1.0.0/16"), net("10.2.0.0/16")])]
    )
    wanted = [
        PeerSnapshot(ALICE, endpoint=THERE, allowed_ips=[net("10.2.0.0/16"), net("10.3.0.0/16")]),
        PeerSnapshot(BOB),
    ]
    single = PeerChange(
        ALICE,
        preshared_key=PresharedKey.ZERO,
        persistent_keepalive_interval=0,
        allowed_ips=[AllowedIpChange(net("10.3.0.0/16")), AllowedIpChange(net("10.1.0.0/16"), True)],
    )
    assert peer_changes(wanted, device, set(), single=True) == [single, PeerChange(BOB, allowed_ips=[])]
    (whole, _) = peer_changes(wanted, device, {ALICE}, single=False)
    assert whole.endpoint == THERE
    assert whole.replace_allowed_ips
    assert whole.allowed_ips == [AllowedIpChange(net("10.2.0.0/16")), AllowedIpChange(net("10.3.0.0/16"))]
    assert peers_to_remove([PeerSnapshot(BOB)], device) == [ALICE]
