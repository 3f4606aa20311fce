"""What is known of one peer for whoever watches: counts, ages and states, without keys."""

from __future__ import annotations

import dataclasses

from pywg.device.constants import REJECT_AFTER_TIME
from pywg.device.peer import Peer
from pywg.noise import tai64n
from pywg.noise.keys import PublicKey
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network


@dataclasses.dataclass(frozen=True, slots=True)
class PeerStatistics:
    """One peer at one moment.

    name: what people call it, or empty. Bytes count whole messages, packets inner packets and keepalives.
    last_handshake_ns: wall clock, 0: never. session_age: seconds since the current session began; None: there
    is none. round_trip: seconds that the last response to us took. refused: handshake messages that failed a
    check, by the reason's name; refused_ago: seconds since the last of each. waiting_since: seconds since the
    first of our initiations that nobody has answered yet; None: none is. has_cookie: it has asked for one,
    and we have it. clock_ahead: seconds by which its clock seems to be ahead of ours, from its last
    initiation; None: there was none. lost: it has no allowed IPs, since this one, the last, was given to that
    peer.
    """

    public_key: PublicKey
    name: str
    endpoint: Endpoint | None
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    last_handshake_ns: int
    session_age: float | None
    round_trip: float | None
    initiations_sent: int
    initiations_received: int
    completed: int
    gave_up: int
    refused: dict[str, int]
    refused_ago: dict[str, float]
    waiting_since: float | None
    staged: int
    has_cookie: bool
    has_preshared_key: bool
    persistent_keepalive: int
    clock_ahead: float | None
    lost: tuple[Network, PublicKey] | None

    @classmethod
    def of(
        cls, peer: Peer, now: float, wall_ns: int, lost: tuple[Network, PublicKey] | None
    ) -> PeerStatistics:
        """Of this peer, at this time of its device's clock and of the wall clock."""
        counts, current = peer.counts, peer.keypairs.current
        alive = current is not None and now - current.born < REJECT_AFTER_TIME
        return cls(
            public_key=peer.public_key,
            name=peer.name,
            endpoint=peer.endpoint,
            rx_bytes=peer.rx_bytes,
            tx_bytes=peer.tx_bytes,
            rx_packets=counts.rx_packets,
            tx_packets=counts.tx_packets,
            last_handshake_ns=peer.last_handshake_ns,
            session_age=now - current.born if current is not None and alive else None,
            round_trip=counts.round_trip,
            initiations_sent=counts.initiations_sent,
            initiations_received=counts.initiations_received,
            completed=counts.completed,
            gave_up=counts.gave_up,
            refused={reason.value: count for reason, (count, _) in (counts.refused or {}).items()},
            refused_ago={reason.value: now - at for reason, (_, at) in (counts.refused or {}).items()},
            waiting_since=None if peer.silent_since is None else now - peer.silent_since,
            staged=len(peer.staged or ()),
            has_cookie=peer.has_cookie(now),
            has_preshared_key=not peer.preshared_key.is_zero,
            persistent_keepalive=peer.persistent_keepalive,
            clock_ahead=None
            if peer.last_consumed_initiation is None
            else (tai64n.decode(peer.last_timestamp) - wall_ns) / 1e9 + now - peer.last_consumed_initiation,
            lost=lost,
        )
