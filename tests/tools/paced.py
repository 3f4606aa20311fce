"""A paced stream of numbered UDP datagrams that the other end sends back; says which were lost, and where.

    paced.py echo ADDRESS PORT
    paced.py send ADDRESS PORT COUNT INTERVAL

The echo puts its own count into each datagram that it returns, which tells on which way one was lost. The
sender prints one line of JSON:
sent, returned, duplicated: datagrams; lost: their numbers; refused: sends that the system refused;
longest_gap: seconds between two arrivals; last_lost: seconds from the start to the last lost one (0: none);
seen: the highest count that the echo has told.
"""

import json
import selectors
import socket
import struct
import sys
import time

FORM = struct.Struct("!IId")
SETTLE = 2.0  # seconds to wait for late ones after the last was sent


def bound(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((address, port))
    return sock


def echo(address: str, port: int) -> None:
    sock, seen = bound(address, port), set[int]()
    print("ready", flush=True)
    while True:
        data, source = sock.recvfrom(2048)
        number, _, sent_at = FORM.unpack(data)
        seen.add(number)
        try:
            sock.sendto(FORM.pack(number, len(seen), sent_at), source)
        except OSError:
            continue  # the sender counts it as lost


def send(address: str, port: int, count: int, interval: float) -> None:
    sock = bound("::" if ":" in address else "0.0.0.0", 0)
    sock.setblocking(False)
    returned, duplicated, refused, seen, longest_gap = set[int](), 0, 0, 0, 0.0
    start = time.monotonic()
    last_arrival, number, deadline = start, 0, start + count * interval + SETTLE
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        while number < count or (len(returned) < count and time.monotonic() < deadline):
            due = start + number * interval if number < count else deadline
            if selector.select(max(0.0, due - time.monotonic())):
                try:
                    data = sock.recv(2048)
                except OSError:
                    continue  # an ICMP error about an earlier datagram
                if not returned:
                    print("flowing", flush=True)
                now = time.monotonic()
                which, told, _ = FORM.unpack(data)
                duplicated += which in returned
                returned.add(which)
                seen = max(seen, told)
                longest_gap, last_arrival = max(longest_gap, now - last_arrival), now
            elif number < count:
                try:
                    sock.sendto(FORM.pack(number, 0, time.monotonic()), (address, port))
                except OSError:
                    refused += 1
                number += 1
    lost = sorted(set(range(count)) - returned)
    outcome = {
        "sent": count,
        "returned": len(returned),
        "duplicated": duplicated,
        "lost": lost,
        "refused": refused,
        "longest_gap": round(longest_gap, 3),
        "last_lost": round(lost[-1] * interval, 3) if lost else 0,
        "seen": seen,
    }
    print(json.dumps(outcome), flush=True)


if sys.argv[1] == "echo":
    echo(sys.argv[2], int(sys.argv[3]))
else:
    send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
