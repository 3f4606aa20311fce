"""What a daemon has counted, as the JSON that `stats=1` answers and that metrics, `top` and `doctor` read.

The format has a version and only grows. There are no keys in it but public ones.
"""

from __future__ import annotations

from typing import Any

from pywg.datapath.base import Bursts
from pywg.device.statistics import PeerStatistics
from pywg.engine import Statistics
from pywg.noise.keys import PublicKey
from pywg.wire.endpoint import Endpoint

VERSION = 1


def to_json(statistics: Statistics, datapath: str, started: float) -> dict[str, Any]:
    """The whole as values that JSON has.

    datapath: which one runs. started: when the daemon did, by the engine's clock.
    """
    return {
        "version": VERSION,
        "datapath": datapath,
        "uptime": round(statistics.now - started, 3),
        "is_up": statistics.is_up,
        "listen_port": statistics.listen_port,
        "mtu": statistics.mtu,
        "drops": dict(sorted(_by_name(statistics).items())),
        "dropped_ago": {reason.value: round(ago, 3) for reason, ago in statistics.dropped_ago.items()},
        "stranger": None if statistics.stranger is None else _stranger(*statistics.stranger),
        "handshake_queue": statistics.queued,
        "under_load": statistics.under_load,
        "loop_lag": round(statistics.lag, 6),
        "bursts": {"out": _bursts(statistics.outgoing), "in": _bursts(statistics.incoming)},
        "peers": [_peer(peer) for peer in statistics.peers],
    }


def _by_name(statistics: Statistics) -> dict[str, int]:
    return {reason.value: count for reason, count in statistics.drops.items()}


def _stranger(key: PublicKey, endpoint: Endpoint, ago: float) -> dict[str, Any]:
    return {"public_key": str(key), "endpoint": str(endpoint), "ago": round(ago, 3)}


def _bursts(bursts: Bursts) -> dict[str, Any]:
    return {
        "count": bursts.count,
        "packets": bursts.packets,
        "seconds": round(bursts.seconds, 6),
        "by_packets": bursts.by_packets,
        "by_microseconds": bursts.by_microseconds,
    }


def _peer(peer: PeerStatistics) -> dict[str, Any]:
    return {
        "public_key": str(peer.public_key),
        "name": peer.name or None,
        "endpoint": None if peer.endpoint is None else str(peer.endpoint),
        "rx_bytes": peer.rx_bytes,
        "tx_bytes": peer.tx_bytes,
        "rx_packets": peer.rx_packets,
        "tx_packets": peer.tx_packets,
        "last_handshake": peer.last_handshake_ns / 1e9 if peer.last_handshake_ns else None,
        "session_age": _rounded(peer.session_age),
        "handshake_round_trip": _rounded(peer.round_trip),
        "waiting_since": _rounded(peer.waiting_since),
        "staged": peer.staged,
        "has_cookie": peer.has_cookie,
        "has_preshared_key": peer.has_preshared_key,
        "persistent_keepalive": peer.persistent_keepalive,
        "clock_ahead": None if peer.clock_ahead is None else round(peer.clock_ahead, 3),
        "allowed_ips_lost": None
        if peer.lost is None
        else {"network": str(peer.lost[0]), "public_key": str(peer.lost[1])},
        "handshakes": {
            "initiations_sent": peer.initiations_sent,
            "initiations_received": peer.initiations_received,
            "completed": peer.completed,
            "gave_up": peer.gave_up,
            "refused": peer.refused,
            "refused_ago": {reason: round(ago, 3) for reason, ago in peer.refused_ago.items()},
        },
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
