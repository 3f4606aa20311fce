"""Puts a WireGuard responder under load: initiations whose MAC1 is right and whose content is random.

    flood.py SOURCE ADDRESS PORT PUBLIC_KEY SECONDS

They come in bursts of 600, so that the responder's queue fills, and in between at 1000 per second, for
programs that count handshakes per second. Prints "loaded" at the first cookie reply, and in the end one line
of JSON: sent, cookies (replies of type 3), others (replies of other types).
"""

import base64
import hashlib
import json
import os
import socket
import struct
import sys
import time

BURST, BURST_EVERY = 600, 0.5
TRICKLE, TRICKLE_EVERY = 5, 0.005


def initiation(mac1_key: bytes) -> bytes:
    """A message of type 1 that passes the check of MAC1 and no other (WireGuard paper, section 5.4.4)."""
    body = struct.pack("<I", 1) + os.urandom(112)
    return body + hashlib.blake2s(body, key=mac1_key, digest_size=16).digest() + bytes(16)


def main(source: str, address: str, port: int, public_key: str, seconds: float) -> None:
    mac1_key = hashlib.blake2s(b"mac1----" + base64.b64decode(public_key)).digest()
    messages = [initiation(mac1_key) for _ in range(BURST)]
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.bind((source, 0))
    sock.connect((address, port))
    sock.setblocking(False)
    sent, replies = 0, {"cookies": 0, "others": 0}
    now = time.monotonic()
    end, next_burst, next_trickle = now + seconds, now, now
    while now < end:
        if now >= next_burst:
            batch, next_burst = BURST, now + BURST_EVERY
        elif now >= next_trickle:
            batch, next_trickle = TRICKLE, now + TRICKLE_EVERY
        else:
            time.sleep(max(0.0, min(next_burst, next_trickle) - now))
            batch = 0
        for index in range(batch):
            try:
                sock.send(messages[(sent + index) % BURST])
            except OSError:
                continue
        sent += batch
        while True:
            try:
                reply = sock.recv(2048)
            except OSError:
                break
            if reply[:1] == b"\3":
                if not replies["cookies"]:
                    print("loaded", flush=True)
                replies["cookies"] += 1
            else:
                replies["others"] += 1
        now = time.monotonic()
    print(json.dumps({"sent": sent, **replies}), flush=True)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5]))
