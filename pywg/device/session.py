"""What the control plane tells the data plane, and what it hears back: the values both sides share.

`device` hands out effects and takes reports; `datapath` takes sessions and routes and makes reports.
Times are seconds of the clock that counts suspended time.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import NewType, TypeAlias

from pywg.errors import DropReason
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

PeerId = NewType("PeerId", int)
"""A number that the device gives to each peer; never given twice by one device."""


@dataclasses.dataclass(slots=True, eq=False)
class Session:
    """Everything the data plane needs to carry packets under one keypair.

    local_index: ours; the receiver index of what arrives. remote_index: theirs; goes into what we send.
    send_key, receive_key: 32 bytes each.
    born, expires: the session neither sends nor receives from `expires` on (paper, section 6.1).
    message_limit: REJECT_AFTER_MESSAGES; counters below it are used, none at or past it.
    rekey_limit: REKEY_AFTER_MESSAGES; reaching it is reported once.
    may_send: false for a responder's session that its initiator has not confirmed yet.
    """

    peer: PeerId
    local_index: int
    remote_index: int
    send_key: bytes = dataclasses.field(repr=False)
    receive_key: bytes = dataclasses.field(repr=False)
    initiator: bool
    born: float
    expires: float
    message_limit: int
    rekey_limit: int
    may_send: bool


# --- Effects: what the device wants done, in order. -------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class SendDatagram:
    """Send one handshake message, with the outer TOS byte (IPv6: traffic class) `tos`."""

    datagram: bytes
    endpoint: Endpoint
    tos: int


@dataclasses.dataclass(frozen=True, slots=True)
class InstallSession:
    """Carry packets under this session; when it may send, it becomes the one its peer sends with."""

    session: Session


@dataclasses.dataclass(frozen=True, slots=True)
class ActivateSession:
    """A responder's session is confirmed: its peer sends with it from now on."""

    local_index: int


@dataclasses.dataclass(frozen=True, slots=True)
class RetireSession:
    """Forget the session and its keys."""

    local_index: int


@dataclasses.dataclass(frozen=True, slots=True)
class SendPackets:
    """Send these inner packets under the peer's current session; none of them means one keepalive."""

    peer: PeerId
    packets: Sequence[bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class SetEndpoint:
    """Send the peer's packets there from now on; None: nowhere."""

    peer: PeerId
    endpoint: Endpoint | None


@dataclasses.dataclass(frozen=True, slots=True)
class AddRoutes:
    """Packets to these networks go to the peer, and it may send from them; other peers lose them."""

    peer: PeerId
    networks: Sequence[Network]


@dataclasses.dataclass(frozen=True, slots=True)
class RemoveRoutes:
    """These networks belong to the peer no longer; one that belongs to another peer by now stays there."""

    peer: PeerId
    networks: Sequence[Network]


@dataclasses.dataclass(frozen=True, slots=True)
class SetIdentity:
    """Check MAC1 of arriving handshake messages with this key (32 bytes); None: drop them all."""

    mac1_key: bytes | None


@dataclasses.dataclass(frozen=True, slots=True)
class AskForCookies:
    """Hand up handshake messages with a right MAC2 only, and answer the others with a cookie.

    secret: makes cookies of sources. cookie_key: seals them. 32 bytes each. until: seconds, when that ends.
    """

    secret: bytes = dataclasses.field(repr=False)
    cookie_key: bytes = dataclasses.field(repr=False)
    until: float


@dataclasses.dataclass(frozen=True, slots=True)
class WriteTun:
    """Write these packets (ICMP errors) into the tunnel device."""

    packets: Sequence[bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class HandshakeGaveUp:
    """No answer in REKEY_ATTEMPT_TIME; told for logs and for whoever watches."""

    peer: PeerId


Effect: TypeAlias = (
    SendDatagram
    | InstallSession
    | ActivateSession
    | RetireSession
    | SendPackets
    | SetEndpoint
    | AddRoutes
    | RemoveRoutes
    | SetIdentity
    | AskForCookies
    | WriteTun
    | HandshakeGaveUp
)

# --- Reports: what the data plane saw since the last drain. -----------------------------------------------


@dataclasses.dataclass(slots=True)
class Activity:
    """One session's traffic since the last drain; a session that carried nothing has none.

    Bytes count whole messages, header and tag included, as `wg show` does; a keepalive counts too.
    `any` times are of the last message, keepalives included. `data` is a message with a packet in it.
    unanswered_since: first data sent after the last message received in this report (in it at all: if none).
    unacknowledged_since: first data received after the last message sent in this report, likewise.
    """

    local_index: int
    peer: PeerId
    sent_bytes: int = 0
    sent_packets: int = 0
    received_bytes: int = 0
    received_packets: int = 0
    any_sent: float | None = None
    any_received: float | None = None
    data_sent: float | None = None
    data_received: float | None = None
    unanswered_since: float | None = None
    unacknowledged_since: float | None = None
    first_use: bool = False  # the first message ever was received under this session
    rekey_limit_reached: bool = False
    exhausted: bool = False  # its counter is at message_limit: it sends no more


@dataclasses.dataclass(slots=True)
class Report:
    """What `DataPath.drain` gives.

    control: handshake messages whose size and MAC1 are right, and where they came from.
    no_session: packets from the tunnel device whose peer has no session that may send.
    no_route: packets from the tunnel device that no allowed IP covers; a few, the rest is counted.
    moved: peers whose authenticated packets arrived from a new endpoint; the data plane has followed already.
    more: more is waiting than was handed up at once; drain again soon.
    """

    control: list[tuple[bytes, Endpoint]] = dataclasses.field(default_factory=list)
    no_session: list[tuple[PeerId, list[bytes]]] = dataclasses.field(default_factory=list)
    no_route: list[bytes] = dataclasses.field(default_factory=list)
    activity: list[Activity] = dataclasses.field(default_factory=list)
    moved: list[tuple[PeerId, Endpoint]] = dataclasses.field(default_factory=list)
    drops: Counter[DropReason] = dataclasses.field(default_factory=Counter)
    more: bool = False
