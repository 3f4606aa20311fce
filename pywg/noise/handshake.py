"""The handshake Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, both roles (paper, sections 5.4.2, 5.4.3 and 5.4.5).

How it goes. Both sides keep two values of 32 bytes: a *chaining key*, into which every shared secret is
mixed, and a *hash* of everything said so far, which every encryption authenticates. Both start from the
protocol's names and the responder's static public key, which the initiator knows beforehand (the K of IK
is about who knows whom: the initiator's own static key is sent Immediately, encrypted).

1. The initiation carries an *ephemeral* public key, made for this handshake alone; then the initiator's
   *static* public key, encrypted under the secret of (initiator's ephemeral, responder's static); then a
   *timestamp*, encrypted under the secret of both static keys too. So the responder first learns who claims
   to speak, and knows that it is true once the timestamp opens. The secret of the static keys is always the
   same for two peers; whoever calls computes it once and hands it in.
2. The response carries the responder's ephemeral public key and *nothing*: an encrypted empty text. Its key
   comes from all before, the secrets of (responder's ephemeral, initiator's ephemeral) and (responder's
   ephemeral, initiator's static), and then the preshared key, 32 zeros when there is none. So its tag
   shows that the responder has its private key and, as the initiator has, the preshared one.
3. Both derive the two transport keys from the chaining key, and forget the rest.

Ephemeral keys and timestamps are handed in, so a run can be repeated byte for byte. Indices and MACs are
not part of Noise: they are in `pywg.wire.messages` and `pywg.noise.cookie`.
"""

from __future__ import annotations

import dataclasses

from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.noise.primitives import aead_open, aead_seal, blake2s, dh, kdf1, kdf2, kdf3

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"

_FIRST_CHAINING_KEY = blake2s(CONSTRUCTION)


@dataclasses.dataclass(frozen=True, slots=True)
class TransportKeys:
    """The keys of a session, 32 bytes each, from the point of view of whoever holds them."""

    send: bytes = dataclasses.field(repr=False)
    receive: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(slots=True, repr=False, eq=False)
class _Transcript:
    """The chaining key and the hash, and the three ways in which a message moves them on."""

    chaining_key: bytes
    hash: bytes

    @classmethod
    def begin(cls, responder: PublicKey, prologue: bytes) -> _Transcript:
        return cls(_FIRST_CHAINING_KEY, blake2s(blake2s(_FIRST_CHAINING_KEY, prologue), bytes(responder)))

    def copy(self) -> _Transcript:
        return _Transcript(self.chaining_key, self.hash)

    def mix_ephemeral(self, public: bytes) -> None:
        self.mix_hash(public)
        self.chaining_key = kdf1(self.chaining_key, public)

    def mix_hash(self, said: bytes) -> None:
        self.hash = blake2s(self.hash, said)

    def mix_secret(self, secret: bytes) -> None:
        self.chaining_key = kdf1(self.chaining_key, secret)

    def mix_secret_for_key(self, secret: bytes) -> bytes:
        self.chaining_key, key = kdf2(self.chaining_key, secret)
        return key

    def mix_preshared_key(self, preshared_key: PresharedKey) -> bytes:
        self.chaining_key, tau, key = kdf3(self.chaining_key, bytes(preshared_key))
        self.mix_hash(tau)
        return key

    def seal(self, key: bytes, plaintext: bytes) -> bytes:
        ciphertext = aead_seal(key, 0, plaintext, self.hash)
        self.mix_hash(ciphertext)
        return ciphertext

    def open(self, key: bytes, ciphertext: bytes) -> bytes:
        plaintext = aead_open(key, 0, ciphertext, self.hash)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """The initiator's sending key, and the responder's."""
        return kdf2(self.chaining_key, b"")


@dataclasses.dataclass(frozen=True, slots=True, repr=False, eq=False)
class SentInitiation:
    """An initiation that awaits its response: the message's fields, and what the initiator must remember.

    ephemeral, static, timestamp: 32, 48 and 28 bytes, as they go into the message.
    """

    ephemeral: bytes
    static: bytes
    timestamp: bytes
    _transcript: _Transcript
    _private_key: PrivateKey
    _ephemeral_key: PrivateKey

    def read_response_untrusted(
        self, preshared_key: PresharedKey, ephemeral: bytes, nothing: bytes
    ) -> TransportKeys:
        """The session's keys, when the response (fields of 32 and 16 bytes) is the responder's.

        Raises BadPacket (BAD_TAG, BAD_KEY) when it is not; the true response is then still awaited.
        """
        transcript = self._transcript.copy()
        transcript.mix_ephemeral(ephemeral)
        transcript.mix_secret(dh(bytes(self._ephemeral_key), ephemeral))
        transcript.mix_secret(dh(bytes(self._private_key), ephemeral))
        transcript.open(transcript.mix_preshared_key(preshared_key), nothing)
        initiators, responders = transcript.split()
        return TransportKeys(send=initiators, receive=responders)


