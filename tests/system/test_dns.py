"""Name servers set and taken back: by systemd-resolved, openresolv and Debian's resolvconf, and by file."""

from __future__ import annotations

import itertools
import json
import pathlib
import sys

import pytest

from tests.system.conftest import missing
from tests.system.net import CommandError, Host, Lab
from tests.system.resolvers import (
    BEFORE,
    missing_resolvers,
    own_etc,
    resolv_conf,
    with_debian_resolvconf,
    with_openresolv,
    with_resolved,
)
from tests.system.tunnel import Key

PYWG = str(pathlib.Path(sys.executable).with_name("pywg"))

SERVERS, SEARCH = ["10.0.0.1", "fd00::1"], ["corp.example", "lan"]
ASKED = ["nameserver 10.0.0.1", "nameserver fd00::1", "search corp.example lan"]
TWO = {"wg0": "10.0.0.1", "wg1": "10.0.1.1"}
WAYS = {
    "resolved": with_resolved,
    "openresolv": with_openresolv,
    "resolvconf": with_debian_resolvconf,
    "file": own_etc,
}


@pytest.fixture
def host(lab: Lab) -> Host:
    """A host with interfaces wg0 and wg1, and the machine's own /etc."""
    host = lab.host("host")
    for name in ("wg0", "wg1"):
        host.run("ip", "tuntap", "add", "dev", name, "mode", "tun")
        host.run("ip", "link", "set", name, "up")
    return host


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest, host: Host) -> str:
    """How name servers are set on the host, which is set up for it."""
    if request.param != "file" and (sentence := missing_resolvers()):
        missing(sentence)
    WAYS[request.param](host)
    return str(request.param)


def python(host: Host, program: str, *arguments: str) -> str:
    program = f"import sys, json\nfrom pywg.host.dns import choose_dns, recall_dns\n{program}"
    return host.run(sys.executable, "-c", program, *arguments)


def set_dns(host: Host, interface: str, servers: list[str], search: list[str]) -> str:
    """In a process of its own; returns what was recorded."""
    program = "c = choose_dns(*json.loads(sys.argv[1])); c.apply(); print(json.dumps(c.record()))"
    return python(host, program, json.dumps([interface, servers, search]))


def take_back(host: Host, record: str) -> None:
    python(host, "recall_dns(json.loads(sys.argv[1])).undo()", record)


def what_counts(host: Host, way: str) -> list[str]:
    """What is asked for all names; for resolved, which has it for each interface, as the others put it."""
    if way != "resolved":
        return resolv_conf(host)
    lines = host.run("resolvectl", "dns").splitlines() + host.run("resolvectl", "domain").splitlines()
    return [line for line in lines if "wg" in line and not line.endswith(":")]


def expected(way: str) -> list[str]:
    if way == "resolved":
        return ["Link 2 (wg0): 10.0.0.1 fd00::1", "Link 2 (wg0): corp.example lan ~."]
    if way == "resolvconf":  # Debian's knows no exclusive interface, but puts the tunnel's first
        return [*ASKED[:2], "nameserver 192.0.2.53", f"{ASKED[2]} before.example"]
    return ASKED


def test_the_tunnel_s_servers_are_asked_and_then_those_from_before(host: Host, way: str) -> None:
    before = what_counts(host, way)
    record = set_dns(host, "wg0", SERVERS, SEARCH)
    assert json.loads(record)["way"] == {"openresolv": "resolvconf"}.get(way, way)
    assert what_counts(host, way) == expected(way)
    for _ in range(2):
        take_back(host, record)
        assert what_counts(host, way) == before


def test_what_a_deleted_interface_left_is_taken_back(host: Host, way: str) -> None:
    before = what_counts(host, way)
    record = set_dns(host, "wg0", SERVERS, SEARCH)
    host.run("ip", "link", "delete", "wg0")
    take_back(host, record)
    assert what_counts(host, way) == before


