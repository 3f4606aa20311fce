"""`pywg up` and `pywg down` on hosts of their own, over pywgd and over wireguard-go."""

from __future__ import annotations

import pathlib
import shlex
import signal
import sys
import time

import pytest

from tests.system.conftest import missing
from tests.system.net import Host, Lab, eventually
from tests.system.programs import PROGRAMS, Userspace
from tests.system.test_pywgd import daemons
from tests.system.tunnel import Key

PYWG = str(pathlib.Path(sys.executable).with_name("pywg"))


@pytest.fixture(params=["pywgd", "wireguard-go"])
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment in which `pywg up` starts the daemon under test."""
    program = PROGRAMS[request.param]
    if sentence := program.missing():
        missing(sentence)
    if request.param == "pywgd":
        return {}
    assert isinstance(program, Userspace)
    return {"WG_QUICK_USERSPACE_IMPLEMENTATION": str(program.path())}


@pytest.fixture
def host(lab: Lab) -> Host:
    """A host on a wire to another one, 192.0.2.1 and 2001:db8::1, with an empty /run/conf."""
    host = lab.host("host")
    lab.join(host, lab.host("other"), ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24"])
    host.run("mkdir", "-m", "700", "/run/conf")
    return host


def configure(host: Host, interface: str = "", peer: str = "", name: str = "wg0") -> str:
    """Write a file with a key and these lines in it; returns its path."""
    path = f"/run/conf/{name}.conf"
    text = f"[Interface]\nPrivateKey = {Key.generate().private}\n{interface}\n"
    if peer:
        text += f"[Peer]\nPublicKey = {Key.generate().public}\n{peer}\n"
    host.write(path, text)
    return path


def status_of(host: Host, *command: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command that may fail; returns its exit status and what it printed."""
    printed = host.run("sh", "-c", f"{shlex.join(command)} 2>&1; echo $?", env=env)
    *lines, status = printed.splitlines()
    return int(status), "\n".join(lines)


def assert_nothing_left(host: Host, interface: str = "wg0") -> None:
    assert f'"{interface}" does not exist' in host.run("ip", "link", "show", interface, check=False)
    assert host.run("sh", "-c", "ls /run/wireguard 2>/dev/null || true") == ""
    assert host.run("wg", "show", "interfaces").strip() == ""


def test_two_hosts_ping_each_other_through_the_tunnel(lab: Lab, env: dict[str, str]) -> None:
    left, right = lab.host("left"), lab.host("right")
    lab.join(left, right, ["192.0.2.1/24"], ["192.0.2.2/24"])
    left_key, right_key = Key.generate(), Key.generate()
    for host, key, other, number in ((left, left_key, right_key, 1), (right, right_key, left_key, 2)):
        host.write(
            "/run/wg0.conf",
            f"[Interface]\nPrivateKey = {key.private}\nListenPort = 51820\n"
            f"Address = 10.77.0.{number}/24, fd77::{number}/64\n"
            f"[Peer]\nPublicKey = {other.public}\nEndpoint = 192.0.2.{3 - number}:51820\n"
            "AllowedIPs = 10.77.0.0/24, fd77::/64\n",
        )
        host.run(PYWG, "up", "/run/wg0.conf", env=env)
    for address in ("10.77.0.2", "fd77::2"):
        assert "1 received" in left.run("ping", "-c1", "-W5", address)
    for host in (left, right):
        host.run(PYWG, "down", "/run/wg0.conf", env=env)
        assert_nothing_left(host)


def test_nobody_has_to_read_the_steps(host: Host) -> None:
    path = configure(host, "Address = 10.0.0.1/24\n", "AllowedIPs = 10.1.0.0/24\n")
    for command in ("up", "down"):
        # Nobody reads; and no error of `sh` is mistaken for one of the command.
        printed = host.run("bash", "-c", f"{PYWG} {command} {path} 2> >(exec true); echo $?")
        assert printed == "0\n"
        assert (host.run("wg", "show", "interfaces") == "wg0\n") == (command == "up")
    assert_nothing_left(host)


