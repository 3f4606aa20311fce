"""`up` as on Windows, in processes of their own: Wintun and that system's commands are stand-ins.

Everything above them is the real thing: two tunnels, each the other's peer over the loopback interface.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import windows
from tests.spec.world import payload_of, udp_packet
from tests.system.net import TOOLS
from tests.system.tunnel import Key

ROOT = TOOLS.parents[1]


class Windows:
    """A computer with `pywg up` in the foreground."""

    def __init__(self, folder: pathlib.Path, text: str, fails: str = "") -> None:
        folder.mkdir()
        for name in ("netsh", "powershell"):
            tool = TOOLS / "windows_commands.py"
            (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -SE {tool} {name} "$@"\n')
            (folder / name).chmod(0o755)
        self._system = folder / "system.json"
        self._system.write_text(json.dumps({"settings": []}))
        file = folder / f"{folder.name}.conf"
        file.touch(0o600)
        file.write_text(text)
        path = f"{folder}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "SYSTEM": str(self._system), "FAILS": fails}
        self.process = subprocess.Popen(
            [sys.executable, TOOLS / "windows_up.py", file],
            env={**environment, "PYTHONPATH": str(ROOT), windows.VARIABLE: windows.stand_in()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        assert self.process.stdout
        assert self.process.stdin
        self._output, self._input = self.process.stdout, self.process.stdin

    def until(self, text: str) -> list[str]:
        """The lines up to the first with this text in it."""
        lines = []
        for line in self._output:
            lines.append(line.rstrip("\n"))
            if text in line:
                return lines
        raise AssertionError(f"{text!r} does not come:\n" + "\n".join(lines))

    def send(self, packet: bytes) -> None:
        self._input.write(f"send {packet.hex()}\n")

    def receive(self) -> bytes:
        return bytes.fromhex(self.until("got ")[-1].removeprefix("got "))

    def remove_adapter(self) -> None:
        self._input.write("remove\n")

    def settings(self) -> list[str]:
        found: list[str] = json.loads(self._system.read_text())["settings"]
        return found

    def end(self) -> tuple[int, list[str]]:
        """Its exit status, and the rest of what it printed."""
        rest = self._output.read().splitlines()
        return self.process.wait(30), rest

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._output.close()
        self._input.close()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def pair(namespaces: None, tmp_path: pathlib.Path) -> Iterator[list[Windows]]:
    """Two tunnels, `first` for everything."""
    keys, ports = [Key.generate(), Key.generate()], [free_port(), free_port()]
    made = []
    for at, (name, allowed) in enumerate([("first", "0.0.0.0/0, ::/0"), ("second", "10.7.0.1/32, fd07::1")]):
        text = f"[Interface]\nPrivateKey = {keys[at].private}\nListenPort = {ports[at]}\n"
        text += f"Address = 10.7.0.{1 + at}/24, fd07::{1 + at}/64\n"
        if at == 0:
            text += "DNS = 10.7.0.53, fd07::53, 10.7.0.54\nPostUp = echo up %i\n"
            text += "PreDown = echo before\nPostDown = echo after\n"
        text += f"[Peer]\nPublicKey = {keys[1 - at].public}\nEndpoint = 127.0.0.1:{ports[1 - at]}\n"
        made.append(Windows(tmp_path / name, f"{text}AllowedIPs = {allowed}\n"))
    yield made
    for one in made:
        one.close()


def test_a_tunnel_for_everything_comes_up_carries_and_goes_without_a_trace(pair: list[Windows]) -> None:
    first, second = pair
    shown = first.until("Ctrl-C takes it down")
    second.until("Ctrl-C takes it down")
    route = "netsh interface ipv4 add route prefix=127.0.0.1/32 interface=12 nexthop=192.0.2.2 metric=0"
    assert shown[0] == "[#] wintun: create adapter first"
    assert f"[#] {route} store=active" in shown
    assert "up first" in shown
    assert first.settings() == [
        "ipv4 address address=10.7.0.1 mask=255.255.255.0 name=first",
        "ipv6 address address=fd07::1/64 interface=first",
        "ipv4 subinterface interface=first mtu=1412",
        "ipv6 subinterface interface=first mtu=1412",
        "ipv4 dnsservers address=10.7.0.53 name=first register=none source=static validate=no",
        "ipv4 dnsservers address=10.7.0.54 index=2 name=first validate=no",
        "ipv6 dnsservers address=fd07::53 name=first register=none source=static validate=no",
        "ipv4 route interface=12 nexthop=192.0.2.2 prefix=127.0.0.1/32",
        "ipv4 route interface=first prefix=0.0.0.0/1",
        "ipv4 route interface=first prefix=128.0.0.0/1",
        "ipv6 route interface=first prefix=::/1",
        "ipv6 route interface=first prefix=8000::/1",
    ]
    for number in range(5):
        first.send(udp_packet("10.7.0.1", "10.7.0.2", b"there %d" % number))
        assert payload_of(second.receive()) == b"there %d" % number
        second.send(udp_packet("fd07::2", "fd07::1", b"back %d" % number))
        assert payload_of(first.receive()) == b"back %d" % number

    first.process.send_signal(signal.SIGINT)
    status, rest = first.end()
    assert status == 0, rest
    lines = [line for line in rest if not line.startswith("[#] netsh")]
    assert lines == [
        *("[#] echo before", "before", "[#] wintun: remove adapter first", "[#] echo after", "after"),
    ]
    assert [setting for setting in first.settings() if "first" not in setting] == []


def test_an_adapter_that_is_removed_ends_it(pair: list[Windows]) -> None:
    first, _ = pair
    first.until("Ctrl-C takes it down")
    first.remove_adapter()
    status, rest = first.end()
    assert status == 1
    assert rest[-1] == "pywg: the adapter first was removed"
    assert [setting for setting in first.settings() if "first" not in setting] == []


@pytest.mark.parametrize("fails", ["add address", "prefix=128.0.0.0/1"])
def test_a_command_that_fails_leaves_nothing_behind(
    namespaces: None, tmp_path: pathlib.Path, fails: str
) -> None:
    key, other = Key.generate(), Key.generate()
    text = f"[Interface]\nPrivateKey = {key.private}\nAddress = 10.7.0.1/24\n"
    text += f"[Peer]\nPublicKey = {other.public}\nEndpoint = 127.0.0.1:9\nAllowedIPs = 0.0.0.0/0\n"
    one = Windows(tmp_path / "wg0", text, fails)
    try:
        status, printed = one.end()
    finally:
        one.close()
    assert status == 1
    assert "failed: this shall fail" in printed[-1]
    assert [setting for setting in one.settings() if "wg0" not in setting] == []
