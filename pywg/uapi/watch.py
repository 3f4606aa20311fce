"""Waits for a socket file to disappear: removing it is how a userspace WireGuard is told to end.

inotify, through libc, where there is one; elsewhere the file is looked at every second.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pathlib
import sys
from contextlib import suppress

_IN_MOVED_FROM, _IN_DELETE, _IN_DELETE_SELF, _IN_MOVE_SELF = 0x40, 0x200, 0x400, 0x800
_POLL_INTERVAL = 1.0

FileIdentity = tuple[int, int]


def identity(path: pathlib.Path) -> FileIdentity | None:
    """Which file is at this path now: its device and inode; None when there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


async def wait_until_removed(path: pathlib.Path, file: FileIdentity) -> None:
    """Return when `path` no longer leads to `file`: it was removed, renamed or replaced."""
    watch = _inotify(path.parent)
    if watch is None:
        while identity(path) == file:  # noqa: ASYNC110  nothing would set an event
            await asyncio.sleep(_POLL_INTERVAL)
        return
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    loop.add_reader(watch, changed.set)
    try:
        while identity(path) == file:
            await changed.wait()
            changed.clear()
            with suppress(BlockingIOError):
                os.read(watch, 65536)
    finally:
        loop.remove_reader(watch)
        os.close(watch)


def _inotify(directory: pathlib.Path) -> int | None:
    """A descriptor that turns readable when something leaves the directory; None: no inotify here."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    watch: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if watch < 0:
        return None
    mask = _IN_MOVED_FROM | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF
    if libc.inotify_add_watch(watch, os.fsencode(directory), mask) < 0:
        os.close(watch)
        return None
    return watch
