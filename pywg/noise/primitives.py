"""The functions of the paper's section 5.4, each made of a library's.

This is the only module that imports a cryptographic library. ChaCha20-Poly1305 comes from cryptography,
XChaCha20-Poly1305 and X25519 from libsodium (half the time of a call, since OpenSSL computes the public key
of every private key that it loads), BLAKE2s from hashlib.
"""

from __future__ import annotations

import hmac
import struct
from hashlib import blake2s as _blake2s
from typing import TypeAlias

import nacl.bindings
import nacl.exceptions
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl import _sodium

from pywg.errors import BadPacket, DropReason

Buffer: TypeAlias = bytes | bytearray | memoryview

KEY_SIZE = 32
"""Bytes of a public, private, preshared or symmetric key, and of a hash."""
MAC_SIZE = 16
TAG_SIZE = 16
XNONCE_SIZE = 24

_BLAKE2S_BLOCK = 64
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))
_nonce = struct.Struct("<4xQ").pack


def blake2s(*parts: Buffer) -> bytes:
    """HASH of the concatenated parts, 32 bytes."""
    return _blake2s(b"".join(parts)).digest()


def keyed_mac(key: Buffer, *parts: Buffer) -> bytes:
    """MAC: keyed BLAKE2s with 16 bytes of output, of the concatenated parts. The key has 1 to 32 bytes."""
    return _blake2s(b"".join(parts), key=key, digest_size=MAC_SIZE).digest()


def hmac_blake2s(key: Buffer, *parts: Buffer) -> bytes:
    """HMAC (RFC 2104) with BLAKE2s of the concatenated parts, 32 bytes. The key has at most 64 bytes."""
    if len(key) > _BLAKE2S_BLOCK:
        raise ValueError(f"the key of an HMAC has {len(key)} bytes here; at most {_BLAKE2S_BLOCK} are meant")
    block = bytes(key).ljust(_BLAKE2S_BLOCK, b"\0")
    return blake2s(block.translate(_OUTER_PAD), blake2s(block.translate(_INNER_PAD), *parts))


def kdf1(chaining_key: bytes, material: Buffer) -> bytes:
    """KDF1: HKDF (RFC 5869) with BLAKE2s, one output of 32 bytes."""
    return hmac_blake2s(hmac_blake2s(chaining_key, material), b"\1")


def kdf2(chaining_key: bytes, material: Buffer) -> tuple[bytes, bytes]:
    """KDF2: two outputs of 32 bytes."""
    secret = hmac_blake2s(chaining_key, material)
    first = hmac_blake2s(secret, b"\1")
    return first, hmac_blake2s(secret, first, b"\2")


def kdf3(chaining_key: bytes, material: Buffer) -> tuple[bytes, bytes, bytes]:
    """KDF3: three outputs of 32 bytes."""
    secret = hmac_blake2s(chaining_key, material)
    first = hmac_blake2s(secret, b"\1")
    second = hmac_blake2s(secret, first, b"\2")
    return first, second, hmac_blake2s(secret, second, b"\3")


def aead_seal(key: bytes, counter: int, plaintext: Buffer, associated: Buffer) -> bytes:
    """AEAD: ChaCha20-Poly1305 (RFC 8439); 16 bytes longer than the plaintext."""
    return ChaCha20Poly1305(key).encrypt(_nonce(counter), plaintext, associated)


def aead_open(key: bytes, counter: int, ciphertext: Buffer, associated: Buffer) -> bytes:
    """Undo `aead_seal`. Raises BadPacket (BAD_TAG) when the ciphertext is not what that gave."""
    try:
        return ChaCha20Poly1305(key).decrypt(_nonce(counter), ciphertext, associated)
    except InvalidTag:
        raise BadPacket(DropReason.BAD_TAG) from None


def xaead_seal(key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """XAEAD: XChaCha20-Poly1305 with a nonce of 24 bytes; 16 bytes longer than the plaintext."""
    return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, associated, nonce, key)


def xaead_seal_address() -> int:
    """The address of libsodium's function behind `xaead_seal`, for code in C of this process."""
    function = _sodium.ffi.addressof(_sodium.lib, "crypto_aead_xchacha20poly1305_ietf_encrypt")
    return int(_sodium.ffi.cast("uintptr_t", function))


def xaead_open(key: bytes, nonce: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    """Undo `xaead_seal`. Raises BadPacket (BAD_TAG) when the ciphertext is not what that gave."""
    if len(ciphertext) < TAG_SIZE:
        raise BadPacket(DropReason.BAD_TAG)
    try:
        return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, associated, nonce, key)
    except nacl.exceptions.CryptoError:
        raise BadPacket(DropReason.BAD_TAG) from None


def dh(private: bytes, public: bytes) -> bytes:
    """DH: X25519 (RFC 7748), 32 bytes of each. Raises BadPacket (BAD_KEY) when the result is all zeros."""
    _check_key_sizes(private, public)
    try:
        return nacl.bindings.crypto_scalarmult(private, public)
    except nacl.exceptions.RuntimeError:  # libsodium's word for a public key of low order
        raise BadPacket(DropReason.BAD_KEY) from None


def public_key(private: bytes) -> bytes:
    """The X25519 public key of a private one."""
    _check_key_sizes(private)
    return nacl.bindings.crypto_scalarmult_base(private)


def equal(a: Buffer, b: Buffer) -> bool:
    """Whether both are the same bytes, in a time that does not tell where they differ."""
    return hmac.compare_digest(a, b)


def _check_key_sizes(*keys: bytes) -> None:
    """libsodium's binding reads 32 bytes whatever the object's length is."""
    for key in keys:
        if len(key) != KEY_SIZE:
            raise ValueError(f"an X25519 key has {KEY_SIZE} bytes, not {len(key)}")


class SessionCipher:
    """ChaCha20-Poly1305 of the data messages of one session in one direction (paper, section 5.4.6).

    The nonce is four zero bytes and the counter as 64 bits, little-endian; there is no associated data.
    Made once per session and direction. A buffer of the wrong size raises ValueError.
    """

    __slots__ = ("_decrypt", "_decrypt_into", "_encrypt", "_encrypt_into")

    def __init__(self, key: bytes) -> None:
        cipher = ChaCha20Poly1305(key)
        self._encrypt = cipher.encrypt
        self._encrypt_into = cipher.encrypt_into
        self._decrypt = cipher.decrypt
        self._decrypt_into = cipher.decrypt_into

    def seal_into(self, counter: int, plaintext: Buffer, out: bytearray | memoryview) -> None:
        """Write the ciphertext and its tag into `out`, which is 16 bytes longer than the plaintext."""
        self._encrypt_into(_nonce(counter), plaintext, None, out)

    def open_into(self, counter: int, ciphertext: Buffer, out: bytearray | memoryview) -> None:
        """Write the plaintext into `out`, which is 16 bytes shorter than the ciphertext.

        Raises BadPacket (BAD_TAG) when the tag is wrong; `out` then holds nothing to be used.
        """
        try:
            self._decrypt_into(_nonce(counter), ciphertext, None, out)
        except InvalidTag:
            raise BadPacket(DropReason.BAD_TAG) from None

    def seal(self, counter: int, plaintext: Buffer) -> bytes:
        """The ciphertext and its tag."""
        return self._encrypt(_nonce(counter), plaintext, None)

    def open(self, counter: int, ciphertext: Buffer) -> bytes:
        """The plaintext. Raises BadPacket (BAD_TAG) when the tag is wrong."""
        try:
            return self._decrypt(_nonce(counter), ciphertext, None)
        except InvalidTag:
            raise BadPacket(DropReason.BAD_TAG) from None
