"""Settings in comments on a running tunnel: keys from files and the environment, networks left out, names."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

from tests.system.net import Host, Lab
from tests.system.tunnel import Key, generate_psk

PYWG = str(pathlib.Path(sys.executable).with_name("pywg"))


@pytest.fixture
def host(lab: Lab) -> Host:
    """A host with an empty /run/conf that is root's alone."""
    host = lab.host("host")
    host.run("mkdir", "-m", "700", "/run/conf")
    return host


def test_up_configures_what_the_comments_refer_to(host: Host) -> None:
    own, alice, bob, psk = Key.generate(), Key.generate(), Key.generate(), generate_psk()
    host.write("/run/conf/own.key", own.private + "\n")
    host.write(
        "/run/conf/wg0.conf",
        "[Interface]\n#pywg PrivateKeyFile = $CREDENTIALS_DIRECTORY/own.key\nAddress = 10.77.0.1/32\n"
        f"[Peer]\n# Name = alice\nPublicKey = {alice.public}\n#pywg PresharedKey = ${{PSK}}\n"
        "AllowedIPs = 10.0.0.0/8, fd00::/8\n#pywg DisallowedIPs = 10.128.0.0/9 fd00::/9\n"
        f"[Peer]\nPublicKey = {bob.public}\nAllowedIPs = 10.128.0.0/9\n",
    )
    environment = {"CREDENTIALS_DIRECTORY": "/run/conf", "PSK": psk}
    told = host.run(PYWG, "up", "/run/conf/wg0.conf", env=environment)
    assert "[#] wg addconf wg0 <(pywg strip /run/conf/wg0.conf)" in told.splitlines()
    assert own.private not in told
    assert psk not in told
    dump = [line.split("\t") for line in host.run("wg", "show", "wg0", "dump").splitlines()]
    assert dump[0][:2] == [own.private, own.public]
    peers = {line[0]: (line[1], sorted(line[3].split(","))) for line in dump[1:]}
    assert peers == {
        alice.public: (psk, ["10.0.0.0/9", "fd80::/9"]),
        bob.public: ("(none)", ["10.128.0.0/9"]),
    }
    routes = host.run("ip", "route", "show", "dev", "wg0") + host.run(
        "ip", "-6", "route", "show", "dev", "wg0"
    )
    assert {line.split()[0] for line in routes.splitlines()} >= {"10.0.0.0/9", "10.128.0.0/9", "fd80::/9"}

    host.run("rm", "/run/conf/wg0.conf")
    (shown,) = json.loads(host.run(PYWG, "show", "wg0", "--json"))["interfaces"]
    assert {peer["public_key"]: peer["name"] for peer in shown["peers"]} == {
        alice.public: "alice",
        bob.public: None,
    }
    assert "alice" not in host.run(PYWG, "show", "wg0")
    host.run(PYWG, "down", "wg0")


def test_a_key_that_is_not_there_leaves_everything_as_it_was(host: Host) -> None:
    host.write(
        "/run/conf/wg0.conf", "[Interface]\nPreUp = touch /run/conf/ran\n#pywg PrivateKeyFile = own.key\n"
    )
    told = host.run(PYWG, "up", "/run/conf/wg0.conf", check=False)
    assert told == "/run/conf/wg0.conf:3:24: PrivateKeyFile: '/run/conf/own.key' does not exist\n"
    assert "wg0" not in host.run("ip", "-o", "link")
    assert host.run("ls", "/run/conf").split() == ["wg0.conf"]


def test_down_needs_no_key_even_when_nothing_was_kept(host: Host) -> None:
    own = Key.generate()
    host.write("/run/conf/own.key", own.private + "\n")
    host.write(
        "/run/conf/wg0.conf",
        "[Interface]\n#pywg PrivateKeyFile = $CREDENTIALS_DIRECTORY/own.key\nPostDown = touch /run/down\n",
    )
    host.run(PYWG, "up", "/run/conf/wg0.conf", env={"CREDENTIALS_DIRECTORY": "/run/conf"})
    host.run("sh", "-c", "rm -r /run/pywg")
    host.run(PYWG, "down", "/run/conf/wg0.conf")
    assert host.path("/run/down").exists()
    assert "wg0" not in host.run("ip", "-o", "link")


def test_up_and_reload_tell_the_daemon_what_the_peers_are_called(host: Host) -> None:
    own, peer = Key.generate(), Key.generate()

    def write(name: str) -> None:
        host.write(
            "/run/conf/wg0.conf",
            f"[Interface]\nPrivateKey = {own.private}\n[Peer]\n# Name = {name}\nPublicKey = {peer.public}\n",
        )

    def known() -> str:
        said = host.run("ncat", "-U", "/run/wireguard/wg0.sock", input="stats=1\n\n")
        (one,) = json.loads(said.splitlines()[0])["peers"]
        return str(one["name"])

    write("alice")
    host.run(PYWG, "up", "/run/conf/wg0.conf")
    assert known() == "alice"
    write("bob")
    assert "`wg0' is as /run/conf/wg0.conf says" not in host.run(PYWG, "reload", "/run/conf/wg0.conf")
    assert known() == "bob"
    host.run(PYWG, "down", "wg0")
