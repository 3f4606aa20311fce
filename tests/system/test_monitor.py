"""The endpoint monitor beside real interfaces: names that change, endpoints that do not answer."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable

import pytest

from tests.system.conftest import installed
from tests.system.net import Host, HostTask, Lab, add_address, eventually
from tests.system.programs import Program
from tests.system.tunnel import PORT, Key

PYWG = str(pathlib.Path(sys.executable).with_name("pywg"))
NAME = "vpn.example.test"

Ends = tuple[Host, Host]


@pytest.fixture
def ends(lab: Lab) -> Ends:
    """A client, 192.0.2.1 and 2001:db8::1, and a server, 2 and 3; the client has names of its own."""
    client, server = lab.host("client"), lab.host("server")
    lab.join(
        client,
        server,
        ["192.0.2.1/24", "2001:db8::1/64"],
        ["192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64"],
    )
    client.write("/run/hosts", "")
    client.run("mount", "--bind", "/run/hosts", "/etc/hosts")
    lab.witnesses += [("wg show on the client", lambda: client.run("wg", "show"))]
    return client, server


def resolve_to(client: Host, *addresses: str) -> None:
    client.write("/run/hosts", "".join(f"{address} {NAME}\n" for address in addresses))


def bring_up(
    ends: Ends, program: Program, endpoint: str, *more: str, first: str, keepalive: int = 1
) -> HostTask:
    """A tunnel from the client, whose interface has `first` as its peer's endpoint; returns the monitor."""
    keys = Key.generate(), Key.generate()
    for number, host in enumerate(ends, 1):
        program.bring_up(host, "wg0")
        lines = [
            f"[Interface]\nPrivateKey = {keys[number - 1].private}\nListenPort = {PORT}",
            f"[Peer]\nPublicKey = {keys[2 - number].public}\nAllowedIPs = 10.77.0.0/24",
        ]
        if number == 1:
            lines += [f"Endpoint = {endpoint}", *(f"#pywg Endpoint = {other}" for other in more)]
            lines += [f"PersistentKeepalive = {keepalive}"] if keepalive else []
        text = "\n".join(lines) + "\n"
        host.write("/run/wg0.conf", text)
        host.write("/run/set.conf", text.replace(endpoint, first))
        host.run("wg", "setconf", "wg0", "/run/set.conf")
        add_address(host, "wg0", f"10.77.0.{number}/24")
        host.run("ip", "link", "set", "wg0", "mtu", "1420", "up")
    monitor = ends[0].start(PYWG, "monitor", "/run/wg0.conf")
    eventually("the monitor runs", lambda: "@pywg-monitor/wg0" in ends[0].run("cat", "/proc/net/unix"))
    return monitor


def endpoint_of(client: Host) -> str:
    return client.run("wg", "show", "wg0", "endpoints").split()[1]


def goes_to(client: Host, endpoint: str) -> Callable[[], bool]:
    return lambda: endpoint_of(client) == endpoint


def answers(client: Host) -> bool:
    return "1 received" in client.run("ping", "-c1", "-W1", "10.77.0.2", check=False)


