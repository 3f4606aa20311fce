"""`pywg doctor` beside faults that are really made: each is found, by the code that the documents explain."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pywg.noise import handshake, primitives, tai64n
from pywg.noise.cookie import CookieJar
from pywg.noise.keys import PrivateKey, PublicKey
from pywg.wire import messages
from tests.system.cases import ping
from tests.system.conftest import installed
from tests.system.net import Host, Lab, add_address, eventually, make_router
from tests.system.programs import PROGRAMS
from tests.system.tunnel import (
    PORT,
    WG,
    Key,
    Station,
    Tunnel,
    generate_psk,
    hostport,
    make_station,
    make_tunnel,
    start_station,
)

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
        "sh",
        "-c",
        'pywg=$1; shift; "$pywg" doctor --wait 1.5 --json "$@" 2>/dev/null; echo $?',
        "-",
        PYWG,
        *arguments,
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
    left, right = at_both(tunnel)
    assert left == ["preshared-key-differs"]
    assert 'code="preshared-key-differs"' in tunnel.left.machine.run(PYWG, "metrics", "--once", WG)
    # The right calls too if it knew where when its peers were called.
    assert right in (["preshared-key-differs"], ["session-unconfirmed"])


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
    tunnel.right.configure(tunnel.left)
    tunnel.right.key = Key.generate()
    tunnel.left.configure(tunnel.right, endpoint=hostport(tunnel.right.outer[0]), keepalive=1)
    there = while_left_calls(tunnel)
    assert only(there) == ["other-key-for-us"]
    assert real.public in str(there["other-key-for-us"]["do"])


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


def while_left_calls(tunnel: Tunnel) -> dict[str, dict[str, object]]:
    """What the doctor finds at the right while the left begins one handshake after the other."""
    task = tunnel.right.machine.start(PYWG, "doctor", "--wait", "2.5", "--json", WG)

    def ended() -> bool:
        tunnel.left.setconf(tunnel.left.settings)
        return task.poll() is not None

    eventually("the doctor is done", ended, timeout=60, every=0.3)
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
    task = tunnel.right.machine.start(PYWG, "doctor", "--wait", "2.5", "--json", WG)

    def ended() -> bool:
        initiate(tunnel, 1_800_000_000)
        return task.poll() is not None

    eventually("the doctor is done", ended, timeout=60, every=0.5)
    found = json.loads(task.output())["tunnels"][0]["findings"]
    assert "clock-went-back" in [finding["code"] for finding in found]


def initiate(tunnel: Tunnel, seconds: int) -> None:
    """Send the left's initiation, made at this time of the wall clock, from a socket beside its daemon's."""
    ours, theirs = (
        PrivateKey.from_base64(tunnel.left.key.private),
        PublicKey.from_base64(tunnel.right.key.public),
    )
    begun = handshake.create_initiation(
        ours,
        theirs,
        primitives.dh(bytes(ours), bytes(theirs)),
        PrivateKey.generate(os.urandom),
        tai64n.encode(seconds * 10**9),
    )
    message = messages.Initiation(7, begun.ephemeral, begun.static, begun.timestamp).encode_without_macs()
    datagram = CookieJar(theirs).stamp(message, 0.0).hex()
    send = "import socket, sys; socket.socket(2, 2).sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], 51820))"
    tunnel.left.machine.run(sys.executable, "-ISc", send, datagram, tunnel.right.outer[0])


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
        task = tunnel.right.machine.start(PYWG, "doctor", "--wait", "2.5", "--json", WG)

        def ended() -> bool:
            for interface in (WG, "wg1"):
                key = tunnel.right.key.public
                left.run("wg", "set", interface, "peer", key, "persistent-keepalive", "0")
                left.run("wg", "set", interface, "peer", key, "persistent-keepalive", "1")
            return task.poll() is not None

        eventually("the doctor is done", ended, timeout=60, every=0.1)
        assert "endpoint-flaps" in task.output()
    finally:
        tunnel.left.program.take_down(left, "wg1", other)


def test_a_way_through_nat_that_was_forgotten(lab: Lab) -> None:
    ours = PROGRAMS["pywgd"]
    client, router, hub = (
        make_station(lab, ours, "client", 1),
        lab.host("router"),
        make_station(lab, ours, "hub", 2),
    )
    lab.join(client.machine, router, ["10.1.0.2/24"], ["10.1.0.1/24"])
    link = lab.join(router, hub.machine, ["192.0.2.1/24"], ["192.0.2.2/24"])
    make_router(router, nat_out=link.left_interface, entries_last=1)
    client.machine.run("ip", "route", "add", "default", "via", "10.1.0.1")
    for station in (client, hub):
        start_station(lab, station)
    hub.configure(client)
    client.configure(hub, endpoint=hostport("192.0.2.2"))
    ping(client, hub)
    hub.machine.write(f"/run/{WG}.conf", hub.settings)
    eventually(
        "the router has forgotten",
        lambda: "udp" not in router.run("cat", "/proc/net/nf_conntrack", check=False),
        timeout=20,
        every=0.5,
    )
    assert only(findings(hub, f"/run/{WG}.conf")) == ["nat-mapping-lost"]


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
