"""Both roles of the handshake: with each other, with an independent implementation, and with wrong bytes."""

import pickle
import random
from collections.abc import Callable, Iterator

import pytest
from noise.connection import Keypair, NoiseConnection

from pywg.errors import BadPacket, DropReason
from pywg.noise import primitives
from pywg.noise.handshake import (
    ReceivedInitiation,
    SentInitiation,
    TransportKeys,
    create_initiation,
    open_initiation_untrusted,
)
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
TIMESTAMP = bytes(range(12))


class Pair:
    """Two peers with keys of a seeded random source, and the messages between them."""

    def __init__(self, seed: int = 1, *, with_psk: bool = True) -> None:
        self.random = random.Random(seed)
        self.initiator = self.key()
        self.responder = self.key()
        self.psk = PresharedKey.generate(self.random.randbytes) if with_psk else PresharedKey.ZERO

    def key(self) -> PrivateKey:
        return PrivateKey.generate(self.random.randbytes)

    @property
    def static_static(self) -> bytes:
        return primitives.dh(bytes(self.initiator), bytes(self.responder.public_key))

    def initiate(self) -> SentInitiation:
        return create_initiation(
            self.initiator, self.responder.public_key, self.static_static, self.key(), TIMESTAMP
        )

    def open(self, ephemeral: bytes, static: bytes, timestamp: bytes) -> ReceivedInitiation:
        return open_initiation_untrusted(self.responder, ephemeral, static, timestamp)

    def respond(self, sent: SentInitiation) -> tuple[bytes, bytes, TransportKeys]:
        received = self.open(sent.ephemeral, sent.static, sent.timestamp)
        received.read_timestamp_untrusted(self.static_static)
        return received.respond(self.psk, self.key())


def flips(message: bytes) -> Iterator[bytes]:
    """The message with each of its bits flipped in turn."""
    for bit in range(len(message) * 8):
        changed = bytearray(message)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def assert_carries(theirs: NoiseConnection, keys: TransportKeys) -> None:
    """Messages under the session pass between the independent implementation and ours, both ways."""
    sending, receiving = primitives.SessionCipher(keys.send), primitives.SessionCipher(keys.receive)
    for counter in range(3):
        assert receiving.open(counter, theirs.encrypt(b"from them")) == b"from them"
        assert theirs.decrypt(sending.seal(counter, b"from us")) == b"from us"


def independent(private: PrivateKey, psk: PresharedKey, prologue: bytes = IDENTIFIER) -> NoiseConnection:
    noise = NoiseConnection.from_name(CONSTRUCTION)
    noise.set_prologue(prologue)
    noise.set_psks(psk=bytes(psk))
    noise.set_keypair_from_private_bytes(Keypair.STATIC, bytes(private))
    return noise


@pytest.mark.parametrize("with_psk", [False, True])
@pytest.mark.parametrize("seed", range(10))
class TestWithNoiseprotocol:
    def test_it_initiates_and_we_respond(self, seed: int, with_psk: bool) -> None:
        pair = Pair(seed, with_psk=with_psk)
        theirs = independent(pair.initiator, pair.psk)
        theirs.set_as_initiator()
        theirs.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, bytes(pair.responder.public_key))
        theirs.start_handshake()
        message = bytes(theirs.write_message(TIMESTAMP))
        assert len(message) == 32 + 48 + 28

        received = pair.open(message[:32], message[32:80], message[80:])
        assert received.initiator == pair.initiator.public_key
        assert received.read_timestamp_untrusted(pair.static_static) == TIMESTAMP
        ephemeral, nothing, keys = received.respond(pair.psk, pair.key())
        assert theirs.read_message(ephemeral + nothing) == b""
        assert_carries(theirs, keys)

    def test_we_initiate_and_it_responds(self, seed: int, with_psk: bool) -> None:
        pair = Pair(seed, with_psk=with_psk)
        theirs = independent(pair.responder, pair.psk)
        theirs.set_as_responder()
        theirs.start_handshake()
        sent = pair.initiate()
        assert theirs.read_message(sent.ephemeral + sent.static + sent.timestamp) == TIMESTAMP
        message = bytes(theirs.write_message())
        assert len(message) == 32 + 16
        assert_carries(theirs, sent.read_response_untrusted(pair.psk, message[:32], message[32:]))

    def test_another_prologue_agrees_with_it_too(self, seed: int, with_psk: bool) -> None:
        pair = Pair(seed, with_psk=with_psk)
        theirs = independent(pair.responder, pair.psk, b"another prologue")
        theirs.set_as_responder()
        theirs.start_handshake()
        sent = create_initiation(
            pair.initiator,
            pair.responder.public_key,
            pair.static_static,
            pair.key(),
            TIMESTAMP,
            prologue=b"another prologue",
        )
        assert theirs.read_message(sent.ephemeral + sent.static + sent.timestamp) == TIMESTAMP


