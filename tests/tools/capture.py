"""Writes the handshake messages of WireGuard that pass an interface to a pcap file, each at once.

    capture.py INTERFACE PORT FILE

Only those from PORT to PORT are written. Prints "listening" when it does. Unlike tcpdump it does not change
its user, which a user namespace refuses.
"""

import pathlib
import socket
import struct
import sys

SO_TIMESTAMPNS = 35
HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)  # nanoseconds, Ethernet


def is_handshake(frame: bytes, port: int) -> bool:
    kind, at = frame[12:14], 14
    if kind == b"\x08\x00" and frame[23] == socket.IPPROTO_UDP:
        at += (frame[14] & 15) * 4
    elif kind == b"\x86\xdd" and frame[20] == socket.IPPROTO_UDP:
        at += 40
    else:
        return False
    return frame[at : at + 4] == struct.pack("!HH", port, port) and frame[at + 8 : at + 9] in (
        b"\1",
        b"\2",
        b"\3",
    )


def main(interface: str, port: int, path: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock, pathlib.Path(path).open("wb", 0) as file:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        file.write(HEADER)
        sock.bind((interface, 3))
        print("listening", flush=True)
        while True:
            frame, attached, _, _ = sock.recvmsg(2048, 64)
            if is_handshake(frame, port):
                time = struct.unpack("=qq", attached[0][2])
                file.write(struct.pack("=IIII", *time, len(frame), len(frame)) + frame)


main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
