"""`pywg doctor` beside faults that are really made: each is found, by the code that the documents explain."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from pywg.noise import handshake, primitives, tai64n
from pywg.noise.cookie import CookieJar
from pywg.noise.keys import PrivateKey, PublicKey
from pywg.observe.findings import KINDS
from pywg.wire import messages
from tests.system import tunnel as stations
from tests.system.cases import ping
from tests.system.conftest import installed
from tests.system.faults import Faults
from tests.system.net import Host, Lab, add_address, eventually, make_router, tool
from tests.system.programs import PROGRAMS
from tests.system.tunnel import PORT, WG, Key, Station, Tunnel, generate_psk, hostport

PYWG = str(pathlib.Path(sys.executable).with_name("pywg"))
FOUND = 3
ELSEWHERE = "192.0.2.50"
KEY = "[A-Za-z0-9+/]{43}="

REMEDIES = {
    "config-mistakes": r"# correct \S+, then: pywg (up|reload) ",
    "not-up": r"pywg up \S+$",
    "daemon-gone": r"pywg down \w+$",
    "not-readable": r"ip link show \w+$",
    "other-namespace": rf"ip netns exec NAME pywg doctor {WG}  # ",
    "interface-down": rf"ip link set {WG} up$",
    "no-private-key": rf"pywg set {WG} private-key FILE$",
    "own-key-as-peer": r"# on the other host, print its public key",
    "same-key": r"pywg genkey  # ",
    "other-does-not-know-us": r"# in \S+, \[Peer\]:$",
    "other-is-unknown": r"# in \S+, \[Peer\]:$",
    "preshared-key-differs": r"pywg genpsk  # ",
    "port-differs": r"# in \S+: Endpoint = \S+$",
    "name-not-resolved": r"getent ahosts bob\.test$",
    "no-route": r"ip route get [\d.]+$",
    "route-loop": r"ip route get [\d.]+$",
    "not-sent": r"(nft list ruleset|ip route get) ",
    "unreachable": r"# is [\d.:]+ right\?",
    "reverse-path-filter": r"sysctl -w net\.ipv4\.conf\.(\w+\.rp_filter=2|all\.src_valid_mark=1)$",
    "dropped-on-arrival": r"nft list ruleset ",
    "name-moved": rf"pywg set wg7 peer {KEY} endpoint bob\.test:51820$",
    "peer-has-another-key": rf"# if they are the same: PublicKey = {KEY} in ",
    "other-key-for-us": r"# on the other host, in the \[Peer\] section for this host:$",
    "clock-went-back": r"timedatectl  # on the other host",
    "clock-behind": r"timedatectl set-ntp true",
    "session-unconfirmed": r"pywg genpsk  # ",
    "nat-mapping-lost": r"# in the file of that peer, ",
    "handshake-unanswered": r"pywg doctor(  # on the other host| \w+ --other FILE)",
    "address-not-allowed": r"# in \S+, for that peer: AllowedIPs = ",
    "same-address": r"# give one of them another Address",
    "allowed-ips-twice": r"# in \S+: leave it to one of them",
    "source-not-allowed": rf"tcpdump -ni any udp port {PORT} ",
    "no-address": r"ip address add \S+ dev \w+$",
    "not-routed": r"ip -[46] route add \S+ dev \w+$",
    "forwarding-off": r"sysctl -w net\.ipv4\.ip_forward=1$",
    "mtu-too-large": rf"ip link set {WG} mtu \d+$",
    "data-unanswered": r"pywg doctor  # on the other host",
    "no-allowed-ip": rf"ip route show dev {WG} ",
    "endpoint-flaps": r"pywg genkey  # ",
    "stranger": rf"pywg set {WG} peer {KEY} allowed-ips ADDRESS  # ",
    "under-load": rf"pywg top {WG}$",
    "no-endpoint": r"# give (the peer an|one of them:) Endpoint = HOST:PORT",
    "file-differs": r"pywg reload \S+$",
    "check-failed": None,
    "keepalive-off": rf"pywg set {WG} peer {KEY} persistent-keepalive 25$",
    "not-pywgd": None,
}
"""The first thing to do for each finding; None: there is nothing."""

OTHERWISE = {
    "not-up": "note",  # a file is looked at
    "other-key-for-us": "warning note",  # from where no peer is
    "clock-behind": "warning",  # a peer's clock says so
    "forwarding-off": "note",  # only the file looks like a hub's
    "no-endpoint": "error",  # both files say so
}
"""Severities beside the registry's, as the documents explain them."""


