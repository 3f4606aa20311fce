"""What is fuzzed, as functions of bytes: each checks properties, and an exception out of it is a finding.

They need no fuzzer: `fuzz.py` gives them to atheris (libFuzzer), `tests/unit/test_fuzz_corpora.py` plays the
kept corpora on them. Bytes that run out read as zeros, so every input is a whole one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import functools
import io
import ipaddress
import itertools
import json
import logging
import pathlib
import random
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

import nacl.bindings

from pywg.cli.capture import Blocks
from pywg.config.change import device_change
from pywg.config.model import Config, Dialect, merge_peers, strip
from pywg.config.parse import parse
from pywg.config.phone import for_phone
from pywg.config.plain import plain_text
from pywg.config.positions import ConfigError, value_of
from pywg.config.settle import settle_allowed_ips
from pywg.config.write import write
from pywg.datapath import offload
from pywg.datapath.portable import PortableDataPath
from pywg.datapath.tap import Tapped
from pywg.errors import BadPacket, DropReason, PywgError
from pywg.host import nft, resolvfile, state
from pywg.host.routing import Rule
from pywg.noise import cookie, handshake, tai64n
from pywg.noise.keys import PresharedKey, PrivateKey
from pywg.noise.primitives import dh
from pywg.observe import pcapng, watching
from pywg.observe.eventstream import in_words
from pywg.observe.services import services
from pywg.tun import netlink
from pywg.tun.base import TunOffload
from pywg.uapi import client
from pywg.uapi.error import UapiError
from pywg.uapi.format import UNKNOWN_ERROR, format_get, format_set, parse_get, parse_status
from pywg.uapi.listen import listen
from pywg.uapi.server import UapiServer
from pywg.wire import ip, messages
from pywg.wire.endpoint import Endpoint
from tests import twins
from tests.spec.world import COOKIE_REPLY, DATA, INITIATION, RESPONSE, Host, Puppet, World, udp_packet

try:
    from pywg.datapath import compiled
except ImportError:  # built nowhere but on Linux
    compiled = None  # type: ignore[assignment]

MAC1_KEY = bytes(range(32))
FORGER = Endpoint("203.0.113.66", 666)


class Input:
    """Numbers and pieces taken off the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def bytes(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        self._at = min(self._at + size, len(self._data))
        return piece

    def number(self, size: int = 1) -> int:
        return int.from_bytes(self.bytes(size), "little")

    def piece(self, limit: int = 0xFFFF) -> bytes:
        """As many bytes as the next two say."""
        return self.bytes(min(self.number(2), limit))

    def rest(self) -> bytes:
        return self.bytes(self.left)


class Choices(random.Random):
    """A `random.Random` whose choices are the input's, so that a fuzzer steers what is made of them."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self.input = Input(data)

    def getrandbits(self, k: int) -> int:
        return self.input.number((k + 7) // 8) & ((1 << k) - 1)

    def random(self) -> float:
        return self.input.number(2) / 65536


def altered(whole: bytes, changes: bytes) -> bytes:
    """`whole`, xored with pairs of (place, value); the place counts from the end when above 127."""
    out = bytearray(whole)
    for place, value in zip(changes[::2], changes[1::2], strict=False):
        if out:
            out[(place if place < 128 else place - 256) % len(out)] ^= value
    return bytes(out)


# --- Bytes from the network. ------------------------------------------------------------------------------


def parse_messages(data: bytes) -> None:
    try:
        message = messages.parse_untrusted(data)
    except BadPacket:
        return
    assert message.encode() == data


def messages_seeds() -> Iterator[bytes]:
    for kind, size in messages.MESSAGE_SIZES.items():
        yield bytes([kind, 0, 0, 0]) + bytes(range(size - 4))
    yield b"\4\0\0\0" + bytes(range(28))
    yield b"\4\0\0\0" + bytes(range(92))


def ip_headers(data: bytes) -> None:
    """One byte chooses an ECN codepoint, the rest is the packet."""
    codepoint, packet = data[:1], data[1:]
    answer = ip.unreachable(packet)
    try:
        source, destination, length = ip.header_untrusted(packet)
    except BadPacket as bad:
        assert bad.reason is DropReason.NOT_AN_IP_PACKET
        assert answer is None
        return
    assert ip.source_and_destination_untrusted(packet) == (source, destination)
    assert len(source) == len(destination) == (4 if packet[0] >> 4 == 4 else 16)
    assert 20 <= length <= len(packet)
    wanted = (codepoint[0] if codepoint else 0) & 3
    marked = bytearray(packet)
    ip.set_ecn(marked, wanted)
    assert ip.ecn(marked) == wanted
    was_right = packet[0] >> 4 == 4 and ip.internet_checksum(packet[:20]) == 0
    assert not was_right or ip.internet_checksum(marked[:20]) == 0
    if answer is not None:
        assert ip.header_untrusted(answer) == (destination, source, len(answer))
        assert len(answer) <= (576 if len(source) == 4 else 1280)
        assert ip.unreachable(answer) is None, "an error is never answered by an error"
        if len(source) == 4:
            assert ip.internet_checksum(answer[:20]) == ip.internet_checksum(answer[20:]) == 0
        else:
            pseudo = ip.pseudo_header(destination, source, 58, len(answer) - 40)
            assert ip.internet_checksum(pseudo + answer[40:]) == 0


def ip_seeds() -> Iterator[bytes]:
    for source, destination in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")):
        for protocol in (6, 17, 1, 58):
            yield b"\1" + twins.packet(source, destination, b"payload", protocol=protocol)
    quoted = ip.unreachable(udp_packet("fd00::1", "fd00::2"))
    assert quoted is not None
    yield b"\0" + quoted
    for chain in (b"\x3c\0" + bytes(6), b"\x11\0" + bytes(6), b"\x2c\0\0\x08" + bytes(4)):
        yield b"\0" + struct.pack("!IHBB", 6 << 28, 16, 0, 64) + bytes(range(32)) + chain + bytes(8)


@functools.cache
def _handshake() -> tuple[PrivateKey, PrivateKey, handshake.SentInitiation, bytes, bytes, bytes]:
    """Both sides' keys, an initiation, its response's two fields, and the session's first key."""
    source = random.Random(1)
    ours, theirs = PrivateKey.generate(source.randbytes), PrivateKey.generate(source.randbytes)
    shared = dh(bytes(ours), bytes(theirs.public_key))
    sent = handshake.create_initiation(
        ours, theirs.public_key, shared, PrivateKey.generate(source.randbytes), tai64n.encode(10**18)
    )
    received = handshake.open_initiation_untrusted(theirs, sent.ephemeral, sent.static, sent.timestamp)
    received.read_timestamp_untrusted(shared)
    ephemeral, nothing, keys = received.respond(PresharedKey.ZERO, PrivateKey.generate(source.randbytes))
    return ours, theirs, sent, ephemeral, nothing, keys.receive


def noise(data: bytes) -> None:
    """Fields of handshake messages with changes: only those without any change are taken."""
    choice, changes = data[:1] or b"\0", data[1:]
    ours, theirs, sent, ephemeral, nothing, key = _handshake()
    shared = dh(bytes(ours), bytes(theirs.public_key))
    if choice[0] % 3 == 0:
        whole = sent.ephemeral + sent.static + sent.timestamp
        fields = altered(whole, changes)
        try:
            received = handshake.open_initiation_untrusted(theirs, fields[:32], fields[32:80], fields[80:])
            assert fields[:80] == whole[:80]
            assert received.initiator == ours.public_key
            received.read_timestamp_untrusted(shared)
        except BadPacket as bad:
            assert bad.reason in (DropReason.BAD_TAG, DropReason.BAD_KEY)
            assert fields != whole
        else:
            assert fields == whole
    elif choice[0] % 3 == 1:
        whole = ephemeral + nothing
        fields = altered(whole, changes)
        try:
            keys = sent.read_response_untrusted(PresharedKey.ZERO, fields[:32], fields[32:])
        except BadPacket as bad:
            assert bad.reason in (DropReason.BAD_TAG, DropReason.BAD_KEY)
            assert fields != whole
        else:
            assert fields == whole
            assert keys.send == key
    else:
        jar, checker = cookie.CookieJar(theirs.public_key), cookie.CookieChecker(theirs.public_key, bytes)
        message = jar.stamp(bytes(116), 0.0)
        nonce, sealed = checker.create_reply(message, b"source", 0.0)
        fields = altered(nonce + sealed, changes)
        try:
            jar.consume_reply_untrusted(fields[:24], fields[24:], 0.0)
        except BadPacket as bad:
            assert bad.reason is DropReason.BAD_TAG
            assert fields != nonce + sealed
        else:
            assert fields == nonce + sealed
            assert checker.check_mac2(jar.stamp(bytes(116), 1.0), b"source", 1.0)
            with contextlib.suppress(BadPacket):
                jar.consume_reply_untrusted(nonce, sealed, 1.0)  # another message's


def noise_seeds() -> Iterator[bytes]:
    for choice in range(3):
        yield bytes([choice])
        yield bytes([choice, 0, 1])
        yield bytes([choice, 255, 1])
        yield bytes([choice]) + b"".join(bytes([place, 255]) for place in range(32))


@functools.cache
def _remember_keys() -> None:
    """Of one world's keys most come again in the next one, and so do what is agreed with them.

    That takes half of a world's time. The functions have no state, so nothing else changes.
    """
    bindings = nacl.bindings
    for name in ("crypto_scalarmult", "crypto_scalarmult_base"):
        setattr(bindings, name, functools.lru_cache(1000)(getattr(bindings, name)))


def device(data: bytes) -> None:
    """Datagrams, packets and time on a host that is in a session; which must be alive afterwards."""
    _remember_keys()
    world = World(1)
    bob, puppet = world.host_and_puppet()
    session = puppet.connect(bob)
    other = Puppet(world, "198.51.100.8", ["10.0.0.8"])
    bob.add_peer(other)
    bob.send(other)
    world.run(0.1)
    awaited = other.take(INITIATION)[0]
    it = Input(data)
    for _ in range(24):
        if not it.left:
            break
        kind = it.number() % 9
        if kind == 0:
            puppet.send(bob, it.piece(), source=FORGER)
        elif kind == 1:
            puppet.send(bob, puppet.stamp(bob, it.piece(200)), source=FORGER)
        elif kind == 2:
            puppet.send(bob, altered(puppet.initiation(bob), it.piece(20)))
        elif kind == 3:
            whole, changes = other.respond(bob, awaited)[0], it.piece(20)
            puppet.send(bob, puppet.stamp(bob, altered(whole[:60], changes)), source=other.endpoint)
        elif kind == 4:
            reply = struct.pack("<II", 3, (session.receiver, awaited[4])[it.number() % 2]) + it.piece(56)
            puppet.send(bob, reply.ljust(64, b"\0"), source=FORGER)
        elif kind == 5:
            puppet.send(bob, session.seal(it.piece()), tos=it.number() & 3)
        elif kind == 6:
            counter, packet = it.number(8), it.piece(200)
            puppet.send(bob, altered(session.seal(packet, counter), it.piece(8)))
        elif kind == 7:
            bob.tun.deliver(it.piece())
            world.run()
        else:  # many at once: under load, cookies
            flood = puppet.stamp(bob, it.piece(116).ljust(116, b"\1"))
            for _ in range(it.number()):
                world.network.transmit(flood, FORGER, bob.endpoint)
            world.run(it.number() / 64)
    _alive(world, bob, puppet)


def _alive(world: World, bob: Host, puppet: Puppet) -> None:
    world.run(2.0)
    session = puppet.connect(bob)
    bob.received()
    puppet.take()
    puppet.send(bob, session.seal(puppet.packet_to(bob, b"alive?")))
    assert bob.payloads() == [b"alive?"]
    bob.send(puppet, b"alive!")
    world.run()
    assert len(puppet.take(DATA)) == 1


def _sized(data: bytes) -> bytes:
    return struct.pack("<H", len(data)) + data


def device_seeds() -> Iterator[bytes]:
    for datagram in messages_seeds():
        yield b"\0" + _sized(datagram)
    yield b"\1" + _sized(struct.pack("<II", INITIATION, 5) + bytes(range(108)))
    yield b"\1" + _sized(struct.pack("<III", RESPONSE, 5, 6) + bytes(range(48)))
    for kind in (2, 3):
        yield bytes([kind]) + _sized(b"")
        yield bytes([kind]) + _sized(b"\x0a\1")
        yield bytes([kind]) * 2 + _sized(b"")
    yield b"\4\0" + _sized(bytes(range(56)))
    assert COOKIE_REPLY == 3
    for packet in (udp_packet("10.0.0.7", "10.0.0.2", b"x"), udp_packet("10.0.0.8", "10.0.0.2"), b"E" * 40):
        yield b"\5" + _sized(packet) + b"\1"
    yield b"\6" + struct.pack("<Q", 9000) + _sized(udp_packet("fd00::7", "fd00::2")) + _sized(b"")
    yield b"\7" + _sized(udp_packet("10.0.0.2", "10.0.0.7", bytes(100)))
    yield b"\7" + _sized(udp_packet("10.0.0.2", "10.9.9.9", bytes(100)))
    yield b"\x08" + _sized(struct.pack("<II", INITIATION, 5)) + b"\xff\x20" + b"\2" + _sized(b"")


# --- Super-packets. ---------------------------------------------------------------------------------------

SUPER = TunOffload(vnet_hdr=True, tso=True, uso=True)


def _transport(packet: bytes) -> tuple[int, int]:
    """Where its transport header is, and the protocol, when extension headers do not lead past its end."""
    if packet[0] >> 4 == 4:
        return (packet[0] & 15) * 4, packet[9]
    following, at = packet[6], 40
    while following in (0, 43, 60) and at + 2 <= len(packet):
        following, at = packet[at], at + 8 * (packet[at + 1] + 1)
    return at, following


def split(frame: bytes) -> None:
    """Segments have the super-packet's payload in order, right lengths and right checksums."""
    try:
        packets = offload.split_untrusted(frame)
    except BadPacket as bad:
        assert bad.reason in (DropReason.TRUNCATED, DropReason.BAD_OFFLOAD)
        return
    flags, kind, _, size, start, offset = offload.VNET_HDR.unpack_from(frame)
    if kind == offload.GSO_NONE:
        (packet,) = packets
        assert len(packet) == len(frame) - 10
        if not flags & 1:
            assert packet == frame[10:]
        else:
            at = start + offset
            assert packet[:at] + packet[at + 2 :] == frame[10:][:at] + frame[10:][at + 2 :]
        return
    payload = b""
    for number, packet in enumerate(packets):
        source, destination, length = ip.header_untrusted(packet)
        assert length == len(packet)
        at, protocol = _transport(packet)
        if len(source) == 4:
            assert ip.internet_checksum(packet[:at]) == 0
        pseudo = ip.pseudo_header(source, destination, protocol, len(packet) - at)
        assert ip.internet_checksum(pseudo + packet[at:]) == 0
        carried = packet[at + (8 if protocol == 17 else (packet[at + 12] >> 4) * 4) :]
        assert len(carried) == size or (number == len(packets) - 1 and 0 < len(carried) < size)
        payload += carried
    assert frame.endswith(payload)


def split_seeds() -> Iterator[bytes]:
    choice = random.Random(2)
    events = twins.Events(choice)
    for _ in range(60):
        frame = events.frame(SUPER)
        if len(frame) < 3000:
            yield frame
    for source in ("10.50.0.1", "fd50::1"):
        for protocol in (6, 17):
            whole = twins.packet(
                source, "10.1.0.1" if "." in source else "fd01::1", bytes(100), protocol=protocol
            )
            yield twins.super_packet(whole, 40)


def coalesce(data: bytes) -> None:
    """Whatever is put together comes apart as what it was, in the order of each flow."""
    it = Input(data)
    features = it.number()
    tun = TunOffload(vnet_hdr=True, tso=bool(features & 1), uso=bool(features & 2))
    packets = list(_packets(it))
    frames = [b"".join(frame) for frame in offload.Coalescer(tun).frames(packets)]
    assert len(frames) <= len(packets)
    apart = [packet for frame in frames for packet in offload.split_untrusted(frame)]
    assert _by_flow(apart) == _by_flow(packets)


def _by_flow(packets: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    flows: dict[bytes, list[bytes]] = {}
    for packet in packets:
        flows.setdefault(twins.flow_of(packet), []).append(twins.comparable(packet))
    return flows


def _packets(it: Input) -> Iterator[bytes]:
    """Whole IP packets: as they stand, or the last one's successor with changes, its checksums made right."""
    last = b""
    while it.left:
        how = it.number()
        if how & 1 and last:
            packet = bytearray(altered(last, it.bytes(it.number() % 9)))
            at, protocol = _transport(bytes(packet))
            if how & 2 and protocol == 6 and at + 20 <= len(packet):  # the next of a TCP stream
                data_at = at + (packet[at + 12] >> 4) * 4
                sequence = struct.unpack_from("!I", packet, at + 4)[0] + max(len(last) - data_at, 0)
                struct.pack_into("!I", packet, at + 4, sequence & 0xFFFFFFFF)
            if how & 4 and packet[0] == 0x45:
                struct.pack_into("!H", packet, 4, (struct.unpack_from("!H", packet, 4)[0] + 1) & 0xFFFF)
        else:
            packet = bytearray(it.piece(1500))
        with contextlib.suppress(BadPacket):
            length = ip.header_untrusted(packet)[2]
            del packet[length:]
            whole = bytes(packet)
            if how & 8 and (whole[0] == 0x45 or whole[0] >> 4 == 6):
                whole = twins.checksummed(bytearray(whole))
            yield whole
            last = whole


def coalesce_seeds() -> Iterator[bytes]:
    for source, destination in (("10.1.0.1", "10.50.0.1"), ("fd01::1", "fd50::1")):
        for protocol in (6, 17):
            first = twins.packet(source, destination, bytes(range(100)), protocol=protocol, identification=7)
            yield b"\3\0" + _sized(first) + b"\x0f\0" * 5
            yield b"\3\0" + _sized(first) + b"\x0f\0\x0f\2\x08\1" + b"\x0f\0" * 2
            yield b"\3\0" + _sized(first) + b"\x0b\0\x0f\2\xff\1\x07\0"
            odd = twins.packet(source, destination, bytes(50), protocol=protocol, fragment=0x2000)
            yield b"\3\0" + _sized(first) + b"\0" + _sized(odd) + b"\0" + _sized(first)


# --- Whole bursts, on both data paths. --------------------------------------------------------------------

OFFLOADS = (TunOffload(), TunOffload(vnet_hdr=True), SUPER)


@functools.cache
def _wires(number: int, *, gso: bool) -> twins.Wires:
    return twins.Wires(gso=gso)


def _rigs(features: int) -> Iterator[twins.Rig]:
    tun, gso = OFFLOADS[features % 3], not features & 4
    yield twins.Rig(PortableDataPath, tun, wires=_wires(0, gso=gso))
    if compiled is not None:
        ciphers = compiled.ciphers()
        cipher = ciphers[(features >> 4) % len(ciphers)]
        make = functools.partial(compiled.CompiledDataPath, cipher=cipher)
        yield twins.Rig(make, tun, wires=_wires(1, gso=gso))


def _play(features: int, bursts: Iterable[Sequence[twins.Event]]) -> None:
    """Bursts of events on fresh data paths, whose outcomes must be the same."""
    rigs: list[twins.Rig] = []
    try:
        for rig in _rigs(features):
            rigs.append(rig)
            rig.path.set_identity(MAC1_KEY)
            twins.set_up(rig)
        for number, events in enumerate(bursts):
            outcomes = []
            for rig in rigs:
                for event in events:
                    event(rig)
                outcomes.append(rig.settle(1.0 + number))
            assert all(outcome == outcomes[0] for outcome in outcomes)
    finally:
        for number, rig in enumerate(rigs):
            rig.close()
            _wires(number, gso=not features & 4).clear()


def burst(data: bytes) -> None:
    """Raw frames from the tunnel device, raw datagrams, and raw plaintexts under a session's key."""
    it = Input(data)
    features = it.number()
    counters = Counter[int]()

    def sealed(plaintext: bytes) -> bytes:
        counters[11] += 1
        return twins.data_message(11, counters[11], plaintext)

    def events() -> Iterator[twins.Event]:
        kind = it.number()
        if kind % 4 == 0:
            frame = it.piece() or b"\0"
            yield lambda rig: rig.tun.deliver(frame)
        elif kind % 4 == 1:
            datagram = it.piece(2000)
            yield lambda rig: rig.arrive(kind >> 2 & 1, [datagram])
        elif kind % 4 == 2:
            message = sealed(it.piece(2000))
            yield lambda rig: rig.arrive(0, [message], kind >> 2 & 3)
        else:  # a run of one size, as the kernel joins them
            found = [sealed(packet) for packet in itertools.islice(_packets(Input(it.piece())), 40)]
            for size, run in itertools.groupby(found, key=len):
                batch = list(run)[: 60000 // size]
                yield functools.partial(twins.Rig.arrive, remote=0, datagrams=batch)

    def bursts() -> Iterator[list[twins.Event]]:
        for _ in range(12):
            if not it.left:
                return
            count = it.number() % 4 + 1
            yield [event for _ in range(count) for event in events()]

    _play(features, bursts())


def burst_seeds() -> Iterator[bytes]:
    for features in (0, 1, 2, 18, 6):
        yield bytes([features])
        for seed in itertools.islice(split_seeds(), 0, 30, 6):
            yield bytes([features, 0, 0]) + _sized(seed)
        for seed in coalesce_seeds():
            yield bytes([features, 0, 3]) + _sized(seed[1:])
    for datagram in (b"", *messages_seeds()):
        yield b"\2\0\1" + _sized(datagram)
    for packet in (udp_packet("10.1.0.1", "10.50.0.1", b"x"), udp_packet("fd01::7", "fd50::1"), b"E" * 40):
        yield b"\2\1\2" + _sized(packet) + b"\x0e" + _sized(packet)


def events(data: bytes) -> None:
    """The events that `tests/spec/test_datapaths_agree.py` makes, chosen by the fuzzer: commands too."""
    choice = Choices(data)
    features = choice.getrandbits(8)
    source = twins.Events(choice)

    def bursts() -> Iterator[list[twins.Event]]:
        for _ in range(10):
            if not choice.input.left:
                return
            count = choice.getrandbits(8) % 4 + 1
            yield [
                source.next(OFFLOADS[features % 3], functools.partial(cookie.mac1, MAC1_KEY))
                for _ in range(count)
            ]

    _play(features, bursts())


def events_seeds() -> Iterator[bytes]:
    for seed in range(40):
        yield bytes([(0, 1, 2, 18, 6)[seed % 5]]) + random.Random(seed).randbytes(160)


def ciphers(data: bytes) -> None:
    """Every cipher library opens what another sealed, and refuses it with any change."""
    if compiled is None:
        return
    it = Input(data)
    key, counter, changes, plaintext = it.bytes(32).ljust(32, b"\0"), it.number(8), it.piece(8), it.rest()
    sealed = {bytes(compiled.try_seal(cipher, key, counter, plaintext)) for cipher in compiled.ciphers()}
    assert len(sealed) == 1
    (whole,) = sealed
    tampered = altered(whole, changes)
    for cipher in compiled.ciphers():
        opened = compiled.try_open_untrusted(cipher, key, counter, tampered)
        assert opened == (plaintext if tampered == whole else None)
        assert compiled.try_open_untrusted(cipher, key, counter, plaintext) is None


def ciphers_seeds() -> Iterator[bytes]:
    for size in (0, 1, 15, 16, 17, 63, 64, 65, 1420):
        yield bytes(range(40)) + _sized(b"" if size % 2 else b"\xff\1") + bytes(size)


# --- Text. ------------------------------------------------------------------------------------------------


def config(data: bytes) -> None:
    """One byte chooses the dialect. What is read and written is read again as the same."""
    dialect = Dialect.WG if data[:1] < b"\x80" else Dialect.WG_QUICK
    text = data[1:].decode("utf-8", "surrogateescape")
    try:
        model = parse(text, "fuzz.conf", dialect)
    except ConfigError as error:
        assert error.mistakes
        for mistake in error.mistakes:
            line = str(mistake)
            assert line.isprintable()
            assert len(line) < 400
        return
    assert all(str(warning).isprintable() for warning in model.warnings)
    written = write(model)
    again = parse(written, "again.conf", Dialect.WG_QUICK)
    assert again == model
    assert write(again) == written
    _configurable(model)
    if dialect is Dialect.WG_QUICK:
        _plain(text)


def _plain(text: str) -> None:
    """What `strip` prints, `wg` reads as what applies to a device; and phones read what is meant for them."""
    settled = parse(text, "fuzz.conf", Dialect.WG_QUICK)
    if settled.interface.private_key_source or any(peer.preshared_key_source for peer in settled.peers):
        return  # keys in other files
    with contextlib.suppress(ConfigError):  # of more networks than are taken
        settle_allowed_ips(settled)
        plain = parse(plain_text(text, settled), "plain.conf", Dialect.WG)
        assert plain == strip(settled)
        for_phones, _ = for_phone(settled)
        assert parse(write(for_phones), "phone.conf", Dialect.WG_QUICK) == for_phones


def _configurable(model: Config) -> None:
    bare = write(strip(model))
    assert strip(parse(bare, "bare.conf", Dialect.WG)) == strip(model)
    merged = merge_peers(model.peers)
    keys = [peer.public_key.value for peer in merged]
    assert len(set(keys)) == len(keys)
    named = [value_of(peer.endpoint) for peer in model.peers]
    lines = list(format_set(device_change(model, {name: FORGER for name in named if name is not None})))
    assert all("\n" not in line and "=" in line for line in lines)


CONFIGS = (
    b"[Interface]\nPrivateKey = %s\nListenPort = 51820\nFwMark = 0xca6c\n"
    b"[Peer]\nPublicKey = %s\nPresharedKey = %s\nAllowedIPs = 10.0.0.0/8, +fd00::/8, -10.1.0.0/16\n"
    b"Endpoint = [2001:db8::1]:51820\nPersistentKeepalive = 25\n",
    b"[Interface]\nPrivateKey = %s\nAddress = 10.0.0.1/24, fd00::1/64\nDNS = 10.0.0.53, example.org\n"
    b"MTU = 1420\nTable = off\nPreUp = echo %%i # kept\nPostUp = true\nPreDown = true\nPostDown = true\n"
    b"SaveConfig = true\n# a comment\n[Peer] # one\nPublicKey = %s\nPresharedKey = %s\nAllowedIPs =\n"
    b"EndPoint = vpn.example.org:wireguard\nPersistentKeepalive = off\n[peer]\nallowed ips = 0.0.0.0/0\n",
)


CONFIG_LINES = (
    (
        b"#pywg PrivateKeyFile = /etc/wireguard/$NAME.key",
        b"#pywg PrivateKey = ${WG_KEY}",
        b"PrivateKey = ${WG_KEY}",
        b"Address = 10.0.0.1/24 fd00::1/64,10.0.0.2\nAddress=10.1.0.1/255.255.255.0",
        b"DNS = 2001:db8::53, 10.0.0.53 example.org,a.example\nMTU = 1280\nTable = 0x1234",
        b"PreUp = nft add rule 'x # y' %i; echo 100%% %d %\npostup = a=b # c\nPreDown =",
        b"PostDown = \xff\x1b[2J",
        b"Table = auto\nTable = main\nSaveConfig = false\nMTU =\nListenPort = wireguard\nFwMark = off",
    ),
    (
        b"# Name = alice's phone",
        b"## friendly_name: b\xc3\xb6b\n#name=again",
        b"#pywg PresharedKeyFile = $$home/${CREDENTIALS_DIRECTORY}/psk",
        b"#pywg PresharedKey = $PSK",
        b"AllowedIPs = 0.0.0.0/0, ::/0\n#pywg DisallowedIPs = 192.168.0.0/16, 10.0.0.0/8 fd00::/8",
        b"AllowedIPs = 10.0.0.0/30\nAllowedIPs = +10.1.0.0/31, -10.2.0.0/16\n#pywg DisallowedIPs = 10.0.0.1",
        b"AllowedIPs = +10.0.0.0/30\n#pywg DisallowedIPs = 10.0.0.0/8\nAllowed IPs = fd00::1/6 4",
        b"Endpoint = [fe80::1%eth0]:51820\n#pywg Endpoint = vpn%20.example.org:wireguard # two",
        b"# pywg Endpoint = x:1\n#pywg Endpoint = x:1",
        b"Endpoint = 2001:db8::1:51820\nPersistentKeepalive = 65535\n[Peer]\nPublicKey = KEY",
    ),
)


KEY_TEXT = PrivateKey(bytes(range(32))).clamped().base64


def config_seeds() -> Iterator[bytes]:
    key = KEY_TEXT.encode()
    begin, peer = b"\xff[Interface]\n", b"[Peer]\nPublicKey = KEY\n"
    for line in CONFIG_LINES[0]:
        yield (begin + line + b"\n" + peer).replace(b"KEY", key)
    for line in CONFIG_LINES[1]:
        yield (begin + peer + line + b"\n").replace(b"KEY", key)
    usual = begin + b"\n".join(CONFIG_LINES[0][3:6]) + b"\n\n" + peer + b"\n".join(CONFIG_LINES[1][4:6])
    usual = usual.replace(b"KEY", key)
    yield from (usual, usual.replace(b"\n", b"\r\n"), usual.replace(b" = ", b"\t=\v"), usual.upper())
    yield b"\xff\xef\xbb\xbf" + usual[1:]
    for text in CONFIGS:
        for dialect in (b"\0", b"\xff"):
            yield dialect + text % (key, key, key)
    yield b"\xff" + CONFIGS[1].replace(b"[peer]\n", b"") % (key, key, key)
    yield b"\0[Peer]\nPublicKey = " + key + b"\nAllowedIPs = ,,,\n"


@functools.cache
def _uapi_loop() -> tuple[asyncio.Runner, tempfile.TemporaryDirectory[str]]:
    return asyncio.Runner(), tempfile.TemporaryDirectory(prefix="pywg-fuzz-")


def uapi_server(data: bytes) -> None:
    """Any bytes at the configuration socket of a real device, which answers `get=1` afterwards."""
    logging.getLogger("pywg.uapi").setLevel(logging.CRITICAL)
    world = World(2)
    host = world.host("host", ["192.0.2.1", "2001:db8::1"], "10.0.0.1")
    runner, temporary = _uapi_loop()
    folder = pathlib.Path(temporary.name)

    async def ask(path: pathlib.Path, request: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(request)
                writer.write_eof()
                return await reader.read()
            return b""
        finally:
            writer.transport.abort()

    async def main() -> tuple[bytes, bytes]:
        server = UapiServer(host.engine, listen("fuzz0", folder), services=services(host.engine))
        await server.start()
        try:
            async with asyncio.timeout(60):
                path = folder / "fuzz0.sock"
                return await ask(path, data), await ask(path, b"get=1\n\n")
        finally:
            await server.close()

    level = logging.getLogger().level
    try:
        answer, told_state = runner.run(main())
    finally:
        logging.getLogger().setLevel(level)  # `log=1` may have set it
    assert b"errno=-%d\n" % UNKNOWN_ERROR not in answer, "an exception in the server"
    lines = told_state.decode("ascii").split("\n")
    assert lines[-3:] == ["errno=0", "", ""]
    snapshot = parse_get(lines[:-2])
    told = [line for entry in format_get(snapshot) for line in entry.split("\n")]
    assert told == lines[:-3]
    world.run(1.0)


UAPI_KEY = b"01" * 32


def uapi_server_seeds() -> Iterator[bytes]:
    peer = b"public_key=" + UAPI_KEY + b"\n"
    yield b"get=1\n\n"
    yield b"get=1\n\nget=1\n\n"
    yield b"set=1\nprivate_key=" + UAPI_KEY + b"\nlisten_port=7\nfwmark=9\nreplace_peers=true\n\n"
    yield (
        b"set=1\n" + peer + b"preshared_key=" + UAPI_KEY + b"\nendpoint=[2001:db8::2]:7\n"
        b"persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=10.0.0.0/8\n"
        b"allowed_ip=fd00::/8\nallowed_ip=-10.0.0.0/8\nprotocol_version=1\n\nget=1\n\n"
    )
    yield b"set=1\n" + peer + b"endpoint=192.0.2.7:7\n" + peer + b"remove=true\n\n"
    yield b"set=1\n" + peer + b"update_only=true\nallowed_ip=10.0.0.0/8\nbad=1\nmore=1\n\nget=1\n\n"
    yield b"stats=1\n\nset=1\n" + peer + b"\nstats=1\n\n"
    yield b"log=1\nlevel=silent\n\nlog=1\nlevel=\n\n"
    yield b"set=1\n" + peer + b"\nnames=1\n" + UAPI_KEY + "=Zoë\n\nstats=1\n\n".encode()
    yield b"names=1\n" + UAPI_KEY + b"=\x1b[2J\n\n"
    yield b"events=1\n\n"
    yield b"capture=1\nwhat=outer\nsnaplen=96\nname=wg0\nsecrets=true\n\n"
    yield b"capture=1\nsnaplen=0\n\nstats=1\nx=1\n\n"


class Recorded(client.Client):
    """A daemon that answers the same to everything."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(pathlib.Path("/nowhere"))
        self._answer = answer

    def stream(self, *request: str) -> BinaryIO:
        return io.BytesIO(self._answer)


def _read_services(data: bytes) -> None:
    """What only pywgd answers: objects, blocks of a capture, or one error."""
    daemon = Recorded(data)
    with contextlib.suppress(UapiError):
        assert isinstance(daemon.statistics(), dict)
    with contextlib.suppress(UapiError):
        for event in daemon.events():
            assert in_words({"interface": "wg0", **event}).isprintable()
            assert in_words({"interface": "wg0", **event}, brief=True).isprintable()
    with contextlib.suppress(UapiError):
        daemon.set_log_level("info")
    blocks = Blocks(io.BytesIO(data))
    copied = b""
    with contextlib.suppress(PywgError):
        while block := blocks.next():
            copied += block
    assert data.startswith(copied)


def uapi_client(data: bytes) -> None:
    """Any answer of a daemon is a snapshot, which survives being written, or one error."""
    _read_services(data)
    for read in (parse_get, parse_status):
        try:
            found = read(client._lines(io.BytesIO(data)))
        except UapiError as error:
            assert str(error).isprintable()
            continue
        if found is not None:
            lines = [line for entry in format_get(found) for line in entry.split("\n")]
            assert parse_get([*lines, "errno=0"]) == found


def uapi_client_seeds() -> Iterator[bytes]:
    yield b"errno=0\n\n"
    yield b"errno=-22\n\n"
    yield b'{"version": 1, "drops": {}, "peers": []}\nerrno=0\n\n'
    event = b'"peer": "' + UAPI_KEY[:44] + b'", "name": "a", "endpoint": "192.0.2.1:7", "text": "up"}\n'
    yield b'{"kind": "watching", "time": 1.5}\n{"kind": "up", "time": 2, ' + event
    yield b'[]\n{"kind": "up", "time": 1e999, "text": "\\u001b"}\n' + b"[" * 2000
    tapped = Tapped(5, True, False, 4, b"E" * 4, None, DropReason.NO_ROUTE)
    yield pcapng.header("wg0", 96) + pcapng.secrets("KEY = x\n") + pcapng.packet(tapped, 7) + pcapng.lost(3)
    yield (
        b"private_key=" + UAPI_KEY + b"\nlisten_port=7\nfwmark=9\npublic_key=" + UAPI_KEY
        + b"\npreshared_key=" + UAPI_KEY + b"\nprotocol_version=1\n"
        b"endpoint=[fe80::2%nowhere]:7\nlast_handshake_time_sec=5\n"
        b"last_handshake_time_nsec=6\ntx_bytes=7\nrx_bytes=8\npersistent_keepalive_interval=9\n"
        b"allowed_ip=10.0.0.0/8\nallowed_ip=fd00::/8\nerrno=0\n\n"
    )  # fmt: skip


# --- What other parts of the system say. ------------------------------------------------------------------


def kernel(data: bytes) -> None:
    """Messages of netlink, and packets as they pass an interface; one byte says whose."""
    whose, message = data[:1], data[1:]
    if whose < b"\x40":
        link = netlink.parse_link_message(message)
        assert link is None or -(2**31) <= link.mtu < 2**31
        number = netlink._number_in(message)
        assert number is None or number >= 0
    elif whose < b"\x80":
        parts = list(nft._received(message))
        assert sum(len(content) for _, _, content in parts) <= len(message)
        for _, _, content in parts:
            assert nft._error_in(content) or content[:4] == bytes(4)
    else:
        outgoing = whose < b"\xc0"
        seen = watching.seen_untrusted(message, 51820, outgoing=outgoing)
        if seen is not None:
            carried, address = seen
            assert carried
            assert message.endswith(carried)
            assert ipaddress.ip_address(address).packed in message


def kernel_seeds() -> Iterator[bytes]:
    attributes = netlink.attribute(3, b"wg0\0") + netlink.attribute(4, struct.pack("=i", 1420))
    link = struct.pack("=IHHII", 16 + 16 + len(attributes), 16, 0, 1, 0) + bytes(16) + attributes
    yield b"\0" + link
    yield b"\0" + struct.pack("=IHHII", 28, 88, 0, 1, 0) + bytes(4) + netlink.attribute(1, bytes(4))
    yield b"\x41" + nft._message(2, 0, 4, 1, bytes(4)) + nft._message(2, 0, 10, 2, b"\xfe\xff\xff\xff")
    yield b"\x41" + struct.pack("=IHHII", 20, 2, 0, 1, 0) + struct.pack("=i", -2)
    for source, destination in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")):
        packet = udp_packet(source, destination, b"\1" + bytes(147))
        at = 40 if ":" in source else 20
        packet = packet[:at] + struct.pack("!HH", 51820, 51820) + packet[at + 4 :]
        yield b"\x80" + packet
        yield b"\xff" + packet
    yield b"\xff\x41\0\0\0" + struct.pack("!HH", 51820, 51820) + b"\0\x11\0\0\1"


def files(data: bytes) -> None:
    """What `up` keeps, and resolv.conf: anybody's text comes back byte for byte. One byte says which."""
    which, text = data[:1], data[1:]
    if which < b"\x80":
        found = state.parse(text.decode("utf-8", "surrogateescape"), "BOOT")
        if found is not None:
            assert found.is_owned in (True, False)
            assert found.is_running in (True, False)
            again = json.dumps({**found.to_json(), "boot": "BOOT"})
            assert json.dumps(state.parse(again, "BOOT").to_json()) == json.dumps(found.to_json())  # type: ignore[union-attr]
        return
    known = resolvfile._Content.parse(text)
    if known is not None:
        known.text()
    ours = resolvfile._Content(resolvfile._Before(b"#| ", text), is_there=True)
    ours.tunnels[b"wg0"] = b"nameserver 10.0.0.53\nsearch example.org\n"
    assert resolvfile._Content.parse(ours.text()) == ours


def files_seeds() -> Iterator[bytes]:
    key = KEY_TEXT.encode()
    text = (CONFIGS[1].replace(b"[peer]\n", b"") % (key, key, key)).decode()
    model = parse(text, "wg0.conf", Dialect.WG_QUICK)
    kept = state.State.begin("wg0", "/etc/wireguard/wg0.conf", "userspace", model)
    kept.rules, kept.firewall, kept.index = [Rule(4, 32765, 51820, True, 51820)], ["nftables/4"], 7
    kept.owner, kept.dns = "1/2", {"way": "file"}
    whole = json.dumps({**kept.to_json(), "boot": "BOOT"}).encode()
    yield b"\0" + whole
    yield b"\0" + whole.replace(b'"1/2"', b'"x/2"')
    yield b"\0" + whole.replace(b'"wg0"', b"[]")
    yield b"\0" + b"[" * 3000
    yield b"\xff"
    yield b"\xffnameserver 192.0.2.1\nsearch example.org\noptions edns0"
    yield b"\xff#| x\n#link y\n#absent\n\n#boot\n#+ wg0 a;b\n#|_"
    yield b"\xff" + resolvfile._MARK + b"#boot x\n#+ wg0 nameserver 1;\n#link ../run/x\n#| a\n#|_b"


# --- All of them. -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One function that is fuzzed.

    longest: bytes of the largest input that is tried. sanitized: it is for the compiled data path too, built
    with AddressSanitizer.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    longest: int = 4096
    sanitized: bool = False


TARGETS = {
    "messages": Target(parse_messages, messages_seeds, 512),
    "ip": Target(ip_headers, ip_seeds, 1500),
    "noise": Target(noise, noise_seeds, 200),
    "device": Target(device, device_seeds, 1500),
    "split": Target(split, split_seeds, 3000),
    "coalesce": Target(coalesce, coalesce_seeds, 2000),
    "burst": Target(burst, burst_seeds, 6000, sanitized=True),
    "events": Target(events, events_seeds, 1000, sanitized=True),
    "ciphers": Target(ciphers, ciphers_seeds, 2100, sanitized=True),
    "config": Target(config, config_seeds, 2000),
    "uapi-server": Target(uapi_server, uapi_server_seeds, 2000),
    "uapi-client": Target(uapi_client, uapi_client_seeds, 2000),
    "kernel": Target(kernel, kernel_seeds, 500),
    "files": Target(files, files_seeds, 3000),
}


# --- Their corpora. ---------------------------------------------------------------------------------------

CORPUS = pathlib.Path(__file__).parent / "corpus"


def kept(name: str) -> list[bytes]:
    """The inputs of a target that are kept: one a line, in base64."""
    path = CORPUS / f"{name}.txt"
    return [base64.b64decode(line) for line in path.read_text().split("\n")] if path.exists() else []


def keep(name: str, inputs: Iterable[bytes]) -> None:
    """Replace them."""
    CORPUS.mkdir(exist_ok=True)
    lines = sorted({base64.b64encode(each).decode() for each in inputs})
    (CORPUS / f"{name}.txt").write_text("\n".join(lines))