def test_up_shows_each_step_and_does_it_in_wg_quick_s_order(host: Host, env: dict[str, str]) -> None:
    path = configure(
        host,
        "ListenPort = 4000\nFwMark = 0x7\nAddress = 10.0.0.1/24\nAddress = fd00::1/64\n"
        "PreUp = wg show %i allowed-ips; echo before\nPostUp = ip -4 route show dev %i\n"
        "PreDown = ip -br link show dev %i\nPostDown = test ! -e /sys/class/net/%i # gone",
        "Endpoint = 192.0.2.2:5000\nPersistentKeepalive = 25\n"
        "AllowedIPs = 10.0.0.2/32, 10.1.0.0/16, 10.1.2.0/24, fd00::2/128, fd01::/32",
    )
    daemon = pathlib.Path(env.get("WG_QUICK_USERSPACE_IMPLEMENTATION", "pywgd"))
    printed = host.run(PYWG, "up", path, env=env).splitlines()
    assert [line for line in printed if line.startswith("[#]")] == [
        f"[#] {daemon} wg0",
        "[#] wg show wg0 allowed-ips; echo before",
        f"[#] wg addconf wg0 <(wg-quick strip {path})",
        "[#] ip -4 address add 10.0.0.1/24 dev wg0",
        "[#] ip -6 address add fd00::1/64 dev wg0",
        "[#] ip link set mtu 1420 up dev wg0",
        "[#] ip -6 route add fd01::/32 dev wg0",
        "[#] ip -4 route add 10.1.2.0/24 dev wg0",
        "[#] ip -4 route add 10.1.0.0/16 dev wg0",
        "[#] ip -4 route show dev wg0",
    ]
    assert printed.index("before") < printed.index("[#] ip -4 address add 10.0.0.1/24 dev wg0")
    shown = host.run("wg", "showconf", "wg0")
    assert "ListenPort = 4000" in shown
    assert "FwMark = 0x7" in shown
    assert "Endpoint = 192.0.2.2:5000" in shown
    assert "PersistentKeepalive = 25" in shown
    assert "AllowedIPs = 10.0.0.2/32, 10.1.0.0/16, 10.1.2.0/24, fd00::2/128, fd01::/32" in shown
    routes = [line.split() for line in host.run("ip", "-4", "route", "show", "dev", "wg0").splitlines()]
    assert sorted(route[0] for route in routes) == ["10.0.0.0/24", "10.1.0.0/16", "10.1.2.0/24"]
    assert "fd01::/32" in host.run("ip", "-6", "route", "show", "dev", "wg0")
    assert "mtu 1420" in host.run("ip", "link", "show", "wg0")

    printed = host.run(PYWG, "down", path, env=env).splitlines()
    assert printed[0] == "[#] ip -br link show dev wg0"
    assert printed[1].startswith("wg0 ")
    assert printed[2:] == ["[#] ip link delete dev wg0", "[#] test ! -e /sys/class/net/wg0 # gone"]
    assert_nothing_left(host)


@pytest.mark.parametrize(
    ("interface", "peer", "message"),
    [
        ("PostUp = exit 3", "", "wg0.conf:3:10: PostUp: the command ended with status 3: 'exit 3'"),
        ("PreUp = false", "", "wg0.conf:3:9: PreUp: the command ended with status 1: 'false'"),
        (
            "Address = 10.0.0.1/24, 10.0.0.1/24",
            "",
            "wg0.conf:3:24: Address: 10.0.0.1/24 cannot be given to wg0: File exists; it has it already",
        ),
        (
            "",
            "AllowedIPs = 10.9.0.0/16, 192.0.2.0/24",
            "wg0.conf:8:27: AllowedIPs: 192.0.2.0/24 cannot be routed through wg0: File exists",
        ),
        (
            "",
            "Endpoint = no-such-name.invalid:1",
            "wg0.conf:8:12: Endpoint: 'no-such-name.invalid:1' cannot be resolved: ",
        ),
    ],
)
def test_a_failing_step_undoes_all_and_runs_no_down_hook(
    host: Host, env: dict[str, str], interface: str, peer: str, message: str
) -> None:
    if "no-such-name" in peer:
        host.run("sh", "-c", "mount --bind /dev/null /etc/resolv.conf")
        env = {**env, "WG_ENDPOINT_RESOLUTION_RETRIES": "0"}
    path = configure(
        host, f"{interface or 'MTU = 1400'}\nPreDown = touch /run/down\nPostDown = touch /run/down", peer
    )
    status, printed = status_of(host, PYWG, "up", path, env=env)
    assert status == 1
    *_, undone, told = printed.splitlines()
    assert undone == "[#] ip link delete dev wg0"
    assert told.startswith(f"/run/conf/{message}")
    assert host.run("sh", "-c", "ls /run/down 2>/dev/null || true") == ""
    assert_nothing_left(host)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_undoes_all(host: Host, env: dict[str, str], number: int) -> None:
    path = configure(host, "Address = 10.0.0.1/24\nPostUp = touch /run/waiting; exec sleep 1000")
    task = host.start(PYWG, "up", path, env=env)
    eventually("the hook waits", lambda: host.path("/run/waiting").exists())
    task.signal(number)
    printed = task.wait(check=False)
    assert printed.splitlines()[-2:] == [
        "[#] ip link delete dev wg0",
        f"pywg: interrupted by {signal.Signals(number).name}",
    ]
    assert_nothing_left(host)


