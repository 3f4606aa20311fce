"""The two kinds of error: the caller's, which is told in a sentence, and the network's, which is counted.

`BadPacket` is raised by functions whose names end in `_untrusted` and is always caught inside the
device or the data path, which count its reason; it never reaches a user.
"""

from __future__ import annotations

import enum


class PywgError(Exception):
    """A mistake of the caller or of the system; the message is a sentence for a person."""


def printable(text: str) -> str:
    """`text` on one line, with an escape in place of every character that does not print."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class DropReason(enum.Enum):
    """Why a datagram or a packet went no further. The value is the reason's name in statistics and logs."""

    # A datagram that is no message of the protocol.
    EMPTY = "empty"
    TRUNCATED = "truncated"
    OVERSIZED = "oversized"
    UNKNOWN_TYPE = "unknown-type"
    RESERVED_BITS = "reserved-bits"
    # A handshake message that failed a check.
    BAD_MAC1 = "bad-mac1"
    BAD_TAG = "bad-tag"
    BAD_KEY = "bad-key"
    UNKNOWN_PEER = "unknown-peer"
    UNKNOWN_INDEX = "unknown-index"
    NO_PRIVATE_KEY = "no-private-key"
    OLD_TIMESTAMP = "old-timestamp"
    INITIATION_FLOOD = "initiation-flood"
    UNEXPECTED = "unexpected"
    QUEUE_FULL = "queue-full"
    UNDER_LOAD = "under-load"
    RATE_LIMITED = "rate-limited"
    # A data message that failed a check.
    EXPIRED_SESSION = "expired-session"
    REPLAYED = "replayed"
    NOT_AN_IP_PACKET = "not-an-ip-packet"
    SOURCE_NOT_ALLOWED = "source-not-allowed"
    ECN = "ecn"
    # A packet from the tunnel device that could not be sent.
    BAD_OFFLOAD = "bad-offload"
    NO_ROUTE = "no-route"
    NO_ENDPOINT = "no-endpoint"
    HANDSHAKE_GAVE_UP = "handshake-gave-up"
    STAGED_OVERFLOW = "staged-overflow"
    SEND_FAILED = "send-failed"
    TUN_WRITE_FAILED = "tun-write-failed"
    DEVICE_DOWN = "device-down"


class BadPacket(Exception):  # noqa: N818  a verdict on bytes from the network, not a fault of ours
    """Bytes from the network that are dropped, and why."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason.value)
        self.reason = reason
