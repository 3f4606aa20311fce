"""One data path between descriptors that need no privileges, driven packet by packet.

The tunnel device is a pair of sockets that keep message boundaries, the network real UDP on the loopback
interface. `Rig` feeds one data path and says what came out, in a form in which two data paths can be
compared: super-packets are split again, ports are replaced by names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from pywg.bind.udp import UdpBind
from pywg.datapath.base import DataPath
from pywg.datapath.offload import split_untrusted
from pywg.datapath.tap import Tapped, Wanted
from pywg.device.session import Activity, PeerId, Report, Session
from pywg.errors import DropReason
from pywg.tun.base import Tun, TunOffload, TunState
from pywg.wire import ip
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

PLAIN = bytes(10)
REMOTES = 3


class SocketTun:
    """A tunnel device whose other end is in our hand; `ends`: what is used in place of new sockets."""

    def __init__(
        self,
        offload: TunOffload,
        mtu: int,
        room: int = 4 << 20,
        ends: tuple[socket.socket, socket.socket] | None = None,
    ) -> None:
        self._near, self._far = ends or tun_ends(room)
        self.offload = offload
        self.mtu = mtu
        self.name = "pair0"

    def fileno(self) -> int:
        return self._near.fileno()

    def changes_fileno(self) -> int:
        return -1

    def read(self) -> bytes | None:
        try:
            return os.read(self._near.fileno(), 70000)
        except BlockingIOError:
            return None

    def write(self, frame: Sequence[bytes | bytearray | memoryview]) -> None:
        os.writev(self._near.fileno(), frame)

    def state(self) -> TunState:
        return TunState(self.mtu, up=True)

    def close(self) -> None:
        self._near.close()
        self._far.close()

    def hang_up(self) -> None:
        """The administrator removes the device."""
        self._far.shutdown(socket.SHUT_RDWR)

    def deliver(self, frame: bytes) -> None:
        """The host sends this frame into the tunnel."""
        self._far.send(frame)

    def take(self) -> list[bytes]:
        """The frames that came out of the tunnel."""
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frames.append(self._far.recv(70000))
        return frames


def tun_ends(room: int = 4 << 20) -> tuple[socket.socket, socket.socket]:
    """The data path's end of a tunnel device, and ours."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (near, far):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    return near, far


def checksummed(packet: bytearray) -> bytes:
    """Put right checksums into an IPv4 or IPv6 packet with TCP or UDP behind a plain header."""
    v4 = packet[0] >> 4 == 4
    transport = 20 if v4 else 40
    protocol = packet[9] if v4 else packet[6]
    if v4:
        packet[10:12] = bytes(2)
        packet[10:12] = ip.internet_checksum(packet[:20]).to_bytes(2, "big")
    source, destination, length = ip.header_untrusted(packet)
    at = {6: 16, 17: 6}.get(protocol)
    if at is not None and length >= transport + at + 2:
        place = slice(transport + at, transport + at + 2)
        packet[place] = bytes(2)
        pseudo = ip.pseudo_header(source, destination, protocol, length - transport)
        value = ip.internet_checksum(pseudo + packet[transport:length])
        packet[place] = (value or 0xFFFF if protocol == 17 else value).to_bytes(2, "big")
    return bytes(packet)


def packet(
    source: str,
    destination: str,
    payload: bytes = b"",
    *,
    protocol: int = 17,
    tos: int = 0,
    sequence: int = 0,
    flags: int = 0x10,
    identification: int = 0,
    options: bytes = b"",
    acknowledgement: int = 7,
    ttl: int = 64,
    fragment: int = 0x4000,
) -> bytes:
    """A TCP, UDP or other packet from port 1111 to 2222, all checksums right."""
    if protocol == 6:
        offset = 5 + len(options) // 4
        transport = struct.pack(
            "!HHIIBBHHH", 1111, 2222, sequence, acknowledgement, offset << 4, flags, 500, 0, 0
        )
        transport += options
    elif protocol == 17:
        transport = struct.pack("!HHHH", 1111, 2222, 8 + len(payload), 0)
    else:
        transport = b""
    body = transport + payload
    a, b = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    if len(a) == 4:
        header = struct.pack(
            "!BBHHHBBH4s4s", 0x45, tos, 20 + len(body), identification, fragment, ttl, protocol, 0, a, b
        )
    else:
        header = struct.pack("!IHBB16s16s", 6 << 28 | tos << 20, len(body), protocol, ttl, a, b)
    return checksummed(bytearray(header + body))