def test_ctrl_c_while_the_daemon_starts_is_for_up_alone(host: Host) -> None:
    path = configure(host, "Address = 10.0.0.1/24")
    pywgd = pathlib.Path(sys.executable).with_name("pywgd")
    host.write("/run/daemon", f'#!/bin/sh\nkill -INT -$PPID\nexec {pywgd} "$@"\n')
    host.run("chmod", "+x", "/run/daemon")
    task = host.start(PYWG, "up", path, env={"WG_QUICK_USERSPACE_IMPLEMENTATION": "/run/daemon"})
    assert task.wait(check=False).splitlines() == [
        "[#] /run/daemon wg0",
        "[#] ip link delete dev wg0",
        "pywg: interrupted by SIGINT",
    ]
    assert_nothing_left(host)


def test_nothing_is_changed_by_a_file_with_mistakes(host: Host) -> None:
    path = configure(host, "Address = 10.0.0.1/33\nPreUp = touch /run/hook", "AllowedIP = ::/0")
    assert status_of(host, PYWG, "up", path) == (
        1,
        "/run/conf/wg0.conf:3:11: Address: '10.0.0.1/33' has a prefix longer than 32\n"
        "/run/conf/wg0.conf:7:1: unknown key 'AllowedIP'; did you mean 'AllowedIPs'?",
    )
    assert not host.path("/run/hook").exists()
    assert_nothing_left(host)
    assert daemons(host) == []


def test_up_of_an_interface_that_is_up_changes_nothing(host: Host, env: dict[str, str]) -> None:
    path = configure(host, "Address = 10.0.0.1/24\nPreUp = echo hook")
    host.run(PYWG, "up", path, env=env)
    status, printed = status_of(host, PYWG, "up", path, env=env)
    assert (status, printed.partition(";")[0]) == (1, "pywg: `wg0' already exists")
    assert "10.0.0.1/24" in host.run("ip", "addr", "show", "wg0")


def test_two_ups_at_once_make_one_interface(host: Host, env: dict[str, str]) -> None:
    path = configure(host, "Address = 10.0.0.1/24")
    tasks = [host.start(PYWG, "up", path, env=env) for _ in range(2)]
    for task in tasks:
        task.wait(check=False)
    assert {task.poll() for task in tasks} == {0, 1}
    assert "10.0.0.1/24" in host.run("ip", "addr", "show", "wg0")
    assert host.run("wg", "show", "interfaces").strip() == "wg0"


def test_down_of_what_is_not_up_says_so(host: Host) -> None:
    path = configure(host, "PreDown = touch /run/hook")
    status, printed = status_of(host, PYWG, "down", path)
    assert (status, printed.partition(";")[0]) == (1, "pywg: `wg0' is not a WireGuard interface")
    assert not host.path("/run/hook").exists()


def test_a_failing_predown_hook_leaves_the_interface(host: Host, env: dict[str, str]) -> None:
    path = configure(host, "PreDown = false")
    host.run(PYWG, "up", path, env=env)
    status, printed = status_of(host, PYWG, "down", path)
    assert status == 1
    assert printed.endswith("wg0.conf:3:11: PreDown: the command ended with status 1: 'false'")
    assert host.run("wg", "show", "interfaces").strip() == "wg0"