@pytest.fixture(scope="module")
def shared(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("doctor")) as made:
        yield made


@pytest.fixture(scope="module")
def lonely(shared: Lab) -> Station:
    """A station whose only peer never answers; there from the start, as what is logged has to have lasted."""
    station = stations.make_station(shared, PROGRAMS["pywgd"], "lonely", 9)
    station.start()
    nobody = dataclasses.replace(station, key=Key.generate(), inner=("10.77.0.8", "fd77::8"))
    station.configure(nobody, endpoint=hostport("127.0.0.2", 9), keepalive=5)
    return station


@pytest.fixture(scope="module")
def wire(shared: Lab, lonely: Station) -> Tunnel:
    """Two stations that every test configures anew."""
    return stations.make_tunnel(shared, PROGRAMS["pywgd"], PROGRAMS["pywgd"])


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
    station: Station | Host, *arguments: str, status: int | None = None, env: Mapping[str, str] | None = None
) -> dict[str, dict[str, object]]:
    """What the doctor finds, by code; each with a severity and a first command that fit."""
    machine = station.machine if isinstance(station, Station) else station
    said = machine.run(
        "sh",
        "-c",
        'pywg=$1; shift; "$pywg" doctor --wait 1.5 --json "$@" 2>/dev/null; echo $?',
        "-",
        PYWG,
        *arguments,
        env=env,
    )
    text, _, ended = said.strip().rpartition("\n")
    assert int(ended) in (0, FOUND), said
    if status is not None:
        assert int(ended) == status, said
    return read(text)


def read(text: str) -> dict[str, dict[str, object]]:
    """The findings of the doctor's JSON by code, each looked at."""
    found = {}
    for finding in (each for tunnel in json.loads(text)["tunnels"] for each in tunnel["findings"]):
        code, do, first = finding["code"], finding["do"], REMEDIES[finding["code"]]
        severities = [KINDS[code].severity.value, *OTHERWISE.get(code, "").split()]
        assert finding["severity"] in severities, finding
        assert not do if first is None else re.match(first, do[0]), finding
        found.setdefault(code, finding)  # the likeliest comes first
    return found


def only(found: dict[str, dict[str, object]]) -> list[str]:
    """The codes, without notes."""
    return [code for code, finding in found.items() if finding["severity"] != "note"]


def at_both(tunnel: Tunnel) -> tuple[list[str], list[str]]:
    """The codes at the left and at the right, looked for at the same time."""
    with ThreadPoolExecutor(2) as threads:
        left, right = threads.map(lambda station: only(findings(station, WG)), (tunnel.left, tunnel.right))
    return left, right


def test_a_tunnel_that_works_has_no_findings(tunnel: Tunnel) -> None:
    tunnel.configure(initiator=tunnel.left)
    assert at_both(tunnel) == ([], [])


def test_different_preshared_keys(tunnel: Tunnel) -> None:
    tunnel.right.configure(tunnel.left, psk=generate_psk())
    tunnel.left.configure(tunnel.right, psk=generate_psk(), endpoint=hostport(tunnel.right.outer[0]))
    assert only(findings(tunnel.left, WG, status=FOUND)) == ["preshared-key-differs"]
    assert 'code="preshared-key-differs"' in tunnel.left.machine.run(PYWG, "metrics", "--once", WG)
    # The right calls too if it knew where when its peers were called.
    assert only(while_left_calls(tunnel)) in (["preshared-key-differs"], ["session-unconfirmed"])


def test_the_other_does_not_know_our_key(tunnel: Tunnel) -> None:
    known = tunnel.left.key
    tunnel.right.configure(tunnel.left)
    tunnel.left.key = Key.generate()
    tunnel.left.configure(tunnel.right, endpoint=hostport(tunnel.right.outer[0]), keepalive=1)
    assert only(findings(tunnel.left, WG, "--wait", "3", status=FOUND)) == ["handshake-unanswered"]
    there = while_left_calls(tunnel)
    assert only(there) == ["peer-has-another-key"]
    assert there["peer-has-another-key"]["peer"] == known.public
    assert tunnel.left.key.public in str(there["peer-has-another-key"]["do"])


