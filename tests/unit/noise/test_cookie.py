"""MAC1, MAC2 and cookies, against the paper's formulas and between both sides."""

import hashlib
import random

import pytest

from pywg.errors import BadPacket, DropReason
from pywg.noise import cookie
from pywg.noise.keys import PublicKey

RESPONDER = PublicKey(bytes(range(32)))
SOURCE = bytes([192, 0, 2, 1]) + (51820).to_bytes(2, "big")
KEY = cookie.mac1_key(RESPONDER)
MESSAGE = b"\1" + bytes(115)
LIFETIME = 120.0


@pytest.fixture
def checker() -> cookie.CookieChecker:
    return cookie.CookieChecker(RESPONDER, random.Random(1).randbytes)


@pytest.fixture
def jar() -> cookie.CookieJar:
    return cookie.CookieJar(RESPONDER)


def exchange(checker: cookie.CookieChecker, jar: cookie.CookieJar, now: float) -> None:
    """One message, answered with a cookie."""
    jar.consume_reply_untrusted(*checker.create_reply(jar.stamp(MESSAGE, now), SOURCE, now), now)


class TestMac1:
    def test_it_is_the_paper_s_formula(self, jar: cookie.CookieJar) -> None:
        key = hashlib.blake2s(b"mac1----" + bytes(RESPONDER)).digest()
        expected = hashlib.blake2s(MESSAGE, key=key, digest_size=16).digest()
        assert cookie.mac1_key(RESPONDER) == key
        assert jar.stamp(MESSAGE, 0.0) == MESSAGE + expected + bytes(16)

    def test_the_cookie_key_is_the_paper_s_formula(self) -> None:
        assert cookie.cookie_key(RESPONDER) == hashlib.blake2s(b"cookie--" + bytes(RESPONDER)).digest()

    def test_every_flipped_bit_before_mac2_is_found(self, jar: cookie.CookieJar) -> None:
        message = jar.stamp(MESSAGE, 0.0)
        assert cookie.check_mac1(KEY, message)
        for bit in range(len(message) * 8):
            changed = bytearray(message)
            changed[bit // 8] ^= 1 << bit % 8
            assert cookie.check_mac1(KEY, bytes(changed)) is (bit >= (len(message) - 16) * 8)

    def test_a_message_to_another_key_fails(self) -> None:
        assert not cookie.check_mac1(KEY, cookie.CookieJar(PublicKey(bytes(32))).stamp(MESSAGE, 0.0))

    @pytest.mark.parametrize("size", range(34))
    def test_a_message_of_any_length_is_checked(self, checker: cookie.CookieChecker, size: int) -> None:
        assert not cookie.check_mac1(KEY, bytes(size))
        assert not checker.check_mac2(bytes(size), SOURCE, 0.0)


class TestMac2:
    def test_without_a_cookie_there_is_none(
        self, checker: cookie.CookieChecker, jar: cookie.CookieJar
    ) -> None:
        message = jar.stamp(MESSAGE, 0.0)
        assert message[-16:] == bytes(16)
        assert not checker.check_mac2(message, SOURCE, 0.0)

    def test_with_a_cookie_it_is_valid(self, checker: cookie.CookieChecker, jar: cookie.CookieJar) -> None:
        exchange(checker, jar, 0.0)
        message = jar.stamp(MESSAGE, 0.0)
        assert cookie.check_mac1(KEY, message)
        assert checker.check_mac2(message, SOURCE, 0.0)

    def test_it_is_the_paper_s_formula(self, jar: cookie.CookieJar) -> None:
        drawn = iter([b"s" * 32, b"n" * 24])
        checker = cookie.CookieChecker(RESPONDER, lambda _: next(drawn))
        exchange(checker, jar, 0.0)
        message = jar.stamp(MESSAGE, 0.0)
        secret_of_source = hashlib.blake2s(SOURCE, key=b"s" * 32, digest_size=16).digest()
        assert message[-16:] == hashlib.blake2s(message[:-16], key=secret_of_source, digest_size=16).digest()

    def test_every_flipped_bit_is_found(self, checker: cookie.CookieChecker, jar: cookie.CookieJar) -> None:
        exchange(checker, jar, 0.0)
        message = jar.stamp(MESSAGE, 0.0)
        for bit in range(len(message) * 8):
            changed = bytearray(message)
            changed[bit // 8] ^= 1 << bit % 8
            assert not checker.check_mac2(bytes(changed), SOURCE, 0.0)

    @pytest.mark.parametrize(
        "source",
        [
            bytes([192, 0, 2, 2]) + SOURCE[4:],
            SOURCE[:4] + (51821).to_bytes(2, "big"),
            bytes(12) + SOURCE,
        ],
        ids=["address", "port", "family"],
    )
    def test_a_cookie_is_for_one_address_and_port(
        self, checker: cookie.CookieChecker, jar: cookie.CookieJar, source: bytes
    ) -> None:
        exchange(checker, jar, 0.0)
        assert not checker.check_mac2(jar.stamp(MESSAGE, 0.0), source, 0.0)

    def test_the_secret_changes_after_120_s(
        self, checker: cookie.CookieChecker, jar: cookie.CookieJar
    ) -> None:
        exchange(checker, jar, 1000.0)
        message = jar.stamp(MESSAGE, 1000.0)
        assert checker.check_mac2(message, SOURCE, 1000.0 + LIFETIME - 0.001)
        assert not checker.check_mac2(message, SOURCE, 1000.0 + LIFETIME)
        exchange(checker, cookie.CookieJar(RESPONDER), 1000.0 + LIFETIME)
        assert not checker.check_mac2(message, SOURCE, 1000.0 + LIFETIME)

    def test_the_secret_stays_between(self, checker: cookie.CookieChecker, jar: cookie.CookieJar) -> None:
        exchange(checker, jar, 1000.0)
        exchange(checker, cookie.CookieJar(RESPONDER), 1000.0 + LIFETIME - 0.001)
        assert checker.check_mac2(jar.stamp(MESSAGE, 1100.0), SOURCE, 1000.0 + LIFETIME - 0.001)

    def test_a_received_cookie_serves_for_120_s(
        self, checker: cookie.CookieChecker, jar: cookie.CookieJar
    ) -> None:
        exchange(checker, jar, 1000.0)
        assert jar.stamp(MESSAGE, 1000.0 + LIFETIME - 0.001)[-16:] != bytes(16)
        assert jar.stamp(MESSAGE, 1000.0 + LIFETIME)[-16:] == bytes(16)


class TestReply:
    def test_it_is_a_nonce_of_24_bytes_and_a_sealed_cookie_of_32(
        self, checker: cookie.CookieChecker, jar: cookie.CookieJar
    ) -> None:
        nonce, sealed = checker.create_reply(jar.stamp(MESSAGE, 0.0), SOURCE, 0.0)
        assert (len(nonce), len(sealed)) == (24, 32)

    def test_no_nonce_comes_twice(self, checker: cookie.CookieChecker, jar: cookie.CookieJar) -> None:
        message = jar.stamp(MESSAGE, 0.0)
        assert len({checker.create_reply(message, SOURCE, 0.0)[0] for _ in range(50)}) == 50

    def test_every_flipped_bit_is_found_and_the_true_reply_is_taken_after_all(
        self, checker: cookie.CookieChecker, jar: cookie.CookieJar
    ) -> None:
        nonce, sealed = checker.create_reply(jar.stamp(MESSAGE, 0.0), SOURCE, 0.0)
        for bit in range((24 + 32) * 8):
            changed = bytearray(nonce + sealed)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(BadPacket) as caught:
                jar.consume_reply_untrusted(bytes(changed[:24]), bytes(changed[24:]), 0.0)
            assert caught.value.reason is DropReason.BAD_TAG
        jar.consume_reply_untrusted(nonce, sealed, 0.0)
        assert checker.check_mac2(jar.stamp(MESSAGE, 0.0), SOURCE, 0.0)

    def test_a_reply_to_an_earlier_message_is_refused(
        self, checker: cookie.CookieChecker, jar: cookie.CookieJar
    ) -> None:
        reply = checker.create_reply(jar.stamp(MESSAGE, 0.0), SOURCE, 0.0)
        jar.stamp(b"\2" + MESSAGE[1:], 0.0)
        with pytest.raises(BadPacket) as caught:
            jar.consume_reply_untrusted(*reply, 0.0)
        assert caught.value.reason is DropReason.BAD_TAG

    def test_a_reply_of_another_peer_is_refused(self, jar: cookie.CookieJar) -> None:
        other = cookie.CookieChecker(PublicKey(bytes(32)), random.Random(2).randbytes)
        reply = other.create_reply(jar.stamp(MESSAGE, 0.0), SOURCE, 0.0)
        with pytest.raises(BadPacket) as caught:
            jar.consume_reply_untrusted(*reply, 0.0)
        assert caught.value.reason is DropReason.BAD_TAG

    def test_a_reply_to_nothing_is_refused(self, jar: cookie.CookieJar) -> None:
        with pytest.raises(BadPacket) as caught:
            jar.consume_reply_untrusted(bytes(24), bytes(32), 0.0)
        assert caught.value.reason is DropReason.UNEXPECTED

    def test_a_message_takes_one_reply_only(
        self, checker: cookie.CookieChecker, jar: cookie.CookieJar
    ) -> None:
        reply = checker.create_reply(jar.stamp(MESSAGE, 0.0), SOURCE, 0.0)
        jar.consume_reply_untrusted(*reply, 0.0)
        with pytest.raises(BadPacket) as caught:
            jar.consume_reply_untrusted(*reply, 0.0)
        assert caught.value.reason is DropReason.UNEXPECTED
