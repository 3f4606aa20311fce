"""`pywg up` and `wg-quick up` with the same file leave two hosts in the same state; so does going down again.

wg-quick runs over wireguard-go. Compared are addresses, routes of all tables, policy rules, MTU, firewall,
src_valid_mark, resolv.conf, the device's own settings, and what hooks saw, in their order. Not compared is
what each device gets of its own: link-local addresses, which are in the firewall too.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from tests.system.conftest import missing
from tests.system.net import Host, Lab, eventually
from tests.system.programs import PROGRAMS, Userspace
from tests.system.resolvers import missing_resolvers, with_openresolv

PYWG = str(pathlib.Path(sys.executable).with_name("pywg"))
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
FILE, LOG = "/run/conf/wg0.conf", "/run/conf/log"
MARK_SETTING = "/proc/sys/net/ipv4/conf/all/src_valid_mark"

KEY = "YAnz5TF+lXXJte14tji3zlMNftft3aw3kuL3aN2FY3k="
ONE, TWO = "4GdvcNuBMOGkjkYHDyvUvfOoGAyX9BhQCKYPF4mIVEs=", "IG7xyq2pHvQ+YRbXqz0/rL7wB2hSiPpgnaPxwyRBQgs="

T = TypeVar("T")
State = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Contender:
    """One of the two programs, and its host, which is behind a router."""

    host: Host
    router: Host
    command: str
    environment: dict[str, str]

    def run(self, *arguments: str) -> bool:
        """Whether it succeeded; what it printed is for a failure's report."""
        command = shlex.join([self.command, *arguments])
        status = self.host.run("sh", "-c", f"{command} >> {LOG}.printed 2>&1; echo $?", env=self.environment)
        return int(status) == 0

    def printed(self) -> str:
        return f"--- {self.command}\n{self.host.run('cat', f'{LOG}.printed', check=False)}"