def test_another_public_key_for_the_other(tunnel: Tunnel) -> None:
    real = tunnel.right.key
    tunnel.right.configure(tunnel.left, endpoint=hostport(tunnel.left.outer[0]))
    tunnel.right.key = Key.generate()
    tunnel.left.configure(tunnel.right, endpoint=hostport(tunnel.right.outer[0]), keepalive=1)
    there = while_left_calls(tunnel)
    assert only(there) == ["other-key-for-us"]
    assert there["other-key-for-us"]["severity"] == "error"
    assert there["other-key-for-us"]["peer"] == tunnel.left.key.public
    assert real.public in str(there["other-key-for-us"]["do"])


@pytest.mark.parametrize("is_connected", [True, False])
def test_strangers_who_try_the_port_are_no_error(tunnel: Tunnel, is_connected: bool) -> None:
    """One speaks to another key from where nobody is, and one has our key, and is no peer."""
    add_address(tunnel.left.machine, tunnel.left.uplink, f"{ELSEWHERE}/24")
    other, scanned = Key.generate(), Key.generate()
    try:
        if is_connected:
            tunnel.configure(initiator=tunnel.left)
            ping(tunnel.left, tunnel.right)
        else:
            tunnel.right.configure(tunnel.left)  # which is off

        def strangers() -> None:
            initiate(tunnel, 1_900_000_000, source=ELSEWHERE, by=other, to=scanned)
            if is_connected:
                initiate(tunnel, 1_900_000_000, source=ELSEWHERE, by=other)

        found = meanwhile(tunnel.right, strangers)
    finally:
        tunnel.left.machine.run("ip", "addr", "del", f"{ELSEWHERE}/24", "dev", tunnel.left.uplink)
    assert found["other-key-for-us"]["severity"] == ("note" if is_connected else "warning")
    assert only(found) == (["stranger"] if is_connected else ["other-key-for-us"])
    assert ELSEWHERE in str(found["other-key-for-us"]["seen"])


def test_nobody_listens_at_the_endpoint(tunnel: Tunnel) -> None:
    tunnel.left.configure(tunnel.right, endpoint=hostport(tunnel.right.outer[0], 4))
    found = findings(tunnel.left, WG, "--bundle", "/run/report.json", status=FOUND)
    assert only(found) == ["unreachable"]
    assert tunnel.right.outer[0] in str(found["unreachable"]["seen"])
    report = tunnel.left.machine.run("cat", "/run/report.json")
    assert '"unreachable"' in report
    names = (tunnel.left.key.public, tunnel.right.key.public, *tunnel.right.outer, *tunnel.right.inner)
    assert not [name for name in (*names, tunnel.left.key.private) if name in report]


def test_no_host_at_the_endpoint(tunnel: Tunnel) -> None:
    tunnel.left.configure(tunnel.right, endpoint=hostport("192.0.2.77"))
    assert only(findings(tunnel.left, WG, "--wait", "4", status=FOUND)) == ["unreachable"]


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


def test_answers_that_do_not_arrive(tunnel: Tunnel) -> None:
    firewall(tunnel.left, "input", "udp dport > 1 drop")
    tunnel.configure(initiator=tunnel.left, keepalive=1)
    assert list(while_left_calls(tunnel)) == ["session-unconfirmed"]


def test_a_firewall_before_the_responder_drops(tunnel: Tunnel) -> None:
    firewall(tunnel.right, "input", f"udp dport {PORT} drop")
    tunnel.configure(initiator=tunnel.left, keepalive=1)
    there = while_left_calls(tunnel)
    assert only(there) == ["dropped-on-arrival"]


def meanwhile(station: Station, do: Callable[[], object], every: float = 0.3) -> dict[str, dict[str, object]]:
    """What the doctor finds at a station while this is done again and again."""
    task = station.machine.start("sh", "-c", '"$1" doctor --wait 2.5 --json "$2" 2>/dev/null', "-", PYWG, WG)

    def ended() -> bool:
        do()
        return task.poll() is not None

    eventually("the doctor is done", ended, timeout=60, every=every)
    return read(task.output())


