"""`up` and `down` as on macOS, on a Linux host: that system's commands are stand-ins over Linux's network.

Everything above the commands is the real thing: the daemon, its traffic, the route monitor.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import sys

import pytest

from tests.system.net import TOOLS, Lab, eventually
from tests.system.tunnel import Key

BIN = pathlib.Path(sys.executable).parent
ENDPOINT = "198.51.100.1"
PATIENCE = 60.0  # every command of the stand-ins starts Python, and others may be busy
SERVICES = {
    "Wi-Fi": {"dns": ["192.0.2.53"], "search": ["home.example"]},
    "USB 10/100 LAN": {"dns": [], "search": [], "off": True},
}
PROGRAMS = ("ifconfig", "route", "netstat", "networksetup")


class Mac:
    """A host with macOS's commands, two gateways, and a tunnel for everything."""

    def __init__(self, lab: Lab, folder: pathlib.Path) -> None:
        self.host, self.other = lab.host("mac"), lab.host("other")
        lab.join(
            self.host, self.other, ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"]
        )
        for name in PROGRAMS:
            program = folder / name
            tool = TOOLS / "darwin_commands.py"
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -SE {tool} {name} "$@"\n')
            program.chmod(0o755)
        self.env = {"PATH": f"{folder}:{BIN}:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
        self.other.run("ip", "address", "add", "192.0.2.3/24", "dev", "eth0")
        self.other.run("ip", "address", "add", f"{ENDPOINT}/32", "dev", "lo")
        self.host.run("ip", "route", "add", "default", "via", "192.0.2.2")
        self.host.run("ip", "-6", "route", "add", "default", "via", "2001:db8::2")
        self.host.write("/run/services.json", json.dumps(SERVICES))
        ours, theirs = Key.generate(), Key.generate()
        for host, name in ((self.host, "home"), (self.other, "wg0")):
            host.run("mkdir", "-m", "700", "/run/conf")
            mine, other = (ours, theirs) if host is self.host else (theirs, ours)
            section = "Address = 10.7.0.1/24, fd07::1/64\nDNS = 10.7.0.53, vpn.example\nMTU = 1380"
            peer = f"Endpoint = {ENDPOINT}:51820\nAllowedIPs = 0.0.0.0/0, ::/0"
            if host is self.other:
                section = "Address = 10.7.0.2/24, fd07::2/64\nListenPort = 51820"
                peer = "AllowedIPs = 10.7.0.1, fd07::1"
            text = f"[Interface]\nPrivateKey = {mine.private}\n{section}\n"
            text += f"[Peer]\nPublicKey = {other.public}\n{peer}\n"
            host.write(f"/run/conf/{name}.conf", text)
        self.other.run(str(BIN / "pywg"), "up", "/run/conf/wg0.conf")
        self.before = self.everything()

    def tool(self, what: str, *, env: dict[str, str] | None = None, check: bool = True) -> str:
        script = str(TOOLS / "darwin_up.py")
        env = {**self.env, **(env or {})}
        return self.host.run(sys.executable, script, what, "/run/conf/home.conf", env=env, check=check)

    def everything(self) -> dict[str, object]:
        """All that `up` may change."""
        return {
            "links": [link["ifname"] for link in json.loads(self.host.run("ip", "-j", "link"))],
            "routes4": sorted(self.host.run("ip", "-4", "route").splitlines()),
            "routes6": sorted(self.host.run("ip", "-6", "route").splitlines()),
            "services": self.services(),
            "files": self.host.run("find", "/run/wireguard", "/run/pywg", "-type", "f", check=False),
        }

    def services(self) -> object:
        return json.loads(self.host.path("/run/services.json").read_text())

    def route_to(self, host: str) -> str:
        return self.host.run("ip", "route", "get", host).splitlines()[0]

    def processes(self, what: str) -> list[int]:
        """The processes on this host, and on no other, whose command line has this in it."""
        here = self.host.run("readlink", "/proc/self/ns/net")
        found = []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                if what in command.decode() and str((process / "ns" / "net").readlink()) == here.strip():
                    found.append(int(process.name))
        return found

    def kill(self, what: str) -> None:
        (process,) = self.processes(what)
        os.kill(process, signal.SIGKILL)

    def is_as_before(self) -> bool:
        now = self.everything()
        now["files"] = (
            self.before["files"] if "No such file" in str(now["files"]) or not now["files"] else now["files"]
        )
        return now == self.before


@pytest.fixture
def mac(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Mac:
    return Mac(lab, tmp_path_factory.mktemp("mac"))


def test_a_tunnel_for_everything_comes_up_carries_and_goes_without_a_trace(mac: Mac) -> None:
    printed = mac.tool("up")
    assert "[+] Interface for home is utun" in printed
    for line in (
        "ifconfig utun inet 10.7.0.1/24 10.7.0.1 alias",
        "ifconfig utun inet6 fd07::1/64 alias",
        "ifconfig utun mtu 1380",
        "route -q -n add -inet 0.0.0.0/1 -interface utun",
        "route -q -n add -inet6 8000::/1 -interface utun",
        f"route -q -n add -inet {ENDPOINT} -gateway 192.0.2.2",
        "networksetup -setdnsservers SERVICE 10.7.0.53",
    ):
        assert f"[#] {line}\n" in printed
    mac.host.run("ping", "-c", "1", "-W", "5", "10.7.0.2")
    mac.host.run("ping", "-c", "1", "-W", "5", "fd07::2")
    assert " dev utun " in mac.route_to("203.0.113.9")
    assert " via 192.0.2.2 " in mac.route_to(ENDPOINT)
    wanted = {"dns": ["10.7.0.53"], "search": ["vpn.example"]}
    assert mac.services() == {"Wi-Fi": wanted, "USB 10/100 LAN": {**wanted, "off": True}}
    assert "already exists as `utun'" in mac.tool("up", check=False)

    printed = mac.tool("down")
    assert "[#] networksetup -setdnsservers SERVICE as it was\n" in printed
    assert mac.is_as_before(), mac.everything()
    assert not mac.processes("darwin_monitor home")
    assert "is not a WireGuard interface" in mac.tool("down", check=False)


def test_the_monitor_follows_the_gateway_and_new_services_and_cleans_up_after_a_dead_daemon(mac: Mac) -> None:
    mac.tool("up")
    new = {"iPhone USB": {"dns": ["172.20.10.1"], "search": []}}
    mac.host.write("/run/services.json", json.dumps({**mac.services(), **new}))
    mac.host.run("ip", "route", "replace", "default", "via", "192.0.2.3")
    eventually("the endpoint's route follows", lambda: " via 192.0.2.3 " in mac.route_to(ENDPOINT), PATIENCE)
    eventually(
        "the new service is set", lambda: mac.services()["iPhone USB"]["dns"] == ["10.7.0.53"], PATIENCE
    )
    mac.host.run("ip", "route", "replace", "default", "via", "192.0.2.2")
    eventually(
        "the endpoint's route follows back", lambda: " via 192.0.2.2 " in mac.route_to(ENDPOINT), PATIENCE
    )

    mac.kill("pywgd utun")
    mac.before["services"] = SERVICES | new
    eventually("all is as it was", mac.is_as_before, PATIENCE)
    eventually("the monitor ends", lambda: not mac.processes("darwin_monitor home"), PATIENCE)


def test_a_tunnel_whose_daemon_and_monitor_were_killed_is_cleaned_by_the_next_up(mac: Mac) -> None:
    mac.tool("up")
    mac.kill("darwin_monitor home")
    mac.kill("pywgd utun")
    eventually("the interface is gone", lambda: "utun" not in mac.everything()["links"], PATIENCE)
    printed = mac.tool("up")
    assert "pywg: `home' ended without being taken down; what it left behind is removed" in printed
    mac.tool("down")
    assert mac.is_as_before(), mac.everything()


@pytest.mark.parametrize("command", ["route -q -n add -inet6", "networksetup -setsearchdomains Wi-Fi vpn"])
def test_a_command_that_fails_leaves_nothing_behind(mac: Mac, command: str) -> None:
    printed = mac.tool("up", env={"FAILS": command}, check=False)
    assert "this shall fail" in printed
    assert mac.is_as_before(), mac.everything()
    assert not mac.processes("darwin_monitor home")
