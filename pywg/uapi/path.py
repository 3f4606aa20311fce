"""Where the sockets of userspace WireGuard daemons are, for both sides, and whether one is still there."""

from __future__ import annotations

import errno
import os
import pathlib
import stat
from typing import TYPE_CHECKING, NamedTuple

from pywg.uapi.error import UapiError

SOCKET_DIRECTORY = pathlib.Path("/var/run/wireguard")

SOCKET_SUFFIX = ".sock"

if TYPE_CHECKING:
    import socket


UNNAMED_SUFFIX = ".new"
"""A socket is bound under its name with this behind it, and renamed once it listens: `wg` removes a socket
that it finds and that does not answer."""


class SocketFile(NamedTuple):
    """A listening socket in the file system: its path, and which file that was when it was looked at."""

    path: pathlib.Path
    device: int
    inode: int

    @classmethod
    def of(cls, listener: socket.socket) -> SocketFile | None:
        """The file of a bound socket; None when it has no name, or is not there under its name here."""
        try:
            name = listener.getsockname()
        except OSError:
            return None
        if not isinstance(name, str) or not name:  # abstract names are bytes, those of pairs are empty
            return None
        name = name.removesuffix(UNNAMED_SUFFIX)
        # Absolute, as whoever listens may change its directory.
        return cls.at(pathlib.Path(os.path.abspath(name)))  # noqa: PTH100

    @classmethod
    def at(cls, path: pathlib.Path) -> SocketFile | None:
        """The socket that is at this path; None when none is."""
        try:
            status = path.lstat()
        except OSError:
            return None
        return cls(path, status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None

    def exists(self) -> bool:
        """Whether the path still leads to this file: it was not removed, renamed or replaced."""
        try:
            status = self.path.lstat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == (self.device, self.inode)

    def remove(self) -> None:
        """Remove it, unless it is gone or another's by now.

        To be called while the socket still listens: only a socket that does not answer is replaced.
        """
        if self.exists():
            try:
                self.path.unlink()
            except OSError:
                return


def socket_path(interface: str, directory: pathlib.Path = SOCKET_DIRECTORY) -> pathlib.Path:
    """Where the daemon of an interface listens; raises UapiError for a name that no interface can have."""
    if not interface or "/" in interface or "\0" in interface:
        raise UapiError(errno.EINVAL, f"'{interface}' cannot be the name of an interface")
    return directory / f"{interface}{SOCKET_SUFFIX}"