def test_down_and_up_again_at_once(host: Host, env: dict[str, str]) -> None:
    path = configure(host, "Address = 10.0.0.1/24")
    for _ in range(3):
        host.run(PYWG, "up", path, env=env)
        host.run(PYWG, "down", path, env=env)
    host.run(PYWG, "up", path, env=env)
    assert host.run("wg", "show", "interfaces").strip() == "wg0"


@pytest.mark.parametrize(
    ("setup", "mtu"),
    [
        ("ip link set eth0 mtu 1400", 1320),
        ("ip route add 198.51.100.0/24 via 192.0.2.2 mtu 1380", 1300),
        ("true", 1420),
    ],
)
def test_the_mtu_follows_the_way_to_the_endpoint(
    host: Host, env: dict[str, str], setup: str, mtu: int
) -> None:
    host.run("ip", "route", "add", "default", "via", "192.0.2.2")
    host.run("sh", "-c", setup)
    path = configure(host, "", "Endpoint = 198.51.100.7:51820")
    assert f"[#] ip link set mtu {mtu} up dev wg0" in host.run(PYWG, "up", path, env=env)
    assert f"mtu {mtu} " in host.run("ip", "link", "show", "wg0")


def test_without_endpoints_the_mtu_follows_the_default_route(host: Host, env: dict[str, str]) -> None:
    host.run("ip", "route", "add", "default", "via", "192.0.2.2", "mtu", "1300")
    assert "ip link set mtu 1220 up" in host.run(PYWG, "up", configure(host), env=env)


def test_a_table_of_its_own_takes_all_routes(host: Host, env: dict[str, str]) -> None:
    path = configure(host, "Address = 10.0.0.1/24\nTable = 1234", "AllowedIPs = 10.0.0.0/24, 0.0.0.0/0, ::/0")
    printed = host.run(PYWG, "up", path, env=env)
    assert "[#] ip -4 route add 0.0.0.0/0 dev wg0 table 1234" in printed
    assert "default dev wg0" in host.run("ip", "-4", "route", "show", "table", "1234")
    assert "10.0.0.0/24 dev wg0" in host.run("ip", "-4", "route", "show", "table", "1234")
    assert "default dev wg0" in host.run("ip", "-6", "route", "show", "table", "1234")
    assert "default" not in host.run("ip", "route", "show")


def test_table_off_adds_no_route(host: Host, env: dict[str, str]) -> None:
    path = configure(host, "Address = 10.0.0.1/24\nTable = off", "AllowedIPs = 0.0.0.0/0, 10.1.0.0/16")
    assert "route" not in host.run(PYWG, "up", path, env=env)
    assert host.run("ip", "route", "show", "dev", "wg0").split()[0] == "10.0.0.0/24"


def test_a_hook_s_peers_get_routes_too(host: Host, env: dict[str, str]) -> None:
    key = Key.generate().public
    path = configure(host, f"PreUp = wg set %i peer {key} allowed-ips 10.5.0.0/16")
    assert "[#] ip -4 route add 10.5.0.0/16 dev wg0" in host.run(PYWG, "up", path, env=env)
    host.run(PYWG, "down", path, env=env)
    path = configure(host, f"PreUp = wg set %i peer {key} allowed-ips ::/0")
    assert "[#] ip -6 route add ::/0 dev wg0 table 51820" in host.run(PYWG, "up", path, env=env)
    host.run(PYWG, "down", path, env=env)
    assert_nothing_left(host)


def test_a_host_without_ipv6_is_told_what_to_look_at(host: Host, env: dict[str, str]) -> None:
    host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
    path = configure(host, "Address = 10.0.0.1/24, fd00::1/64")
    status, printed = status_of(host, PYWG, "up", path, env=env)
    assert status == 1
    assert "wg0.conf:3:24: Address: fd00::1/64 cannot be given to wg0: " in printed
    assert "is IPv6 switched off here (sysctl net.ipv6.conf.all.disable_ipv6)?" in printed
    assert_nothing_left(host)


