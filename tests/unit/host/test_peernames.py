"""Peers' names: from what `up` kept, else from the file in /etc/wireguard, and never a failure."""

from __future__ import annotations

import pytest

from pywg.config import files
from pywg.config.model import Dialect
from pywg.config.parse import parse
from pywg.host import state
from pywg.host.peernames import FILE_LIMIT, peer_names
from pywg.host.state import State
from pywg.noise.keys import PublicKey

ALICE, BOB = PublicKey(b"a" * 32), PublicKey(b"b" * 32)
FILE = f"""[Interface]
[Peer]
# Name = alice
PublicKey = {ALICE}
[Peer]
PublicKey = {BOB}
[Peer]
PublicKey = {ALICE}
"""


@pytest.fixture(autouse=True)
def etc(tmp_path, monkeypatch):
    monkeypatch.setenv(state.DIRECTORY_VARIABLE, str(tmp_path / "run"))
    monkeypatch.setattr(files, "CONFIG_DIRECTORY", tmp_path)
    return tmp_path


def test_names_come_from_the_file_in_etc(etc):
    (etc / "wg0.conf").write_text(FILE)
    assert peer_names("wg0") == {ALICE: "alice"}


def test_what_up_kept_goes_before_the_file(etc):
    (etc / "wg0.conf").write_text(FILE)
    config = parse(FILE.replace("alice", "älice"), "x.conf", Dialect.WG_QUICK)
    state.write(State.begin("wg0", "x.conf", "userspace", config))
    assert peer_names("wg0") == {ALICE: "älice"}


def test_what_is_no_key_in_what_up_kept_is_passed_over():
    kept = State("wg0", "x.conf", "userspace", names={"nonsense": "x", BOB.base64: "bob"})
    state.write(kept)
    assert peer_names("wg0") == {BOB: "bob"}


@pytest.mark.parametrize(
    "content", [b"", b"[Peer]\n# Name = x\n", b"\0", b"\xff\xfe", FILE.encode() + b"#" * FILE_LIMIT]
)
def test_a_file_that_cannot_be_read_names_nobody(etc, content):
    (etc / "wg0.conf").write_bytes(content)
    assert peer_names("wg0") == {}


@pytest.mark.parametrize("interface", ["wg1", "../../wg0", "", "dir", "x" * 5000, "\0"])
def test_no_file_names_nobody(etc, interface):
    (etc / "dir.conf").mkdir()
    assert peer_names(interface) == {}
