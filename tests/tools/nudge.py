"""Sends an empty Ethernet frame out of an interface every 10 ms: nudge.py INTERFACE

A guest misses the signal for an arriving packet about once in some thousand packets, and then sleeps until
the next one arrives. With this there always is a next one.
"""

import contextlib
import socket
import sys
import time

FRAME = b"\xff" * 6 + b"\x02" + bytes(5) + b"\x88\xb5" + bytes(46)  # an EtherType for local experiments

with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
    sock.bind((sys.argv[1], 0))
    while True:
        with contextlib.suppress(OSError):  # a full queue: then packets arrive anyway
            sock.send(FRAME)
        time.sleep(0.01)
