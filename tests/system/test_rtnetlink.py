"""What `pywg.host.rtnetlink` reads of a host, beside what iproute2 says of the same host."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.system.net import Host, Lab

READ = """
import json, socket
from pywg.host.rtnetlink import Rtnetlink
with Rtnetlink() as netlink:
    index = socket.if_nametoindex("veth0")
    print(json.dumps({
        "links": netlink.links(),
        "addresses": [str(address) for address in netlink.addresses(index)],
        "routes": [
            [str(r.network), r.kind, r.table, r.protocol, r.interface, r.source, r.mtu]
            for version in (4, 6) for r in netlink.routes(version)
        ],
        "rules": [[r.action, r.number(6) or 0, r.number(10), r.number(15)] for r in netlink.rules(4)],
        "to": [str(netlink.route_to("10.9.9.9", mark).source) for mark in (0, 7)],
        "mtu": netlink.link(index).mtu,
    }))
"""

KINDS = {"unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5, "blackhole": 6}
TABLES = {"main": 254, "local": 255, "default": 253}
PROTOCOLS = {"kernel": 2, "boot": 3, "static": 4}


def said(host: Host, *command: str) -> list[dict[str, Any]]:
    return json.loads(host.run("ip", "-N", "-j", "-d", *command) or "[]")


def test_links_addresses_routes_and_rules_are_those_that_iproute2_tells(lab: Lab) -> None:
    host = lab.host("host")
    for line in (
        "link add veth0 type veth peer name veth1",
        "link set veth1 addrgenmode none up",
        "link set veth0 mtu 1400 addrgenmode none up",
        "address add 10.9.0.1/24 dev veth0",
        "address add 10.9.0.2/32 dev veth0",
        "address add fd09::1/64 dev veth0 nodad",
        "route add 10.9.8.0/22 dev veth0 mtu 1300 src 10.9.0.2",
        "route add 10.9.9.0/24 dev veth0 table 70000 src 10.9.0.1 proto static",
        "route add default via 10.9.0.9",
        "route add blackhole 10.7.0.0/16",
        "route add fd0a::/48 dev veth0 table 70000",
        "rule add fwmark 7 table 70000 priority 100",
        "rule add not fwmark 9 goto 32766 priority 200",
    ):
        host.run("ip", *line.split())
    ours = json.loads(host.run(sys.executable, "-c", READ))
    links = said(host, "link", "show")
    numbers = {link["ifname"]: link["ifindex"] for link in links}
    assert ours["links"] == [
        [link["ifname"], link["mtu"], link.get("linkinfo", {}).get("info_kind", "")] for link in links
    ]
    [veth] = said(host, "address", "show", "dev", "veth0")
    assert ours["addresses"] == [f"{info['local']}/{info['prefixlen']}" for info in veth["addr_info"]]
    routes = []
    for family, everything, length in (("-4", "0.0.0.0/0", 32), ("-6", "::/0", 128)):
        for route in said(host, family, "route", "show", "table", "all"):
            destination = everything if route["dst"] in ("default", "0/0") else route["dst"]
            [metrics] = route.get("metrics", [{}])
            routes.append(
                [
                    destination if "/" in destination else f"{destination}/{length}",
                    int(route["type"]) if route["type"].isdigit() else KINDS[route["type"]],
                    int(TABLES.get(route.get("table", "main"), route.get("table"))),
                    int(PROTOCOLS.get(route["protocol"], route["protocol"])),
                    numbers.get(route.get("dev")),
                    route.get("prefsrc"),
                    metrics.get("mtu"),
                ]
            )
    assert ours["routes"] == routes
    assert [70000, 4, "10.9.9.0/24"] in [[table, proto, network] for network, _, table, proto, *_ in routes]
    assert ours["rules"] == [
        [1, 0, None, 255],
        [1, 100, 7, 70000],
        [2, 200, 9, 0],
        [1, 32766, None, 254],
        [1, 32767, None, 253],
    ]
    assert ours["to"] == ["10.9.0.2", "10.9.0.1"]
    assert ours["mtu"] == 1400
