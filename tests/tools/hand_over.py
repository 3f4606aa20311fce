"""Starts a program with an open TUN device as descriptor 3 and a listening socket as 4, as wireguard-go does
when it executes itself again: `hand_over.py NAME {plain|vnet_hdr} SOCKET PROGRAM ARGUMENT...`.

SOCKET: where to listen; `-`: nowhere, the program makes its own. The device's MTU is left at the kernel's.
"""

import fcntl
import os
import socket
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 1, 0x1000, 0x4000


def main(name: str, kind: str, path: str, *command: str) -> None:
    flags = IFF_TUN | IFF_NO_PI | (IFF_VNET_HDR if kind == "vnet_hdr" else 0)
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    inherited = {"WG_TUN_FD": 3}
    descriptors = [device]
    if path != "-":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        inherited["WG_UAPI_FD"] = 4
        descriptors.append(listener.detach())
    copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in descriptors]
    for number, copy in enumerate(copies, 3):
        os.dup2(copy, number)
        os.close(copy)
    variables = {variable: str(number) for variable, number in inherited.items()}
    os.execvpe(command[0], command, {**os.environ, **variables})


main(*sys.argv[1:])
