"""Published vectors of every primitive, and the cryptography project's own, run through our functions."""

import hashlib
import hmac
import struct

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives.hashes import BLAKE2s
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from pywg.errors import BadPacket, DropReason
from pywg.noise import primitives

KEYS = st.binary(min_size=32, max_size=32)
COUNTERS = st.integers(0, 2**64 - 1)
SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen"
    b" would be it."
)

# Points of order 1, 2, 4 and 8, with their other encodings below 2**255.
LOW_ORDER_POINTS = [
    bytes(32).hex(),
    (b"\1" + bytes(31)).hex(),
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ec" + "ff" * 30 + "7f",
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f",
]


def read_vectors(name: str) -> list[dict[str, str]]:
    """The vectors of one file: lines of `KEY = value`, a new vector at each COUNT."""
    vectors: list[dict[str, str]] = []
    with cryptography_vectors.open_vector_file(name, "r") as file:
        for line in file:
            key, equals, value = (part.strip() for part in line.partition("="))
            if line.startswith("#") or not equals:
                continue
            if key == "COUNT":
                vectors.append({})
            vectors[-1][key.upper()] = value
    return vectors


def octets(value: str) -> bytes:
    """Quoted text as it is, all else as hexadecimal."""
    return value[1:-1].encode() if value.startswith('"') else bytes.fromhex(value)


def aead_vectors() -> list[dict[str, str]]:
    """Those whose nonce begins with four zero bytes, as every nonce of the protocol does."""
    vectors = []
    for vector in read_vectors("ciphers/ChaCha20Poly1305/openssl.txt"):
        vectors.append({**vector, "NONCE": vector["IV"], "AD": vector["AAD"]})
    for vector in read_vectors("ciphers/ChaCha20Poly1305/boringssl.txt"):
        vectors.append({**vector, "PLAINTEXT": vector["IN"], "CIPHERTEXT": vector["CT"]})
    return [vector for vector in vectors if vector["NONCE"].startswith("00000000")]


class TestBlake2s:
    def test_abc_hashes_to_the_value_of_rfc_7693(self) -> None:
        digest = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"
        assert primitives.blake2s(b"abc").hex() == digest

    def test_the_self_test_of_rfc_7693_gives_its_grand_hash(self) -> None:
        def sequence(length: int, seed: int) -> bytes:
            a, b, out = 0xDEAD4BAD * seed & 0xFFFFFFFF, 1, bytearray()
            for _ in range(length):
                a, b = b, (a + b) & 0xFFFFFFFF
                out.append(b >> 24)
            return bytes(out)

        grand = []
        for size in (16, 20, 28, 32):
            for length in (0, 3, 64, 65, 255, 1024):
                data = sequence(length, length)
                key = sequence(size, size)
                if size == 32:
                    grand.append(primitives.blake2s(data))
                else:
                    grand.append(hashlib.blake2s(data, digest_size=size).digest())
                if size == 16:
                    grand.append(primitives.keyed_mac(key, data))
                else:
                    grand.append(hashlib.blake2s(data, digest_size=size, key=key).digest())
        expected = "6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe"
        assert primitives.blake2s(*grand).hex() == expected

    @given(st.lists(st.binary(max_size=80), max_size=4), KEYS)
    def test_parts_hash_as_their_concatenation(self, parts: list[bytes], key: bytes) -> None:
        whole = b"".join(parts)
        assert primitives.blake2s(*parts) == primitives.blake2s(whole)
        assert primitives.keyed_mac(key, *parts) == primitives.keyed_mac(key, whole)
        assert primitives.hmac_blake2s(key, *parts) == primitives.hmac_blake2s(key, whole)

    @given(st.binary(max_size=64), st.binary(max_size=200))
    def test_hmac_is_the_standard_library_s(self, key: bytes, data: bytes) -> None:
        assert primitives.hmac_blake2s(key, data) == hmac.digest(key, data, hashlib.blake2s)

    def test_an_hmac_key_longer_than_a_block_is_refused(self) -> None:
        with pytest.raises(ValueError, match="65 bytes"):
            primitives.hmac_blake2s(bytes(65), b"")

    @given(KEYS, st.binary(max_size=64))
    def test_kdfs_are_hkdf_with_an_empty_info(self, chaining_key: bytes, material: bytes) -> None:
        def hkdf(count: int) -> bytes:
            return HKDF(BLAKE2s(32), 32 * count, chaining_key, b"").derive(material)

        assert primitives.kdf1(chaining_key, material) == hkdf(1)
        assert b"".join(primitives.kdf2(chaining_key, material)) == hkdf(2)
        assert b"".join(primitives.kdf3(chaining_key, material)) == hkdf(3)