# Debian's resolvconf sorts interfaces by their names.
@pytest.mark.parametrize("way", [way for way in WAYS if way != "resolvconf"], indirect=True)
def test_of_two_tunnels_the_later_one_counts_and_either_may_go_first(host: Host, way: str) -> None:
    before = what_counts(host, way)
    alone = {name: [f"nameserver {server}"] for name, server in TWO.items()}
    together = alone["wg1"]
    if way == "resolved":  # it asks both, each over its own interface
        links = {"wg0": "Link 2 (wg0)", "wg1": "Link 3 (wg1)"}
        alone = {name: [f"{links[name]}: {server}", f"{links[name]}: ~."] for name, server in TWO.items()}
        together = [line for lines in zip(*alone.values(), strict=True) for line in lines]
    for first, second in itertools.permutations(TWO):
        records = {name: set_dns(host, name, [server], []) for name, server in TWO.items()}
        assert what_counts(host, way) == together
        take_back(host, records[first])
        assert what_counts(host, way) == alone[second]
        take_back(host, records[second])
        assert what_counts(host, way) == before


def test_a_server_that_resolved_does_not_take_leaves_nothing_set(host: Host) -> None:
    if sentence := missing_resolvers():
        missing(sentence)
    with_resolved(host)
    with pytest.raises(CommandError, match=r"resolvectl domain wg0 .* ended with status 1: .*nvalid"):
        set_dns(host, "wg0", ["10.0.0.1"], ["-.-"])
    assert what_counts(host, "resolved") == []


def test_resolved_that_nobody_asks_is_left_alone(host: Host) -> None:
    if sentence := missing_resolvers():
        missing(sentence)
    with_resolved(host, BEFORE)
    assert json.loads(set_dns(host, "wg0", SERVERS, SEARCH))["way"] == "file"
    assert resolv_conf(host) == ASKED


def test_resolved_of_another_network_is_left_alone(host: Host) -> None:
    if sentence := missing_resolvers():
        missing(sentence)
    with_resolved(host)
    program = (
        "from pywg.host.dns import choose_dns; print(choose_dns('wg0', ['10.0.0.1'], []).record()['way'])"
    )
    assert host.run("unshare", "--net", sys.executable, "-c", program) == "file\n"


@pytest.mark.parametrize("exists", [True, False])
def test_the_machine_s_own_file_is_not_touched_from_another_network(host: Host, exists: bool) -> None:
    own_etc(host)
    if not exists:
        host.run("rm", "/etc/resolv.conf")
    program = "from pywg.host.dns import choose_dns; choose_dns('wg0', ['10.0.0.1'], [])"
    command = f'unshare --net {sys.executable} -c "{program}"; exit $?'
    with pytest.raises(CommandError, match=r"/etc/resolv.conf is the machine's here"):
        host.run("sh", "-c", command)


def test_a_file_that_is_mounted_is_written_in_place(host: Host) -> None:
    """As in containers, and under `ip netns exec`."""
    own_etc(host)
    host.write("/run/resolv.conf", BEFORE)
    host.run("mount", "--bind", "/run/resolv.conf", "/etc/resolv.conf")
    record = set_dns(host, "wg0", SERVERS, SEARCH)
    assert resolv_conf(host) == ASKED
    set_dns(host, "wg1", ["10.0.1.1"], [])
    assert resolv_conf(host) == ["nameserver 10.0.1.1"]
    take_back(host, record)
    take_back(host, record.replace("wg0", "wg1"))
    assert host.run("cat", "/run/resolv.conf") == BEFORE
    assert "resolv.conf." not in host.run("ls", "/etc")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_over_a_file_that_cannot_be_written_another_is_mounted(host: Host, kind: str) -> None:
    """As where all of the system is read-only."""
    own_etc(host)
    if kind == "link":
        host.run("sh", "-ec", "mv /etc/resolv.conf /run/stub; ln -s /run/stub /etc/resolv.conf")
    host.run("mount", "-o", "remount,bind,ro", "/etc")
    before = host.run("ls", "-l", "/etc/resolv.conf")
    record = set_dns(host, "wg0", SERVERS, SEARCH)
    assert resolv_conf(host) == ASKED
    set_dns(host, "wg1", ["10.0.1.1"], [])
    assert resolv_conf(host) == ["nameserver 10.0.1.1"]
    take_back(host, record)
    assert resolv_conf(host) == ["nameserver 10.0.1.1"]
    take_back(host, record.replace("wg0", "wg1"))
    assert host.run("cat", "/etc/resolv.conf") == BEFORE
    assert host.run("ls", "-l", "/etc/resolv.conf") == before
    assert host.run("ls", "-A", "/run/pywg") == ""


