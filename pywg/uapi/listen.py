"""Binds the socket of a daemon. Imports little: a daemon does this before it goes into the background."""

from __future__ import annotations

import os
import pathlib
import socket
import stat

from pywg.errors import PywgError, remedy
from pywg.uapi.path import SOCKET_DIRECTORY, UNNAMED_SUFFIX, socket_path


class DaemonRunsError(PywgError):
    """Another daemon answers at the interface's socket."""


def listen(interface: str, directory: pathlib.Path = SOCKET_DIRECTORY) -> socket.socket:
    """Bind the socket of an interface, for its owner only; one that a dead daemon left behind is replaced.

    Raises DaemonRunsError when another daemon listens there, and another PywgError when the directory or the
    socket cannot be made.
    """
    import fcntl  # noqa: PLC0415  not on Windows, where this module can be read as well

    path = socket_path(interface, directory)
    umask = os.umask(0o022)  # with the caller's the folder might be closed to ourselves
    try:
        directory.mkdir(0o700, parents=True, exist_ok=True)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise PywgError(f"{directory} cannot be used: {error.strerror}{remedy(error.errno)}") from None
    finally:
        os.umask(umask)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        os.close(lock)
        raise _not_made(path, error) from None
    umask = os.umask(0o077)
    try:
        # Two daemons that start at once must not both find the same stale socket.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_stale(path)
        unnamed = path.with_name(path.name + UNNAMED_SUFFIX)
        unnamed.unlink(missing_ok=True)
        listener.bind(str(unnamed))
        listener.listen(128)
        unnamed.rename(path)
    except OSError as error:
        listener.close()
        raise _not_made(path, error) from None
    except PywgError:
        listener.close()
        raise
    finally:
        os.umask(umask)
        os.close(lock)
    return listener


def _not_made(path: pathlib.Path, error: OSError) -> PywgError:
    return PywgError(f"{path} cannot be made: {error.strerror or error}{remedy(error.errno)}")


def _remove_stale(path: pathlib.Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise PywgError(f"{path} is in the way and is not a socket; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # somebody listens, and has many waiting
    raise DaemonRunsError(f"a daemon for {path.stem} runs already: it answers at {path}")