class TestX25519:
    @pytest.mark.parametrize(
        "vector", read_vectors("asymmetric/X25519/rfc7748.txt"), ids=lambda v: v["COUNT"]
    )
    def test_cryptography_s_vector(self, vector: dict[str, str]) -> None:
        result = primitives.dh(octets(vector["INPUT_SCALAR"]), octets(vector["INPUT_U"]))
        assert result == octets(vector["OUTPUT_U"])

    @pytest.mark.parametrize(
        ("scalar", "u", "result"),
        [
            (
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            ),
            (
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            ),
        ],
    )
    def test_vector_of_rfc_7748_section_5_2(self, scalar: str, u: str, result: str) -> None:
        assert primitives.dh(bytes.fromhex(scalar), bytes.fromhex(u)).hex() == result

    def test_iterations_of_rfc_7748_give_its_values_after_1_and_1000(self) -> None:
        k = u = b"\x09" + bytes(31)
        after = {}
        for round_number in range(1, 1001):
            k, u = primitives.dh(k, u), k
            after[round_number] = k.hex()
        assert after[1] == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
        assert after[1000] == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"

    def test_key_exchange_of_rfc_7748_section_6_1(self) -> None:
        alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
        bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
        alice_public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
        bob_public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
        shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
        assert primitives.public_key(alice).hex() == alice_public
        assert primitives.public_key(bob).hex() == bob_public
        assert primitives.dh(alice, bytes.fromhex(bob_public)).hex() == shared
        assert primitives.dh(bob, bytes.fromhex(alice_public)).hex() == shared

    @pytest.mark.parametrize("point", LOW_ORDER_POINTS)
    @pytest.mark.parametrize("top_bit", [0x00, 0x80])
    def test_a_public_key_of_low_order_is_a_bad_key(self, point: str, top_bit: int) -> None:
        public = bytearray.fromhex(point)
        public[31] |= top_bit  # ignored, as RFC 7748 says
        with pytest.raises(BadPacket) as caught:
            primitives.dh(b"\x55" * 32, bytes(public))
        assert caught.value.reason is DropReason.BAD_KEY

    @given(KEYS, KEYS)
    def test_both_sides_reach_the_same_secret(self, a: bytes, b: bytes) -> None:
        assert primitives.dh(a, primitives.public_key(b)) == primitives.dh(b, primitives.public_key(a))

    @pytest.mark.parametrize("size", [0, 31, 33])
    def test_a_key_of_the_wrong_size_is_refused(self, size: int) -> None:
        with pytest.raises(ValueError, match=f"not {size}"):
            primitives.dh(bytes(size), bytes(32))
        with pytest.raises(ValueError, match=f"not {size}"):
            primitives.dh(bytes(32), bytes(size))
        with pytest.raises(ValueError, match=f"not {size}"):
            primitives.public_key(bytes(size))


class TestAead:
    def test_most_of_cryptography_s_vectors_have_a_nonce_that_we_can_make(self) -> None:
        assert len(aead_vectors()) >= 60

    @pytest.mark.parametrize("vector", aead_vectors())
    def test_cryptography_s_vector(self, vector: dict[str, str]) -> None:
        key, associated, plaintext = (octets(vector[name]) for name in ("KEY", "AD", "PLAINTEXT"))
        sealed = octets(vector["CIPHERTEXT"]) + octets(vector["TAG"])
        (counter,) = struct.unpack("<Q", octets(vector["NONCE"])[4:])
        if vector.get("RESULT") == "CIPHERFINAL_ERROR":
            with pytest.raises(BadPacket) as caught:
                primitives.aead_open(key, counter, sealed, associated)
            assert caught.value.reason is DropReason.BAD_TAG
            return
        assert primitives.aead_open(key, counter, sealed, associated) == plaintext
        if len(octets(vector["TAG"])) == 16:
            assert primitives.aead_seal(key, counter, plaintext, associated) == sealed

    def test_vector_of_rfc_8439_appendix_a_5(self) -> None:
        key = bytes.fromhex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0")
        associated = bytes.fromhex("f33388860000000000004e91")
        ciphertext = bytes.fromhex(
            "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e382d26b0"
            "bdb7b73c321b0100d4f03b7f355894cf332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855"
            "9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4b9166c767b804d46a59b5216cde7a4e9"
            "9040c5a40433225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a"
            "0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a1049e617d91d361094fa68f0ff77987130"
            "305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709b"
        )
        tag = bytes.fromhex("eead9d67890cbb22392336fea1851f38")
        # The nonce there is 00000000 0102030405060708.
        plaintext = primitives.aead_open(key, 0x0807060504030201, ciphertext + tag, associated)
        assert plaintext.startswith(b"Internet-Drafts are draft documents valid for a maximum of six months")
        assert primitives.aead_seal(key, 0x0807060504030201, plaintext, associated) == ciphertext + tag

    @pytest.mark.parametrize("size", [0, 15])
    def test_a_text_shorter_than_a_tag_has_a_bad_tag(self, size: int) -> None:
        with pytest.raises(BadPacket) as caught:
            primitives.aead_open(bytes(32), 0, bytes(size), b"")
        assert caught.value.reason is DropReason.BAD_TAG
        with pytest.raises(BadPacket) as caught:
            primitives.xaead_open(bytes(32), bytes(24), bytes(size), b"")
        assert caught.value.reason is DropReason.BAD_TAG