@dataclasses.dataclass(slots=True, repr=False, eq=False)
class ReceivedInitiation:
    """An initiation whose static key opened: who claims to have sent it. It does not hold our private key.

    First `read_timestamp_untrusted`, which proves the claim; then, when it is to be answered, `respond`.
    """

    initiator: PublicKey
    _ephemeral: bytes
    _timestamp: bytes
    _transcript: _Transcript
    _verified: _Transcript | None = None

    def read_timestamp_untrusted(self, static_static: bytes) -> bytes:
        """The timestamp, 12 bytes. `static_static` is DH(our private key, `initiator`).

        Raises BadPacket (BAD_TAG) when the sender does not have the initiator's private key.
        """
        transcript = self._transcript.copy()
        timestamp = transcript.open(transcript.mix_secret_for_key(static_static), self._timestamp)
        self._verified = transcript
        return timestamp

    def respond(
        self, preshared_key: PresharedKey, ephemeral: PrivateKey
    ) -> tuple[bytes, bytes, TransportKeys]:
        """The response's fields, ephemeral (32 bytes) and nothing (16 bytes), and the session's keys.

        Raises RuntimeError before the timestamp was read. The two secrets it needs cannot come out as zeros:
        they use keys with which others came out well.
        """
        if self._verified is None:
            raise RuntimeError("an initiation is answered only after its timestamp was read")
        transcript = self._verified.copy()
        ephemeral_public = bytes(ephemeral.public_key)
        transcript.mix_ephemeral(ephemeral_public)
        transcript.mix_secret(dh(bytes(ephemeral), self._ephemeral))
        transcript.mix_secret(dh(bytes(ephemeral), bytes(self.initiator)))
        nothing = transcript.seal(transcript.mix_preshared_key(preshared_key), b"")
        initiators, responders = transcript.split()
        return ephemeral_public, nothing, TransportKeys(send=responders, receive=initiators)


def create_initiation(
    private_key: PrivateKey,
    responder: PublicKey,
    static_static: bytes,
    ephemeral: PrivateKey,
    timestamp: bytes,
    *,
    prologue: bytes = IDENTIFIER,
) -> SentInitiation:
    """Begin a handshake with `responder`.

    static_static: DH(`private_key`, `responder`), 32 bytes. timestamp: 12 bytes. ephemeral: used for nothing
    else, ever. Raises BadPacket (BAD_KEY) when the responder's public key is one of low order, with which no
    handshake can be made.
    """
    transcript = _Transcript.begin(responder, prologue)
    ephemeral_public = bytes(ephemeral.public_key)
    transcript.mix_ephemeral(ephemeral_public)
    key = transcript.mix_secret_for_key(dh(bytes(ephemeral), bytes(responder)))
    sealed_static = transcript.seal(key, bytes(private_key.public_key))
    sealed_timestamp = transcript.seal(transcript.mix_secret_for_key(static_static), timestamp)
    return SentInitiation(
        ephemeral_public, sealed_static, sealed_timestamp, transcript, private_key, ephemeral
    )


def open_initiation_untrusted(
    private_key: PrivateKey,
    ephemeral: bytes,
    static: bytes,
    timestamp: bytes,
    *,
    prologue: bytes = IDENTIFIER,
) -> ReceivedInitiation:
    """Learn who claims to have sent an initiation; the fields have 32, 48 and 28 bytes.

    Raises BadPacket (BAD_KEY, BAD_TAG) when it is not an initiation to us.
    """
    transcript = _Transcript.begin(private_key.public_key, prologue)
    transcript.mix_ephemeral(ephemeral)
    key = transcript.mix_secret_for_key(dh(bytes(private_key), ephemeral))
    initiator = PublicKey(transcript.open(key, static))
    return ReceivedInitiation(initiator, bytes(ephemeral), bytes(timestamp), transcript)
