"""`pywg doctor` beside faults that are really made: each is found, by the code that the documents explain."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterator

import pytest

from tests.system.net import Host, Lab, eventually
from tests.system.programs import PROGRAMS
from tests.system.tunnel import PORT, WG, Key, Station, Tunnel, generate_psk, hostport, make_tunnel

PYWG = str(pathlib.Path(sys.executable).with_name("pywg"))
FOUND = 3


@pytest.fixture(scope="module")
def shared(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("doctor")) as made:
        yield made


@pytest.fixture(scope="module")
def wire(shared: Lab) -> Tunnel:
    """Two stations that every test configures anew."""
    return make_tunnel(shared, PROGRAMS["pywgd"], PROGRAMS["pywgd"])


@pytest.fixture
def tunnel(wire: Tunnel) -> Iterator[Tunnel]:
    """Both stations know nothing of each other, and no fault of an earlier test is left."""
    for station in (wire.left, wire.right):
        if station.task is None or station.task.poll() is not None:
            station.start()
        station.key = Key.generate()
    yield wire
    for station in (wire.left, wire.right):
        machine = station.machine
        machine.run("nft", "flush", "ruleset")
        machine.run("ip", "link", "set", station.uplink, "mtu", "1500", "up")
        machine.run("ip", "route", "del", "203.0.113.9", "dev", WG, check=False)


def findings(
    station: Station | Host, *arguments: str, status: int | None = None
) -> dict[str, dict[str, object]]:
    """What the doctor finds, by code."""
    machine = station.machine if isinstance(station, Station) else station
    said = machine.run(
        "sh", "-c", 'pywg=$1; shift; "$pywg" doctor --wait 3 --json "$@"; echo $?', "-", PYWG, *arguments
    )
    text, _, ended = said.strip().rpartition("\n")
    assert int(ended) in (0, FOUND), said
    if status is not None:
        assert int(ended) == status, said
    return {
        finding["code"]: finding for tunnel in json.loads(text)["tunnels"] for finding in tunnel["findings"]
    }


def only(found: dict[str, dict[str, object]]) -> list[str]:
    """The codes, without notes."""
    return [code for code, finding in found.items() if finding["severity"] != "note"]


def test_a_tunnel_that_works_has_no_findings(tunnel: Tunnel) -> None:
    tunnel.configure(initiator=tunnel.left)
    assert findings(tunnel.left, WG, status=0) == {}
    assert findings(tunnel.right, WG, status=0) == {}


def test_different_preshared_keys(tunnel: Tunnel) -> None:
    tunnel.right.configure(tunnel.left, psk=generate_psk())
    tunnel.left.configure(tunnel.right, psk=generate_psk(), endpoint=hostport(tunnel.right.outer[0]))
    assert only(findings(tunnel.left, WG, status=FOUND)) == ["preshared-key-differs"]
    assert only(findings(tunnel.right, WG, status=FOUND)) == ["preshared-key-differs"]


def test_the_other_does_not_know_our_key(tunnel: Tunnel) -> None:
    known = tunnel.left.key
    tunnel.right.configure(tunnel.left)
    tunnel.left.key = Key.generate()
    tunnel.left.configure(tunnel.right, endpoint=hostport(tunnel.right.outer[0]), keepalive=1)
    assert only(findings(tunnel.left, WG, status=FOUND)) == ["handshake-unanswered"]
    there = while_left_calls(tunnel)
    assert only(there) == ["peer-has-another-key"]
    assert there["peer-has-another-key"]["peer"] == known.public
    assert tunnel.left.key.public in str(there["peer-has-another-key"]["do"])


def test_another_public_key_for_the_other(tunnel: Tunnel) -> None:
    real = tunnel.right.key
    tunnel.right.configure(tunnel.left)
    tunnel.right.key = Key.generate()
    tunnel.left.configure(tunnel.right, endpoint=hostport(tunnel.right.outer[0]), keepalive=1)
    assert only(findings(tunnel.left, WG, status=FOUND)) == ["handshake-unanswered"]
    there = while_left_calls(tunnel)
    assert only(there) == ["other-key-for-us"]
    assert real.public in str(there["other-key-for-us"]["do"])


def test_nobody_listens_at_the_endpoint(tunnel: Tunnel) -> None:
    tunnel.left.configure(tunnel.right, endpoint=hostport(tunnel.right.outer[0], 4))
    found = findings(tunnel.left, WG, status=FOUND)
    assert only(found) == ["unreachable"]
    assert tunnel.right.outer[0] in str(found["unreachable"]["seen"])


def test_no_host_at_the_endpoint(tunnel: Tunnel) -> None:
    tunnel.left.configure(tunnel.right, endpoint=hostport("192.0.2.77"))
    assert only(findings(tunnel.left, WG, status=FOUND)) == ["unreachable"]


def test_no_route_to_the_endpoint(tunnel: Tunnel) -> None:
    tunnel.left.configure(tunnel.right, endpoint=hostport("203.0.113.9"))
    assert only(findings(tunnel.left, WG, status=FOUND)) == ["no-route"]


def test_the_route_to_the_endpoint_leads_into_the_tunnel(tunnel: Tunnel) -> None:
    tunnel.left.configure(tunnel.right, endpoint=hostport("203.0.113.9"))
    tunnel.left.machine.run("ip", "route", "add", "203.0.113.9", "dev", WG)
    assert only(findings(tunnel.left, WG, status=FOUND)) == ["route-loop"]


@pytest.mark.parametrize(("hook", "code"), [("output", "not-sent"), ("input", "dropped-on-arrival")])
def test_the_local_firewall_drops(tunnel: Tunnel, hook: str, code: str) -> None:
    firewall(tunnel.left, hook, f"ip {'daddr' if hook == 'output' else 'saddr'} 192.0.2.2 udp dport > 1 drop")
    tunnel.configure(initiator=tunnel.left)
    assert only(findings(tunnel.left, WG, status=FOUND)) == [code]


def test_a_firewall_before_the_responder_drops(tunnel: Tunnel) -> None:
    firewall(tunnel.right, "input", f"udp dport {PORT} drop")
    tunnel.configure(initiator=tunnel.left, keepalive=1)
    assert only(findings(tunnel.left, WG, status=FOUND)) == ["handshake-unanswered"]
    there = while_left_calls(tunnel)
    assert only(there) == ["dropped-on-arrival"]


def while_left_calls(tunnel: Tunnel) -> dict[str, dict[str, object]]:
    """What the doctor finds at the right while the left begins handshakes, every second one."""
    task = tunnel.right.machine.start(PYWG, "doctor", "--wait", "4", "--json", WG)

    def ended() -> bool:
        tunnel.left.setconf(tunnel.left.settings)
        return task.poll() is not None

    eventually("the doctor is done", ended, timeout=60, every=1)
    found = json.loads(task.output())["tunnels"][0]["findings"]
    return {finding["code"]: finding for finding in found}


def firewall(station: Station, hook: str, rule: str) -> None:
    text = f"table inet t {{ chain c {{ type filter hook {hook} priority 0; {rule}; }}\n}}\n"
    station.machine.run("nft", "-f", "-", input=text)


def test_large_packets_are_lost(tunnel: Tunnel) -> None:
    tunnel.configure(initiator=tunnel.left)
    firewall(tunnel.right, "prerouting", "meta length > 1300 udp dport 51820 drop")
    found = findings(tunnel.left, WG, status=FOUND)
    assert only(found) == ["mtu-too-large"]
    assert f"ip link set {WG} mtu 1232" in found["mtu-too-large"]["do"]


def test_the_interface_is_down(tunnel: Tunnel) -> None:
    tunnel.configure(initiator=tunnel.left)
    tunnel.left.machine.run("ip", "link", "set", WG, "down")
    assert only(findings(tunnel.left, WG, status=FOUND)) == ["interface-down"]
    tunnel.left.machine.run("ip", "link", "set", WG, "up")
    tunnel.left.machine.run("ip", "route", "del", "10.77.0.0/24")
    assert only(findings(tunnel.left, WG)) == ["not-routed"]
