"""`pywg strip`: what is left out, what is put in, and what --strict refuses."""

from __future__ import annotations

import base64

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pywg.cli.pywg import main
from pywg.config.files import Location, load_text
from pywg.config.model import Dialect, Operation, strip
from pywg.config.parse import parse
from pywg.config.plain import plain_text
from pywg.config.settle import settle_allowed_ips
from pywg.config.write import write
from tests.unit.config.strategies import configs
from tests.unit.config.test_properties import respelled

PRIVATE = base64.b64encode(bytes(range(32))).decode()
PUBLIC = base64.b64encode(bytes(range(32, 64))).decode()
OTHER = base64.b64encode(bytes(range(64, 96))).decode()


@pytest.fixture
def run(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)

    def strip_file(text: str, *options: str):
        (tmp_path / "wg0.conf").write_bytes(text.encode("utf-8", "surrogateescape"))
        (tmp_path / "wg0.conf").chmod(0o600)
        return CliRunner().invoke(main, ["strip", *options, "./wg0.conf"])

    return strip_file


def test_wg_quick_s_lines_go_and_all_others_stay_as_they_are(run):
    done = run(
        f"\ufeff# a comment\n[Interface] # c\n  privatekey={PRIVATE} \nADDRESS = 10.0.0.1/24\n"
        "PostUp = echo # x\nDNS=\n\n[Peer]\r\n# Name = alice\n"
        f"Public Key = {PUBLIC}\nAllowedIPs =\nAllowedIPs = ::/0 # all\n"
        "Endpoint = bücher.example:1\t\n# \udcff"
    )
    assert done.exit_code == 0
    assert done.stdout_bytes == (
        f"# a comment\n[Interface] # c\nprivatekey={PRIVATE}\n\n[Peer]\r\n# Name = alice\n"
        f"Public Key = {PUBLIC}\nAllowedIPs = ::/0 # all\nEndpoint = bücher.example:1\n# \udcff\n\n"
    ).encode("utf-8", "surrogateescape")


def test_what_pywg_s_lines_refer_to_is_put_in(run, tmp_path, monkeypatch):
    (tmp_path / "own").write_text(PRIVATE)
    (tmp_path / "own").chmod(0o600)
    monkeypatch.setenv("PSK", OTHER)
    done = run(
        f"[Interface]\n#pywg PrivateKeyFile = own\n[Peer]\nPublicKey = {PUBLIC}\n#pywg PresharedKey = $PSK\n"
        "AllowedIPs = 10.0.0.0/8, 192.0.2.0/24\nAllowedIPs = ::/1\n#pywg DisallowedIPs = 10.0.0.0/9, ::/0\n"
        f"Endpoint = a:1\n#pywg Endpoint = b:1\n[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 10.0.0.0/10\n"
    )
    assert done.stderr == ""
    assert done.stdout == (
        f"[Interface]\nPrivateKey = {PRIVATE}\n[Peer]\nPublicKey = {PUBLIC}\nPresharedKey = {OTHER}\n"
        "AllowedIPs = 10.128.0.0/9, 192.0.2.0/24\n"
        f"Endpoint = a:1\n#pywg Endpoint = b:1\n[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 10.0.0.0/10\n\n"
    )


def test_strict_names_each_line_that_wg_quick_passes_over(run):
    text = (
        f"[Interface]\n#pywg PrivateKeyFile = nowhere\n[Peer]\nPublicKey = {PUBLIC}\nEndpoint = a:1\n"
        "# Name = alice\n #pywg Endpoint = b:1\n"
    )
    done = run(text, "--strict")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "./wg0.conf:2:1: PrivateKeyFile: only pywg reads this line; wg-quick passes over it",
        "./wg0.conf:7:2: Endpoint: only pywg reads this line; wg-quick passes over it",
    ]


def test_strict_takes_what_wg_quick_takes(run):
    text = f"[Interface]\nPostUp = a\n[Peer]\n# Name = alice\nPublicKey = {PUBLIC}\n"
    assert run(text, "--strict").stdout == run(text).stdout != ""


def test_a_list_stays_incremental_when_the_entry_that_made_it_so_is_taken_away(run):
    allowed = "AllowedIPs = 10.0.0.0/8, +::/0\n#pywg DisallowedIPs = ::/0\n"
    text = f"[Interface]\n[Peer]\nPublicKey = {PUBLIC}\n{allowed}"
    assert run(text).stdout.splitlines()[3] == "AllowedIPs = +10.0.0.0/8"


def test_mistakes_are_told(run):
    done = run("[Interface]\n#pywg PrivateKeyFile = nowhere\n")
    assert done.exit_code == 1
    assert "/nowhere' does not exist" in done.stderr
    assert run("[Interface]\nAdress = ::1").stderr.startswith("./wg0.conf:2:1: unknown key 'Adress'")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(configs, st.randoms(use_true_random=False))
def test_the_stripped_text_says_what_the_stripped_model_says_however_it_is_written(config, random):
    for section in (config.interface, *config.peers):
        for name in ("private_key_source", "preshared_key_source"):
            if hasattr(section, name):
                setattr(section, name, None)
    text = respelled(write(config), random)
    settled = load_text(Location("x.conf", "x"), text).config
    expected = strip(settled)
    settle_allowed_ips(config)
    assert expected.peers == strip(config).peers
    read = parse(plain_text(text, settled), "x.conf", Dialect.WG)
    for peer, other in zip(read.peers, expected.peers, strict=True):
        if any(entry.value.operation is not Operation.SET for entry in other.allowed_ips):
            other.replace_allowed_ips = peer.replace_allowed_ips
    assert read == expected