class Pair:
    """wg-quick, and pywg."""

    def __init__(self, lab: Lab, wireguard_go: str) -> None:
        environment = {"PATH": PATH}
        self.contenders = [
            self._contender(
                lab, "wg-quick", environment | {"WG_QUICK_USERSPACE_IMPLEMENTATION": wireguard_go}
            ),
            self._contender(lab, PYWG, environment),
        ]

    @staticmethod
    def _contender(lab: Lab, command: str, environment: dict[str, str]) -> Contender:
        name = pathlib.Path(command).name
        host, router = lab.host(name), lab.host(f"{name}-router")
        lab.join(host, router, ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"])
        host.run("ip", "-4", "route", "add", "default", "via", "192.0.2.2")
        host.run("ip", "-6", "route", "add", "default", "via", "2001:db8::2")
        router.run("ip", "-4", "route", "add", "10.0.0.0/24", "via", "192.0.2.1")
        host.run("mkdir", "-m", "700", "/run/conf")
        with_openresolv(host)
        return Contender(host, router, command, environment)

    def each(self, what: Callable[[Contender], T]) -> list[T]:
        """Do it for both at once."""
        with ThreadPoolExecutor() as pool:
            return list(pool.map(what, self.contenders))

    def printed(self) -> str:
        return "\n".join(self.each(Contender.printed))

    def begin(self, text: str) -> list[State]:
        """Give both the file; returns their states before."""

        def begin(one: Contender) -> State:
            one.host.run("sh", "-c", f"rm -f {LOG} {LOG}.printed; echo 0 > {MARK_SETTING}")
            one.host.write(FILE, text)
            return state_of(one.host)

        return self.each(begin)

    def clear(self) -> None:
        """After a failure, for the next test."""
        for one in self.contenders:
            if "wg0" in one.host.run("ip", "link"):
                one.host.run("ip", "link", "delete", "wg0")
                one.host.run("nft", "flush", "ruleset")
                one.host.run("resolvconf", "-d", "wg0", "-f")
                for family in ("-4", "-6"):
                    one.host.run("ip", family, "rule", "flush")
                    one.host.run("ip", family, "rule", "add", "table", "main", "priority", "32766")
                    one.host.run(
                        "ip", family, "rule", "add", "table", "default", "priority", "32767", check=False
                    )


@pytest.fixture(scope="module")
def made(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    wireguard_go = PROGRAMS["wireguard-go"]
    for sentence in (wireguard_go.missing(), missing_resolvers()):
        if sentence:
            missing(sentence)
    assert isinstance(wireguard_go, Userspace)
    with Lab(tmp_path_factory.mktemp("differential")) as lab:
        yield Pair(lab, str(wireguard_go.path()))


@pytest.fixture
def pair(made: Pair) -> Iterator[Pair]:
    """Both on hosts that are alike, with openresolv."""
    yield made
    made.clear()


def state_of(host: Host) -> State:
    """What a tunnel changes on a host."""
    questions = [
        *("ip -j addr", "ip -j -4 route show table all", "ip -j -6 route show table all"),
        *(
            "ip -j -4 rule",
            "ip -j -6 rule",
            "nft -j list ruleset",
            f"cat {MARK_SETTING}",
            "cat /etc/resolv.conf",
        ),
        *("wg show interfaces", "wg showconf wg0 2>/dev/null", f"cat {LOG} 2>/dev/null"),
    ]
    printed = host.run("sh", "-c", "; echo @@@; ".join(questions), check=False).split("@@@\n")
    links, four, six, rules_four, rules_six, firewall, mark, resolv_conf, interfaces, device, log = printed
    return {
        "addresses": sorted(
            f"{link['ifname']} {entry['local']}/{entry['prefixlen']} {entry['scope']}"
            for link in json.loads(links)
            for entry in link["addr_info"]
            if not entry["local"].startswith("fe80:")
        ),
        "links": sorted([link["ifname"], link["mtu"], "UP" in link["flags"]] for link in json.loads(links)),
        "routes": sorted(
            as_text(route)
            for route in json.loads(four or "[]") + json.loads(six or "[]")
            if route and not route["dst"].startswith(("fe80:", "ff00:"))
        ),
        "rules": [as_text(rule) for rule in json.loads(rules_four) + json.loads(rules_six)],
        "firewall": sorted(
            as_text(without_handles(entry))
            for entry in json.loads(firewall or '{"nftables": []}')["nftables"]
            if "metainfo" not in entry and "fe80:" not in as_text(entry)
        ),
        "src_valid_mark": mark.strip(),
        "resolv.conf": sorted(line for line in resolv_conf.splitlines() if not line.startswith("#")),
        "interfaces": interfaces.split(),
        "device": sections(device),
        "log": log.splitlines(),
    }


def as_text(entry: Any) -> str:
    return json.dumps(entry, sort_keys=True)


def without_handles(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {key: without_handles(value) for key, value in entry.items() if key != "handle"}
    return [without_handles(value) for value in entry] if isinstance(entry, list) else entry


def sections(config: str) -> list[list[str]]:
    """Each section's lines, in an order of their own."""
    return sorted(sorted(part.split("\n")) for part in config.strip().split("\n\n"))


def up(pair: Pair, text: str) -> tuple[list[State], State]:
    """Bring both up with the file; returns their states before, and the state after, which is the same."""
    before = pair.begin(text)
    assert pair.each(lambda one: one.run("up", FILE)) == [True, True], pair.printed()
    theirs, ours = pair.each(lambda one: state_of(one.host))
    assert ours == theirs, pair.printed()
    assert ours["interfaces"] == ["wg0"]
    return before, ours


def down(pair: Pair, before: list[State]) -> State:
    """Take both down, to what they were before; returns the state with what hooks have left."""
    assert pair.each(lambda one: one.run("down", FILE)) == [True, True], pair.printed()
    return ended(pair, before)


def ended(pair: Pair, before: list[State]) -> State:
    eventually("both daemons ended", lambda: not any(pair.each(lambda one: one.host.run("wg", "show"))))
    theirs, ours = pair.each(lambda one: state_of(one.host))
    # wg-quick leaves src_valid_mark on, also where it failed; so does pywg where it succeeded.
    assert {**ours, "src_valid_mark": "?"} == {**theirs, "src_valid_mark": "?"}, pair.printed()
    for was in before:
        assert {**ours, "log": [], "src_valid_mark": "0"} == was, pair.printed()
    return ours


def config(interface: str = "", *peers: str) -> str:
    """A file with a key, a port, these lines and peers."""
    text = f"[Interface]\nPrivateKey = {KEY}\nListenPort = 4000\n{interface}\n"
    keyed = zip((ONE, TWO), peers, strict=False)
    return text + "".join(f"[Peer]\nPublicKey = {key}\n{peer}\n" for key, peer in keyed)


V4, V6 = (
    "AllowedIPs = 0.0.0.0/0\nEndpoint = 192.0.2.2:5000",
    "AllowedIPs = ::/0\nEndpoint = [2001:db8::2]:5000",
)
BOTH = "AllowedIPs = 0.0.0.0/0, ::/0\nEndpoint = 192.0.2.2:5000"
DUAL = "Address = 10.0.0.1/24, fd00::1/64"
LAN = "AllowedIPs = 10.1.0.0/16"

CASES = {
    "plain": config(
        "Address = 10.0.0.1/24", "AllowedIPs = 10.0.0.2/32, 10.1.0.0/16\nEndpoint = 192.0.2.2:5000"
    ),
    "no address": config("", LAN),
    "addresses without prefix": config(
        "Address = 10.0.0.1\nAddress = fd00::1",
        "AllowedIPs = 10.0.0.2, fd00::2",
        "AllowedIPs = 10.2.0.0/16, fd02::/48",
    ),
    "two addresses of one network": config("Address = 10.0.0.1/24, 10.0.0.2/24\nMTU = 1280", LAN),
    "IPv6": config(
        "Address = fd00::1/64", "AllowedIPs = fd00::2/128, fd01::/32\nEndpoint = [2001:db8::2]:5000"
    ),
    "default route IPv4": config("Address = 10.0.0.1/24", V4),
    "default route IPv6": config("Address = fd00::1/64", V6),
    "default routes, others, DNS": config(
        f"{DUAL}\nDNS = 10.0.0.2", BOTH, "AllowedIPs = 10.9.0.0/16, fd09::/32"
    ),
    "default routes, mark given, table auto": config(f"{DUAL}\nFwMark = 0x1234\nTable = auto", BOTH),
    "default routes without an address": config("", BOTH),
    "halves": config(DUAL, "AllowedIPs = 0.0.0.0/1, 128.0.0.0/1, ::/1, 8000::/1\nEndpoint = 192.0.2.2:5000"),
    "table off": config(f"{DUAL}\nTable = off", BOTH),
    "table by number": config(f"{DUAL}\nTable = 1234", BOTH, "AllowedIPs = 10.0.0.2/32, 10.3.0.0/16"),
    "mark without a default route": config("Address = 10.0.0.1/24\nFwMark = 77", LAN),
    "DNS": config(
        "Address = 10.0.0.1/24\nDNS = 10.0.0.2, fd00::53\nDNS = corp.example lan", "AllowedIPs = 10.0.0.2"
    ),
    "search domains alone": config("Address = 10.0.0.1/24\nDNS = corp.example"),
    "overlapping AllowedIPs": config(
        "Address = 10.0.0.1/8",
        "AllowedIPs = 10.0.0.2/32, 10.1.0.0/16, 192.168.0.0/16, 192.168.1.0/24",
        f"PresharedKey = {KEY}\nPersistentKeepalive = 25\n"
        "AllowedIPs = 10.1.2.0/24, 192.168.1.128/25, 192.0.0.0/8",
    ),
    "several sections": (
        f"[interface]\nADDRESS=10.0.0.1/24\n[Peer]\nPublicKey={ONE}\n{LAN}\n"
        f"[Interface]\nPrivateKey = {KEY}\nListenPort = 4000\nAddress = 10.0.0.9/24 # two\nMTU = 1300\n"
        f"[Peer]\nPublicKey = {TWO}\nAllowedIPs = 10.1.2.0/24\n"
        f"[Peer]\nPublicKey = {ONE}\nAllowedIPs = 10.7.0.0/16\n"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_file_leaves_the_same_state(pair: Pair, name: str) -> None:
    before, _ = up(pair, CASES[name])
    down(pair, before)


def test_hooks_run_in_the_same_order_and_see_the_same(pair: Pair) -> None:
    see = f"$(ip -br -4 addr show dev %i 2>&1 | grep -o '10[.].*'; ip -4 route show 10.1.0.0/16) >> {LOG}"
    keys = [
        f"{key} = echo {key} {number} {see}"
        for number in (1, 2)
        for key in ("PostDown", "PostUp", "PreDown", "PreUp")
    ]
    bash = f"PostUp = x=(a b); [[ %i == wg+([0-9]) ]] && echo ${{x[1]}} >> {LOG}\nPreDown = (exit 0) | cat"
    route = "10.7.0.0/16 via 192.0.2.2"
    route = f"PreUp = ip route replace {route}\nPostDown = ip route del {route}"
    peer = f"PostUp = wg set %i peer {TWO} allowed-ips 10.5.0.0/16"
    before, state = up(pair, config("\n".join(["Address = 10.0.0.1/24", *keys, bash, route, peer]), LAN))
    assert [line.split()[:2] for line in state["log"]] == [
        *(["PreUp", "1"], ["PreUp", "2"], ["PostUp", "1"], ["PostUp", "2"], ["b"]),
    ]
    assert "10.1.0.0/16" in state["log"][2]
    log = down(pair, before)["log"]
    assert [line.split()[0] for line in log[5:]] == ["PreDown", "PreDown", "PostDown", "PostDown"]


FAILURES = {
    "PreUp": config(f"Address = 10.0.0.1/24\nPreUp = false\nPostDown = echo not >> {LOG}"),
    "PostUp": config(f"{DUAL}\nDNS = 10.0.0.2\nPostUp = exit 7\nPostDown = echo not >> {LOG}", BOTH),
    "the second of three": config(f"PostUp = echo 1 >> {LOG}\nPostUp = false\nPostUp = echo 3 >> {LOG}"),
    "a route": config("Address = 10.0.0.1/24\nTable = 1234\nPostUp = false", LAN),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_fails_leaves_the_same_state(pair: Pair, name: str) -> None:
    before = pair.begin(FAILURES[name])
    assert pair.each(lambda one: one.run("up", FILE)) == [False, False], pair.printed()
    assert ended(pair, before)["src_valid_mark"] == "0"


def test_a_predown_that_fails_leaves_the_tunnel_up(pair: Pair) -> None:
    text = config(f"{DUAL}\nDNS = 10.0.0.2\nPreDown = test -e /run/conf/go", BOTH)
    before, state = up(pair, text)
    assert pair.each(lambda one: one.run("down", FILE)) == [False, False]
    for after in pair.each(lambda one: state_of(one.host)):
        assert after == state
    pair.each(lambda one: one.host.run("touch", "/run/conf/go"))
    down(pair, before)


@pytest.mark.parametrize("peer", [LAN, V4])
def test_packets_for_the_tunnel_s_addresses_that_come_beside_it_fare_alike(pair: Pair, peer: str) -> None:
    before, _ = up(pair, config("Address = 10.0.0.1/24", peer))
    received = " 0 received" if peer == V4 else " 1 received"
    for printed in pair.each(lambda one: one.router.run("ping", "-c1", "-W1", "10.0.0.1", check=False)):
        assert received in printed
    down(pair, before)


def test_what_was_changed_meanwhile_is_saved_alike(pair: Pair) -> None:
    hooks = f"PreUp = true\nPostUp = true; true\nPreDown = echo saved >> {LOG}\nPostDown = true"
    text = config(
        f"Address = 10.0.0.1/24\nSaveConfig = true\nMTU = 1300\nTable = 1234\nDNS = 10.0.0.2\n{hooks}", LAN
    )
    before, _ = up(pair, text)
    for one in pair.contenders:
        change = f"wg set wg0 peer {TWO} allowed-ips 10.5.0.0/16,fd05::/32 endpoint 192.0.2.2:7"
        one.host.run(
            "sh",
            "-ec",
            f"{change} persistent-keepalive 7; wg set wg0 listen-port 4001 fwmark 0x77 peer {ONE} remove",
        )
        one.host.run("sh", "-ec", "ip addr add 10.0.1.1/32 dev wg0; ip link set wg0 mtu 1290")
    saved: list[list[list[str]]] = []
    for action in ("save", "down"):
        assert [one.run(action, FILE) for one in pair.contenders] == [True, True], pair.printed()
        texts = pair.each(lambda one: one.host.run("grep", "-v", "^Address = fe80:", FILE))
        assert sections(texts[0]) == sections(texts[1]), pair.printed()
        assert pair.each(lambda one: one.host.run("stat", "-c", "%a", FILE)) == ["600\n"] * 2
        saved.append(sections(texts[1]))
    assert saved[0] == saved[1]
    assert "MTU = 1290" in saved[0][0]
    ended(pair, before)


def test_each_takes_down_what_the_other_brought_up(pair: Pair) -> None:
    before, _ = up(pair, config(f"{DUAL}\nDNS = 10.0.0.2, corp.example", BOTH, LAN))
    wg_quick, pywg = pair.contenders
    for one, other in ((wg_quick, pywg), (pywg, wg_quick)):
        crossed = dataclasses.replace(one, command=other.command)
        assert crossed.run("down", FILE), crossed.printed()
    ended(pair, before)
