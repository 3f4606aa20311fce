"""genkey, genpsk and pubkey."""

from __future__ import annotations

import base64

import pytest
from click.testing import CliRunner

from pywg.cli import genkey, genpsk, pubkey
from pywg.errors import PywgError


def test_genkey_prints_a_clamped_key() -> None:
    keys = {CliRunner().invoke(genkey.command).stdout for _ in range(20)}
    assert len(keys) == 20
    for key in keys:
        raw = base64.b64decode(key.removesuffix("\n"), validate=True)
        assert (len(raw), raw[0] & 7, raw[31] & 192) == (32, 0, 64)


def test_genpsk_prints_any_32_bytes() -> None:
    keys = [base64.b64decode(CliRunner().invoke(genpsk.command).stdout, validate=False) for _ in range(50)]
    assert {len(key) for key in keys} == {32}
    assert any(key[0] & 7 for key in keys), "they are not clamped"


def test_pubkey_prints_the_public_key() -> None:
    # RFC 7748, section 6.1: Alice's private and public key.
    private = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    public = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    result = CliRunner().invoke(pubkey.command, input=base64.b64encode(private) + b" \n\t\n")
    assert base64.b64decode(result.stdout) == public


@pytest.mark.parametrize("text", ["", "x", "A" * 43, "A" * 44, "A" * 43 + "=\nx"])
def test_pubkey_refuses_what_is_no_key_without_showing_it(text: str) -> None:
    result = CliRunner().invoke(pubkey.command, input=text)
    assert isinstance(result.exception, PywgError)
    assert result.stdout == ""
    assert "AAAA" not in str(result.exception)


def test_pubkey_does_not_count_the_end_of_the_line() -> None:
    assert str(CliRunner().invoke(pubkey.command, input="bad\n").exception).endswith("this has 3")


@pytest.mark.parametrize("module", [genkey, genpsk, pubkey])
def test_words_are_answered_with_the_usage(module: object) -> None:
    result = CliRunner().invoke(module.command, ["word"])  # type: ignore[attr-defined]
    assert result.exit_code == 1
    assert result.stderr.startswith("Usage: ")
