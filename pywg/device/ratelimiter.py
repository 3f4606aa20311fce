"""A token bucket per address: 20 a second, bursts of 5, an address forgotten after a second of silence.

Stands before the costly part of handshakes when the device is under load (WireGuard paper, section 5.3),
and before ICMP errors. IPv6 sources are limited by /64, for whoever has one address has all of those.
"""

from __future__ import annotations

import socket

PER_SECOND = 20
BURST = 5
FORGET_AFTER = 1.0
TABLE_SIZE = 65_536


class RateLimiter:
    """Allows each address PER_SECOND on average and BURST at once; memory is bounded by TABLE_SIZE."""

    def __init__(self) -> None:
        # Least recently used first: (time of the last visit, tokens left then).
        self._buckets: dict[bytes, tuple[float, float]] = {}

    def allow(self, host: str, now: float) -> bool:
        """Whether one more from the numeric address `host` is allowed; `allow_packed` for packed ones."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return self.allow_packed(socket.inet_pton(family, host), now)

    def allow_packed(self, address: bytes, now: float) -> bool:
        """Whether one more from the address (4 or 16 bytes) is allowed."""
        self._forget_idle(now)
        key = address[:8] if len(address) == 16 else address
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            if len(self._buckets) >= TABLE_SIZE:
                return False
            tokens = float(BURST)
        else:
            tokens = min(float(BURST), bucket[1] + (now - bucket[0]) * PER_SECOND)
        allowed = tokens >= 1.0
        self._buckets[key] = (now, tokens - 1.0 if allowed else tokens)
        return allowed

    def _forget_idle(self, now: float) -> None:
        while self._buckets:
            oldest = next(iter(self._buckets))
            if now - self._buckets[oldest][0] <= FORGET_AFTER:
                return
            del self._buckets[oldest]

    def __len__(self) -> int:
        return len(self._buckets)
