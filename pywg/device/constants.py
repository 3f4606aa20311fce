"""The protocol's constants (WireGuard paper, section 6.1), and the limits that implementations agree on.

Times are seconds.
"""

REKEY_AFTER_MESSAGES = 2**60
REJECT_AFTER_MESSAGES = 2**64 - 2**13 - 1
REKEY_AFTER_TIME = 120.0
REJECT_AFTER_TIME = 180.0
REKEY_ATTEMPT_TIME = 90.0
REKEY_TIMEOUT = 5.0
KEEPALIVE_TIMEOUT = 10.0

REKEY_JITTER_MS = 334
"""Retries wait up to this many milliseconds longer, so that two peers do not keep colliding."""
ZERO_KEYS_AFTER_TIME = 3 * REJECT_AFTER_TIME
INITIATION_INTERVAL = 0.020
"""Of one peer, no more than one initiation is consumed in this time."""

STAGED_PACKETS = 128
HANDSHAKE_QUEUE = 1024
HANDSHAKE_SHARE = HANDSHAKE_QUEUE // 4  # of one source: a flood from one leaves room for others
UNDER_LOAD_QUEUE = HANDSHAKE_QUEUE // 8
UNDER_LOAD_LINGERS = 1.0

HANDSHAKE_TOS = 0x88
"""DSCP AF41, no ECN: what the kernel gives to all three handshake messages."""
