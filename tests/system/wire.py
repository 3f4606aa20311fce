"""The handshakes that pass on a wire between two stations, captured and taken apart without our own code."""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib
import struct

from tests.system.net import Link, eventually, tool
from tests.system.tunnel import PORT

INITIATION, RESPONSE, COOKIE_REPLY = 1, 2, 3


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One handshake message.

    time: seconds of the wall clock. tos: the outer TOS byte or traffic class. content: all of it.
    """

    time: float
    source: str
    destination: str
    tos: int
    content: bytes

    @property
    def type(self) -> int:
        return self.content[0]

    @property
    def has_mac2(self) -> bool:
        """Whether a handshake message carries an answer to a cookie."""
        end = {INITIATION: 148, RESPONSE: 92}[self.type]
        return self.content[end - 16 : end] != bytes(16)


class Capture:
    """Captures the handshake messages on one link from now on."""

    def __init__(self, link: Link) -> None:
        self.file: pathlib.Path = link.tap_host.directory / f"{link.tap_host.name}-{link.tap_interface}.pcap"
        task = tool(link.tap_host, "capture.py", link.tap_interface, PORT, self.file)
        eventually("the capture runs", lambda: "listening" in task.output())

    def messages(self) -> list[Message]:
        """Everything captured so far; the capture goes on."""
        return parse(self.file.read_bytes())


def parse(data: bytes) -> list[Message]:
    """The UDP payloads in a pcap file of Ethernet frames; an unfinished last record is left out."""
    found, at = [], 24
    while at + 16 <= len(data):
        seconds, nanos, kept, _ = struct.unpack_from("=IIII", data, at)
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
        found.append(
            Message(
                seconds + nanos / 1e9,
                str(ipaddress.ip_address(source)),
                str(ipaddress.ip_address(destination)),
                tos,
                packet[udp + 8 :],
            )
        )
    return found