def while_left_calls(tunnel: Tunnel) -> dict[str, dict[str, object]]:
    """What the doctor finds at the right while the left begins one handshake after the other."""
    return meanwhile(tunnel.right, lambda: tunnel.left.setconf(tunnel.left.settings))


def firewall(station: Station, hook: str, rule: str) -> None:
    text = f"table inet t {{ chain c {{ type filter hook {hook} priority 0; {rule}; }}\n}}\n"
    station.machine.run("nft", "-f", "-", input=text)


def test_large_packets_are_lost(tunnel: Tunnel) -> None:
    tunnel.configure(initiator=tunnel.left)
    firewall(tunnel.right, "prerouting", "meta length > 1300 udp dport 51820 drop")
    found = findings(tunnel.left, WG, status=FOUND)
    assert only(found) == ["mtu-too-large"]
    assert f"ip link set {WG} mtu 1232" in found["mtu-too-large"]["do"]


def test_the_interface_is_in_another_network_namespace(shared: Lab) -> None:
    machine = shared.host("beside")
    machine.run("ip", "netns", "add", "inner")
    machine.run("sh", "-c", f"ip netns exec inner {PYWG}d {WG} >/dev/null 2>&1")
    try:
        machine.run("sh", "-c", f"{PYWG} genkey | {PYWG} set {WG} private-key /dev/stdin")
        machine.run("ip", "-n", "inner", "link", "set", WG, "up")
        found = findings(machine, WG, status=0)
        assert only(found) == ["other-namespace"]
        assert found["other-namespace"]["severity"] == "warning"
        there = machine.run("ip", "netns", "exec", "inner", PYWG, "doctor", WG, check=False)
        assert "no-address" in there
    finally:
        machine.run("rm", f"/var/run/wireguard/{WG}.sock")


def test_the_interface_is_down(tunnel: Tunnel) -> None:
    tunnel.configure(initiator=tunnel.left)
    tunnel.left.machine.run("ip", "link", "set", WG, "down")
    assert only(findings(tunnel.left, WG, status=FOUND)) == ["interface-down"]
    tunnel.left.machine.run("ip", "link", "set", WG, "up")
    tunnel.left.machine.run("ip", "route", "del", "10.77.0.0/24")
    try:
        assert only(findings(tunnel.left, WG)) == ["not-routed"]
    finally:
        tunnel.left.machine.run("ip", "route", "add", "10.77.0.0/24", "dev", WG)
        add_address(tunnel.left.machine, WG, f"{tunnel.left.inner[1]}/64")


def test_a_source_address_that_is_not_allowed(tunnel: Tunnel) -> None:
    tunnel.configure(initiator=tunnel.left)
    settings = tunnel.right.settings.replace(tunnel.left.inner[0], "10.77.0.9")
    tunnel.right.setconf(settings)
    task = tunnel.left.machine.start("ping", "-i", "0.2", tunnel.right.inner[0])
    try:
        assert "source-not-allowed" in findings(tunnel.right, WG, status=FOUND)
        assert only(findings(tunnel.left, WG)) == ["data-unanswered"]
    finally:
        task.stop()


def test_packets_for_others_without_forwarding(tunnel: Tunnel) -> None:
    tunnel.configure(initiator=tunnel.left)
    tunnel.left.setconf(tunnel.left.settings.replace("AllowedIPs = ", "AllowedIPs = 10.77.9.0/24, "))
    tunnel.left.machine.run("ip", "route", "add", "10.77.9.0/24", "dev", WG)
    task = tunnel.left.machine.start("ping", "-i", "0.2", "10.77.9.9")
    try:
        assert only(findings(tunnel.right, WG, status=FOUND)) == ["forwarding-off"]
    finally:
        task.stop()


