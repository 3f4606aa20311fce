"""What must never happen, told by somebody who sees all machines at once.

The books here are kept from what goes into a tunnel device, comes out of one, or is sealed and opened; they
ask neither the control plane nor the data path whether it is content. The constants are the paper's, stated
again.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Callable

from pywg.errors import DropReason
from pywg.noise.primitives import Buffer, SessionCipher
from tests.spec.world import payload_of

REKEY_TIMEOUT = 5.0
JITTER = 0.334
KEEPALIVE_TIMEOUT = 10.0
REJECT_AFTER_TIME = 180.0
REKEY_ATTEMPT_TIME = 90.0
ERASE_AFTER = 3 * REJECT_AFTER_TIME
STAGED = 128
HANDSHAKE_QUEUE = 1024
TUN_QUEUE = 4096
INBOX = 8192
RATE_TABLE = 65_536
KEYPAIRS = 3
TIMERS = 5
DAY = 86400.0
UNDER_LOAD = (DropReason.RATE_LIMITED, DropReason.QUEUE_FULL)

MARK = struct.Struct("<BIIQ")
"""What the payload of every packet begins with: purpose, machine that sent it, machine meant, number."""
ASK, ANSWER, PROBE, FORGED = range(4)


class Violation(AssertionError):  # noqa: N818  a verdict, as BadPacket is
    """An invariant does not hold."""


@dataclasses.dataclass(slots=True)
class Sent:
    """A packet on its way. hop: how many machines of its way it has reached."""

    checksum: int
    way: tuple[int, ...]
    at: float
    forged: bool
    hop: int = 0


class PacketBook:
    """No packet is delivered twice, altered, to the wrong machine, or with another's source."""

    def __init__(self) -> None:
        self._under_way: dict[int, Sent] = {}
        self._next = 1

    def send(self, make: Callable[[int], bytes], way: tuple[int, ...], now: float, *, forged: bool) -> bytes:
        """Enter a packet, which `make` makes of its number, and return it. way: machines it should reach."""
        number = self._next
        self._next += 1
        packet = make(number)
        self._under_way[number] = Sent(zlib.crc32(packet), way, now, forged)
        while self._under_way:  # what was lost
            oldest = next(iter(self._under_way))
            if now - self._under_way[oldest].at < DAY:
                break
            del self._under_way[oldest]
        return packet

    def arrived(self, machine: int, packet: bytes) -> tuple[int, int, float] | None:
        """It came out at a machine. At its end: purpose, sender, and when it was sent; else None."""
        payload = payload_of(packet)
        if len(payload) < MARK.size:
            raise Violation(f"a packet that nobody sent came out at machine {machine}: {packet.hex()}")
        purpose, sender, meant, number = MARK.unpack_from(payload)
        what = f"packet {number} from machine {sender} to machine {meant}"
        if not 0 < number < self._next:
            raise Violation(f"{what} was never sent, and came out at machine {machine}")
        sent = self._under_way.get(number)
        if sent is None or machine in sent.way[: sent.hop]:
            raise Violation(f"{what} was delivered twice, or a day late, at machine {machine}")
        if sent.forged:
            raise Violation(f"{what} has a source outside the allowed IPs, and came out at machine {machine}")
        if machine != sent.way[sent.hop]:
            raise Violation(f"{what} was delivered to the wrong peer, machine {machine}")
        if zlib.crc32(packet) != sent.checksum:
            raise Violation(f"{what} was altered on its way to machine {machine}")
        sent.hop += 1
        if sent.hop < len(sent.way):
            return None
        del self._under_way[number]
        return purpose, sender, sent.at

    def __len__(self) -> int:
        return len(self._under_way)


class KeyBook:
    """No counter is used twice under one key, and no key is used at or after REJECT_AFTER_TIME."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._greatest: dict[bytes, int] = {}

    def begin(self, name: str, key: bytes) -> None:
        """A session begins to seal with this key."""
        if key in self._greatest:
            raise Violation(f"{name} seals with a key that was used before")
        self._greatest[key] = -1

    def sealer(self, name: str, key: bytes, limit: int, cipher: SessionCipher) -> WatchedSealer:
        """What seals for a session that begins now and has this message limit."""
        self.begin(name, key)
        return WatchedSealer(self, name, key, self._now(), limit, cipher)

    def opener(self, name: str, cipher: SessionCipher) -> WatchedOpener:
        """What opens for a session that begins now."""
        return WatchedOpener(self, name, self._now(), cipher)

    def sealed(self, name: str, key: bytes, born: float, limit: int, counter: int) -> None:
        """A counter was used."""
        if counter <= self._greatest[key]:
            raise Violation(f"{name} used counter {counter} under one key again")
        if counter >= limit:
            raise Violation(f"{name} used counter {counter}, which is past the limit of {limit}")
        self._greatest[key] = counter
        self._check_age(name, born, "sealed")

    def opened(self, name: str, born: float) -> None:
        """A message was opened."""
        self._check_age(name, born, "opened")

    def _check_age(self, name: str, born: float, did: str) -> None:
        age = self._now() - born
        if age >= REJECT_AFTER_TIME:
            raise Violation(f"{name} {did} with a key {age:.3f} s old")


@dataclasses.dataclass(slots=True)
class WatchedSealer:
    """A session's cipher for sending, with the book told."""

    book: KeyBook
    name: str
    key: bytes
    born: float
    limit: int
    cipher: SessionCipher

    def seal_into(self, counter: int, plaintext: Buffer, out: bytearray | memoryview) -> None:
        self.book.sealed(self.name, self.key, self.born, self.limit, counter)
        self.cipher.seal_into(counter, plaintext, out)


@dataclasses.dataclass(slots=True)
class WatchedOpener:
    """A session's cipher for receiving, with the book told of what it could open."""

    book: KeyBook
    name: str
    born: float
    cipher: SessionCipher

    def open_into(self, counter: int, ciphertext: Buffer, out: bytearray | memoryview) -> None:
        self.cipher.open_into(counter, ciphertext, out)
        self.book.opened(self.name, self.born)


def at_most(limit: int, count: int, what: str, name: str) -> None:
    """Memory stays bounded."""
    if count > limit:
        raise Violation(f"{name} has {count} {what}, more than {limit}")
