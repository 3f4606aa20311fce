"""`pywg reload` on running tunnels: what differs is changed, what stays is not touched."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from tests.system.conftest import missing
from tests.system.net import TOOLS, Host, Lab, add_address, eventually, tool
from tests.system.programs import PROGRAMS, Userspace
from tests.system.test_up_down import PYWG, status_of
from tests.system.tunnel import Key

Ends = tuple[Host, Host]
KEYS = tuple(Key.generate() for _ in range(5))
PATH = "/run/wg0.conf"


@pytest.fixture(params=["pywgd", "wireguard-go"])
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment in which `pywg up` starts the daemon under test."""
    program = PROGRAMS[request.param]
    if sentence := program.missing():
        missing(sentence)
    assert isinstance(program, Userspace)
    daemon = {} if request.param == "pywgd" else {"WG_QUICK_USERSPACE_IMPLEMENTATION": str(program.path())}
    return {"LOG_LEVEL": "", **daemon}


@pytest.fixture
def ends(lab: Lab, env: dict[str, str]) -> Ends:
    """Two hosts on a wire with a tunnel between them that answers; only the first one's file changes."""
    left, right = lab.host("left"), lab.host("right")
    lab.join(left, right, ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"])
    right.write(
        PATH,
        f"[Interface]\nPrivateKey = {KEYS[1].private}\nListenPort = 51820\n"
        f"[Peer]\nPublicKey = {KEYS[0].public}\nAllowedIPs = 10.77.0.0/24\n",
    )
    write(left)
    PROGRAMS["pywgd"].bring_up(right, "wg0")
    right.run("wg", "setconf", "wg0", PATH)
    add_address(right, "wg0", "10.77.0.2/24")
    right.run("ip", "link", "set", "wg0", "up")
    left.run(PYWG, "up", PATH, env=env)
    assert "1 received" in left.run("ping", "-c1", "-W5", "10.77.0.2")
    return left, right


def write(
    host: Host,
    interface: str = "Address = 10.77.0.1/24\nMTU = 1400",
    allowed: str = "10.77.0.2/32, 10.1.0.0/16, 10.2.0.0/16",
    rest: str = f"[Peer]\nPublicKey = {KEYS[2].public}\nAllowedIPs = 10.3.0.0/16\n",
    endpoint: str = "192.0.2.2:51820",
) -> None:
    host.write(
        PATH,
        f"[Interface]\nPrivateKey = {KEYS[0].private}\n{interface}\n"
        f"[Peer]\nPublicKey = {KEYS[1].public}\nEndpoint = {endpoint}\nAllowedIPs = {allowed}\n{rest}",
    )


def state_of(host: Host) -> tuple[list[str], ...]:
    """All that a reload may change; wireguard-go tells its peers in any order."""
    return tuple(
        sorted(host.run(*command.split()).split())
        for command in (
            "wg showconf wg0",
            "ip addr show dev wg0",
            "ip route show table all dev wg0",
            "ip -6 route show table all dev wg0",
        )
    )


def latest_handshake(host: Host) -> str:
    shown = host.run("wg", "show", "wg0", "latest-handshakes").split()
    return shown[shown.index(KEYS[1].public) + 1]


def steps(printed: str) -> list[str]:
    return [line.removeprefix("[#] ") for line in printed.splitlines() if line.startswith("[#]")]


def test_the_same_file_changes_nothing(ends: Ends, env: dict[str, str]) -> None:
    left, _ = ends
    before = state_of(left)
    printed = left.run(PYWG, "reload", PATH, env=env)
    assert printed == f"pywg: `wg0' is as {PATH} says; nothing was changed\n"
    assert state_of(left) == before


def test_what_differs_is_changed_under_traffic_and_no_packet_is_lost(ends: Ends, env: dict[str, str]) -> None:
    left, right = ends
    echo = tool(right, "paced.py", "echo", "10.77.0.2", 9000)
    eventually("the echo listens", lambda: "ready" in echo.output())
    stream = tool(left, "paced.py", "send", "10.77.0.2", 9000, 3000, 0.002)
    eventually("the stream flows", lambda: "flowing" in stream.output())
    handshake = latest_handshake(left)
    write(
        left,
        "Address = 10.77.0.1/24, 10.78.0.1/24, fd77::1/64\nMTU = 1380",
        "10.77.0.2/32, 10.2.0.0/16, 10.4.0.0/16, fd78::/64",
        f"[Peer]\nPublicKey = {KEYS[3].public}\nAllowedIPs = 10.5.0.0/16\nPersistentKeepalive = 25\n",
    )
    printed = left.run(PYWG, "reload", PATH, env=env)
    assert steps(printed) == [
        "ip -4 address add 10.78.0.1/24 dev wg0",
        "ip -6 address add fd77::1/64 dev wg0",
        f"wg set wg0 peer {KEYS[1].public} allowed-ips 10.77.0.2/32,10.2.0.0/16,10.4.0.0/16,fd78::/64",
        f"wg set wg0 peer {KEYS[3].public} persistent-keepalive 25 allowed-ips 10.5.0.0/16",
        "ip link set dev wg0 mtu 1380",
        "ip -6 route add fd78::/64 dev wg0",
        "ip -4 route add 10.4.0.0/16 dev wg0",
        "ip -4 route add 10.5.0.0/16 dev wg0",
        "ip -4 route delete 10.1.0.0/16 dev wg0",
        "ip -4 route delete 10.3.0.0/16 dev wg0",
        f"wg set wg0 peer {KEYS[2].public} remove",
    ]
    assert "10.1.0.0/16" not in left.run("ip", "route", "show", "dev", "wg0")
    write(left, "Address = 10.77.0.1/24\nMTU = 1400")
    left.run(PYWG, "reload", PATH, env=env)
    outcome = json.loads(stream.wait().splitlines()[-1])
    assert outcome["returned"] == outcome["sent"], outcome
    assert latest_handshake(left) == handshake
    shown = left.run("wg", "show", "wg0", "allowed-ips").splitlines()
    assert {line.split()[0]: set(line.split()[1:]) for line in shown} == {
        KEYS[1].public: {"10.77.0.2/32", "10.1.0.0/16", "10.2.0.0/16"},
        KEYS[2].public: {"10.3.0.0/16"},
    }
    assert "fd77::1" not in left.run("ip", "addr", "show", "dev", "wg0")
    routes = left.run("ip", "route", "show", "dev", "wg0")
    assert sorted(line.split()[0] for line in routes.splitlines()) == [
        "10.1.0.0/16",
        "10.2.0.0/16",
        "10.3.0.0/16",
        "10.77.0.0/24",
    ]


@pytest.mark.parametrize("env", ["pywgd"], indirect=True)
def test_a_broken_file_changes_nothing(ends: Ends, env: dict[str, str]) -> None:
    left, _ = ends
    before = state_of(left)
    write(left, "Address = 10.99.0.1/33\nMTU = 1300")
    status, printed = status_of(left, PYWG, "reload", PATH, env=env)
    assert (status, steps(printed)) == (1, [])
    assert printed.startswith(f"{PATH}:3:11: Address: ")
    assert state_of(left) == before


@pytest.mark.parametrize("env", ["pywgd"], indirect=True)
def test_a_step_that_fails_undoes_those_before_and_no_session_is_lost(
    ends: Ends, env: dict[str, str]
) -> None:
    left, _ = ends
    before = state_of(left)
    write(
        left,
        "Address = 10.77.0.1/24, 10.78.0.1/24\nMTU = 1380",
        "10.77.0.2/32, 10.4.0.0/16, 192.0.2.0/24",
        f"[Peer]\nPublicKey = {KEYS[3].public}\nAllowedIPs = 10.5.0.0/16\n",
    )
    status, printed = status_of(left, PYWG, "reload", PATH, env=env)
    assert status == 1
    assert f"{PATH}:8:41: AllowedIPs: 192.0.2.0/24 cannot be routed through wg0: File exists" in printed
    assert state_of(left) == before
    assert "1 received" in left.run("ping", "-c1", "-W5", "10.77.0.2")


@pytest.mark.parametrize("env", ["pywgd"], indirect=True)
def test_what_hooks_and_people_did_stays(ends: Ends, env: dict[str, str]) -> None:
    left, _ = ends
    left.run("ip", "addr", "add", "10.90.0.1/24", "dev", "wg0")
    left.run("ip", "route", "add", "10.91.0.0/16", "dev", "wg0")
    left.run("wg", "set", "wg0", "fwmark", "7")
    write(left, "Address = 10.77.0.1/24\nMTU = 1390\nPostUp = touch /run/hook")
    assert steps(left.run(PYWG, "reload", PATH, env=env)) == ["ip link set dev wg0 mtu 1390"]
    assert "10.90.0.1/24" in left.run("ip", "addr", "show", "dev", "wg0")
    assert "10.91.0.0/16" in left.run("ip", "route", "show", "dev", "wg0")
    assert "0x7" in left.run("wg", "show", "wg0", "fwmark")
    assert not left.path("/run/hook").exists()


@pytest.mark.parametrize("env", ["pywgd"], indirect=True)
def test_an_address_that_replaces_another_of_its_network_keeps_the_routes(
    ends: Ends, env: dict[str, str]
) -> None:
    left, _ = ends
    for name in ("all", "wg0"):
        left.run("sh", "-c", f"echo 0 > /proc/sys/net/ipv4/conf/{name}/promote_secondaries")
    write(left, "Address = 10.77.0.9/24\nMTU = 1400")
    printed = left.run(PYWG, "reload", PATH, env=env)
    assert steps(printed) == [
        "ip -4 address add 10.77.0.9/24 dev wg0",
        "sysctl -q net.ipv4.conf.wg0.promote_secondaries=1",
        "ip -4 address delete 10.77.0.1/24 dev wg0",
    ]
    assert "1 received" in left.run("ping", "-c1", "-W5", "-I", "10.77.0.9", "10.77.0.2")
    assert "10.1.0.0/16" in left.run("ip", "route", "show", "dev", "wg0")


@pytest.mark.parametrize("env", ["pywgd"], indirect=True)
def test_a_peer_that_has_roamed_is_moved_only_by_another_endpoint_in_the_file(
    ends: Ends, env: dict[str, str]
) -> None:
    left, _ = ends
    left.run("wg", "set", "wg0", "peer", KEYS[1].public, "endpoint", "[2001:db8::2]:51820")
    write(left, "Address = 10.77.0.1/24\nMTU = 1390")
    left.run(PYWG, "reload", PATH, env=env)
    assert "[2001:db8::2]:51820" in left.run("wg", "show", "wg0", "endpoints")
    write(left, "Address = 10.77.0.1/24\nMTU = 1390", endpoint="192.0.2.2:51821")
    assert steps(left.run(PYWG, "reload", PATH, env=env)) == [
        f"wg set wg0 peer {KEYS[1].public} endpoint 192.0.2.2:51821"
    ]


@pytest.mark.parametrize("env", ["pywgd"], indirect=True)
def test_the_monitor_comes_and_goes_with_names(ends: Ends, env: dict[str, str]) -> None:
    left, _ = ends

    def monitors() -> int:
        return left.run("cat", "/proc/net/unix").count("@pywg-monitor/wg0")

    assert monitors() == 0
    left.write("/run/hosts", "192.0.2.2 vpn.example.test\n")
    left.run("mount", "--bind", "/run/hosts", "/etc/hosts")
    write(left, endpoint="vpn.example.test:51820")
    printed = left.run(PYWG, "reload", PATH, env=env)
    assert steps(printed) == [f"pywg monitor {PATH} &"]
    assert monitors() == 1
    assert "nothing was changed" in left.run(PYWG, "reload", PATH, env=env)
    write(left)
    left.run(PYWG, "reload", PATH, env=env)
    assert monitors() == 0


@pytest.mark.parametrize("env", ["pywgd"], indirect=True)
def test_a_table_of_its_own_is_left_and_entered(ends: Ends, env: dict[str, str]) -> None:
    left, _ = ends
    write(left, "Address = 10.77.0.1/24\nMTU = 1400\nTable = 1234")
    left.run(PYWG, "reload", PATH, env=env)
    assert "10.1.0.0/16 dev wg0" in left.run("ip", "route", "show", "table", "1234")
    assert "10.1.0.0/16" not in left.run("ip", "route", "show", "dev", "wg0")
    write(left)
    left.run(PYWG, "reload", PATH, env=env)
    assert "10.1.0.0/16" in left.run("ip", "route", "show", "dev", "wg0")
    assert "10.1.0.0/16" not in left.run("ip", "route", "show", "table", "1234", check=False)


def test_a_tunnel_that_is_not_up_is_not_reloaded(lab: Lab) -> None:
    host = lab.host("host")
    write(host)
    assert status_of(host, PYWG, "reload", PATH) == (
        1,
        f"pywg: `wg0' is not up; bring it up: pywg up {PATH}",
    )


@pytest.mark.parametrize("env", ["pywgd"], indirect=True)
def test_default_routes_come_stay_and_go(ends: Ends, env: dict[str, str]) -> None:
    left, _ = ends
    left.run("ip", "route", "add", "default", "via", "192.0.2.2")

    def seen() -> list[str]:
        rules = left.run("sh", "-c", "ip -4 rule; ip -6 rule; nft list ruleset")
        return [*rules.splitlines(), left.run("wg", "show", "wg0", "fwmark"), left.run("ip", "route")]

    before = seen()
    everything = "10.77.0.2/32, 10.1.0.0/16, 10.2.0.0/16, 0.0.0.0/0"
    write(left, allowed=everything)
    left.run(PYWG, "reload", PATH, env=env)
    assert "dev wg0" in left.run("ip", "route", "get", "198.51.100.1")
    assert "dev eth0" in left.run("ip", "route", "get", "198.51.100.1", "mark", "51820")
    assert "ip daddr 10.77.0.1" in left.run("nft", "list", "ruleset")
    assert "1 received" in left.run("ping", "-c1", "-W5", "10.77.0.2")

    write(left, "Address = 10.77.0.1/24, 10.78.0.1/24\nMTU = 1400", everything)
    left.run(PYWG, "reload", PATH, env=env)
    rules = left.run("nft", "list", "ruleset")
    assert rules.count("ip daddr 10.77.0.1") == rules.count("ip daddr 10.78.0.1") == 1

    taken = seen()
    write(left, allowed="10.77.0.2/32, 192.0.2.0/24")
    assert status_of(left, PYWG, "reload", PATH, env=env)[0] == 1
    assert seen() == taken

    write(left)
    left.run(PYWG, "reload", PATH, env=env)
    assert seen() == before
    left.run(PYWG, "down", PATH, env=env)


@pytest.mark.parametrize("env", ["pywgd"], indirect=True)
def test_a_reload_that_was_killed_is_made_up_for_by_the_next(ends: Ends, env: dict[str, str]) -> None:
    left, _ = ends
    left.run("ip", "route", "add", "default", "via", "192.0.2.2")

    def seen() -> tuple[object, ...]:
        rules = left.run("sh", "-c", "ip -4 rule; ip -6 rule; nft list ruleset; ip route show table all")
        settings = [sorted(word.strip(",") for word in words) for words in state_of(left)]
        return settings, sorted(rules.splitlines())

    def killed(line: str) -> None:
        script = str(TOOLS / "killed_up.py")
        assert status_of(left, sys.executable, script, line, PATH, "reload")[0] == 128 + signal.SIGKILL

    plain, more = seen(), ("Address = 10.77.0.1/24, 10.78.0.1/24\nMTU = 1400", "10.77.0.2/32, 0.0.0.0/0")
    write(left, *more)
    killed("[#] ip -4 rule add not fwmark 51820 table 51820 priority 32765")
    left.run(PYWG, "reload", PATH)
    assert "dev wg0" in left.run("ip", "route", "get", "198.51.100.1")
    whole = seen()
    write(left)
    killed("[#] ip -4 route delete 0.0.0.0/0 dev wg0 table 51820")
    left.run(PYWG, "reload", PATH)
    assert seen() == plain
    write(left, *more)
    left.run(PYWG, "reload", PATH)
    assert seen() == whole
    left.run(PYWG, "down", PATH)


@pytest.mark.parametrize("env", ["pywgd"], indirect=True)
def test_name_servers_come_change_and_go(ends: Ends, env: dict[str, str]) -> None:
    left, _ = ends
    left.write("/run/resolv.conf", "nameserver 192.0.2.53\n")
    left.run("mount", "--bind", "/run/resolv.conf", "/etc/resolv.conf")

    def asked() -> list[str]:
        lines = left.run("cat", "/etc/resolv.conf").splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    address = "Address = 10.77.0.1/24\nMTU = 1400"
    for servers in ("10.77.0.2", "10.77.0.3"):
        write(left, f"{address}\nDNS = {servers}")
        left.run(PYWG, "reload", PATH, env=env)
        assert asked() == [f"nameserver {servers}"]
    write(left, address, "10.77.0.2/32, 192.0.2.0/24")
    assert status_of(left, PYWG, "reload", PATH, env=env)[0] == 1
    assert asked() == ["nameserver 10.77.0.3"]
    write(left, address)
    left.run(PYWG, "reload", PATH, env=env)
    assert asked() == ["nameserver 192.0.2.53"]
