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

from pywg.uapi.path import SocketFile

_IN_MOVED_FROM, _IN_MOVED_TO, _IN_DELETE, _IN_DELETE_SELF, _IN_MOVE_SELF = 0x40, 0x80, 0x200, 0x400, 0x800
_POLL_INTERVAL = 1.0


async def wait_until_removed(file: SocketFile) -> None:
    """Return when the file is no longer there: it was removed, renamed or replaced."""
    watch = _inotify(file.path.parent)
    if watch is None:
        while file.exists():  # noqa: ASYNC110  nothing would set an event
            await asyncio.sleep(_POLL_INTERVAL)
        return
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    loop.add_reader(watch, changed.set)
    try:
        while file.exists():
            await changed.wait()
            changed.clear()
            with suppress(BlockingIOError):
                os.read(watch, 65536)
    finally:
        loop.remove_reader(watch)
        os.close(watch)


def _inotify(directory: pathlib.Path) -> int | None:
    """Turns readable when something in the directory is removed or replaced; None: no inotify here."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    watch: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if watch < 0:
        return None
    mask = _IN_MOVED_FROM | _IN_MOVED_TO | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF
    if libc.inotify_add_watch(watch, os.fsencode(directory), mask) < 0:
        os.close(watch)
        return None
    return watch