class TestXAead:
    # draft-irtf-cfrg-xchacha-03, appendix A.3.1
    KEY = bytes(range(0x80, 0xA0))
    NONCE = bytes(range(0x40, 0x58))
    ASSOCIATED = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    SEALED = bytes.fromhex(
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39"
        "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52e"
        "c0875924c1c7987947deafd8780acf49"
    )

    def test_the_draft_s_vector_is_sealed(self) -> None:
        assert primitives.xaead_seal(self.KEY, self.NONCE, SUNSCREEN, self.ASSOCIATED) == self.SEALED

    def test_the_draft_s_vector_is_opened(self) -> None:
        assert primitives.xaead_open(self.KEY, self.NONCE, self.SEALED, self.ASSOCIATED) == SUNSCREEN

    def test_a_changed_text_has_a_bad_tag(self) -> None:
        for position in range(len(self.SEALED)):
            changed = bytearray(self.SEALED)
            changed[position] ^= 1
            with pytest.raises(BadPacket) as caught:
                primitives.xaead_open(self.KEY, self.NONCE, bytes(changed), self.ASSOCIATED)
            assert caught.value.reason is DropReason.BAD_TAG

    def test_other_associated_data_has_a_bad_tag(self) -> None:
        with pytest.raises(BadPacket) as caught:
            primitives.xaead_open(self.KEY, self.NONCE, self.SEALED, b"")
        assert caught.value.reason is DropReason.BAD_TAG


class TestSessionCipher:
    @given(KEYS, COUNTERS, st.binary(max_size=200))
    def test_it_is_the_aead_without_associated_data(self, key: bytes, counter: int, plaintext: bytes) -> None:
        cipher = primitives.SessionCipher(key)
        sealed = primitives.aead_seal(key, counter, plaintext, b"")
        out = bytearray(len(plaintext) + 16)
        cipher.seal_into(counter, plaintext, memoryview(out))
        assert bytes(out) == sealed == cipher.seal(counter, plaintext)
        opened = bytearray(len(plaintext))
        cipher.open_into(counter, memoryview(sealed), opened)
        assert bytes(opened) == plaintext == cipher.open(counter, sealed)

    @given(COUNTERS, COUNTERS)
    def test_under_another_counter_the_tag_is_bad(self, sent: int, received: int) -> None:
        cipher = primitives.SessionCipher(bytes(32))
        sealed = cipher.seal(sent, b"packet")
        if sent == received:
            assert cipher.open(received, sealed) == b"packet"
            return
        with pytest.raises(BadPacket) as caught:
            cipher.open(received, sealed)
        assert caught.value.reason is DropReason.BAD_TAG
        with pytest.raises(BadPacket) as caught:
            cipher.open_into(received, sealed, bytearray(6))
        assert caught.value.reason is DropReason.BAD_TAG

    def test_every_flipped_bit_makes_the_tag_bad(self) -> None:
        cipher = primitives.SessionCipher(b"k" * 32)
        sealed = cipher.seal(7, b"sixteen bytes...")
        for bit in range(len(sealed) * 8):
            changed = bytearray(sealed)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(BadPacket):
                cipher.open_into(7, changed, bytearray(16))

    def test_a_buffer_of_the_wrong_size_is_the_caller_s_mistake(self) -> None:
        cipher = primitives.SessionCipher(bytes(32))
        with pytest.raises(ValueError, match="buffer"):
            cipher.seal_into(0, b"abc", bytearray(18))
        with pytest.raises(ValueError, match="buffer"):
            cipher.open_into(0, bytes(19), bytearray(4))

    def test_its_repr_tells_no_key(self) -> None:
        assert (b"k" * 32).decode() not in repr(primitives.SessionCipher(b"k" * 32))


def test_equal_compares_bytes() -> None:
    assert primitives.equal(b"same", bytearray(b"same"))
    assert not primitives.equal(b"same", b"sama")
    assert not primitives.equal(b"same", b"sam")
