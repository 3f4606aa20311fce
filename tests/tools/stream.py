"""One TCP stream of random bytes; both ends print how many bytes went through, and their SHA-256.

stream.py receive ADDRESS PORT
stream.py send ADDRESS PORT BYTES [SECONDS]     spread over so many seconds
"""

import hashlib
import os
import socket
import sys
import time

CHUNK = 1 << 18


def receive(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    digest, total = hashlib.sha256(), 0
    with socket.create_server((address, port), family=family) as server:
        print("ready", flush=True)
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(CHUNK):
                digest.update(data)
                total += len(data)
    print(total, digest.hexdigest(), flush=True)


def send(address: str, port: int, size: int, seconds: float) -> None:
    digest, total, block = hashlib.sha256(), 0, os.urandom(CHUNK)
    with socket.create_connection((address, port), timeout=60) as connection:
        start = time.monotonic()
        while total < size:
            data = (total.to_bytes(8) + block[8:])[: size - total]
            digest.update(data)
            connection.sendall(data)
            total += len(data)
            time.sleep(max(0.0, start + seconds * total / size - time.monotonic()))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    print(total, digest.hexdigest(), flush=True)


if sys.argv[1] == "receive":
    receive(sys.argv[2], int(sys.argv[3]))
else:
    send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]) if len(sys.argv) > 5 else 0.0)
