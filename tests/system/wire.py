"""What passes on a wire between two stations: captured messages, taken apart without our own code."""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib
import struct

from tests.system.net import Link, eventually
from tests.system.tunnel import PORT

INITIATION, RESPONSE, COOKIE_REPLY, DATA = 1, 2, 3, 4
SNAP = 256


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One message of the protocol.

    time: seconds of the wall clock. tos: the outer TOS byte or traffic class. length: of the whole message.
    head: its first bytes, about SNAP of them.
    """

    time: float
    source: str
    destination: str
    tos: int
    length: int
    head: bytes

    @property
    def type(self) -> int:
        return self.head[0] if self.head else 0

    @property
    def has_mac2(self) -> bool:
        """Whether a handshake message carries an answer to a cookie."""
        end = {INITIATION: 148, RESPONSE: 92}[self.type]
        return self.head[end - 16 : end] != bytes(16)


class Capture:
    """Captures one link until `messages` is asked for. `only`: a tcpdump expression that narrows it."""

    def __init__(self, link: Link, only: str = "") -> None:
        self.file: pathlib.Path = link.tap_host.directory / f"{link.tap_host.name}-{link.tap_interface}.pcap"
        expression = f"udp port {PORT}" + (f" and ({only})" if only else "")
        # Else tcpdump would drop its privileges and write late.
        self._task = link.tap_host.start(
            *f"tcpdump -n -U --immediate-mode -Z root -i {link.tap_interface} -s {SNAP} -B 16384 -w".split(),
            self.file,
            expression,
        )
        eventually("tcpdump listens", lambda: "listening on" in self._task.output())

    def messages(self) -> list[Message]:
        """Everything captured so far; the capture goes on."""
        return parse(self.file.read_bytes())

    def of_types(self, *types: int) -> list[Message]:
        return [message for message in self.messages() if message.type in types]

    def close(self) -> None:
        self._task.stop()


def parse(data: bytes) -> list[Message]:
    """The UDP payloads in a pcap file of Ethernet frames; an unfinished last record is left out."""
    found, at = [], 24
    while at + 16 <= len(data):
        seconds, micros, kept, _ = struct.unpack_from("=IIII", data, at)
        frame = data[at + 16 : at + 16 + kept]
        if len(frame) < kept:
            break
        at += 16 + kept
        packet = frame[14:]
        if packet[0] >> 4 == 4:
            source, destination = packet[12:16], packet[16:20]
            tos, udp = packet[1], (packet[0] & 15) * 4
        else:
            source, destination = packet[8:24], packet[24:40]
            tos, udp = struct.unpack("!I", packet[:4])[0] >> 20 & 255, 40
        length = struct.unpack_from("!H", packet, udp + 4)[0] - 8
        found.append(
            Message(
                seconds + micros / 1e6,
                str(ipaddress.ip_address(source)),
                str(ipaddress.ip_address(destination)),
                tos,
                length,
                packet[udp + 8 :],
            )
        )
    return found
