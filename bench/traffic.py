"""Loads that last, and are stopped and continued by signals; run by the benchmark inside the hosts.

    python traffic.py receive tcp|udp ADDRESS PORT FILE
    python traffic.py send tcp|udp ADDRESS PORT
    python traffic.py scrape URL FILE

`receive` keeps in FILE how many bytes and how many packets or pieces have arrived: two numbers of 8 bytes.
`scrape` asks once, adds to the first number the bytes of the answer and to the second 1, and stops itself
until it is continued.
"""

from __future__ import annotations

import errno
import http.client
import mmap
import os
import pathlib
import signal
import socket
import struct
import sys
import urllib.parse

COUNTS = struct.Struct("=QQ")
DATAGRAM = 1372  # bytes
CHUNK = 1 << 18
CONGESTION = b"cubic"  # BBR measures its path anew every ten seconds, with next to no traffic meanwhile
UDP_GRO = 104
PASSING = {errno.ENOBUFS, errno.ECONNREFUSED}


class Counts:
    """Two running totals that another process can read."""

    def __init__(self, path: pathlib.Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), COUNTS.size)
        self.bytes = self.pieces = 0

    def add(self, size: int, pieces: int) -> None:
        self.bytes += size
        self.pieces += pieces
        COUNTS.pack_into(self._map, 0, self.bytes, self.pieces)


def make_counts(path: pathlib.Path) -> None:
    """The file, with nothing counted yet."""
    path.write_bytes(bytes(COUNTS.size))


def read_counts(path: pathlib.Path) -> tuple[int, int]:
    """Bytes and pieces so far."""
    size, pieces = COUNTS.unpack(path.read_bytes())
    return int(size), int(pieces)


def receive_tcp(address: str, port: int, counts: Counts) -> None:
    room = bytearray(CHUNK)
    with socket.create_server((address, port)) as server:
        connection, _ = server.accept()
        with connection:
            while size := connection.recv_into(room):
                counts.add(size, 1)


def receive_udp(address: str, port: int, counts: Counts) -> None:
    room = bytearray(CHUNK)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.bind((address, port))
        while True:
            size = sock.recv_into(room)
            counts.add(size, size // DATAGRAM)


def send_tcp(address: str, port: int) -> None:
    data = bytes(CHUNK)
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION)
        sock.connect((address, port))
        while True:
            sock.sendall(data)


def send_udp(address: str, port: int) -> None:
    data = bytes(DATAGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        while True:
            try:
                sock.send(data)
            except OSError as error:
                if error.errno not in PASSING:
                    raise


def scrape(url: str, counts: Counts) -> None:
    parts = urllib.parse.urlsplit(url)
    while True:
        connection = http.client.HTTPConnection(parts.netloc, timeout=10)
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status != http.HTTPStatus.OK:
            sys.exit(f"{url}: {answer.status} {answer.reason}")
        counts.add(len(text), 1)
        os.kill(os.getpid(), signal.SIGSTOP)


def main(arguments: list[str]) -> None:
    match arguments:
        case ["receive", "tcp", address, port, file]:
            receive_tcp(address, int(port), Counts(pathlib.Path(file)))
        case ["receive", "udp", address, port, file]:
            receive_udp(address, int(port), Counts(pathlib.Path(file)))
        case ["send", "tcp", address, port]:
            send_tcp(address, int(port))
        case ["send", "udp", address, port]:
            send_udp(address, int(port))
        case ["scrape", url, file]:
            scrape(url, Counts(pathlib.Path(file)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