def configured(
    host: Host, name: str, dns: str = "10.0.0.1, fd00::1, corp.example, lan", more: str = ""
) -> str:
    path = f"/run/{name}.conf"
    text = f"[Interface]\nPrivateKey = {Key.generate().private}\nDNS = {dns}\n{more}\n"
    host.write(path, text)
    return path


@pytest.fixture
def bare(lab: Lab) -> Host:
    """A host with nothing but its own /etc, and no tunnels."""
    host = lab.host("host")
    own_etc(host)
    return host


@pytest.mark.parametrize("name", ["resolved", "openresolv"])
def test_up_and_down_set_and_take_back(lab: Lab, name: str) -> None:
    if sentence := missing_resolvers():
        missing(sentence)
    host = lab.host("host")
    WAYS[name](host)
    before = what_counts(host, name)
    path = configured(host, "wg0")
    host.run(PYWG, "up", path)
    if name == "resolved":
        assert [line.partition(": ")[2] for line in what_counts(host, name)] == [
            "10.0.0.1 fd00::1",
            "corp.example lan ~.",
        ]
    else:
        assert what_counts(host, name) == ASKED
    host.run(PYWG, "down", path)
    assert what_counts(host, name) == before


def test_up_shows_what_it_does_and_down_needs_no_file(bare: Host) -> None:
    path = configured(bare, "wg0", more="PostUp = grep ^nameserver /etc/resolv.conf")
    printed = bare.run(PYWG, "up", path).splitlines()
    settings = "'nameserver 10.0.0.1' 'nameserver fd00::1' 'search corp.example lan'"
    shown = printed.index(f"[#] printf '%s\\n' {settings} > /etc/resolv.conf")
    assert printed[shown - 1] == "[#] ip link set mtu 1420 up dev wg0"
    assert printed[-2:] == ["nameserver 10.0.0.1", "nameserver fd00::1"]
    bare.run("rm", path)
    assert "[#] sed -i -n 's/^#| //p' /etc/resolv.conf" in bare.run(PYWG, "down", "wg0")
    assert bare.run("cat", "/etc/resolv.conf") == BEFORE


def test_an_up_that_fails_later_takes_the_servers_back(bare: Host) -> None:
    path = configured(bare, "wg0", more="PostUp = exit 3")
    with pytest.raises(CommandError, match=r"PostUp: the command ended with status 3"):
        bare.run(PYWG, "up", path)
    assert bare.run("cat", "/etc/resolv.conf") == BEFORE


def test_an_up_that_was_killed_is_cleaned_up_by_the_next_of_another(bare: Host) -> None:
    path = configured(bare, "wg0", more="PostUp = kill -9 $PPID")
    bare.run(PYWG, "up", path, check=False)
    assert resolv_conf(bare) == ASKED
    other = configured(bare, "wg1", dns="10.0.1.1")
    bare.run(PYWG, "up", other)
    assert resolv_conf(bare) == ["nameserver 10.0.1.1"]
    bare.run(PYWG, "down", other)
    assert bare.run("cat", "/etc/resolv.conf") == BEFORE


def test_when_the_interface_was_deleted_down_takes_the_servers_back(bare: Host) -> None:
    path = configured(bare, "wg0")
    bare.run(PYWG, "up", path)
    bare.run("ip", "link", "delete", "wg0")
    bare.run(PYWG, "down", path)
    assert bare.run("cat", "/etc/resolv.conf") == BEFORE


def test_domains_alone_are_told_and_left_alone(bare: Host) -> None:
    path = configured(bare, "wg0", dns="corp.example")
    assert f"Warning: {path}:3:7: DNS: domains without a server are not set" in bare.run(PYWG, "up", path)
    assert bare.run("cat", "/etc/resolv.conf") == BEFORE
    bare.run(PYWG, "down", path)


def test_what_cannot_be_set_is_told_with_its_place(lab: Lab) -> None:
    host = lab.host("host")
    own_etc(host)
    path = configured(host, "wg0")
    command = f"unshare --net {PYWG} up {path}; exit $?"
    with pytest.raises(CommandError, match=rf"{path}:3:7: DNS: /etc/resolv.conf is the machine's here"):
        host.run("sh", "-c", command)
    assert host.run("cat", "/etc/resolv.conf") == BEFORE
