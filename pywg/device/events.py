"""What happens to a device and its peers, as told to whoever watches: logs, event streams, probes.

An event is made only while somebody watches; what is counted always is in `Peer.counts` and `Device.drops`.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Protocol

from pywg.errors import DropReason
from pywg.noise.keys import PublicKey
from pywg.wire.endpoint import Endpoint

if TYPE_CHECKING:
    from pywg.device.peer import Peer


class EventKind(enum.Enum):
    """What happened. The value is its name in streams and logs; new ones may come, none goes."""

    INITIATION_SENT = "initiation-sent"
    RESPONSE_SENT = "response-sent"
    """An initiation was accepted and answered; the session waits for its first message."""
    RESPONSE_RECEIVED = "response-received"
    """Our initiation was answered: the session is up."""
    SESSION_CONFIRMED = "session-confirmed"
    """The first message arrived under a session that we answered for: it is up."""
    SESSION_RETIRED = "session-retired"
    COOKIE_RECEIVED = "cookie-received"
    HANDSHAKE_REFUSED = "handshake-refused"
    """A handshake message of a known peer failed a check; the detail is the reason of the drop."""
    STRANGER = "stranger"
    """An initiation for us by a key that is no peer's; `peer` is that key."""
    HANDSHAKE_GAVE_UP = "handshake-gave-up"
    NO_ANSWER = "no-answer"
    """Data went out and nothing came back: a new handshake begins."""
    KEYS_FORGOTTEN = "keys-forgotten"
    ENDPOINT_MOVED = "endpoint-moved"
    UNDER_LOAD = "under-load"
    """Handshake messages come faster than they are handled: cookies are asked for from now on."""
    PEER_ADDED = "peer-added"
    PEER_REMOVED = "peer-removed"
    DEVICE_UP = "device-up"
    DEVICE_DOWN = "device-down"


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One event; `text` says it in words, without the peer's name.

    peer, name: whose, if it is about one, and what people call it. endpoint: where that peer is, or where the
    message came from. detail: the reason, the old endpoint, ...: as the kind tells; may be empty.
    """

    kind: EventKind
    text: str
    peer: PublicKey | None = None
    name: str = ""
    endpoint: Endpoint | None = None
    detail: str = ""


class Probes(Protocol):
    """Where tracers look in. It is told of everything, always: it is to be quick while nobody traces.

    initiator: whether the handshake is one that we began.
    """

    def handshake_begin(self, peer: Peer, initiator: bool) -> None:
        """An initiation was sent, or one was accepted and answered."""

    def handshake_end(self, peer: Peer, initiator: bool) -> None:
        """The session is up: our initiation was answered, or the first message came after our answer."""

    def handshake_give_up(self, peer: Peer) -> None:
        """No initiation was answered for as long as we try."""

    def session_install(self, peer: Peer, local_index: int, initiator: bool) -> None:
        """A session can receive, and its initiator can send."""

    def session_retire(self, peer: Peer, local_index: int) -> None:
        """A session and its keys are forgotten."""

    def drop(self, reason: DropReason, count: int, outgoing: bool) -> None:
        """So many packets (outgoing) or handshake messages went no further."""