def test_a_strict_check_of_source_addresses(tunnel: Tunnel) -> None:
    tunnel.configure(initiator=tunnel.left)
    right = tunnel.right.machine
    right.run("sysctl", "-qw", f"net.ipv4.conf.{WG}.rp_filter=1")
    right.run("ip", "route", "add", f"{tunnel.left.inner[0]}/32", "dev", tunnel.right.uplink)
    task = tunnel.left.machine.start("ping", "-i", "0.2", tunnel.right.inner[0])
    try:
        assert {"reverse-path-filter", "not-routed"} <= set(findings(tunnel.right, WG, status=FOUND))
    finally:
        task.stop()
        right.run("ip", "route", "del", f"{tunnel.left.inner[0]}/32", "dev", tunnel.right.uplink)
        right.run("sysctl", "-qw", f"net.ipv4.conf.{WG}.rp_filter=0")


def test_a_clock_that_went_back(tunnel: Tunnel) -> None:
    tunnel.right.configure(tunnel.left)
    initiate(tunnel, 1_900_000_000)
    assert "clock-went-back" in meanwhile(tunnel.right, lambda: initiate(tunnel, 1_800_000_000))


def test_a_clock_that_was_set_back_before_a_restart(lab: Lab, faults: Faults) -> None:
    ours = PROGRAMS["pywgd"]
    tunnel = stations.make_tunnel(lab, faults.into(ours), ours)
    left, right = tunnel.left, tunnel.right
    tunnel.configure(initiator=left, keepalive=1)
    ping(left, right)
    # Nobody can call the left, as if it were behind NAT, and the right has no session any more.
    firewall(left, "input", f"udp dport {PORT} @th,64,8 1 drop")
    right.machine.run("ip", "link", "set", WG, "down")
    right.machine.run("ip", "link", "set", WG, "up")
    faults.set_wall_clock_off(-3600)
    left.restart()
    assert while_left_calls(tunnel)["clock-went-back"]["severity"] == "error"
    right.machine.run("ip", "link", "set", WG, "down")  # or it still calls, as the doctor wanted
    right.machine.run("ip", "link", "set", WG, "up")
    left.machine.write(f"/run/{WG}.conf", left.settings)
    found = findings(left, f"/run/{WG}.conf", status=FOUND, env=faults.environment("pywg"))
    assert only(found) == ["clock-behind"]
    assert f"/run/{WG}.conf was written 3" in str(found["clock-behind"]["seen"])
    faults.set_wall_clock_off(0)
    ping(left, right, seconds=20)


def initiate(
    tunnel: Tunnel, seconds: int, *, source: str = "", by: Key | None = None, to: Key | None = None
) -> None:
    """Send the left's initiation, made at this time of the wall clock, from a socket beside its daemon's.

    source: the address it comes from. by, to: other keys than the left's and the right's.
    """
    ours = PrivateKey.from_base64((by or tunnel.left.key).private)
    theirs = PublicKey.from_base64((to or tunnel.right.key).public)
    begun = handshake.create_initiation(
        ours,
        theirs,
        primitives.dh(bytes(ours), bytes(theirs)),
        PrivateKey.generate(os.urandom),
        tai64n.encode(seconds * 10**9),
    )
    message = messages.Initiation(7, begun.ephemeral, begun.static, begun.timestamp).encode_without_macs()
    datagram = CookieJar(theirs).stamp(message, 0.0).hex()
    send = "import socket, sys; from_, to = (sys.argv[2], 0), (sys.argv[3], 51820)\n"
    send += "s = socket.socket(2, 2); s.bind(from_); s.sendto(bytes.fromhex(sys.argv[1]), to)"
    where = (source or "0.0.0.0", tunnel.right.outer[0])
    tunnel.left.machine.run(sys.executable, "-ISc", send, datagram, *where)


def test_one_key_at_two_places(tunnel: Tunnel) -> None:
    tunnel.configure(initiator=tunnel.left, keepalive=1)
    left = tunnel.left.machine
    other = tunnel.left.program.bring_up(left, "wg1")
    try:
        settings = tunnel.left.settings.replace(f"ListenPort = {PORT}", "ListenPort = 4444")
        left.write("/run/wg1.conf", settings)
        left.run("wg", "setconf", "wg1", "/run/wg1.conf")
        left.run("ip", "link", "set", "wg1", "up")
        assert "same-key" in findings(tunnel.left, WG, status=FOUND)

        def both_call() -> None:
            for interface in (WG, "wg1"):
                key = tunnel.right.key.public
                left.run("wg", "set", interface, "peer", key, "persistent-keepalive", "0")
                left.run("wg", "set", interface, "peer", key, "persistent-keepalive", "1")

        assert "endpoint-flaps" in meanwhile(tunnel.right, both_call, every=0.1)
    finally:
        tunnel.left.program.take_down(left, "wg1", other)