def super_packet(whole: bytes, segment: int, *, kind: int | None = None) -> bytes:
    """A frame with a virtio_net_hdr that asks for segments of `segment` bytes of payload."""
    v4 = whole[0] >> 4 == 4
    transport = 20 if v4 else 40
    protocol = whole[9] if v4 else whole[6]
    at = 16 if protocol == 6 else 6
    length = (whole[transport + 12] >> 4) * 4 if protocol == 6 else 8
    kind = kind if kind is not None else {6: 1 if v4 else 4, 17: 5}[protocol]
    return struct.pack("=BBHHHH", 1, kind, transport + length, segment, transport, at) + whole


def flow_of(packet: bytes) -> bytes:
    """What packets must have in common for their order to matter."""
    if packet[0] >> 4 == 4:
        fragment = packet[6] & 0x3F or packet[7]
        ports = (packet[0] & 15) * 4
        return packet[9:10] + packet[12:20] + (b"" if fragment else packet[ports : ports + 4])
    return packet[6:7] + packet[8:44]


def comparable(packet: bytes) -> bytes:
    """The packet, but where it must not be fragmented anyway, its identification means nothing (RFC 6864).

    Packets that were put together and split again count up there.
    """
    if packet[0] >> 4 != 4 or packet[6] & 0x40 == 0:
        return packet
    right = ip.internet_checksum(packet[: (packet[0] & 15) * 4]) == 0
    return packet[:4] + b"--" + packet[6:10] + (b"ok" if right else packet[10:12]) + packet[12:]


@dataclasses.dataclass
class Outcome:
    """What one step did, with nothing in it that differs between two rigs."""

    sent: dict[tuple[int, bytes], list[bytes]]  # by remote and session
    written: dict[bytes, list[bytes]]
    control: list[tuple[bytes, str]]
    no_session: dict[int, list[bytes]]
    no_route: list[bytes]
    activity: list[Activity]
    moved: dict[int, str]
    drops: Counter[DropReason]
    tapped: list[tuple[bool, bool, int, bytes, str, str]]
    packets: tuple[int, int]  # in bursts, each way


def _remote() -> socket.socket:
    """A peer's socket."""
    remote = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    remote.bind(("127.0.0.1", 0))
    remote.setblocking(False)
    remote.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    remote.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    return remote


class Wires:
    """The sockets of a rig, which one rig after the other may use: making them takes longer than one burst.

    A rig gets duplicates, so all that it keeps beside them is new.
    """

    def __init__(self, *, gso: bool) -> None:
        self._tun = tun_ends()
        self._bind = UdpBind.open(gso=gso)
        self._bound = [socket.socket(fileno=os.dup(number)) for number in self._bind.filenos()]
        for each in self._bound:
            each.setblocking(False)
        self._remotes = [_remote() for _ in range(REMOTES)]

    def ends(self) -> tuple[socket.socket, socket.socket]:
        near, far = self._tun
        return near.dup(), far.dup()

    def bind(self) -> UdpBind:
        sockets = {sock.family: sock.dup() for sock in self._bound}
        return UdpBind(sockets, self._bind.port, self._bind.offload)

    def remotes(self) -> list[socket.socket]:
        return [remote.dup() for remote in self._remotes]

    def clear(self) -> None:
        """Nothing that was sent waits any more."""
        for each in (*self._tun, *self._bound, *self._remotes):
            with contextlib.suppress(BlockingIOError):
                while True:
                    with contextlib.suppress(ConnectionError):
                        each.recv(1)


