"""Keys as values: read from text as strictly as `wg` reads them, compared in constant time, hard to leak.

No message of an error contains any part of a key's text, since what was pasted in the wrong place may be a
secret. Private and preshared keys hide in `repr`, and refuse to be pickled.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from hmac import compare_digest
from typing import ClassVar, Final, NoReturn, final

from pywg.errors import PywgError

KEY_SIZE = 32
"""Bytes of a key, whatever its kind."""

BASE64_LENGTH = 44
HEX_LENGTH = 64


def _checked(raw: bytes, kind: str) -> bytes:
    if len(raw) != KEY_SIZE:
        raise PywgError(f"a {kind} key has {KEY_SIZE} bytes; this has {len(raw)}")
    return bytes(raw)


def _parse_base64(text: str, kind: str) -> bytes:
    """Only the one text that encodes the key is taken: no white space, no missing '=', no stray last bits."""
    if len(text) != BASE64_LENGTH:
        raise PywgError(f"a {kind} key has {BASE64_LENGTH} characters of base64; this has {len(text)}")
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != KEY_SIZE or base64.b64encode(raw) != text.encode():
        raise PywgError(
            f"this is not a {kind} key: {KEY_SIZE} bytes in base64 are 43 characters and a '=' at the end"
        )
    return raw


def _parse_hex(text: str, kind: str) -> bytes:
    if len(text) != HEX_LENGTH:
        raise PywgError(f"a {kind} key has {HEX_LENGTH} hexadecimal digits; this has {len(text)}")
    try:
        return binascii.unhexlify(text)
    except ValueError:
        raise PywgError(f"this is not a {kind} key: it must be {HEX_LENGTH} hexadecimal digits") from None


def _clamp(raw: bytes) -> bytes:
    """Set the bits that X25519 ignores (RFC 7748, section 5)."""
    return bytes([raw[0] & 248, *raw[1:31], raw[31] & 127 | 64])


def _refuse_pickling(secret: object) -> NoReturn:
    raise TypeError(f"a {type(secret).__name__} is a secret and cannot be pickled")


@final
class PublicKey:
    """An X25519 public key, by which a peer is known. Any 32 bytes are one. `str` gives base64."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw: Final = _checked(raw, "public")

    @classmethod
    def from_base64(cls, text: str) -> PublicKey:
        """Read 44 characters of canonical base64. Raises PywgError."""
        return cls(_parse_base64(text, "public"))

    @classmethod
    def from_hex(cls, text: str) -> PublicKey:
        """Read 64 hexadecimal digits in either case. Raises PywgError."""
        return cls(_parse_hex(text, "public"))

    @property
    def base64(self) -> str:
        """44 characters, as in a configuration file."""
        return base64.b64encode(self._raw).decode()

    @property
    def hex(self) -> str:
        """64 characters, as in the configuration protocol."""
        return self._raw.hex()

    def __bytes__(self) -> bytes:
        return self._raw

    def __eq__(self, other: object) -> bool:
        return compare_digest(self._raw, other._raw) if isinstance(other, PublicKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)

    def __str__(self) -> str:
        return self.base64

    def __repr__(self) -> str:
        return f"PublicKey({self.base64})"


@final
class PrivateKey:
    """An X25519 private key. All zeros stands for "no key" in the configuration protocol."""

    __slots__ = ("_public_key", "_raw")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, raw: bytes) -> None:
        self._raw: Final = _checked(raw, "private")
        self._public_key: PublicKey | None = None

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> PrivateKey:
        """Make a clamped key from 32 bytes of `random`."""
        return cls(_clamp(random(KEY_SIZE)))

    @classmethod
    def from_base64(cls, text: str) -> PrivateKey:
        """Read 44 characters of canonical base64; the bits stay as they are. Raises PywgError."""
        return cls(_parse_base64(text, "private"))

    @classmethod
    def from_hex(cls, text: str) -> PrivateKey:
        """Read 64 hexadecimal digits in either case; the bits stay as they are. Raises PywgError."""
        return cls(_parse_hex(text, "private"))

    @property
    def base64(self) -> str:
        """44 characters, as in a configuration file."""
        return base64.b64encode(self._raw).decode()

    @property
    def hex(self) -> str:
        """64 characters, as in the configuration protocol."""
        return self._raw.hex()

    @property
    def is_zero(self) -> bool:
        """Whether it is the all-zero key, which stands for none."""
        return compare_digest(self._raw, bytes(KEY_SIZE))

    @property
    def public_key(self) -> PublicKey:
        """The public key to it; computed once."""
        if self._public_key is None:
            # Whoever only reads and writes keys need not wait for libraries of ciphers: 15 ms.
            from pywg.noise import primitives  # noqa: PLC0415

            self._public_key = PublicKey(primitives.public_key(self._raw))
        return self._public_key

    def clamped(self) -> PrivateKey:
        """The same key as devices keep and show it: the bits that X25519 ignores are set; zero stays zero."""
        return self if self.is_zero else PrivateKey(_clamp(self._raw))

    def __bytes__(self) -> bytes:
        return self._raw

    def __eq__(self, other: object) -> bool:
        return compare_digest(self._raw, other._raw) if isinstance(other, PrivateKey) else NotImplemented

    def __repr__(self) -> str:
        return "PrivateKey(hidden)"

    def __reduce__(self) -> NoReturn:
        _refuse_pickling(self)


@final
class PresharedKey:
    """A symmetric key that both peers know beside their key pairs; `ZERO` means that there is none."""

    __slots__ = ("_raw",)
    __hash__ = None  # type: ignore[assignment]
    ZERO: ClassVar[PresharedKey]

    def __init__(self, raw: bytes) -> None:
        self._raw: Final = _checked(raw, "preshared")

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> PresharedKey:
        """Make a key of 32 bytes of `random`."""
        return cls(random(KEY_SIZE))

    @classmethod
    def from_base64(cls, text: str) -> PresharedKey:
        """Read 44 characters of canonical base64. Raises PywgError."""
        return cls(_parse_base64(text, "preshared"))

    @classmethod
    def from_hex(cls, text: str) -> PresharedKey:
        """Read 64 hexadecimal digits in either case. Raises PywgError."""
        return cls(_parse_hex(text, "preshared"))

    @property
    def base64(self) -> str:
        """44 characters, as in a configuration file."""
        return base64.b64encode(self._raw).decode()

    @property
    def hex(self) -> str:
        """64 characters, as in the configuration protocol."""
        return self._raw.hex()

    @property
    def is_zero(self) -> bool:
        """Whether it is the all-zero key, which stands for none."""
        return compare_digest(self._raw, bytes(KEY_SIZE))

    def __bytes__(self) -> bytes:
        return self._raw

    def __eq__(self, other: object) -> bool:
        return compare_digest(self._raw, other._raw) if isinstance(other, PresharedKey) else NotImplemented

    def __repr__(self) -> str:
        return "PresharedKey(hidden)"

    def __reduce__(self) -> NoReturn:
        _refuse_pickling(self)


PresharedKey.ZERO = PresharedKey(bytes(KEY_SIZE))
