"""The words of `set`: what they ask for, and what is said of those that are wrong."""

from __future__ import annotations

import os
import pathlib

import pytest
from click.testing import CliRunner

from pywg.cli.set import command
from pywg.cli.setargs import read_key_file, read_words
from pywg.errors import PywgError
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.uapi.format import AllowedIpChange, DeviceChange, PeerChange
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

ALICE = PublicKey(b"a" * 32)
KEY = PrivateKey(b"k" * 32)


def read(*words: str) -> DeviceChange:
    return read_words(words, lambda line: None)


def test_words_become_one_change(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY.base64 + "\n")
    change = read(
        *("listen-port", "51820", "fwmark", "0x10", "private-key", str(file)),
        *("peer", ALICE.base64, "preshared-key", str(file), "endpoint", "192.0.2.1:5"),
        *("persistent-keepalive", "off", "allowed-ips", "10.0.0.0/8, ::1"),
        *("peer", ALICE.base64, "remove"),
    )
    networks = [Network.parse("10.0.0.0/8"), Network.parse("::1/128")]
    assert change == DeviceChange(
        KEY,
        51820,
        16,
        peers=[
            PeerChange(
                ALICE,
                preshared_key=PresharedKey(b"k" * 32),
                endpoint=Endpoint("192.0.2.1", 5),
                persistent_keepalive_interval=0,
                replace_allowed_ips=True,
                allowed_ips=[AllowedIpChange(network) for network in networks],
            ),
            PeerChange(ALICE, remove=True),
        ],
    )


def test_one_sign_makes_the_list_incremental() -> None:
    (peer,) = read("peer", ALICE.base64, "allowed-ips", "10.0.0.0/8,-::/0").peers
    assert not peer.replace_allowed_ips
    assert list(peer.allowed_ips) == [
        AllowedIpChange(Network.parse("10.0.0.0/8")),
        AllowedIpChange(Network.parse("::/0"), remove=True),
    ]


def test_an_empty_list_takes_all_networks_away() -> None:
    (peer,) = read("peer", ALICE.base64, "allowed-ips", "").peers
    assert peer.replace_allowed_ips
    assert not peer.allowed_ips


def test_bits_behind_a_prefix_are_warned_of() -> None:
    said: list[str] = []
    read_words(["peer", ALICE.base64, "allowed-ips", "10.0.0.1/8"], said.append)
    assert said == ["Warning: allowed-ips: '10.0.0.1/8' has host bits set; 10.0.0.0/8 is used"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["listen-prot", "5"], "unknown word 'listen-prot'; did you mean 'listen-port'?"),
        (["listen-port"], "'listen-port' is the last word; its value is missing"),
        (["listen-port", "65536"], "listen-port: '65536' is not a port number from 0 to 65535"),
        (["endpoint", "192.0.2.1:5"], "'endpoint' stands behind 'peer' and a public key"),
        (["peer", ALICE.base64, "fwmark", "1"], "'fwmark' stands before the first 'peer'"),
        (["peer", "alice"], "peer: a public key has 44 characters of base64; this has 5"),
        (["peer", ALICE.base64, "allowed-ips", "10.0.0.0/33"], "has a prefix longer than 32"),
        (["private-key", "/nonexistent"], "keys are given in files, or on standard input"),
    ],
)
def test_a_wrong_word_is_told_with_what_is_wrong(words: list[str], sentence: str) -> None:
    with pytest.raises(PywgError) as caught:
        read(*words)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "\n", "k", KEY.base64[:-1], KEY.base64 + "x", KEY.base64 + "\n\nx", "é" * 30]
)
def test_only_an_empty_file_means_no_key(tmp_path: pathlib.Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    if text:
        with pytest.raises(PywgError) as caught:
            read_key_file(PrivateKey, str(file))
        assert KEY.base64[:20] not in str(caught.value)
    else:
        assert read_key_file(PrivateKey, str(file)).is_zero


def test_a_pipe_without_a_key_is_not_an_empty_file() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    try:
        with pytest.raises(PywgError):
            read_key_file(PrivateKey, f"/dev/fd/{reading}")
    finally:
        os.close(reading)


@pytest.mark.parametrize("words", [[], ["wg0"]])
def test_too_few_words_are_answered_with_the_usage(words: list[str]) -> None:
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 1
    assert result.stderr.startswith("Usage: set <interface> [listen-port <port>]")
    assert result.stdout == ""