def test_a_way_through_nat_that_was_forgotten(lab: Lab) -> None:
    ours = PROGRAMS["pywgd"]
    client, router, hub = (
        stations.make_station(lab, ours, "client", 1),
        lab.host("router"),
        stations.make_station(lab, ours, "hub", 2),
    )
    lab.join(client.machine, router, ["10.1.0.2/24"], ["10.1.0.1/24"])
    link = lab.join(router, hub.machine, ["11.0.0.1/24"], ["11.0.0.2/24"])  # no private ones
    make_router(router, nat_out=link.left_interface, entries_last=2)
    client.machine.run("ip", "route", "add", "default", "via", "10.1.0.1")
    for station in (client, hub):
        stations.start_station(lab, station)
    hub.configure(client)
    client.configure(hub, endpoint=hostport("11.0.0.2"))
    ping(client, hub)
    hub.machine.write(f"/run/{WG}.conf", hub.settings)
    eventually(
        "the router has forgotten",
        lambda: "udp" not in router.run("cat", "/proc/net/nf_conntrack", check=False),
        timeout=20,
        every=0.5,
    )
    assert only(findings(hub, f"/run/{WG}.conf")) == ["nat-mapping-lost"]
    found = findings(client, WG, status=0)
    assert list(found) == ["keepalive-off"]
    assert "10.1.0.2" in str(found["keepalive-off"]["seen"])
    # The remedy helps, with a router that forgets so soon at a shorter interval.
    client.wg("set", WG, "peer", hub.key.public, "persistent-keepalive", "1")
    assert findings(client, WG, status=0) == {}
    time.sleep(3)
    ping(hub, client, seconds=3)


def test_from_a_file_with_a_name_to_a_daemon_that_was_killed(tunnel: Tunnel) -> None:
    left, file = tunnel.left.machine.host, "/run/wg7.conf"
    hosts = left.path("/run/hosts")
    hosts.write_text("127.0.0.1 localhost\n")
    left.run("mount", "--bind", "/run/hosts", "/etc/hosts")
    text = f"[Interface]\nPrivateKey = {tunnel.left.key.private}\nAddress = 10.77.7.1/24\n"
    text += "ListenPort = 4447\n[Peer]\n"
    peer = f"# Name = bob\nPublicKey = {Key.generate().public}\nEndpoint = bob.test:51820\n"
    left.write(file, text + peer + "AllowedIps = 10.77.7.2/33\n")
    found = findings(left, file, status=FOUND)
    assert only(found) == ["config-mistakes"]
    assert f"{file}:9:14: " in str(found["config-mistakes"]["seen"])
    left.write(file, text + peer + "AllowedIPs = 10.77.7.2/32\n")
    found = findings(left, file, status=FOUND)
    assert only(found) == ["name-not-resolved"]
    assert found["not-up"]["severity"] == "note"
    hosts.write_text("192.0.2.2 bob.test\n")
    left.run(PYWG, "up", file)
    hosts.write_text("192.0.2.3 bob.test\n")
    left.write(file, text + peer + "AllowedIPs = 10.77.7.3/32\n")
    left.run("ip", "address", "flush", "dev", "wg7")
    assert {"name-moved", "file-differs", "no-address"} <= set(findings(left, "wg7", status=FOUND))
    os.kill(daemon_of(left, "wg7"), signal.SIGKILL)
    eventually("the interface is gone", lambda: "wg7" not in left.run("ip", "link"))
    assert only(findings(left, "wg7", status=FOUND)) == ["daemon-gone"]
    left.run(PYWG, "down", "wg7")
    assert "wg7" in left.run(PYWG, "doctor", "wg7", check=False)


