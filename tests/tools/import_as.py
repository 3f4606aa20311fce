"""Imports modules of pywg as if on another system: `import_as.py PLATFORM MODULE...`; prints what fails.

What the standard library and the packages need of this system is imported before; then `sys.platform` says
another name, what only Linux has cannot be imported, and what Python does not have there is taken away.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import time
from importlib.abc import MetaPathFinder

ABSENT = {
    "darwin": {"pytun", "pyroute2", "pywg.datapath.compiled"},
    "win32": {
        *("pytun", "pyroute2", "pywg.datapath.compiled", "uvloop"),
        *("fcntl", "grp", "pwd", "resource", "syslog", "termios"),
    },
}
TAKEN = {
    "darwin": [
        *((socket, name) for name in ("AF_NETLINK", "NETLINK_ROUTE", "SO_MARK", "SOCK_CLOEXEC")),
        *((time, name) for name in ("CLOCK_BOOTTIME",)),
    ],
    "win32": [
        *((socket, name) for name in ("AF_NETLINK", "NETLINK_ROUTE", "SO_MARK", "SOCK_CLOEXEC", "AF_UNIX")),
        *((socket, name) for name in ("EAI_NODATA", "EAI_SYSTEM", "EAI_ADDRFAMILY", "IP_PKTINFO")),
        *((socket.socket, name) for name in ("recvmsg", "recvmsg_into", "sendmsg")),
        *((signal, name) for name in ("SIGHUP", "SIGCHLD", "SIGUSR1", "SIGKILL", "pthread_sigmask")),
        *(
            (os, name)
            for name in ("fork", "geteuid", "getuid", "setsid", "writev", "O_NONBLOCK", "O_CLOEXEC")
        ),
        *((os, name) for name in ("O_DIRECTORY", "sysconf", "uname")),
        *((time, name) for name in ("CLOCK_BOOTTIME", "clock_gettime")),
    ],
}


class Blocked(MetaPathFinder):
    def __init__(self, names: set[str]) -> None:
        self._names = names

    def find_spec(self, name, path=None, target=None):
        if name in self._names or name.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"no module named '{name}' on {sys.platform}", name=name)


def become(platform: str) -> None:
    """Take this interpreter to another system, as far as an import can tell."""
    # What these need of Linux, they shall have.
    for name in (
        "asyncio",
        "subprocess",
        "ctypes",
        "click",
        "cryptography",
        "nacl.bindings",
        "importlib.metadata",
    ):
        importlib.import_module(name)
    for name in (
        "cryptography.hazmat.primitives.ciphers.aead",
        "cryptography.hazmat.primitives.asymmetric.x25519",
        *("shutil", "tempfile", "multiprocessing", "logging.handlers", "concurrent.futures", "rich.console"),
        *(
            "rich.table",
            "rich.live",
            "http.server",
            "json",
            "selectors",
            "select",
            "threading",
            "email.message",
        ),
    ):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:  # it belongs to an extra that is not installed
            continue
    sys.meta_path.insert(0, Blocked(ABSENT[platform]))
    for name in ABSENT[platform]:
        sys.modules.pop(name, None)
    for owner, attribute in TAKEN[platform]:
        if hasattr(owner, attribute):
            delattr(owner, attribute) if attribute in vars(owner) else hide(owner, attribute)
    sys.platform = platform


def hide(owner: type, attribute: str) -> None:
    """What a class inherits cannot be deleted from it."""

    def missing(self: object) -> None:
        raise AttributeError(f"{owner.__name__} has no {attribute} here")

    setattr(owner, attribute, property(missing))


def main() -> None:
    platform, *modules = sys.argv[1:]
    become(platform)
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
