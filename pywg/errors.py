"""The two kinds of error: the caller's, which is told in a sentence, and the network's, which is counted.

`BadPacket` is raised by functions whose names end in `_untrusted` and is always caught inside the
device or the data path, which count its reason; it never reaches a user.
"""

from __future__ import annotations

import enum
import errno
from typing import TypeGuard


class PywgError(Exception):
    """A mistake of the caller or of the system; the message is a sentence for a person."""


def printable(text: str) -> str:
    """`text` on one line, with an escape in place of every character that does not print."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


_REMEDIES = {
    errno.EMFILE: "; `ulimit -n` tells how many files this program may have open, and sets it",
    errno.ENFILE: "; the whole system has too many files open: `sysctl fs.file-nr` tells how many",
    errno.ENOMEM: "; the system has no memory left: `free -m` tells how much",
    errno.ENOBUFS: "; the kernel has no memory left for it: `free -m` tells how much",
}


def is_shortage(code: int | None) -> TypeGuard[int]:
    """Whether this errno says that the system, or this process, has run out of something."""
    return code in _REMEDIES


def remedy(code: int | None) -> str:
    """What to do about a shortage, to stand behind the system's words for this errno; empty for others."""
    return _REMEDIES.get(code or 0, "")


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
