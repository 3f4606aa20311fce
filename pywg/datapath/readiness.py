"""Waits for many descriptors behind one that an event loop can watch, for the portable data path.

epoll and kqueue have a descriptor of their own. Where the system has neither (Windows, where only sockets can
be waited for) a thread waits with `select` and turns a socket pair readable.
"""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import threading
from collections.abc import Mapping
from typing import Protocol

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Readiness(Protocol):
    """Says, by a descriptor that turns readable, that one of the watched ones is ready; again and again."""

    def fileno(self) -> int:
        """The descriptor to watch."""

    def watch(self, wanted: Mapping[int, int]) -> None:
        """Wait for these from now on, descriptor to READ and WRITE; the others may be closed after this."""

    def taken(self) -> None:
        """What was ready has been dealt with: tell again from here on, at once if it is ready still."""

    def close(self) -> None:
        """Wait no more."""


def open_readiness() -> Readiness:
    """What this system has. Raises OSError when it is out of descriptors."""
    selector = selectors.DefaultSelector()
    fileno = getattr(selector, "fileno", None)
    if fileno is not None:
        return SelectorReadiness(selector, int(fileno()))
    selector.close()
    return ThreadReadiness()


class SelectorReadiness:
    """By a selector with a descriptor, which tells for as long as something is ready."""

    def __init__(self, selector: selectors.BaseSelector, fd: int) -> None:
        self._selector = selector
        self._fd = fd
        self._watched: dict[int, int] = {}

    def fileno(self) -> int:
        """See `Readiness.fileno`."""
        return self._fd

    def watch(self, wanted: Mapping[int, int]) -> None:
        """See `Readiness.watch`."""
        for fd in self._watched.keys() - wanted.keys():
            self._selector.unregister(fd)
        for fd, events in wanted.items():
            if fd not in self._watched:
                self._selector.register(fd, events)
            elif self._watched[fd] != events:
                self._selector.modify(fd, events)
        self._watched = dict(wanted)

    def taken(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """See `Readiness.close`."""
        self._selector.close()
        self._watched = {}


class ThreadReadiness:
    """By a thread that waits with `select`, tells once, and waits again when that was dealt with."""

    def __init__(self) -> None:
        self._told, self._tell = socket.socketpair()
        self._ordered, self._order = socket.socketpair()
        for end in (self._told, self._tell, self._ordered, self._order):
            end.setblocking(False)
        self._lock = threading.Condition()
        self._wanted: dict[int, int] = {}
        self._orders = 0
        self._obeyed = 0
        self._armed = True
        self._ending = False
        self._thread = threading.Thread(target=self._wait, name="pywg-readiness", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """See `Readiness.fileno`."""
        return self._told.fileno()

    def watch(self, wanted: Mapping[int, int]) -> None:
        """See `Readiness.watch`; returns when the thread has let go of the others."""
        if self._ending or wanted == self._wanted:
            return
        with self._lock:
            self._wanted = dict(wanted)
            self._give_order()
            order = self._orders
            self._lock.wait_for(lambda: self._obeyed >= order or not self._thread.is_alive())

    def taken(self) -> None:
        """See `Readiness.taken`."""
        try:
            self._told.recv(16)
        except (BlockingIOError, OSError):  # it was not told, or is closed
            return
        with self._lock:
            self._armed = True
            self._give_order()

    def close(self) -> None:
        """See `Readiness.close`."""
        if self._ending:
            return
        with self._lock:
            self._ending = True
            self._give_order()
        self._thread.join()
        for end in (self._told, self._tell, self._ordered, self._order):
            end.close()

    def _give_order(self) -> None:
        self._orders += 1
        with contextlib.suppress(BlockingIOError):  # full: the thread has many to read, and reads them as one
            self._order.send(b"!")

    def _wait(self) -> None:
        order = self._ordered.fileno()
        while True:
            with self._lock:
                self._obeyed = self._orders
                self._lock.notify_all()
                if self._ending:
                    return
                wanted = self._wanted if self._armed else {}
                readers = [order, *(fd for fd, events in wanted.items() if events & READ)]
                writers = [fd for fd, events in wanted.items() if events & WRITE]
            try:
                ready, ready_to_write, _ = select.select(readers, writers, [])
            except (OSError, ValueError):  # one was closed under us: whoever reads it finds out
                ready, ready_to_write = readers[1:] or [order], []
            if order in ready:
                with contextlib.suppress(BlockingIOError):
                    self._ordered.recv(4096)
            if ready_to_write or any(fd != order for fd in ready):
                with self._lock:
                    self._armed = False
                with contextlib.suppress(BlockingIOError):
                    self._tell.send(b"!")
