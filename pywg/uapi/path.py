"""Where the sockets of userspace WireGuard daemons are, for both sides."""

from __future__ import annotations

import errno
import pathlib

from pywg.uapi.error import UapiError

SOCKET_DIRECTORY = pathlib.Path("/var/run/wireguard")

SOCKET_SUFFIX = ".sock"


def socket_path(interface: str, directory: pathlib.Path = SOCKET_DIRECTORY) -> pathlib.Path:
    """Where the daemon of an interface listens; raises UapiError for a name that no interface can have."""
    if not interface or "/" in interface or "\0" in interface:
        raise UapiError(errno.EINVAL, f"'{interface}' cannot be the name of an interface")
    return directory / f"{interface}{SOCKET_SUFFIX}"
