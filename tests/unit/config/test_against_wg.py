"""The parser beside the real one: `wg setconf` reads a file before it looks for the interface."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pywg.config.model import Dialect, strip
from pywg.config.parse import parse
from pywg.config.positions import ConfigError
from pywg.config.write import write
from tests.unit.config.strategies import plain_configs

pytestmark = pytest.mark.skipif(shutil.which("wg") is None, reason="needs wg: apt install wireguard-tools")

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PEER = f"[Peer]\nPublicKey={KEY}\n"


CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def wg_takes(text: str, path) -> bool:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = subprocess.run(
        ["wg", "setconf", "nosuchinterface", path],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=20,
    )
    refused = "Configuration parsing error" in done.stderr or "Invalid configuration" in done.stderr
    assert refused or "Unable to modify interface" in done.stderr, done.stderr
    return not refused


def we_take(text: str) -> bool:
    try:
        parse(text, "x.conf", Dialect.WG)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n # comment\n",
        "[Interface]\n",
        "[ Int erface ]# c\nList en Port = 5 1\n",
        "[interface]\nLISTENPORT=domain\n",
        "[Interface]\nListenPort=nosuchservice\n",
        "[Interface]\nListenPort=\n",
        "[Interface]\nListenPort\n",
        "[Interface]\nFwMark=0x10\n",
        "[Interface]\nFwMark=0X10\n",
        "[Interface]\nFwMark=010\n",
        "[Interface]\nFwMark=0x\n",
        "[Interface]\nFwMark=oFF\n",
        "[Interface]\nFwMark=4294967296\n",
        "[Interface]\nFwMark=-1\n",
        f"[Interface]\nPrivateKey={KEY}\n",
        f"[Interface]\nPrivateKey={KEY[:-1]}\n",
        f"[Interface]\nPrivateKey={KEY[:-2]}9=\n",
        f"[Interface]\nPublicKey={KEY}\n",
        "[Interface]\nAddress=10.0.0.1\n",
        f"PublicKey={KEY}\n",
        "[Peer]\n",
        "[Peer",
        "[Peer] x\n",
        f"[Peer]\nPublic Key = {KEY[:9]} {KEY[9:]}\n",
        "[Peer]\nAllowedIPs=::/0\n",
        *(
            PEER + line
            for line in (
                "AllowedIPs=",
                "AllowedIPs=,",
                "AllowedIPs=10.0.0.0/8,",
                "AllowedIPs=10.0.0.0/8, ::/0",
                "AllowedIPs=1 0.0.0.1/8",
                "AllowedIPs=10.0.0.1/0008",
                "AllowedIPs=10.0.0.1/",
                "AllowedIPs=10.0.0.1/33",
                "AllowedIPs=10.0.0.1/255.0.0.0",
                "AllowedIPs=010.0.0.1",
                "AllowedIPs=10.0.0",
                "AllowedIPs=::ffff:192.0.2.1/128",
                "AllowedIPs=fe80::1%lo",
                "Endpoint=192.0.2.1:5",
                "Endpoint=192.0.2.1",
                "Endpoint=192.0.2.1:",
                "Endpoint=:5",
                "Endpoint=[2001:db8::1]:5",
                "Endpoint=2001:db8::1:5",
                "Endpoint=[192.0.2.1]:5",
                "Endpoint=[::1:5",
                "Endpoint=[::1]5",
                "Endpoint=[::1]:",
                "PersistentKeepalive=off",
                "PersistentKeepalive=65535",
                "PersistentKeepalive=65536",
                "PersistentKeepalive=-1",
                "PersistentKeepalive=1s",
                f"PresharedKey={KEY}",
                "PresharedKey=",
                "Unknown=1",
                "; comment",
            )
        ),
    ],
)
def test_wg_and_we_take_and_refuse_the_same_file(text, tmp_path):
    assert we_take(text) is wg_takes(text, tmp_path / "x.conf")


_WORDS = (
    "AllowedIPs= FwMark= PersistentKeepalive= PresharedKey= PrivateKey= PublicKey= 10.0.0.1 ::1 /8 off 0 0x1"
)
_tokens = st.sampled_from(
    [*_WORDS.split(), KEY, PEER, "[Interface]\n", "5\n", "\n", "\n", "#", " ", "=", ",", "/"]
)


@settings(max_examples=100, deadline=None, suppress_health_check=CHECKS)
@given(text=st.lists(_tokens, max_size=15).map("".join))
@example(text="[Interface]\nFwMark=off0")
def test_wg_and_we_agree_on_generated_files(text, tmp_path):
    assert we_take(text) is wg_takes(text, tmp_path / "x.conf")


@settings(max_examples=50, deadline=None, suppress_health_check=CHECKS)
@given(config=plain_configs)
def test_wg_takes_what_we_write(config, tmp_path):
    stripped = strip(config)
    for peer in stripped.peers:
        peer.endpoint = None  # names would be looked up
    assert wg_takes(write(stripped), tmp_path / "x.conf")
