"""The difference between a file and a device, which is all that `syncconf` asks for."""

from __future__ import annotations

import pathlib

import pytest
from click.testing import CliRunner

from pywg.cli import addconf, conffile, setconf, syncconf
from pywg.config.positions import ConfigError
from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.uapi.format import DeviceChange, PeerChange
from pywg.wire.network import Network

ALICE, BOB, CAROL = (PublicKey(letter * 32) for letter in (b"a", b"b", b"c"))
PSK = PresharedKey(b"p" * 32)


def test_replacing_takes_away_what_is_not_named() -> None:
    change = conffile.replacing(DeviceChange(peers=[PeerChange(ALICE)]))
    assert change == DeviceChange(PrivateKey(bytes(32)), 0, 0, True, [PeerChange(ALICE)])


def test_replacing_keeps_what_is_named() -> None:
    change = DeviceChange(PrivateKey(b"k" * 32), 5, 6)
    assert conffile.replacing(change) == DeviceChange(PrivateKey(b"k" * 32), 5, 6, True)


def test_peers_that_stay_are_not_removed_and_others_are() -> None:
    device = DeviceSnapshot(peers=[PeerSnapshot(ALICE), PeerSnapshot(BOB)])
    change = conffile.synchronizing(DeviceChange(peers=[PeerChange(ALICE), PeerChange(CAROL)]), device)
    assert not change.replace_peers
    assert list(change.peers) == [PeerChange(BOB, remove=True), PeerChange(ALICE), PeerChange(CAROL)]


def test_a_key_and_a_keepalive_that_are_not_named_are_taken_away() -> None:
    device = DeviceSnapshot(peers=[PeerSnapshot(ALICE, PSK, persistent_keepalive_interval=25)])
    (peer,) = conffile.synchronizing(DeviceChange(peers=[PeerChange(ALICE)]), device).peers
    assert peer == PeerChange(ALICE, preshared_key=PresharedKey.ZERO, persistent_keepalive_interval=0)


def test_a_key_and_a_keepalive_that_are_named_stand() -> None:
    device = DeviceSnapshot(peers=[PeerSnapshot(ALICE, PSK, persistent_keepalive_interval=25)])
    named = PeerChange(ALICE, preshared_key=PSK, persistent_keepalive_interval=5)
    assert list(conffile.synchronizing(DeviceChange(peers=[named]), device).peers) == [named]


@pytest.mark.parametrize("change", [DeviceChange(), DeviceChange(peers=[PeerChange(ALICE)])])
def test_with_no_peers_on_one_side_there_is_nothing_to_keep(change: DeviceChange) -> None:
    device = DeviceSnapshot(peers=[] if change.peers else [PeerSnapshot(BOB)])
    assert conffile.synchronizing(change, device) == conffile.replacing(change)


@pytest.mark.parametrize("module", [setconf, addconf, syncconf])
def test_every_mistake_of_a_file_is_told_at_once(module: object, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text("[Interface]\nAddress = 10.0.0.1/8\nFwMark = x\n")
    result = CliRunner().invoke(module.command, ["nosuch", str(path)])  # type: ignore[attr-defined]
    assert isinstance(result.exception, ConfigError)
    assert [mistake.position.line for mistake in result.exception.mistakes] == [2, 3]


@pytest.mark.parametrize("module", [setconf, addconf, syncconf])
@pytest.mark.parametrize("words", [[], ["wg0"], ["a", "b", "c"]])
def test_a_wrong_number_of_words_is_answered_with_the_usage(module: object, words: list[str]) -> None:
    result = CliRunner().invoke(module.command, words)  # type: ignore[attr-defined]
    assert result.exit_code == 1
    assert "<interface> <configuration file>" in result.stderr


def test_a_file_is_read_with_its_endpoints_resolved(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "wg0.conf"
    path.write_text(f"[Peer]\nPublicKey = {ALICE}\nEndpoint = 192.0.2.1:5\nAllowedIPs = 10.0.0.1/8\n")
    context = setconf.command.make_context("setconf", ["wg0", str(path)])
    interface, change = conffile.read(context, ("wg0", str(path)))
    assert interface == "wg0"
    (peer,) = change.peers
    assert str(peer.endpoint) == "192.0.2.1:5"
    assert [network for network, _ in peer.allowed_ips] == [Network.parse("10.0.0.0/8")]