@pytest.mark.parametrize("program", ["pywgd", "wireguard-go"])
def test_a_name_is_resolved_again_when_the_network_changes(ends: Ends, program: str) -> None:
    client, server = ends
    resolve_to(client, "192.0.2.2")
    bring_up(ends, installed(program), f"{NAME}:{PORT}", first=f"192.0.2.2:{PORT}")
    eventually("the tunnel answers", lambda: answers(client))
    server.run("ip", "addr", "del", "192.0.2.2/24", "dev", "eth0")
    resolve_to(client, "192.0.2.3")
    client.run("ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
    client.run("ip", "addr", "add", "192.0.2.4/24", "dev", "eth0")
    eventually("the new address is set", goes_to(client, f"192.0.2.3:{PORT}"), 20)
    eventually("the tunnel answers again", lambda: answers(client), 30)


def test_ipv4_is_taken_when_ipv6_leads_nowhere(ends: Ends, ours: Program) -> None:
    client, server = ends
    server.run("ip", "addr", "del", "2001:db8::2/64", "dev", "eth0")
    client.run("ip", "neigh", "add", "2001:db8::2", "lladdr", "02:00:00:00:00:01", "dev", "eth0")
    resolve_to(client, "2001:db8::2", "192.0.2.2")
    monitor = bring_up(ends, ours, f"{NAME}:{PORT}", first=f"[2001:db8::2]:{PORT}")
    eventually("IPv4 is set", goes_to(client, f"192.0.2.2:{PORT}"), 20)
    eventually("the tunnel answers", lambda: answers(client), 20)
    assert "it has not answered for " in monitor.output()


def test_the_second_endpoint_is_taken_when_the_first_falls_silent(ends: Ends, ours: Program) -> None:
    client, server = ends
    bring_up(ends, ours, f"192.0.2.2:{PORT}", f"[2001:db8::2]:{PORT}", first=f"192.0.2.2:{PORT}", keepalive=0)
    eventually("the tunnel answers", lambda: answers(client))
    assert endpoint_of(client) == f"192.0.2.2:{PORT}"
    table = "table ip outer { chain in { type filter hook input priority 0; iifname eth0 drop; }; }"
    server.run("nft", "-f", "-", input=table)
    eventually("the tunnel answers again", lambda: answers(client), 60)
    assert endpoint_of(client) == f"[2001:db8::2]:{PORT}"


def test_there_is_one_monitor_and_it_ends_with_its_interface(ends: Ends, ours: Program) -> None:
    client, _ = ends
    resolve_to(client, "192.0.2.2")
    monitor = bring_up(ends, ours, f"{NAME}:{PORT}", first=f"192.0.2.2:{PORT}")
    assert "wg0 has a monitor already" in client.run(PYWG, "monitor", "/run/wg0.conf", check=False)
    assert monitor.poll() is None
    client.run("ip", "link", "del", "wg0")
    monitor.wait(10)
    assert "pywg-monitor" not in client.run("cat", "/proc/net/unix")


def test_the_kernel_s_wireguard_is_watched_too(lab: Lab, ours: Program) -> None:
    kernel = installed("kernel")
    guest, server = kernel.machine(lab, lab.host("client")), lab.host("server")
    lab.join(guest, server, ["192.0.2.1/24"], ["192.0.2.3/24"])
    keys = Key.generate(), Key.generate()
    ours.bring_up(server, "wg0")
    kernel.bring_up(guest, "wg0")
    server.write(
        "/run/wg0.conf",
        f"[Interface]\nPrivateKey = {keys[1].private}\nListenPort = {PORT}\n"
        f"[Peer]\nPublicKey = {keys[0].public}\nAllowedIPs = 10.77.0.1/32\n",
    )
    guest.write(
        "/run/wg0.conf",
        f"[Interface]\nPrivateKey = {keys[0].private}\n[Peer]\nPublicKey = {keys[1].public}\n"
        f"Endpoint = 192.0.2.9:{PORT}\n#pywg Endpoint = 192.0.2.3:{PORT}\n"
        "AllowedIPs = 10.77.0.0/24\nPersistentKeepalive = 1\n",
    )
    guest.run("ip", "neigh", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:01", "dev", "vec0")
    for number, machine in enumerate((guest, server), 1):
        machine.run("wg", "setconf", "wg0", "/run/wg0.conf")
        add_address(machine, "wg0", f"10.77.0.{number}/24")
        machine.run("ip", "link", "set", "wg0", "mtu", "1420", "up")
    monitor = guest.start(PYWG, "monitor", "/run/wg0.conf")
    lab.witnesses.append(("the monitor in the guest", monitor.output))
    eventually(
        "the second endpoint is set",
        lambda: f"192.0.2.3:{PORT}" in guest.run("wg", "show", "wg0", "endpoints"),
        60,
        every=0.5,
    )
    eventually(
        "the handshake is done",
        lambda: not guest.run("wg", "show", "wg0", "latest-handshakes").endswith("\t0"),
        30,
        every=0.5,
    )
    guest.run("ip", "link", "del", "wg0")
    monitor.wait(20)


def test_up_starts_the_monitor_of_a_file_with_a_name_and_down_ends_it(ends: Ends) -> None:
    client, _ = ends
    resolve_to(client, "192.0.2.2")
    key, other = Key.generate(), Key.generate()
    client.write(
        "/run/wg0.conf",
        f"[Interface]\nPrivateKey = {key.private}\nAddress = 10.77.0.1/24\n"
        f"[Peer]\nPublicKey = {other.public}\nEndpoint = {NAME}:{PORT}\nAllowedIPs = 10.77.0.0/24\n",
    )
    for _ in range(2):
        printed = client.run(PYWG, "up", "/run/wg0.conf")
        assert printed.splitlines()[-1] == "[#] pywg monitor /run/wg0.conf &"
        assert client.run("cat", "/proc/net/unix").count("@pywg-monitor/wg0") == 1
        client.run(PYWG, "down", "/run/wg0.conf")
        assert "pywg-monitor" not in client.run("cat", "/proc/net/unix")
