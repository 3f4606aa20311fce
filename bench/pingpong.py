"""One byte to and fro over a TCP connection, as fast as it goes; run by the benchmark inside the hosts.

    python pingpong.py serve ADDRESS PORT
    python pingpong.py ask ADDRESS PORT SECONDS

`ask` prints one line of JSON: count of round trips, and microseconds: mean, p50, p90, p99, p999.
"""

from __future__ import annotations

import json
import socket
import sys
import time

WARM_UP = 100


def serve(address: str, port: int) -> None:
    with socket.create_server((address, port)) as server:
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connection.recv(1):
                connection.sendall(data)


def ask(address: str, port: int, seconds: float) -> list[int]:
    """The round trip times in nanoseconds."""
    taken = []
    with socket.create_connection((address, port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)
        send, receive, clock = connection.send, connection.recv, time.perf_counter_ns
        for _ in range(WARM_UP):
            send(b"x")
            receive(1)
        end = clock() + int(seconds * 1e9)
        before = clock()
        while before < end:
            send(b"x")
            receive(1)
            now = clock()
            taken.append(now - before)
            before = now
    return taken


def summary(taken: list[int]) -> dict[str, float]:
    known = sorted(taken)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
    quantiles = {
        name: known[min(len(known) - 1, int(share * len(known)))] / 1e3 for name, share in shares.items()
    }
    return {"count": len(known), "mean": sum(known) / len(known) / 1e3, **quantiles}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        print(json.dumps(summary(ask(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))))
