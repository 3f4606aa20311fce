"""ICMP echo requests of every payload size from 0 to LARGEST bytes, each once, each answered with its bytes.

    pings.py ADDRESS LARGEST

Ends with status 1 at the first that has no answer within TIMEOUT seconds. The first of all may wait longer:
it waits for the handshake. Needs CAP_NET_RAW.
"""

import os
import socket
import struct
import sys
import time

TIMEOUT = 5.0
FIRST_TIMEOUT = 20.0


def checksum(data: bytes) -> int:
    """RFC 1071."""
    words: tuple[int, ...] = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def main(address: str, largest: int) -> int:
    six = ":" in address
    request, reply = (128, 129) if six else (8, 0)
    protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, protocol)
    identifier = os.getpid() & 0xFFFF
    for size in range(largest + 1):
        payload = os.urandom(size)
        head = struct.pack("!BBHHH", request, 0, 0, identifier, size)
        if not six:  # for ICMPv6 the system does it
            head = struct.pack("!BBHHH", request, 0, checksum(head + payload), identifier, size)
        sock.sendto(head + payload, (address, 0))
        deadline = time.monotonic() + (TIMEOUT if size else FIRST_TIMEOUT)
        while True:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                packet = sock.recv(65536)
            except TimeoutError:
                print(f"no answer to {size} bytes")
                return 1
            message = packet if six else packet[(packet[0] & 15) * 4 :]
            if message[:1] == bytes([reply]) and message[4:8] == struct.pack("!HH", identifier, size):
                break
        if message[8:] != payload:
            print(f"the answer to {size} bytes is not what was sent: {message[8:].hex()}")
            return 1
    print(f"{largest + 1} answers")
    return 0


sys.exit(main(sys.argv[1], int(sys.argv[2])))