def daemon_of(host: Host, interface: str) -> int:
    """The process number of the daemon that `pywg up` started on a host."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            here = (process / "ns/net").readlink() == pathlib.Path(f"/proc/{host.pid}/ns/net").readlink()
            if here and interface.encode() in words and any(b"pywgd" in word for word in words):
                return int(process.name)
    raise AssertionError(f"{interface} has no daemon")


def test_of_other_daemons_less_is_told(tunnel: Tunnel) -> None:
    program = installed("wireguard-go")
    left = tunnel.left.machine
    task = program.bring_up(left, "wg2")
    try:
        left.run("ip", "link", "set", "wg2", "up")
        left.write("/run/key", tunnel.left.key.private)
        peer = f"peer {Key.generate().public} endpoint 192.0.2.2:4 allowed-ips 10.77.2.2/32"
        left.run("wg", "set", "wg2", "private-key", "/run/key", *peer.split())
        assert {"not-pywgd", "unreachable"} <= set(findings(tunnel.left, "wg2", status=FOUND))
    finally:
        program.take_down(left, "wg2", task)


def test_every_finding_has_a_first_thing_to_do() -> None:
    assert list(REMEDIES) == list(KINDS)


def test_a_flood_of_handshakes(tunnel: Tunnel) -> None:
    tunnel.right.configure(tunnel.left)
    source, target = tunnel.left.outer[0], tunnel.right.outer[0]
    flood = tool(tunnel.left.machine, "flood.py", source, target, PORT, tunnel.right.key.public, 30)
    try:
        eventually("the right is under load", lambda: "loaded" in flood.output())
        assert only(findings(tunnel.right, WG, status=0)) == ["under-load"]
    finally:
        flood.stop()


def test_packets_for_nobody_and_for_a_peer_that_has_to_call(tunnel: Tunnel) -> None:
    tunnel.right.configure(tunnel.left)
    pings = [
        tunnel.right.machine.start("ping", "-i0.05", address)
        for address in (tunnel.left.inner[0], "10.77.0.9")
    ]
    try:
        assert only(findings(tunnel.right, WG, status=0)) == ["no-allowed-ip", "no-endpoint"]
    finally:
        for task in pings:
            task.stop()


def test_no_private_key_explains_the_rest(tunnel: Tunnel) -> None:
    tunnel.configure(initiator=tunnel.left)
    tunnel.left.setconf(tunnel.left.settings.replace(f"PrivateKey = {tunnel.left.key.private}\n", ""))
    assert only(findings(tunnel.left, WG, status=FOUND)) == ["no-private-key"]


def test_a_socket_that_belongs_to_somebody_else(tunnel: Tunnel) -> None:
    machine, socket = tunnel.left.machine, f"/run/wireguard/{WG}.sock"
    tunnel.left.configure(tunnel.right)
    machine.run("chown", "65534", socket)
    try:
        powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
        said = machine.run(*powerless, PYWG, "doctor", "--json", "--wait", "0.5", WG, check=False)
    finally:
        machine.run("chown", "0", socket)
    assert only(read(said)) == ["not-readable"]


def test_a_default_route_beside_a_strict_check_of_sources(tunnel: Tunnel) -> None:
    """The peer's answers seem to come from the wrong side, until the marked way is asked for."""
    left, right, far = tunnel.left.machine, tunnel.right, "203.0.113.7"
    tunnel.right.configure(tunnel.left)
    key = Key.generate()
    right.wg("set", WG, "peer", key.public, "allowed-ips", "10.77.8.1/32")
    right.machine.run("ip", "route", "add", "10.77.8.1", "dev", WG)
    add_address(right.machine, right.uplink, f"{far}/32")
    left.run("ip", "route", "add", "default", "via", right.outer[0])
    text = f"[Interface]\nPrivateKey = {key.private}\nAddress = 10.77.8.1/24\n[Peer]\nPublicKey = "
    text += f"{right.key.public}\nEndpoint = {hostport(far)}\nAllowedIPs = 0.0.0.0/0\n"
    left.write("/run/wg8.conf", text)
    try:
        left.run(PYWG, "up", "/run/wg8.conf")
        left.run("sysctl", "-qw", f"net.ipv4.conf.{tunnel.left.uplink}.rp_filter=1")
        left.run("sysctl", "-qw", "net.ipv4.conf.all.src_valid_mark=0")
        found = findings(left.host, "wg8", status=FOUND)
        assert only(found) == ["reverse-path-filter"]
        (remedy,) = [str(line) for line in list(found["reverse-path-filter"]["do"]) if "valid_mark" in line]
        left.run(*remedy.split())
        left.run("ping", "-c1", "-w20", "-I", "wg8", right.inner[0], timeout=30)
    finally:
        left.run(PYWG, "down", "wg8", check=False)
        left.run("ip", "route", "del", "default", check=False)
        left.run("sysctl", "-qw", f"net.ipv4.conf.{tunnel.left.uplink}.rp_filter=0")
        right.machine.run("ip", "route", "del", "10.77.8.1", check=False)
        right.machine.run("ip", "addr", "del", f"{far}/32", "dev", right.uplink, check=False)