class Rig:
    """A data path, its tunnel device, its bind, and the peers' sockets; `wires` in place of new sockets."""

    def __init__(
        self,
        make: Callable[[Tun], DataPath],
        offload: TunOffload,
        *,
        gso: bool = True,
        gro: bool = True,
        wires: Wires | None = None,
    ) -> None:
        self.expires = 1000.0
        """When its sessions end: long after the times that tests name; threads have a clock of their own."""
        self.tun = SocketTun(offload, 1420, ends=None if wires is None else wires.ends())
        self.path = make(self.tun)
        self.bind = UdpBind.open(gso=gso, gro=gro) if wires is None else wires.bind()
        self.path.set_bind(self.bind)
        self.path.set_tap(Wanted())
        self.remotes = [_remote() for _ in range(REMOTES)] if wires is None else wires.remotes()
        self.names = {remote.getsockname()[1]: f"remote{i}" for i, remote in enumerate(self.remotes)}

    def close(self) -> None:
        self.path.close()
        self.bind.close()
        self.tun.close()
        for remote in self.remotes:
            remote.close()

    def endpoint(self, remote: int) -> Endpoint:
        return Endpoint("127.0.0.1", self.remotes[remote].getsockname()[1])

    def arrive(self, remote: int, datagrams: Sequence[bytes], tos: int = 0) -> None:
        """A peer's socket sends these; several of one size go as one super-packet."""
        control: list[tuple[int, int, bytes]] = []
        if tos:
            control.append((socket.IPPROTO_IP, socket.IP_TOS, struct.pack("=i", tos)))
        if len(datagrams) > 1:
            control.append((socket.SOL_UDP, 103, struct.pack("=H", len(datagrams[0]))))
        self.remotes[remote].sendmsg(datagrams, control, 0, ("127.0.0.1", self.bind.port))

    def settle(self, now: float) -> Outcome:
        """Step until nothing moves, then drain."""
        for _ in range(100):
            if not self.path.step(now):
                break
        return self.outcome(self.path.drain(now))

    def outcome(self, report: Report) -> Outcome:
        sent: dict[tuple[int, bytes], list[bytes]] = {}
        for i, remote in enumerate(self.remotes):
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, control, _, _ = remote.recvmsg(70000, 256)
                    tos = bytes(c[2][0] for c in control if c[1] in {socket.IP_TOS, 13})
                    sent.setdefault((i, data[4:8]), []).append((tos or b"\0") + data)
        written: dict[bytes, list[bytes]] = {}
        for frame in self.tun.take():
            for one in split_untrusted(frame) if self.tun.offload.vnet_hdr else [frame]:
                written.setdefault(flow_of(one), []).append(comparable(bytes(one)))
        tapped, lost = self.path.take_tapped()
        assert lost == 0
        outgoing, incoming = self.path.bursts()
        return Outcome(
            sent=sent,
            written=written,
            control=[(data, self.names[source.port]) for data, source in report.control],
            no_session=dict(report.no_session),
            no_route=report.no_route,
            activity=sorted(report.activity, key=lambda a: (a.local_index, a.any_sent or 0)),
            moved={peer: self.names[endpoint.port] for peer, endpoint in report.moved},
            drops=report.drops,
            tapped=sorted(map(self._copied, tapped)),
            packets=(outgoing.packets, incoming.packets),
        )

    def _copied(self, one: Tapped) -> tuple[bool, bool, int, bytes, str, str]:
        """A copy without its time."""
        data = comparable(one.data) if one.inner and len(one.data) >= 20 else one.data
        where = "" if one.endpoint is None else self.names[one.endpoint.port]
        dropped = "" if one.dropped is None else one.dropped.value
        return (one.inner, one.outgoing, one.length, data, where, dropped)