class TestBothRoles:
    @pytest.mark.parametrize("with_psk", [False, True])
    def test_both_sides_reach_the_same_keys(self, with_psk: bool) -> None:
        pair = Pair(with_psk=with_psk)
        sent = pair.initiate()
        assert (len(sent.ephemeral), len(sent.static), len(sent.timestamp)) == (32, 48, 28)
        ephemeral, nothing, theirs = pair.respond(sent)
        ours = sent.read_response_untrusted(pair.psk, ephemeral, nothing)
        assert (ours.send, ours.receive) == (theirs.receive, theirs.send)
        assert ours.send != ours.receive

    def test_the_same_random_bytes_give_the_same_handshake(self) -> None:
        runs = []
        for _ in range(2):
            pair = Pair(7)
            sent = pair.initiate()
            runs.append((sent.ephemeral, sent.static, sent.timestamp, *pair.respond(sent)))
        assert runs[0] == runs[1]

    def test_another_ephemeral_key_gives_other_keys(self) -> None:
        pair = Pair()
        sent = pair.initiate()
        assert pair.respond(sent)[2].send != pair.respond(sent)[2].send

    def test_the_response_is_read_again_after_a_forged_one(self) -> None:
        pair = Pair()
        sent = pair.initiate()
        ephemeral, nothing, theirs = pair.respond(sent)
        with pytest.raises(BadPacket):
            sent.read_response_untrusted(pair.psk, ephemeral, bytes(16))
        assert sent.read_response_untrusted(pair.psk, ephemeral, nothing).send == theirs.receive

    def test_an_initiation_is_not_answered_before_its_timestamp_was_read(self) -> None:
        pair = Pair()
        sent = pair.initiate()
        received = pair.open(sent.ephemeral, sent.static, sent.timestamp)
        with pytest.raises(RuntimeError, match="timestamp"):
            received.respond(pair.psk, pair.key())

    def test_no_repr_tells_a_key(self) -> None:
        pair = Pair()
        sent = pair.initiate()
        received = pair.open(sent.ephemeral, sent.static, sent.timestamp)
        keys = pair.respond(sent)[2]
        assert repr(keys) == "TransportKeys()"
        for value in (sent, received):
            assert " object at " in repr(value)

    def test_an_initiation_that_was_sent_is_not_pickled(self) -> None:
        with pytest.raises(TypeError, match="secret"):
            pickle.dumps(Pair().initiate())


class TestWrongBytes:
    @pytest.mark.parametrize("field", [0, 1, 2])
    def test_every_flipped_bit_of_an_initiation_is_found(self, field: int) -> None:
        pair = Pair()
        sent = pair.initiate()
        static_static = pair.static_static
        fields = [sent.ephemeral, sent.static, sent.timestamp]
        for changed in flips(fields[field]):
            altered = [*fields[:field], changed, *fields[field + 1 :]]
            if field < 2:
                with pytest.raises(BadPacket) as caught:
                    pair.open(*altered)
            else:
                received = pair.open(*altered)
                with pytest.raises(BadPacket) as caught:
                    received.read_timestamp_untrusted(static_static)
            assert caught.value.reason is DropReason.BAD_TAG

    @pytest.mark.parametrize("field", [0, 1])
    def test_every_flipped_bit_of_a_response_is_found(self, field: int) -> None:
        pair = Pair()
        sent = pair.initiate()
        fields = [*pair.respond(sent)[:2]]
        for changed in flips(fields[field]):
            altered = [*fields[:field], changed, *fields[field + 1 :]]
            with pytest.raises(BadPacket) as caught:
                sent.read_response_untrusted(pair.psk, *altered)
            assert caught.value.reason is DropReason.BAD_TAG

    def test_another_preshared_key_is_found_by_the_initiator(self) -> None:
        pair = Pair()
        sent = pair.initiate()
        ephemeral, nothing, _ = pair.respond(sent)
        with pytest.raises(BadPacket) as caught:
            sent.read_response_untrusted(PresharedKey.ZERO, ephemeral, nothing)
        assert caught.value.reason is DropReason.BAD_TAG

    def test_a_response_to_another_initiation_is_found(self) -> None:
        pair = Pair()
        sent, other = pair.initiate(), pair.initiate()
        ephemeral, nothing, _ = pair.respond(other)
        with pytest.raises(BadPacket) as caught:
            sent.read_response_untrusted(pair.psk, ephemeral, nothing)
        assert caught.value.reason is DropReason.BAD_TAG

    def test_an_initiation_to_somebody_else_does_not_open(self) -> None:
        pair = Pair()
        sent = pair.initiate()
        with pytest.raises(BadPacket) as caught:
            open_initiation_untrusted(pair.key(), sent.ephemeral, sent.static, sent.timestamp)
        assert caught.value.reason is DropReason.BAD_TAG

    def test_an_initiation_with_another_prologue_does_not_open(self) -> None:
        pair = Pair()
        sent = pair.initiate()
        with pytest.raises(BadPacket) as caught:
            open_initiation_untrusted(
                pair.responder, sent.ephemeral, sent.static, sent.timestamp, prologue=b"WireGuard v2"
            )
        assert caught.value.reason is DropReason.BAD_TAG

    def test_who_claims_another_s_public_key_is_found_at_the_timestamp(self) -> None:
        pair = Pair()
        victim, attacker = pair.initiator, pair.key()
        claimed = PrivateKey(bytes(attacker))
        claimed._public_key = victim.public_key
        forged = create_initiation(
            claimed,
            pair.responder.public_key,
            primitives.dh(bytes(attacker), bytes(pair.responder.public_key)),
            pair.key(),
            TIMESTAMP,
        )
        received = pair.open(forged.ephemeral, forged.static, forged.timestamp)
        assert received.initiator == victim.public_key
        with pytest.raises(BadPacket) as caught:
            received.read_timestamp_untrusted(pair.static_static)
        assert caught.value.reason is DropReason.BAD_TAG

    @pytest.mark.parametrize("low_order", [bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
    def test_keys_of_low_order_are_bad_keys_everywhere(self, low_order: bytes) -> None:
        pair = Pair()
        sent = pair.initiate()
        attempts: list[Callable[[], object]] = [
            lambda: create_initiation(pair.initiator, PublicKey(low_order), bytes(32), pair.key(), TIMESTAMP),
            lambda: pair.open(low_order, sent.static, sent.timestamp),
            lambda: sent.read_response_untrusted(pair.psk, low_order, bytes(16)),
        ]
        for attempt in attempts:
            with pytest.raises(BadPacket) as caught:
                attempt()
            assert caught.value.reason is DropReason.BAD_KEY
