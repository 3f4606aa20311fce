"""The contract of the data plane: whole bursts between the tunnel device and the UDP sockets.

Two implementations: `portable` (pure Python, and the specification) and `compiled` (Linux). The data plane
knows sessions, endpoints and routes because it was told; it decides nothing about handshakes, and hands up
what it cannot carry. The rules that both keep:

- Counters are handed out in order within a session; packets of one flow leave in the order they came.
- Nothing is sent or accepted at or after `Session.expires`, nor with a counter at or past `message_limit`.
- The replay window and the endpoint are touched only after the tag was verified. The inner source address
  must belong, by longest prefix, to the peer whose session opened the packet.
- Floods stop here: wrong sizes, wrong MAC1 and unknown indices are counted and dropped without handing up,
  and hand-ups are bounded (`HANDUP_LIMIT` each of control messages and packets per drain). While the device
  is under load, `compiled` asks for cookies too; `portable` leaves that to the device.
- Plaintext is padded with zeros to a multiple of 16, never past the MTU.
- ECN is carried as in RFC 6040: copied to the outer header, and on arrival combined with the inner one; a
  packet whose inner header says Not-ECT and whose outer says CE is dropped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from pywg.bind.base import Bind
from pywg.datapath.tap import Tapped, Wanted
from pywg.device.session import PeerId, Report, Session
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

HANDUP_LIMIT = 1024
"""Control messages, and packets without a session, that wait for one drain at the most."""

HANDUP_SHARE = 256
"""Of these, control messages that `messages.shared_with` counts as one: a flood leaves room for others.

As many are answered with a cookie, where the data path does that.
"""

BURST = 64
"""Frames taken from the tunnel device, and reads taken from the sockets, in one step."""


BURST_BUCKETS = 16
"""Buckets of the histograms in `Bursts`."""


@dataclasses.dataclass(slots=True)
class Bursts:
    """The bursts of one direction since the start, one with nothing in it not counted.

    by_packets, by_microseconds: histograms of BURST_BUCKETS buckets; bucket i counts the bursts whose number
    of packets, or of microseconds, is below 2**i and in no bucket before; the last has all larger ones.
    """

    count: int = 0
    packets: int = 0
    seconds: float = 0.0
    by_packets: list[int] = dataclasses.field(default_factory=lambda: [0] * BURST_BUCKETS)
    by_microseconds: list[int] = dataclasses.field(default_factory=lambda: [0] * BURST_BUCKETS)

    def add(self, packets: int, seconds: float) -> None:
        """Count one burst."""
        self.count += 1
        self.packets += packets
        self.seconds += seconds
        self.by_packets[_bucket(packets)] += 1
        self.by_microseconds[_bucket(int(seconds * 1e6))] += 1


def _bucket(value: int) -> int:
    return min(value.bit_length(), BURST_BUCKETS - 1)


class DataPath(Protocol):
    """One data plane, between one tunnel device and (when the device is up) one bind."""

    def start(self) -> None:
        """Begin to carry packets; `fileno` works from here on."""

    def close(self) -> None:
        """Stop and forget all keys; the tunnel device and the bind stay open. Closing twice is harmless."""

    def fileno(self) -> int:
        """Readable when `drain` (for portable: `step`, then `drain`) has something to do.

        That is: for everything in a report but `activity` and `drops` at once; for `activity`, when the
        last drain reported none. While drains report activity, whoever drains comes back within a second.
        """

    def set_bind(self, bind: Bind | None) -> None:
        """Use these sockets from now on; None: the device is down, packets from it are dropped."""

    def set_mtu(self, mtu: int) -> None:
        """The tunnel device's MTU, the limit of padding."""

    def set_identity(self, mac1_key: bytes | None) -> None:
        """The key of MAC1 on messages to us (32 bytes); None: drop all handshake messages with a MAC1."""

    def ask_for_cookies(self, secret: bytes, cookie_key: bytes, until: float) -> None:
        """Be the first to answer handshake messages without a right MAC2, until then (paper, section 5.4.7).

        Each is counted as UNDER_LOAD instead of being handed up, and gets a cookie reply, from where it
        arrived. secret, cookie_key: 32 bytes each, for making cookies and for sealing them; those of the last
        call count, and none after `set_identity`. A data path may leave all of this to the control plane.
        """

    def install(self, session: Session) -> None:
        """Receive under this session and, if it may send, make it the one its peer sends with.

        One that may not send yet becomes that with the first message that arrives under it, if the one in
        use is older: the answer to that message must not go under keys that the peer may have lost.
        """

    def activate(self, local_index: int) -> None:
        """Make an installed session the one its peer sends with. Unknown indices are ignored."""

    def retire(self, local_index: int) -> None:
        """Forget a session and its keys. Unknown indices are ignored."""

    def set_endpoint(self, peer: PeerId, endpoint: Endpoint | None) -> None:
        """Where the peer's packets go; a move that was seen before and not yet reported is forgotten."""

    def add_routes(self, peer: PeerId, networks: Sequence[Network]) -> None:
        """These networks belong to the peer, and no longer to another."""

    def remove_routes(self, peer: PeerId, networks: Sequence[Network]) -> None:
        """These networks no longer belong to the peer; those that belong to another stay."""

    def send(self, peer: PeerId, packets: Sequence[bytes], now: float) -> None:
        """Send packets that were staged, or without any: one keepalive.

        Packets come back as `Report.no_session` when the peer has no session that may send by now.
        """

    def inject(self, packets: Sequence[bytes]) -> None:
        """Write packets (no virtio_net_hdr) into the tunnel device."""

    def drain(self, now: float) -> Report:
        """What happened since the last drain."""

    def set_tap(self, wanted: Wanted | None) -> None:
        """Copy what passes and what is dropped from now on; None: no longer, and forget what was kept."""

    def take_tapped(self) -> tuple[list[Tapped], int]:
        """What was copied since the last time, and how many found no room.

        Order is kept within a direction. A packet that is dropped for want of a session is not among it: it
        waits for one in the control plane.
        """

    def bursts(self) -> tuple[Bursts, Bursts]:
        """The bursts so far: from the tunnel device to the sockets, and from these to it."""

    def step(self, now: float) -> bool:
        """Move one burst each way in the caller's thread; True when something was moved.

        A data path whose own threads have been started has nothing to do here. Raises TunGoneError when
        the tunnel device was removed.
        """
