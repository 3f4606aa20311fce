"""Sends a WireGuard peer what it must not be upset by: garbage, and other versions of what it really gets.

    garbage.py INTERFACE ADDRESS PORT SECONDS

Runs on the host of the other peer and listens on INTERFACE. From a port of its own: random bytes of
random length, up to the largest of UDP, each with every first byte that is or looks like a type of
message. Under the other peer's own address and port: each of its messages again, once as it was, with a
flipped bit, cut short, made longer, and with another type. Needs CAP_NET_RAW; IPv4 only. Prints one
line of JSON: how many of each.
"""

import collections
import json
import os
import random
import socket
import struct
import sys
import time

TYPES = (0, 1, 2, 3, 4, 5, 255)
LARGE = (1420, 1472, 2000, 9000, 32768, 65507)
SIZES = (32, 64, 92, 148)
PAUSE = 0.003  # so about 2000 datagrams per second


def forged(frame: bytes, payload: bytes) -> bytes:
    """The IPv4 packet in an Ethernet frame, with another UDP payload; the UDP checksum is left out."""
    header = bytearray(frame[14:34])
    header[2:4] = bytes(2)  # the system fills in length, identifier and checksum
    header[4:6] = header[10:12] = bytes(2)
    return bytes(header) + frame[34:38] + struct.pack("!HH", 8 + len(payload), 0) + payload


def variants(message: bytes) -> dict[str, bytes]:
    bit = random.randrange(len(message) * 8)
    flipped = bytearray(message)
    flipped[bit // 8] ^= 1 << bit % 8
    return {
        "replayed": message,
        "flipped": bytes(flipped),
        "cut": message[: random.randrange(len(message))],
        "longer": message + os.urandom(random.randrange(1, 64)),
        "retyped": bytes([random.choice(TYPES)]) + message[1:],
    }


def overheard(frame: bytes, destination: bytes, port: bytes) -> bytes | None:
    """The message in a frame, if the other peer sent it to this one: both use the same port number."""
    if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_UDP or frame[30:34] != destination:
        return None
    if frame[34:36] != port or frame[36:38] != port or not 43 <= len(frame) <= 1442:
        return None
    return frame[42:]


def main(interface: str, address: str, port: int, seconds: float) -> None:
    counts: collections.Counter[str] = collections.Counter()
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.bind((interface, 0))
    tap.setblocking(False)
    end, destination, ports = time.monotonic() + seconds, socket.inet_aton(address), struct.pack("!H", port)
    already: set[bytes] = set()
    while time.monotonic() < end:
        size = random.choice((random.randrange(257), random.choice(SIZES), random.choice(LARGE)))
        for first in TYPES:
            plain.sendto((bytes([first, 0, 0, 0]) + os.urandom(size))[:size], (address, port))
            counts["random"] += 1
        time.sleep(PAUSE)
        while True:
            try:
                frame = tap.recv(65536)
            except BlockingIOError:
                break
            message = overheard(frame, destination, ports)
            if message is None or message in already:
                continue
            for name, content in variants(message).items():
                already.add(content)
                raw.sendto(forged(frame, content), (address, 0))
                counts[name] += 1
    print(json.dumps(counts))


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