class Ends:
    """Two files for the two ends of one tunnel, of which a test makes something wrong."""

    def __init__(self, number: int) -> None:
        self.interface, self.keys, self.port = f"wg{number}", (Key.generate(), Key.generate()), 40000 + number
        self.known = (self.keys[1].public, self.keys[0].public)
        self.addresses = [f"10.9.{number}.1", f"10.9.{number}.2"]
        self.allowed = [f"10.9.{number}.2/32", f"10.9.{number}.1/32"]
        self.endpoint_port = self.port
        self.more = ""  # at the left's end

    def file(self, end: int) -> str:
        lines = ["[Interface]", f"PrivateKey = {self.keys[end].private}", f"ListenPort = {self.port}"]
        lines += [f"Address = {self.addresses[end]}/24", "[Peer]", f"PublicKey = {self.known[end]}"]
        lines += [f"AllowedIPs = {self.allowed[end]}"]
        lines += [f"Endpoint = 192.0.2.2:{self.endpoint_port}", self.more] if end == 0 else []
        return "\n".join(lines) + "\n"


def test_both_ends_files_tell_exactly_what_does_not_fit(tunnel: Tunnel) -> None:
    strangers, numbers, itself = ends = [Ends(number) for number in range(31, 34)]
    strangers.known = (Key.generate().public, Key.generate().public)
    numbers.endpoint_port, numbers.allowed[1], numbers.addresses[1] = 4, "10.9.32.9/32", numbers.addresses[0]
    itself.known = (itself.keys[0].public, itself.known[1])
    itself.more = f"[Peer]\nPublicKey = {itself.keys[1].public}\nAllowedIPs = {itself.allowed[0]}"
    machine = tunnel.left.machine
    for pair in ends:
        machine.write(f"/run/{pair.interface}.conf", pair.file(0))
        machine.write(f"/run/there-{pair.interface}", pair.file(1))
    machine.run(PYWG, "up", f"/run/{numbers.interface}.conf")

    def codes(pair: Ends) -> set[str]:
        files = f"/run/{pair.interface}.conf", "--other", f"/run/there-{pair.interface}"
        return set(only(findings(machine.host, *files, status=FOUND)))

    try:
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(codes, ends))
    finally:
        machine.run(PYWG, "down", numbers.interface)
    assert found[0] == {"other-does-not-know-us", "other-is-unknown"}
    assert found[1] >= {"port-differs", "address-not-allowed", "same-address"}
    assert found[2] >= {"own-key-as-peer", "allowed-ips-twice"}
    assert "handshake-unanswered" not in found[1], "the cause hides it"


def test_findings_are_told_by_show_on_a_terminal_by_metrics_and_by_the_log(lonely: Station) -> None:
    code, text = "handshake-unanswered", KINDS["handshake-unanswered"].summary
    machine, task = lonely.machine, lonely.task
    assert task is not None
    (key,) = machine.run("wg", "show", WG, "peers").split()
    line = f"peer {key[:4]}…{key[39:43]}: {text}; `pywg doctor {WG}` tells more [{code}]\n"
    eventually("the log has it", lambda: line in task.output(), 40, 0.5)
    assert task.output().count(line) == 1
    on_terminal = machine.run("script", "-qec", f"{PYWG} show", "/dev/null", env={"NO_COLOR": "1"})
    assert f"error: {key[:8]}…: {text}\n" in on_terminal
    piped = machine.run(PYWG, "show")
    assert piped == machine.run("wg", "show")
    assert f'code="{code}"' in machine.run(PYWG, "metrics", "--once", WG)
    assert code in machine.run(PYWG, "show", "--json")