def session(
    peer: int,
    index: int,
    *,
    may_send: bool = True,
    expires: float = 1000.0,
    message_limit: int = 2**64 - 2**13 - 1,
    rekey_limit: int = 2**60,
) -> Session:
    """A session whose keys follow from its index; the far side's index is 100 more."""
    send_key, receive_key = keys(index)
    return Session(
        PeerId(peer), index, index + 100, send_key, receive_key, True, 0.0, expires, message_limit,
        rekey_limit, may_send,
    )  # fmt: skip


def keys(index: int) -> tuple[bytes, bytes]:
    """The keys that we send and receive with."""
    return index.to_bytes(32, "big"), index.to_bytes(32, "little")


def data_message(index: int, counter: int, plaintext: bytes, *, padding: int = -1) -> bytes:
    """What the far side of the session `index` sends us."""
    padded = plaintext + bytes(-len(plaintext) % 16 if padding < 0 else padding)
    nonce = bytes(4) + counter.to_bytes(8, "little")
    header = struct.pack("<IIQ", 4, index, counter)
    return header + ChaCha20Poly1305(keys(index)[1]).encrypt(nonce, padded, None)


def open_message(index: int, datagram: bytes) -> tuple[int, bytes] | None:
    """Counter and plaintext of what we sent under the session `index`; None when that cannot be opened."""
    _, _, counter = struct.unpack_from("<IIQ", datagram)
    nonce = bytes(4) + counter.to_bytes(8, "little")
    try:
        return counter, ChaCha20Poly1305(keys(index)[0]).decrypt(nonce, datagram[16:], None)
    except InvalidTag:
        return None


# --- Random events, the same for every rig that they are applied to. --------------------------------------

Event = Callable[[Rig], None]
NETS = {
    peer: [Network.parse(network) for network in networks]
    for peer, networks in (
        (1, ["10.1.0.0/16", "10.9.0.1/32", "fd01::/64"]),
        (2, ["10.2.0.0/16", "10.1.7.0/24", "fd02::/64", "fd01::7/128"]),
    )
}
ADDRESSES = [
    *("10.1.0.1", "10.1.7.7", "10.2.0.1", "10.9.0.1", "10.9.0.2", "192.168.0.1"),
    *("fd01::1", "fd01::7", "fd02::1", "fd03::1"),
]
OURS = {4: "10.50.0.1", 6: "fd50::1"}
_PATTERN = bytes(i * (i >> 3 | 1) & 255 for i in range(1 << 16))
_SHIFTS = [bytes((seed + i) & 255 for i in range(256)) for seed in range(256)]


