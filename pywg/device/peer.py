"""What the device knows of one peer. Only state lives here; what happens to it is in `device.py`."""

from __future__ import annotations

from collections import deque

from pywg.device.keypair import Keypairs
from pywg.device.session import PeerId
from pywg.errors import DropReason
from pywg.noise import primitives
from pywg.noise.cookie import CookieJar
from pywg.noise.handshake import SentInitiation
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wire.endpoint import Endpoint


class Counts:
    """What happened with a peer since it was added; handshakes by outcome, and inner packets.

    refused: how many handshake messages of this peer failed a check, by reason, and when the last one did;
    None: there was none.
    round_trip: seconds from our last answered initiation to its response; None: none was answered yet.
    """

    __slots__ = (
        "completed",
        "gave_up",
        "initiations_received",
        "initiations_sent",
        "refused",
        "round_trip",
        "rx_packets",
        "tx_packets",
    )

    def __init__(self) -> None:
        self.initiations_sent = 0
        self.initiations_received = 0
        self.completed = 0
        self.gave_up = 0
        self.refused: dict[DropReason, tuple[int, float]] | None = None
        self.round_trip: float | None = None
        self.rx_packets = 0
        self.tx_packets = 0


class Peer:
    """One peer of a device.

    Times are seconds of the device's clock, None for never; `last_handshake_ns` is wall clock, 0 for never.
    """

    __slots__ = (
        "_cookies",
        "_static_static",
        "attempts_since",
        "counts",
        "endpoint",
        "handshake",
        "handshake_index",
        "id",
        "keypairs",
        "last_consumed_initiation",
        "last_handshake_ns",
        "last_sent_initiation",
        "last_timestamp",
        "name",
        "persistent_keepalive",
        "preshared_key",
        "public_key",
        "rekeyed_at_last_minute",
        "rx_bytes",
        "silent_since",
        "staged",
        "tx_bytes",
    )

    def __init__(self, peer_id: PeerId, public_key: PublicKey) -> None:
        self.id = peer_id
        self.public_key = public_key
        self.name = ""  # what people call it
        self.preshared_key = PresharedKey.ZERO
        self.endpoint: Endpoint | None = None
        self.persistent_keepalive = 0
        self.keypairs = Keypairs()
        self.staged: deque[bytes] | None = None  # made when something is staged: most peers are idle
        self.rx_bytes = 0
        self.tx_bytes = 0
        self.counts = Counts()
        self.last_handshake_ns = 0

        # Our initiation that waits for its response.
        self.handshake: SentInitiation | None = None
        self.handshake_index: int | None = None
        self.last_sent_initiation: float | None = None
        self.attempts_since: float | None = None  # the last packet that wanted a handshake
        self.silent_since: float | None = None  # the first initiation since the peer was heard from
        self.rekeyed_at_last_minute = False

        # Their initiations.
        self.last_timestamp = bytes(12)
        self.last_consumed_initiation: float | None = None

        self._static_static: tuple[PrivateKey, bytes] | None = None
        self._cookies: CookieJar | None = None

    @property
    def cookies(self) -> CookieJar:
        """The cookies this peer gave us, and what stamps MACs on our handshake messages to it."""
        if self._cookies is None:
            self._cookies = CookieJar(self.public_key)
        return self._cookies

    def has_cookie(self, now: float) -> bool:
        """Whether the peer has asked for a cookie that we can bring now."""
        return self._cookies is not None and self._cookies.is_fresh(now)

    def static_static(self, private_key: PrivateKey) -> bytes:
        """DH of our static key and the peer's, computed once per private key of ours.

        Raises BadPacket (BAD_KEY) for a low-order public key: such a peer never completes a handshake.
        """
        if self._static_static is None or self._static_static[0] is not private_key:
            shared = primitives.dh(bytes(private_key), bytes(self.public_key))
            self._static_static = (private_key, shared)
        return self._static_static[1]

    @property
    def short_key(self) -> str:
        """The first and the last four letters of its public key in base64."""
        text = str(self.public_key)
        return f"{text[:4]}…{text[39:43]}"

    def __repr__(self) -> str:
        return f"peer {self.name} ({self.short_key})" if self.name else f"peer({self.short_key})"
