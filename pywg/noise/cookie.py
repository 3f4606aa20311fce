"""MAC1, MAC2 and cookies: what keeps a flood of handshake messages cheap (paper, 5.3, 5.4.4 and 5.4.7).

The responder of a reply keeps a `CookieChecker`, the sender of handshake messages a `CookieJar` per peer.
Whether cookies are asked for (being under load) is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

from pywg.errors import BadPacket, DropReason
from pywg.noise.keys import PublicKey
from pywg.noise.primitives import (
    KEY_SIZE,
    MAC_SIZE,
    XNONCE_SIZE,
    Buffer,
    blake2s,
    equal,
    keyed_mac,
    xaead_open,
    xaead_seal,
)

LABEL_MAC1 = b"mac1----"
LABEL_COOKIE = b"cookie--"

COOKIE_LIFETIME = 120.0
"""Seconds for which a received cookie serves and after which a secret changes: the paper's COOKIE time.

The paper's figure is kept on both sides. A cookie whose secret has changed meanwhile costs one more reply.
"""

NO_MAC = bytes(MAC_SIZE)


def mac1_key(public_key: PublicKey) -> bytes:
    """The key of MAC1 on messages to the owner of `public_key`, 32 bytes."""
    return blake2s(LABEL_MAC1, bytes(public_key))


def cookie_key(public_key: PublicKey) -> bytes:
    """The key that seals cookies from the owner of `public_key`, 32 bytes."""
    return blake2s(LABEL_COOKIE, bytes(public_key))


def mac1(key: bytes, message_without_macs: bytes) -> bytes:
    """MAC1, 16 bytes, of all that precedes it; `key` is from `mac1_key`."""
    return keyed_mac(key, message_without_macs)


def check_mac1(key: bytes, message: Buffer) -> bool:
    """Whether the sender of a whole handshake message knows the public key that `key` is from."""
    expected = mac1(key, bytes(message[: -2 * MAC_SIZE]))
    return equal(expected, message[-2 * MAC_SIZE : -MAC_SIZE])


def mac2(cookie: bytes, message_with_mac1: bytes) -> bytes:
    """MAC2, 16 bytes, of all that precedes it."""
    return keyed_mac(cookie, message_with_mac1)


class CookieChecker:
    """The side that is asked: checks MAC2 of messages to `public_key`, and makes cookie replies.

    Messages are whole handshake messages, whose last 32 bytes are MAC1 and MAC2. A source is the packed
    address and port. random: gives so many unpredictable bytes.
    """

    def __init__(self, public_key: PublicKey, random: Callable[[int], bytes]) -> None:
        self.cookie_key = cookie_key(public_key)
        """The key that seals our cookies."""
        self._random = random
        self._secret = b""
        self._secret_born = 0.0

    def check_mac2(self, message: bytes, source: bytes, now: float) -> bool:
        """Whether the sender received a cookie of ours at this source, made with the secret of now."""
        if not self._secret_is_fresh(now):
            return False
        cookie = keyed_mac(self._secret, source)
        return equal(message[-MAC_SIZE:], mac2(cookie, message[:-MAC_SIZE]))

    def create_reply(self, message: bytes, source: bytes, now: float) -> tuple[bytes, bytes]:
        """The nonce (24 bytes) and the sealed cookie (32 bytes) of a reply to `message`."""
        secret, _ = self.secret(now)
        nonce = self._random(XNONCE_SIZE)
        cookie = keyed_mac(secret, source)
        return nonce, xaead_seal(self.cookie_key, nonce, cookie, bytes(message[-2 * MAC_SIZE : -MAC_SIZE]))

    def secret(self, now: float) -> tuple[bytes, float]:
        """The secret (32 bytes) that cookies are made with now, and when it ends."""
        if not self._secret_is_fresh(now):
            self._secret = self._random(KEY_SIZE)
            self._secret_born = now
        return self._secret, self._secret_born + COOKIE_LIFETIME

    def _secret_is_fresh(self, now: float) -> bool:
        return bool(self._secret) and now - self._secret_born < COOKIE_LIFETIME


class CookieJar:
    """The side that asks: completes handshake messages to one peer, and keeps the cookie it gave us."""

    def __init__(self, peer_public_key: PublicKey) -> None:
        self._mac1_key = mac1_key(peer_public_key)
        self._cookie_key = cookie_key(peer_public_key)
        self._last_mac1: bytes | None = None
        self._cookie: bytes | None = None
        self._cookie_born = 0.0

    def stamp(self, message_without_macs: bytes, now: float) -> bytes:
        """The whole message: with MAC1, and with MAC2 when there is a cookie, else zeros."""
        self._last_mac1 = mac1(self._mac1_key, message_without_macs)
        with_mac1 = bytes(message_without_macs) + self._last_mac1
        if self._cookie is None or not self.is_fresh(now):
            return with_mac1 + NO_MAC
        return with_mac1 + mac2(self._cookie, with_mac1)

    def is_fresh(self, now: float) -> bool:
        """Whether there is a cookie that the peer still takes."""
        return self._cookie is not None and now - self._cookie_born < COOKIE_LIFETIME

    def consume_reply_untrusted(self, nonce: bytes, sealed_cookie: bytes, now: float) -> None:
        """Keep the cookie of a reply to the last message stamped; it goes into messages from now on.

        Raises BadPacket: UNEXPECTED when no message awaits a reply (each MAC1 takes one), BAD_TAG when the
        reply is not the peer's or not to that message.
        """
        if self._last_mac1 is None:
            raise BadPacket(DropReason.UNEXPECTED)
        self._cookie = xaead_open(self._cookie_key, bytes(nonce), bytes(sealed_cookie), self._last_mac1)
        self._cookie_born = now
        self._last_mac1 = None
