"""`pywg new`: files that match each other, for their owner alone, all of them or none."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from pywg.cli.pywg import main
from pywg.config.files import load
from pywg.config.model import Config

HUB = ["--hub", "hub.example:51820"]
NETWORK = ["--network", "10.9.0.0/24"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["new", *arguments])


def files() -> dict[str, Config]:
    """The files written, by name; each without a warning."""
    loaded = [load(str(path)) for path in sorted(Path.cwd().glob("keys/*"))]
    assert [file.warnings for file in loaded] == [[] for _ in loaded]
    return {file.location.interface: file.config for file in loaded}


def allowed(peer) -> list[str]:
    return [str(entry.value) for entry in peer.allowed_ips]


def test_two_hosts_get_files_that_match(run):
    done = run("alice=alice.example:51820", "bob", *NETWORK, "-o", "keys")
    assert done.exit_code == 0
    assert done.stdout == "keys/alice.conf\nkeys/bob.conf\n"
    alice, bob = files()["alice"], files()["bob"]
    assert alice.peers[0].public_key.value == bob.interface.private_key.value.public_key
    assert bob.peers[0].public_key.value == alice.interface.private_key.value.public_key
    assert (alice.peers[0].name.value, bob.peers[0].name.value) == ("bob", "alice")
    assert [str(file.interface.addresses[0].value) for file in (alice, bob)] == ["10.9.0.1/24", "10.9.0.2/24"]
    assert (allowed(alice.peers[0]), allowed(bob.peers[0])) == (["10.9.0.2/32"], ["10.9.0.1/32"])
    assert alice.interface.listen_port.value == 51820
    assert alice.peers[0].endpoint is None
    assert str(bob.peers[0].endpoint.value) == "alice.example:51820"
    assert bob.peers[0].persistent_keepalive.value == 25
    assert alice.peers[0].preshared_key is None


def test_either_of_two_hosts_may_be_the_one_that_is_called(run):
    assert run("alice", "bob=[2001:db8::1]:7", "--network6", "fd09::/64", "-o", "keys").exit_code == 0
    alice, bob = files()["alice"], files()["bob"]
    assert str(alice.peers[0].endpoint.value) == "[2001:db8::1]:7"
    assert alice.peers[0].persistent_keepalive.value == 25
    assert (bob.peers[0].endpoint, bob.peers[0].persistent_keepalive) == (None, None)
    assert bob.interface.listen_port.value == 7


def test_a_hub_and_its_clients_get_files_that_match(run):
    done = run(
        *HUB, "--clients", "alice,bob, carol", *NETWORK, "--network6", "fd09::/64", "--psk", "-o", "keys"
    )
    assert done.exit_code == 0
    written = files()
    hub = written.pop("hub")
    assert [peer.name.value for peer in hub.peers] == list(written) == ["alice", "bob", "carol"]
    assert len({peer.preshared_key.value.base64 for peer in hub.peers}) == 3
    for number, (peer, client) in enumerate(zip(hub.peers, written.values(), strict=True), 2):
        assert [str(address.value) for address in client.interface.addresses] == [
            f"10.9.0.{number}/24",
            f"fd09::{number}/64",
        ]
        assert allowed(peer) == [f"10.9.0.{number}/32", f"fd09::{number}/128"]
        assert allowed(client.peers[0]) == ["10.9.0.0/24", "fd09::/64"]
        assert peer.public_key.value == client.interface.private_key.value.public_key
        assert peer.preshared_key == client.peers[0].preshared_key
        assert client.peers[0].public_key.value == hub.interface.private_key.value.public_key


def test_files_and_directory_are_their_owner_s_alone(run, tmp_path):
    mask = os.umask(0)
    try:
        assert run("a=h:1", "b", *NETWORK, "-o", "keys").exit_code == 0
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()} == {0o600}


def test_no_file_is_replaced_and_none_is_left(run, tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "bob.conf").write_text("mine")
    done = run("alice=h:1", "bob", *NETWORK, "-o", "keys")
    assert done.exit_code == 1
    assert done.stderr == "pywg: keys/bob.conf is there already; nothing was written. Give another --output\n"
    assert [path.read_text() for path in (tmp_path / "keys").iterdir()] == ["mine"]


def test_nothing_is_left_when_writing_fails(run, tmp_path, monkeypatch):
    opened = []
    really_open = os.open

    def full(path, *arguments):
        opened.append(path)
        if len(opened) == 2:
            raise OSError(28, "No space left on device")
        return really_open(path, *arguments)

    monkeypatch.setattr("pywg.cli.new.os.open", full)
    done = run("alice=h:1", "bob", *NETWORK, "-o", "keys")
    assert done.stderr == "pywg: keys/bob.conf cannot be written: No space left on device; nothing was left\n"
    assert not (tmp_path / "keys").exists()


def test_a_directory_that_cannot_be_made_is_told(run):
    assert (
        "no/keys cannot be written: No such file or directory"
        in run("a=h:1", "b", *NETWORK, "-o", "no/keys").stderr
    )


def test_a_network_that_is_too_small_is_told(run, tmp_path):
    done = run("a=h:1", "b", "--network", "10.0.0.0/32", "-o", "keys")
    assert done.stderr == "pywg: 10.0.0.0/32 has 1 addresses for 2 hosts; take a larger network\n"
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a=h:1", "b"], "give it addresses"),
        (["a=h:1", *NETWORK], "give two hosts"),
        ([*HUB, *NETWORK], "give two hosts"),
        (["a", "b", *HUB, "--clients", "c", *NETWORK], "give two hosts"),
        (["a", "b", *NETWORK], "one of the two must say where it can be reached: a=HOST:PORT"),
        (["a=h:1", "a", *NETWORK], "'a' is there twice"),
        ([*HUB, "--clients", "a,hub", *NETWORK], "'hub' is there twice"),
        ([*HUB, "--clients", "a,", *NETWORK], "'' cannot be a file's name"),
        ([*HUB, "--clients", "../a", *NETWORK], "'../a' cannot be a file's name"),
        (["a=h", "b", *NETWORK], "a: 'h' has no port"),
        (["a=h:http", "b", *NETWORK], "a: the port must be a number"),
        (["a=h:1", "b", "--network", "10.0.0.0/33"], "--network: '10.0.0.0/33' is not a network"),
        (
            ["a=h:1", "b", "--network", "fd00::/64"],
            "--network: fd00::/64 is an IPv6 network; this takes IPv4",
        ),
    ],
)
def test_what_makes_no_sense_has_status_2_and_leaves_nothing(run, tmp_path, arguments, told):
    done = run(*arguments, "-o", "keys")
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []
