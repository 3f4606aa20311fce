"""`pywg` as on a kernel without nftables: its netlink protocol cannot be opened. Its arguments are pywg's."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

NETLINK_NETFILTER = 12


class Socket(socket.socket):
    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: Any = None) -> None:
        if family == socket.AF_NETLINK and proto == NETLINK_NETFILTER:
            raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
        super().__init__(family, type, proto, fileno)


socket.socket = Socket  # type: ignore[misc]

from pywg.cli.pywg import main  # noqa: E402

main()
