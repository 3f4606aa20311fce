"""A device and its peers as they stand at one moment: what `get=1` answers and `pywg show` prints.

The engine makes these and the UAPI server writes them out; the UAPI client reads them back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network


@dataclasses.dataclass(slots=True)
class PeerSnapshot:
    """One peer.

    preshared_key: `PresharedKey.ZERO` when there is none.
    last_handshake_ns: wall clock, nanoseconds since 1970; 0 = never.
    rx_bytes, tx_bytes: whole messages, as `wg show` counts them.
    persistent_keepalive_interval: seconds; 0 = off.
    """

    public_key: PublicKey
    preshared_key: PresharedKey = dataclasses.field(default_factory=lambda: PresharedKey.ZERO)
    endpoint: Endpoint | None = None
    last_handshake_ns: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    persistent_keepalive_interval: int = 0
    allowed_ips: Sequence[Network] = ()


@dataclasses.dataclass(slots=True)
class DeviceSnapshot:
    """The device. listen_port and fwmark are 0 when there is none."""

    private_key: PrivateKey | None = None
    listen_port: int = 0
    fwmark: int = 0
    peers: Sequence[PeerSnapshot] = ()
