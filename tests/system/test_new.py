"""The files of `pywg new` make tunnels as they are."""

from __future__ import annotations

import pathlib
import sys

from tests.system.net import Lab, make_router

PYWG = str(pathlib.Path(sys.executable).with_name("pywg"))


def test_clients_of_a_hub_reach_each_other(lab: Lab) -> None:
    hub, alice, bob = lab.host("hub"), lab.host("alice"), lab.host("bob")
    lab.join(hub, alice, ["192.0.2.1/24"], ["192.0.2.2/24"])
    lab.join(hub, bob, ["198.51.100.1/24"], ["198.51.100.2/24"])
    bob.run("ip", "route", "add", "default", "via", "198.51.100.1")
    make_router(hub)
    new = "--hub 192.0.2.1:51820 --clients alice,bob --network 10.9.0.0/24 --network6 fd09::/64 --psk"
    hub.run(PYWG, "new", *new.split(), "-o", "/run/new files")
    hub.run(PYWG, "up", "/run/new files/hub.conf")
    for host, name in ((alice, "alice"), (bob, "bob")):
        host.write(f"/run/{name}.conf", hub.path(f"/run/new files/{name}.conf").read_text())
        host.run(PYWG, "up", f"/run/{name}.conf")
    for address in ("10.9.0.1", "10.9.0.3", "fd09::1", "fd09::3"):
        assert " 0% packet loss" in alice.run("ping", "-c2", "-i0.2", "-W5", address)
    for host, name in ((alice, "alice"), (bob, "bob"), (hub, "hub")):
        host.run(PYWG, "down", name if host is not hub else "/run/new files/hub.conf")