class Events:
    """A source of random events. Its choices come from `choice`: a `random.Random`, or hypothesis's."""

    def __init__(self, choice: random.Random) -> None:
        self.random = choice
        self.counters: Counter[int] = Counter()
        self.stream = 0

    def _bytes(self, n: int) -> bytes:
        return _PATTERN[:n].translate(_SHIFTS[self.random.randrange(256)])

    def _size(self) -> int:
        return self.random.choice([0, 1, 7, 15, 16, 17, 64, 100, 500, 1000, 1343, 1360, 1372])

    def _packet(self, source: str, destination: str, size: int) -> bytes:
        r = self.random
        protocol = r.choice([6, 6, 17, 17, 1])
        self.stream += size
        return packet(
            source,
            destination,
            self._bytes(size),
            protocol=protocol,
            tos=r.choice([0, 0, 0, 1, 2, 3, 0xB8]),
            sequence=self.stream,
            flags=r.choice([0x10, 0x10, 0x18, 0x11, 0x02, 0x14, 0xD0]),
            identification=r.choice([0, 5, 65535]),
            options=r.choice([b"", b"\1\1\x08\x0a" + bytes(8)]) if protocol == 6 else b"",
            fragment=r.choice([0, 0x4000, 0x4000, 0x2000, 0x0010]),
        )

    def frame(self, offload: TunOffload) -> bytes:
        """One frame from the tunnel device."""
        r = self.random
        destination = r.choice(ADDRESSES)
        source = OURS[6 if ":" in destination else 4]
        kind = r.randrange(10)
        if kind < 4 or not offload.vnet_hdr:
            frame = self._packet(source, destination, self._size())
            if offload.vnet_hdr:
                if r.randrange(3) == 0 and len(frame) > 60:
                    start = 20 if frame[0] >> 4 == 4 else 40
                    frame = struct.pack("=BBHHHH", 1, 0, 0, 0, start, r.choice([6, 16])) + frame
                else:
                    frame = PLAIN + frame
        else:
            protocol = r.choice([6, 17])
            payload = self._bytes(r.choice([1, 100, 1400, 3000, 9000, 20000, 60000]))
            whole = packet(
                source,
                destination,
                payload,
                protocol=protocol,
                tos=r.choice([0, 2, 3]),
                sequence=r.choice([1, 2**32 - 1000]),
                flags=r.choice([0x10, 0x18, 0x19, 0x98]),
                identification=r.choice([0, 65530]),
                options=r.choice([b"", b"\1\1\x08\x0a" + bytes(8)]) if protocol == 6 else b"",
            )
            segment = r.choice([1360, 1300, 536, 1000])
            if len(payload) < 4000:
                segment = r.choice([segment, 1, 13, 48, 3000, 0])
            frame = super_packet(whole, segment, kind=r.choice([None, None, None, 0, 1, 3, 4, 5, 0x81]))
        if r.randrange(8) == 0:
            frame = self._spoilt(frame)
        return frame

    def _spoilt(self, data: bytes) -> bytes:
        r = self.random
        spoilt = bytearray(data[: r.choice([len(data), r.randrange(len(data) + 1), min(len(data), 33)])])
        for _ in range(r.randrange(4)):
            if spoilt:
                spoilt[r.randrange(min(len(spoilt), r.choice([12, 60, len(spoilt)])))] = r.randrange(256)
        return bytes(spoilt)

    def message(self, mac1: Callable[[bytes], bytes]) -> bytes:
        """One datagram from the network."""
        r = self.random
        kind = r.randrange(12)
        if kind == 0:
            return self._spoilt(self._bytes(r.choice([0, 1, 3, 31, 32, 64, 92, 148, 149, 500])))
        if kind == 1:
            head = struct.pack("<I", r.choice([1, 2])) + self._bytes(112 if r.randrange(2) else 56)
            body = head + (mac1(head) if r.randrange(3) else bytes(16)) + bytes(16)
            return body if r.randrange(4) else self._spoilt(body)
        if kind == 2:
            return struct.pack("<I", 3) + self._bytes(60)
        index = r.choice([11, 11, 12, 21, 21, 99])
        address = (
            r.choice(ADDRESSES[:4] + ADDRESSES[6:9])
            if r.randrange(3)
            else {1: "10.1.0.1"}.get(index // 10, "10.2.0.1")
        )
        inner = (
            self._packet(address, OURS[6 if ":" in address else 4], self._size()) if r.randrange(6) else b""
        )
        if r.randrange(6) == 0 and inner:
            inner = self._spoilt(inner)
        self.counters[index] += 1
        counter = self.counters[index]
        if r.randrange(6) == 0:
            counter = r.choice(
                [0, max(counter - 1, 0), counter + 9000, counter + 63, 2**64 - 2**13 - 1, 2**64 - 1]
            )
            if counter < 2**60:
                self.counters[index] = max(self.counters[index], counter)
        message = data_message(index, counter, inner, padding=r.choice([-1, -1, 0, 5]))
        return self._spoilt(message) if r.randrange(10) == 0 else message

    def flow(self) -> list[bytes]:
        """Data messages that carry neighbours of one flow, of one size each but for the last."""
        r = self.random
        count, size = r.choice([2, 5, 20, 40]), r.choice([1, 100, 1000, 1360])
        v6, protocol = r.randrange(2), r.choice([6, 17])
        step = r.choice([0, 1, 1, 2])
        source = "fd01::1" if v6 else "10.1.0.1"
        messages = []
        sequence, identification = r.choice([5, 2**32 - 700]), r.choice([0, 65533])
        odd = r.randrange(count * 2)
        for i in range(count):
            last = i == count - 1
            inner = packet(
                source,
                OURS[6 if v6 else 4],
                self._bytes(size - (r.choice([0, 1]) if last and size > 1 else 0)),
                protocol=protocol,
                sequence=(sequence + i * size) & 0xFFFFFFFF,
                flags=0x18 if last and r.randrange(2) else 0x10,
                identification=(identification + i * step) & 0xFFFF,
                options=b"\1\1\x08\x0a" + bytes(8) if protocol == 6 else b"",
                ttl=63 if i == odd and r.randrange(2) else 64,
                acknowledgement=8 if i == odd and r.randrange(2) else 7,
            )
            if i == odd and r.randrange(2):
                inner = inner[:-1] + bytes([inner[-1] ^ 1])
            self.counters[11] += 1
            messages.append(data_message(11, self.counters[11], inner))
        return messages

    def next(self, offload: TunOffload, mac1: Callable[[bytes], bytes]) -> Event:
        """The next event; it may be applied to any number of rigs."""
        r = self.random
        kind = r.randrange(20)
        if kind < 7:
            frame = self.frame(offload) or b"\0"
            return lambda rig: rig.tun.deliver(frame)
        if kind < 13:
            remote, datagram, tos = r.randrange(REMOTES), self.message(mac1), r.choice([0, 0, 0, 1, 2, 3])
            return lambda rig: rig.arrive(remote, [datagram], tos)
        if kind < 16:
            remote, datagrams, tos = r.randrange(REMOTES), self.flow(), r.choice([0, 0, 2, 3])
            return lambda rig: rig.arrive(remote, datagrams, tos)
        return self._command()

    def _command(self) -> Event:
        r = self.random
        kind = r.randrange(16)
        peer = PeerId(r.choice([1, 2, 3]))
        index = r.choice([11, 12, 21])
        if kind == 0:
            return lambda rig: rig.path.retire(index)
        if kind < 3:
            may_send, limit, rekey = r.randrange(2) == 1, r.choice([2**60, 3]), r.choice([2**60, 2])
            self.counters[index] = 0

            def renew(rig: Rig) -> None:
                rig.path.retire(index)  # an index is given again only when it is free
                rig.path.install(
                    session(
                        index // 10,
                        index,
                        may_send=may_send,
                        expires=rig.expires,
                        message_limit=limit,
                        rekey_limit=rekey,
                    )
                )

            return renew
        if kind == 3:
            return lambda rig: rig.path.activate(index)
        if kind < 6:
            networks = r.sample([*NETS[1], *NETS[2]], 2)
            if kind == 4:
                return lambda rig: rig.path.remove_routes(peer, networks)
            return lambda rig: rig.path.add_routes(peer, networks)
        if kind == 6:
            remote = r.randrange(REMOTES + 1)
            return lambda rig: rig.path.set_endpoint(peer, rig.endpoint(remote) if remote < REMOTES else None)
        if kind == 7:
            mtu = r.choice([1420, 1280, 1400, 9000])
            return lambda rig: rig.path.set_mtu(mtu)
        if kind > 9:
            self.counters.clear()
            return set_up
        packets = [] if kind == 8 else [self._packet(OURS[4], "10.1.0.1", self._size()) for _ in range(3)]
        return lambda rig: rig.path.send(peer, packets, 10.0)


def set_up(rig: Rig) -> None:
    """Two peers, with a session each, their networks and endpoints."""
    for peer, networks in NETS.items():
        rig.path.retire(peer * 10 + 1)
        rig.path.add_routes(PeerId(peer), networks)
        rig.path.install(session(peer, peer * 10 + 1, expires=rig.expires))
        rig.path.set_endpoint(PeerId(peer), rig.endpoint(peer - 1))
