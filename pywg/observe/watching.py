"""Watches an interface for some seconds: its counts, its events, and its handshake messages on the wire.

A packet socket sees what arrives before the firewall does and what leaves after it, so both beside the
daemon's counts tell where a datagram was lost. Peers without a session are sent one datagram, so that they
are called.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pywg.device.constants import REJECT_AFTER_TIME
from pywg.device.snapshot import DeviceSnapshot
from pywg.host import control
from pywg.noise.cookie import check_mac1, mac1_key
from pywg.observe.checks import Subject
from pywg.uapi.client import Client
from pywg.uapi.error import UapiError
from pywg.wire import messages
from pywg.wire.network import Network

SECONDS = 6.0
"""Within which a handshake is tried a second time: REKEY_TIMEOUT, its jitter, and time for the answer."""

SHORTEST = 0.5
"""Seconds that one looks at a tunnel whose peers all have sessions."""

CALLED_AT_MOST = 100
"""Peers that are sent a datagram."""

_EVERY = 0.1
_DISCARD_PORT = 9
_OUTGOING = 4
_ALL_PROTOCOLS = 3
_ATTACH_FILTER = 26
_SAMPLES = 1000
_WITH_MAC1 = (messages.TYPE_INITIATION, messages.TYPE_RESPONSE)
_STAND_IN = {4: "203.0.113.1", 6: "2001:db8::1"}
"""An address for "everything": of the networks for documents, which lead nowhere."""


def watch(subject: Subject, seconds: float = SECONDS) -> None:
    """Fill `subject.watched`. Ends early when every peer has a session, or a handshake was refused."""
    watched, device = subject.watched, subject.device
    if device is None:
        return
    began = time.monotonic()
    counters = kernel_counters()
    watched.device = device
    # What leaves is recorded longer than the daemon's counts are compared, what arrives shorter: so neither
    # seems lost that was just on its way.
    with _wire(subject, device) as wire:
        watched.before = watched.after = control.statistics(subject.interface)
        if watched.before is not None:
            threading.Thread(target=_read_events, args=(subject,), daemon=True).start()
        if wire is not None:
            wire.takes_arrivals = True
        call_peers(subject, device)
        called = time.monotonic()
        while (spent := time.monotonic() - called) < seconds:
            time.sleep(_EVERY)
            watched.after = control.statistics(subject.interface)
            watched.device = control.get(subject.interface)
            if spent > SHORTEST and _is_decided(subject):
                break
        if wire is not None:
            wire.takes_arrivals = False
        time.sleep(_EVERY)
        watched.after = control.statistics(subject.interface)
        time.sleep(_EVERY)
    if wire is not None:
        watched.left, watched.arrived, watched.wrong_mac1 = wire.left, wire.arrived, wire.wrong_mac1
    watched.counters = {name: value - counters.get(name, 0) for name, value in kernel_counters().items()}
    watched.seconds = time.monotonic() - began


def has_session(subject: Subject, key: str) -> bool:
    """Whether a peer has one that may be used; of other daemons than pywgd, whether it should have."""
    pair = subject.watched.peer(key)
    if pair is not None:
        return pair[1]["session_age"] is not None
    device = subject.watched.device or subject.device
    peers = device.peers if device is not None else ()
    return any(
        str(peer.public_key) == key and time.time() - peer.last_handshake_ns / 1e9 < REJECT_AFTER_TIME
        for peer in peers
    )


def refused(subject: Subject, key: str, reason: str) -> int:
    """How many of a peer's handshake messages were refused for a reason while one looked."""
    pair = subject.watched.peer(key)
    if pair is None:
        return 0
    before, after = (int(side["handshakes"]["refused"].get(reason, 0)) for side in pair)
    return after - before


def call_peers(subject: Subject, device: DeviceSnapshot) -> None:
    """Send one datagram to an allowed IP of each peer that can be called and has no session."""
    called = 0
    for peer in device.peers:
        if peer.endpoint is None or has_session(subject, str(peer.public_key)) or called >= CALLED_AT_MOST:
            continue
        for network in peer.allowed_ips:
            if _send_to(subject.interface, address_in(network)):
                called += 1
                break


def address_in(network: Network) -> str:
    """One address of a network that is not the network's own."""
    if network.prefixlen == 0:
        return _STAND_IN[network.version]
    first = ipaddress.ip_address(network.address)
    return str(first + 1 if network.max_prefixlen - network.prefixlen > 1 else first)


def kernel_counters() -> dict[str, int]:
    """Those of /proc/net/snmp and /proc/net/netstat, as `nstat` names them; none where there are none."""
    found = {}
    for file in ("/proc/net/snmp", "/proc/net/netstat"):
        with contextlib.suppress(OSError, ValueError):
            lines = Path(file).read_text(encoding="ascii").splitlines()
            for names, values in zip(lines[::2], lines[1::2], strict=False):
                group, *columns = names.split()
                for name, value in zip(columns, values.split()[1:], strict=False):
                    found[f"{group.rstrip(':')}{name}"] = int(value)
    return found


def _is_decided(subject: Subject) -> bool:
    device = subject.watched.device
    said = subject.watched.after
    if said is not None and not said["is_up"]:
        return True
    return device is not None and all(
        has_session(subject, key) or refused(subject, key, "bad-tag")
        for key in (str(peer.public_key) for peer in device.peers)
    )


