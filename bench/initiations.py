"""Handshake initiations made in advance: keys, sources and messages of many peers, all derived from a number.

So whoever sends them needs next to no time per message, and can still check the response to any of them.
Number n belongs to peer n mod `peers`, has the sender index n, and a later timestamp than n - `peers`.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import ipaddress
import os
import pathlib
import time
from hashlib import blake2s

from pywg.noise import tai64n
from pywg.noise.cookie import mac1, mac1_key
from pywg.noise.handshake import SentInitiation, create_initiation
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.noise.primitives import dh
from pywg.wire.messages import Initiation

SIZE = 132
"""Bytes of an initiation with MAC1, without MAC2."""
SOURCES = ipaddress.ip_network("198.18.0.0/15")
"""Peers send from addresses in this network, each from its own."""
FIRST_TIMESTAMP = 1_700_000_000 * 10**9


def _key(kind: str, number: int = 0) -> PrivateKey:
    return PrivateKey(blake2s(f"{kind} {number}".encode()).digest()).clamped()


def hub_key() -> PrivateKey:
    """The key of the program that is to answer."""
    return _key("hub")


def peer_key(peer: int) -> PrivateKey:
    return _key("peer", peer)


def source(peer: int) -> str:
    """The address from which a peer sends."""
    return str(SOURCES[256 + peer])


def inner(peer: int) -> str:
    """The address that is a peer's in the tunnel."""
    return str(ipaddress.IPv4Address("10.128.0.0") + peer)


def configuration(peers: int, port: int) -> str:
    """The hub's, for `wg setconf`."""
    sections = [f"[Interface]\nPrivateKey = {hub_key().base64}\nListenPort = {port}\n"]
    for peer in range(peers):
        public = peer_key(peer).public_key.base64
        sections.append(f"[Peer]\nPublicKey = {public}\nAllowedIPs = {inner(peer)}/32\n")
    return "".join(sections)


@dataclasses.dataclass(frozen=True)
class Sender:
    """One peer, ready to make its initiations."""

    key: PrivateKey
    hub: PublicKey
    static_static: bytes

    @classmethod
    def of(cls, peer: int) -> Sender:
        key, hub = peer_key(peer), hub_key().public_key
        return cls(key, hub, dh(bytes(key), bytes(hub)))

    def initiation(self, number: int) -> SentInitiation:
        timestamp = tai64n.encode(FIRST_TIMESTAMP + number * tai64n.RESOLUTION)
        ephemeral = _key("ephemeral", number)
        return create_initiation(self.key, self.hub, self.static_static, ephemeral, timestamp)

    def message(self, number: int) -> bytes:
        """The initiation of this number without MAC2, SIZE bytes."""
        sent = self.initiation(number)
        message = Initiation(number, sent.ephemeral, sent.static, sent.timestamp).encode_without_macs()
        return message + mac1(mac1_key(self.hub), message)

    def check_response_untrusted(self, number: int, ephemeral: bytes, nothing: bytes) -> None:
        """Raises BadPacket when this is not the hub's response to the initiation of this number."""
        self.initiation(number).read_response_untrusted(PresharedKey.ZERO, ephemeral, nothing)


def _messages(peer: int, peers: int, count: int) -> tuple[int, list[bytes]]:
    sender = Sender.of(peer)
    return peer, [sender.message(number) for number in range(peer, count, peers)]


def prepare(path: pathlib.Path, peers: int, count: int) -> float:
    """Write `count` messages to a file, in the order of their numbers; returns the seconds it took."""
    begun = time.monotonic()
    messages = [b""] * count
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(_messages, peer, peers, count) for peer in range(peers)]
        for job in concurrent.futures.as_completed(jobs):
            peer, made = job.result()
            messages[peer::peers] = made
    path.write_bytes(b"".join(messages))
    return time.monotonic() - begun