def test_a_daemon_that_fails_or_is_not_installed_is_told(host: Host) -> None:
    path = configure(host)
    for program, sentence in (
        ("/bin/false", "pywg: /bin/false ended with status 1; the reason is above, if it gave one"),
        (
            "/no/such",
            "pywg: WG_QUICK_USERSPACE_IMPLEMENTATION names the program /no/such, which is not installed",
        ),
    ):
        env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": program}
        assert status_of(host, PYWG, "up", path, env=env) == (1, f"[#] {program} wg0\n{sentence}")
    assert_nothing_left(host)


def test_without_rights_a_sentence_says_which_are_missing(host: Host) -> None:
    path = configure(host)
    status, printed = status_of(host, "setpriv", "--bounding-set=-net_admin", PYWG, "up", path)
    assert status == 1
    assert printed.splitlines()[-1] == (
        f"pywg: changing interfaces needs the capability CAP_NET_ADMIN; run it as root: sudo pywg up {path}"
    )


def test_the_kernel_s_wireguard_is_used_where_it_is(lab: Lab) -> None:
    program = PROGRAMS["kernel"]
    if sentence := program.missing():
        missing(sentence)
    host, guest = lab.host("host"), program.machine(lab, lab.host("guest"))
    lab.join(host, guest, ["192.0.2.1/24"], ["192.0.2.2/24"])
    ours, theirs = Key.generate(), Key.generate()
    for machine, key, other, number in ((host, ours, theirs, 1), (guest, theirs, ours, 2)):
        machine.run("mkdir", "-m", "700", "/run/conf")
        machine.write(
            "/run/conf/wg0.conf",
            f"[Interface]\nPrivateKey = {key.private}\nListenPort = 51820\nAddress = 10.77.0.{number}/24\n"
            f"PostUp = ip link show %i\n[Peer]\nPublicKey = {other.public}\n"
            f"Endpoint = 192.0.2.{3 - number}:51820\nAllowedIPs = 10.77.0.0/24, 10.78.0.0/16\n",
        )
    host.run(PYWG, "up", "/run/conf/wg0.conf")
    printed = guest.run(PYWG, "up", "/run/conf/wg0.conf", timeout=120)
    assert printed.splitlines()[:2] == [
        "[#] ip link add dev wg0 type wireguard",
        "[#] wg addconf wg0 <(wg-quick strip /run/conf/wg0.conf)",
    ]
    assert "1 received" in guest.run("ping", "-c1", "-W10", "10.77.0.1", timeout=60)
    assert "10.78.0.0/16" in guest.run("ip", "route", "show", "dev", "wg0")
    handshake = guest.run("wg", "show", "wg0", "latest-handshakes")
    guest.run("sed", "-i", "s/10.78.0.0/10.79.0.0/", "/run/conf/wg0.conf")
    guest.run(PYWG, "reload", "/run/conf/wg0.conf", timeout=120)
    routes = guest.run("ip", "route", "show", "dev", "wg0")
    assert ("10.78.0.0/16" in routes, "10.79.0.0/16" in routes) == (False, True)
    assert "10.79.0.0/16" in guest.run("wg", "show", "wg0", "allowed-ips")
    assert guest.run("wg", "show", "wg0", "latest-handshakes") == handshake
    printed = guest.run(PYWG, "down", "/run/conf/wg0.conf", timeout=120)
    assert printed.splitlines() == ["[#] ip link delete dev wg0"]
    assert "does not exist" in guest.run("ip", "link", "show", "wg0", check=False)


def test_a_kernel_without_wireguard_says_so_when_it_is_asked_for(host: Host) -> None:
    path = configure(host)
    status, printed = status_of(host, PYWG, "up", "--backend", "kernel", path)
    if status == 0:
        pytest.skip("this kernel has WireGuard")
    shown, told = printed.splitlines()
    assert shown == "[#] ip link add dev wg0 type wireguard"
    assert told.startswith("pywg: the kernel makes no WireGuard interface wg0: ")
    assert "--backend userspace" in told
    assert_nothing_left(host)


def test_up_is_quick(host: Host, env: dict[str, str]) -> None:
    """A coarse guard: several times what it takes on a small machine."""
    path = configure(host, "Address = 10.0.0.1/24", "AllowedIPs = 10.1.0.0/16")
    began = time.monotonic()
    host.run(PYWG, "up", path, env=env)
    assert time.monotonic() - began < 5