def _read_events(subject: Subject) -> None:
    with contextlib.suppress(UapiError, OSError, ValueError), Client.open(subject.interface) as client:
        for event in client.events():
            if len(subject.watched.events) < _SAMPLES:
                subject.watched.events.append(event)


def _send_to(interface: str, address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            if sys.platform == "linux":
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            sender.setblocking(False)
            sender.sendto(b"", (address, _DISCARD_PORT))
    except OSError:
        return False
    return True


# --- The wire. --------------------------------------------------------------------------------------------


class _Wire:
    """Handshake messages with a device's port, as they pass the network interfaces."""

    def __init__(self, sniffer: socket.socket, interface: str, device: DeviceSnapshot) -> None:
        self.left: list[tuple[int, str]] = []
        self.arrived: list[tuple[int, str]] = []
        self.wrong_mac1: list[str] = []
        self.takes_arrivals = False
        self._sniffer, self._interface, self._port = sniffer, interface, device.listen_port
        self._mac1_key = None if device.private_key is None else mac1_key(device.private_key.public_key)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._ended.is_set():
            try:
                packet, address = self._sniffer.recvfrom(2048)
            except TimeoutError:
                continue
            except OSError:
                return
            if address[0] != self._interface:
                self._take(packet, outgoing=address[2] == _OUTGOING)

    def _take(self, packet: bytes, *, outgoing: bool) -> None:
        found = seen_untrusted(packet, self._port, outgoing=outgoing)
        seen = self.left if outgoing else self.arrived
        if found is not None and len(seen) < _SAMPLES and (outgoing or self.takes_arrivals):
            message, remote = found
            seen.append((message[0], remote))
            if not outgoing and not self._is_for_us(message):
                self.wrong_mac1.append(remote)

    def _is_for_us(self, message: bytes) -> bool:
        """False when MAC1 is made with another public key; of what has none, nothing is said."""
        has_mac1 = message[0] in _WITH_MAC1 and len(message) == messages.MESSAGE_SIZES[message[0]]
        return not has_mac1 or self._mac1_key is None or check_mac1(self._mac1_key, message)


def seen_untrusted(packet: bytes, port: int, *, outgoing: bool) -> tuple[bytes, str] | None:
    """What UDP carries in a packet as an interface has it, before the kernel's checks, and its far address.

    port: ours. None when the packet is cut short or carries nothing, or is another port's.
    """
    six = packet[:1] >= b"\x60"
    header = 40 if six else (packet[0] & 15) * 4 if packet else 0
    if header < 20 or len(packet) < header + 9:
        return None
    source_port, target_port = struct.unpack_from("!HH", packet, header)
    if (source_port if outgoing else target_port) != port:
        return None
    offset = (24 if outgoing else 8) if six else (16 if outgoing else 12)
    family = socket.AF_INET6 if six else socket.AF_INET
    return packet[header + 8 :], socket.inet_ntop(family, packet[offset : offset + (16 if six else 4)])


@contextlib.contextmanager
def _wire(subject: Subject, device: DeviceSnapshot) -> Iterator[_Wire | None]:
    """None where nobody may look, on other systems than Linux, and where the interface is elsewhere."""
    if sys.platform != "linux" or subject.is_elsewhere:
        yield None
        return
    try:
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_PROTOCOLS))
    except OSError:
        yield None
        return
    with sniffer:
        _attach_filter(sniffer, device.listen_port)
        sniffer.settimeout(_EVERY)
        wire = _Wire(sniffer, subject.interface, device)
        try:
            yield wire
        finally:
            wire.close()


def _attach_filter(sniffer: socket.socket, port: int) -> None:
    """UDP from or to the port that is no transport data, so that a busy tunnel costs nothing here."""
    byte, half, byte_at, half_at, equal = 0x30, 0x28, 0x50, 0x48, 0x15
    accept, reject = 21, 22

    def jump(at: int, value: int, then: int, otherwise: int) -> tuple[int, int, int, int]:
        return equal, then - at - 1, otherwise - at - 1, value

    program = [
        (byte, 0, 0, 0),
        (0x54, 0, 0, 0xF0),
        jump(2, 0x60, 13, 3),
        jump(3, 0x40, 4, reject),
        (byte, 0, 0, 9),
        jump(5, socket.IPPROTO_UDP, 6, reject),
        (0xB1, 0, 0, 0),  # x: the length of the IPv4 header
        (half_at, 0, 0, 0),
        jump(8, port, 11, 9),
        (half_at, 0, 0, 2),
        jump(10, port, 11, reject),
        (byte_at, 0, 0, 8),
        jump(12, 4, reject, accept),
        (byte, 0, 0, 6),
        jump(14, socket.IPPROTO_UDP, 15, reject),
        (half, 0, 0, 40),
        jump(16, port, 19, 17),
        (half, 0, 0, 42),
        jump(18, port, 19, reject),
        (byte, 0, 0, 48),
        jump(20, 4, reject, accept),
        (0x06, 0, 0, 0xFFFF),
        (0x06, 0, 0, 0),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("@HBBI", *step) for step in program))
    described = struct.pack("@HP", len(program), ctypes.addressof(code))
    sniffer.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, described)
