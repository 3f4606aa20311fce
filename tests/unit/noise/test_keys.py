"""Keys read from text as `wg` reads them, and kept from leaking."""

import base64
import copy
import pickle
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywg.errors import PywgError
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey

RAW = st.binary(min_size=32, max_size=32)
KINDS = [PublicKey, PrivateKey, PresharedKey]
SECRETS = [PrivateKey, PresharedKey]
Kind = type[PublicKey] | type[PrivateKey] | type[PresharedKey]

EXAMPLE = bytes(range(1, 33))
EXAMPLE_TEXT = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="


@pytest.mark.parametrize("kind", KINDS)
class TestText:
    @given(raw=RAW)
    def test_base64_and_hex_and_bytes_round_trip(self, kind: Kind, raw: bytes) -> None:
        key = kind(raw)
        assert bytes(key) == raw
        assert key.base64 == base64.b64encode(raw).decode()
        assert key.hex == raw.hex()
        assert kind.from_base64(key.base64) == key
        assert kind.from_hex(key.hex) == key
        assert kind.from_hex(key.hex.upper()) == key

    @pytest.mark.parametrize(
        "text",
        [
            "",
            EXAMPLE_TEXT[:-1],
            EXAMPLE_TEXT + "=",
            EXAMPLE_TEXT[:-1] + "A",  # 33 bytes
            EXAMPLE_TEXT[:-2] + "==",  # 31 bytes
            EXAMPLE_TEXT[:-2] + "B=",  # a bit set that encodes nothing
            EXAMPLE_TEXT[:-1] + "\n",
            " " + EXAMPLE_TEXT[:-1],
            "=" + EXAMPLE_TEXT[1:],
            "-" + EXAMPLE_TEXT[1:],
            "_" + EXAMPLE_TEXT[1:],
            "é" + EXAMPLE_TEXT[1:],
            "\udcff" + EXAMPLE_TEXT[1:],
        ],
    )
    def test_other_base64_is_refused_without_telling_it(self, kind: Kind, text: str) -> None:
        with pytest.raises(PywgError) as caught:
            kind.from_base64(text)
        assert not any(text[start : start + 6] in str(caught.value) for start in range(max(len(text) - 6, 0)))

    @pytest.mark.parametrize(
        "text", ["", EXAMPLE.hex()[:-1], EXAMPLE.hex() + "0", " " + EXAMPLE.hex()[1:], "g" * 64, "é" * 64]
    )
    def test_other_hex_is_refused_without_telling_it(self, kind: Kind, text: str) -> None:
        with pytest.raises(PywgError) as caught:
            kind.from_hex(text)
        assert not any(text[start : start + 6] in str(caught.value) for start in range(max(len(text) - 6, 0)))

    @given(text=st.text(min_size=40, max_size=48) | st.text(alphabet="Ag+/=", min_size=44, max_size=44))
    def test_any_text_is_a_key_or_a_mistake(self, kind: Kind, text: str) -> None:
        try:
            key = kind.from_base64(text)
        except PywgError:
            return
        assert key.base64 == text

    @pytest.mark.parametrize("size", [0, 31, 33])
    def test_other_sizes_are_refused(self, kind: Kind, size: int) -> None:
        with pytest.raises(PywgError, match=f"32 bytes; this has {size}"):
            kind(bytes(size))

    def test_equality_is_of_the_same_kind_and_bytes(self, kind: Kind) -> None:
        assert kind(EXAMPLE) == kind(EXAMPLE)
        assert kind(EXAMPLE) != kind(bytes(32))
        assert all(kind(EXAMPLE) != other(EXAMPLE) for other in KINDS if other is not kind)


@pytest.mark.parametrize("kind", SECRETS)
class TestSecrets:
    def test_repr_and_str_and_format_hide_it(self, kind: Kind) -> None:
        for text in (repr(kind(EXAMPLE)), str(kind(EXAMPLE)), f"{kind(EXAMPLE)}"):
            assert text == f"{kind.__name__}(hidden)"

    def test_it_is_not_pickled(self, kind: Kind) -> None:
        with pytest.raises(TypeError, match="secret"):
            pickle.dumps(kind(EXAMPLE))

    def test_it_is_not_hashed(self, kind: Kind) -> None:
        with pytest.raises(TypeError, match="unhashable"):
            hash(kind(EXAMPLE))

    def test_zeros_stand_for_none(self, kind: type[PrivateKey] | type[PresharedKey]) -> None:
        assert kind(bytes(32)).is_zero
        assert not kind(EXAMPLE).is_zero


def test_a_public_key_is_shown_and_hashed_and_pickled() -> None:
    key = PublicKey(EXAMPLE)
    assert str(key) == EXAMPLE_TEXT
    assert EXAMPLE_TEXT in repr(key)
    assert {key: 1}[PublicKey(EXAMPLE)] == 1
    assert pickle.loads(pickle.dumps(key)) == key
    assert copy.deepcopy(key) == key


def test_the_zero_preshared_key_is_32_zeros() -> None:
    assert bytes(PresharedKey.ZERO) == bytes(32)


@given(RAW)
def test_a_generated_private_key_is_clamped(raw: bytes) -> None:
    key = bytes(PrivateKey.generate(lambda size: raw[:size]))
    assert key[0] & 7 == 0
    assert key[31] & 0xC0 == 0x40
    assert key[1:31] == raw[1:31]
    assert (key[0] | 7, key[31] & 0x3F) == (raw[0] | 7, raw[31] & 0x3F)


def test_a_generated_preshared_key_is_taken_as_it_comes() -> None:
    assert bytes(PresharedKey.generate(lambda size: EXAMPLE[:size])) == EXAMPLE


@given(RAW)
def test_clamping_changes_no_public_key(raw: bytes) -> None:
    key = PrivateKey(raw)
    assert key.clamped() == PrivateKey.generate(lambda _: raw) or key.is_zero
    assert key.clamped().public_key == key.public_key
    assert key.clamped().clamped() == key.clamped()


def test_the_zero_private_key_stays_zero_when_clamped() -> None:
    assert PrivateKey(bytes(32)).clamped().is_zero


def test_the_public_key_is_computed_once() -> None:
    key = PrivateKey(EXAMPLE)
    assert key.public_key is key.public_key


@pytest.mark.skipif(shutil.which("wg") is None, reason="needs wg: apt install wireguard-tools")
def test_wg_agrees_on_public_keys() -> None:
    for raw in (EXAMPLE, b"\xff" * 32, bytes(31) + b"\1"):
        key = PrivateKey(raw)
        shown = subprocess.run(["wg", "pubkey"], input=key.base64, capture_output=True, text=True, check=True)
        assert shown.stdout.strip() == key.public_key.base64
