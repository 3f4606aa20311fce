"""Default routes through a tunnel: what goes through it, what is kept out, and what is left when it is gone.

The `client` is on a wire with a `server`, which is its way to everything: it has the addresses of an
"internet" of its own, and drops and counts what reaches them beside a tunnel.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import sys

import pytest

from tests.system.conftest import missing
from tests.system.net import TOOLS, Host, Lab, eventually
from tests.system.test_up_down import PYWG, status_of
from tests.system.tunnel import Key

PYWGD = str(pathlib.Path(sys.executable).with_name("pywgd"))

INTERNET, INTERNET6 = "198.51.100.1", "2001:db8:f::1"
ENDPOINT, ENDPOINT6 = "203.0.113.9", "2001:db8:e::9"

FIREWALL = f"""
table inet leaks {{
 counter seen {{ }}
 chain in {{
  type filter hook prerouting priority -200
  iifname "eth0" ip daddr {INTERNET} counter name seen drop
  iifname "eth0" ip6 daddr {INTERNET6} counter name seen drop
 }}
}}
"""


@dataclasses.dataclass
class World:
    """The two hosts, and the key of each tunnel's two ends."""

    client: Host
    server: Host
    keys: dict[str, tuple[Key, Key]] = dataclasses.field(default_factory=dict)

    def serve(self, name: str) -> None:
        """Start the server's end of a tunnel: wg0 at port 51820, inner addresses .0.1, wg1 at 51821, .1.1."""
        number = int(name[2:])
        ours, theirs = self.keys[name] = Key.generate(), Key.generate()
        self.server.write(
            f"/run/conf/{name}.conf",
            f"[Interface]\nPrivateKey = {theirs.private}\nListenPort = {51820 + number}\n"
            f"Address = 10.77.{number}.1/24, fd77:{number}::1/64\n"
            f"[Peer]\nPublicKey = {ours.public}\nAllowedIPs = 10.77.{number}.2/32, fd77:{number}::2/128\n",
        )
        self.server.run(PYWG, "up", f"/run/conf/{name}.conf")

    def configure(
        self,
        name: str = "wg0",
        interface: str = "",
        allowed: str = "0.0.0.0/0, ::/0",
        endpoint: str = ENDPOINT,
        address: str = "",
    ) -> str:
        """Write the client's file; returns its path."""
        number = int(name[2:])
        ours, theirs = self.keys.get(name) or (Key.generate(), Key.generate())
        address = address or f"10.77.{number}.2/24, fd77:{number}::2/64"
        host = f"[{endpoint}]" if ":" in endpoint else endpoint
        path = f"/run/conf/{name}.conf"
        self.client.write(
            path,
            f"[Interface]\nPrivateKey = {ours.private}\nAddress = {address}\n{interface}\n"
            f"[Peer]\nPublicKey = {theirs.public}\nEndpoint = {host}:{51820 + number}\n"
            f"AllowedIPs = {allowed}\n",
        )
        return path

    def reaches(self, address: str) -> bool:
        """Whether the client's pings reach the address."""
        printed = self.client.run("ping", "-c3", "-i0.2", "-W2", address, check=False)
        return "bytes from" in printed

    def leaks(self) -> int:
        """How many packets came to the internet beside the tunnel."""
        words = self.server.run("nft", "list", "counter", "inet", "leaks", "seen").split()
        return int(words[words.index("packets") + 1])


