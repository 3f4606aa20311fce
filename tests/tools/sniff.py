"""Prints every IP packet that arrives on an interface, in hexadecimal: sniff.py INTERFACE. Ends when killed.

Takes offloads off the interface first, so that what is sent to the neighbour goes as the kernel segments it.
"""

import fcntl
import socket
import struct
import sys

SIOCETHTOOL = 0x8946
SET_TX_CSUM, SET_SG, SET_TSO, SET_GSO, SET_GRO = 0x17, 0x19, 0x1F, 0x24, 0x2C
PACKET_OUTGOING = 4


def without_offloads(interface: str) -> None:
    import ctypes

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in (SET_TSO, SET_GSO, SET_GRO, SET_SG, SET_TX_CSUM):
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP", interface.encode(), ctypes.addressof(value)) + bytes(16)
            try:
                fcntl.ioctl(control, SIOCETHTOOL, request)
            except OSError as error:
                print(f"{command:#x}: {error}", file=sys.stderr)


without_offloads(sys.argv[1])
if sys.argv[2:] != ["only-offloads"]:
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    packets.bind((sys.argv[1], 3))
    packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    print("ready", flush=True)
    while True:
        data, address = packets.recvfrom(70000)
        if address[2] != PACKET_OUTGOING and address[1] in (0x0800, 0x86DD):
            print(data.hex(), flush=True)