@pytest.fixture
def world(lab: Lab) -> World:
    """No tunnel yet."""
    client, server = lab.host("client"), lab.host("server")
    lab.join(client, server, ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"])
    client.run("sh", "-c", "ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8::2")
    server.run("sh", "-c", "ip link set lo up; sysctl -qw net.ipv4.ip_forward=1")
    for address in (INTERNET, INTERNET6, ENDPOINT, ENDPOINT6):
        server.run("ip", "addr", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
    server.run("nft", "-f", "-", input=FIREWALL)
    for host in (client, server):
        host.run("mkdir", "-m", "700", "/run/conf")
    return World(client, server)


def snapshot(host: Host) -> dict[str, str]:
    """All that `up` changes, as other programs tell it."""
    commands = {
        "addresses": "ip -br addr show | sed 's/fe80[^ ]*//' | sort",
        "rules": "ip rule show; ip -6 rule show",
        "routes": "(ip route show table all; ip -6 route show table all) | grep -v 'fe80\\|ff00' | sort -u",
        "firewall": "nft list ruleset | sed 's/fe80:[^ ]*/fe80/'",
        "sysctl": "cat /proc/sys/net/ipv4/conf/all/src_valid_mark",
        "daemons": "ls /run/wireguard 2>/dev/null || true",
        "states": "ls /run/pywg 2>/dev/null | grep -v lock || true",
    }
    return {name: host.run("sh", "-c", command) for name, command in commands.items()}


def test_both_families_go_through_the_tunnel_and_nothing_beside_it(world: World) -> None:
    world.serve("wg0")
    before = snapshot(world.client)
    assert not world.reaches(INTERNET)
    leaks = world.leaks()
    assert leaks > 0
    world.client.run("sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter=1")
    printed = world.client.run(PYWG, "up", world.configure())
    assert "[#] sysctl -q net.ipv4.conf.all.src_valid_mark=1" in printed
    assert world.reaches(INTERNET)
    assert world.reaches(INTERNET6)
    assert world.leaks() == leaks
    assert world.reaches("192.0.2.2"), "the local network stays beside the tunnel"
    assert world.client.run("wg", "show", "wg0", "fwmark").strip() == "0xca6c"
    printed = world.client.run(PYWG, "down", "/run/conf/wg0.conf")
    after = snapshot(world.client)
    assert after.pop("sysctl") == "1\n", "wg-quick leaves it, too"
    before.pop("sysctl")
    assert after == before


def test_packets_for_the_tunnel_s_addresses_are_dropped_when_they_arrive_beside_it(world: World) -> None:
    world.serve("wg0")
    world.client.run(PYWG, "up", world.configure())
    neighbour = world.server
    neighbour.run("ip", "route", "add", "10.77.0.2/32", "via", "192.0.2.1", "dev", "eth0")
    neighbour.run("ip", "-6", "route", "add", "fd77::2/128", "via", "2001:db8::1", "dev", "eth0")
    ping = ["ping", "-c2", "-i0.2", "-W1"]
    probes = [[*ping, "-I192.0.2.2", "10.77.0.2"], [*ping, "-I2001:db8::2", "fd77::2"]]
    for probe in probes:
        assert "bytes from" not in neighbour.run(*probe, check=False)
    for family in ("ip", "ip6"):  # it is that rule which does it
        world.client.run("nft", "flush", "chain", family, "wg-quick-wg0", "preraw")
    for probe in probes:
        assert "bytes from" in neighbour.run(*probe, check=False)


def test_ipv6_alone_leaves_ipv4_as_it_was(world: World) -> None:
    world.serve("wg0")
    path = world.configure(allowed="::/0", endpoint=ENDPOINT6, address="fd77:0::2/64")
    printed = world.client.run(PYWG, "up", path)
    assert "ip -4" not in printed
    assert "src_valid_mark" not in printed
    assert world.reaches(INTERNET6)
    assert world.leaks() == 0
    assert "51820" not in world.client.run("ip", "-4", "rule")
    assert world.client.run("nft", "list", "tables").split() == ["table", "ip6", "wg-quick-wg0"]


def test_a_tunnel_goes_through_the_one_before_it_and_either_may_go_first(world: World) -> None:
    before = snapshot(world.client)
    world.serve("wg0")
    world.serve("wg1")
    for name in ("wg0", "wg1"):
        world.client.run(PYWG, "up", world.configure(name))
    for address in (INTERNET, INTERNET6):
        assert world.reaches(address)
    assert "\t203.0.113.9:51821" in world.client.run("wg", "show", "wg1", "endpoints")
    assert "\t10.77.0.2:" in world.server.run("wg", "show", "wg1", "endpoints"), "it came through wg0"
    assert "\t192.0.2.1:" in world.server.run("wg", "show", "wg0", "endpoints"), "it came by the wire"
    world.client.run(PYWG, "down", "/run/conf/wg0.conf")
    for address in (INTERNET, INTERNET6):
        assert world.reaches(address)
    assert "\t192.0.2.1:" in world.server.run("wg", "show", "wg1", "endpoints")
    assert world.leaks() == 0
    world.client.run(PYWG, "down", "/run/conf/wg1.conf")
    after = snapshot(world.client)
    assert (after["rules"], after["routes"], after["firewall"]) == (
        before["rules"],
        before["routes"],
        before["firewall"],
    )


def test_a_mark_that_the_device_has_is_the_number_of_its_table_too(world: World) -> None:
    world.serve("wg0")
    printed = world.client.run(PYWG, "up", world.configure(interface="FwMark = 0x1234", allowed="0.0.0.0/0"))
    assert "wg set" not in printed
    assert world.reaches(INTERNET)
    assert "default dev wg0" in world.client.run("ip", "route", "show", "table", "4660")
    world.client.run(PYWG, "down", "wg0")
    assert "4660" not in world.client.run("ip", "rule")


def test_a_table_that_is_in_use_is_left_alone(world: World) -> None:
    world.client.run("ip", "route", "add", "default", "via", "192.0.2.2", "table", "51820")
    printed = world.client.run(PYWG, "up", world.configure(allowed="::/0"))
    assert "[#] ip -6 route add ::/0 dev wg0 table 51821" in printed


def test_a_table_has_the_number_that_iproute2_s_file_gives_it(world: World) -> None:
    client = world.client
    client.run("sh", "-c", "mount -t tmpfs none /etc/iproute2; echo '7 vpn # ours' > /etc/iproute2/rt_tables")
    printed = client.run(PYWG, "up", world.configure(interface="Table = vpn"))
    assert "[#] ip -4 route add 0.0.0.0/0 dev wg0 table 7" in printed
    assert "default dev wg0" in client.run("ip", "route", "show", "table", "7")
    assert "fwmark" not in client.run("ip", "rule")
    path = world.configure("wg1", interface="Table = nosuch")
    assert status_of(client, PYWG, "up", path) == (
        1,
        "/run/conf/wg1.conf:4:9: Table: there is no routing table 'nosuch'; give its number, or name it in "
        "/etc/iproute2/rt_tables",
    )


def test_a_dry_run_shows_the_same_steps_and_does_none_of_them(world: World) -> None:
    before = snapshot(world.client)
    path = world.configure(interface="PreUp = touch /run/hook\nPostUp = touch /run/hook")
    planned = world.client.run("setpriv", "--bounding-set=-net_admin", PYWG, "up", "--dry-run", path)
    assert snapshot(world.client) == before
    assert not world.client.path("/run/hook").exists()
    done = world.client.run(PYWG, "up", path)
    assert planned.splitlines() == [line for line in done.splitlines() if "daddr fe80:" not in line]


def test_a_failure_at_the_end_leaves_no_trace(world: World) -> None:
    before = snapshot(world.client)
    status, printed = status_of(world.client, PYWG, "up", world.configure(interface="PostUp = false"))
    assert status == 1
    assert "[#] sysctl -q net.ipv4.conf.all.src_valid_mark=0" in printed
    assert snapshot(world.client) == before


@pytest.mark.parametrize("strict", [False, True])
def test_a_setting_that_cannot_be_changed_gets_a_warning_and_matters_where_sources_are_checked(
    world: World, strict: bool
) -> None:
    world.serve("wg0")
    world.client.run("sysctl", "-qw", f"net.ipv4.conf.eth0.rp_filter={int(strict)}")
    world.client.run("mount", "-o", "bind,ro", "/proc/sys", "/proc/sys")
    printed = world.client.run(PYWG, "up", world.configure(allowed="0.0.0.0/0"))
    first = "Warning: net.ipv4.conf.all.src_valid_mark cannot be set to 1: Read-only file system"
    second = "Warning: answers to the tunnel may be dropped; rp_filter is strict on eth0"
    assert first in printed
    assert (second in printed) == strict
    assert world.reaches(INTERNET) != strict


@pytest.mark.parametrize("programs", ["iptables", ""])
def test_without_nftables_it_is_iptables_or_a_warning(world: World, programs: str) -> None:
    world.serve("wg0")
    before = snapshot(world.client)["rules"]
    if not programs:
        world.client.run("sh", "-c", "for p in /usr/sbin/*tables*; do mount --bind /dev/null $p; done")
    tool = [sys.executable, str(TOOLS / "without_nftables.py")]
    printed = world.client.run(*tool, "up", world.configure())
    warning = (
        "Warning: neither nftables nor iptables is here; packets for wg0's addresses that arrive beside it"
    )
    saved = world.client.run("sh", "-c", "iptables-save; ip6tables-save") if programs else ""
    assert (warning in printed) == (not programs)
    assert saved.count("wg-quick(8) rule for wg0") >= 6 * bool(programs)
    assert world.reaches(INTERNET)
    assert world.reaches(INTERNET6)
    world.client.run(*tool, "down", "wg0")
    assert snapshot(world.client)["rules"] == before
    if programs:
        assert "wg-quick" not in world.client.run("sh", "-c", "iptables-save; ip6tables-save")


def test_up_cleans_up_after_one_that_was_killed_at_any_step(world: World) -> None:
    client, path = world.client, world.configure(allowed="0.0.0.0/0", interface="PostUp = sleep 0.01")
    before = snapshot(client)
    planned = client.run(PYWG, "up", "--dry-run", path).splitlines()
    firewall = [number for number, line in enumerate(planned) if "nft" in line]
    for number in range(len(planned)):
        if number in firewall[1:]:
            continue  # one step, shown in several lines
        killed, printed = status_of(
            client, sys.executable, str(TOOLS / "killed_up.py"), planned[number], path
        )
        assert killed == 128 + signal.SIGKILL, printed
        assert ("`wg0' was interrupted on its way up; what it left behind is removed" in printed) == (
            number > 0
        )
        assert [line for line in printed.splitlines() if line.startswith("[#]")][-1] == planned[number]
    client.run(PYWG, "up", path)
    assert world.client.run("ip", "rule").count("51820") == 1
    client.run(PYWG, "down", path)
    after = snapshot(client)
    after["sysctl"] = before["sysctl"]
    assert after == before


def test_down_undoes_an_up_that_was_killed_and_runs_no_hook(world: World) -> None:
    client = world.client
    path = world.configure(allowed="::/0", interface="PostUp = true\nPostDown = touch /run/postdown")
    before = snapshot(client)
    status_of(client, sys.executable, str(TOOLS / "killed_up.py"), "[#] true", path)
    assert client.run("ip", "-6", "rule").count("51820") == 1
    printed = client.run(PYWG, "down", path)
    assert "pywg: `wg0' was interrupted on its way up; what it left behind is removed" in printed
    assert snapshot(client) == before
    assert not client.path("/run/postdown").exists()


def test_a_daemon_that_was_killed_is_cleaned_up_after_by_up_and_by_down(world: World) -> None:
    client = world.client
    path = world.configure(interface="PreDown = touch /run/predown\nPostDown = touch /run/postdown")
    before = snapshot(client)
    client.run(PYWG, "up", path)
    kill_daemon(client)
    client.write("/run/conf/other.conf", "[Interface]\n")
    printed = client.run(PYWG, "up", path)
    assert "pywg: `wg0' ended without being taken down; what it left behind is removed" in printed
    assert client.run("ip", "rule").count("51820") == 1
    kill_daemon(client)
    printed = client.run(PYWG, "down", path)
    assert "pywg: `wg0' is gone already; what it left behind is removed" in printed
    assert (client.path("/run/predown").exists(), client.path("/run/postdown").exists()) == (False, True)
    after = snapshot(client)
    after["sysctl"] = before["sysctl"]
    after["daemons"] = before["daemons"]  # a socket that nobody listens on, which its successor replaces
    assert after == before


def kill_daemon(host: Host) -> None:
    """End the only pywgd of a host by SIGKILL, and wait until its interface is gone."""
    namespace = pathlib.Path(f"/proc/{host.pid}/ns/net").readlink()
    for process in pathlib.Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                same = (process / "ns/net").readlink() == namespace
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if same and any(word.endswith(b"pywgd") for word in words[:2]):
                os.kill(int(process.name), signal.SIGKILL)
    eventually("the interface is gone", lambda: "wg0" not in host.run("ip", "-br", "link"))


@pytest.mark.parametrize("change", ["rm", "echo nonsense >"])
def test_down_needs_no_file(world: World, change: str) -> None:
    client = world.client
    path = world.configure(interface="PreDown = touch /run/pre-%i\nPostDown = touch /run/post-%i")
    before = snapshot(client)
    client.run(PYWG, "up", path)
    client.run("sh", "-c", f"{change} {path}")
    client.run(PYWG, "down", path)
    assert client.path("/run/pre-wg0").exists()
    assert client.path("/run/post-wg0").exists()
    after = snapshot(client)
    after["sysctl"] = before["sysctl"]
    assert after == before


def test_what_is_kept_has_no_key_and_is_for_its_owner_alone(world: World) -> None:
    world.keys["wg0"] = Key.generate(), Key.generate()
    world.client.run(PYWG, "up", world.configure())
    (file,) = [file for file in world.client.path("/run/pywg").iterdir() if file.suffix == ".json"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert world.keys["wg0"][0].private not in file.read_text()


def test_another_network_namespace_leaves_it_alone(world: World) -> None:
    client, path = world.client, world.configure()
    client.run(PYWG, "up", path)
    before = snapshot(client)
    assert status_of(client, "unshare", "--net", PYWG, "down", path) == (
        1,
        "pywg: `wg0' is in another network namespace; take it down there, or end its daemon if it is in none",
    )
    assert snapshot(client) == before


def test_wg_quick_leaves_the_same_behind_and_each_takes_the_other_s_tunnel_down(world: World) -> None:
    if not pathlib.Path("/usr/bin/wg-quick").exists():
        missing("wg-quick is not installed: apt-get install wireguard-tools")
    client, path = (
        world.client,
        world.configure(allowed="0.0.0.0/0, ::/0, 10.9.0.0/16", interface="MTU = 1400"),
    )
    env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": PYWGD}
    before = snapshot(client)
    client.run("wg-quick", "up", path, env=env)
    theirs = snapshot(client)
    client.run(PYWG, "down", path)
    gone = snapshot(client)
    client.run(PYWG, "up", path)
    ours = snapshot(client)
    client.run("wg-quick", "down", path)
    left = snapshot(client)
    for each in (ours, theirs, gone, left, before):
        each.pop("sysctl")
        each.pop("states")
    assert ours == theirs
    assert gone == before
    assert left == before
