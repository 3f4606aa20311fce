"""The netlink socket that addresses, routes, rules and links are asked for and changed by, and a lost answer.

When the kernel has no memory for an answer, nobody knows whether the change was made; and pyroute2's socket
fails whatever comes after, the way back as well. So what got no answer is asked once more, on a new socket.
"""

from __future__ import annotations

import contextlib
import errno
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError


class RtNetlink:
    """One socket in this network namespace. Raises OSError when there is no netlink."""

    def __init__(self) -> None:
        self._socket = IPRoute()

    def __call__(self, method: str, *words: str, **attributes: Any) -> list[Any]:
        """What pyroute2's method of this name gives.

        Raises NetlinkError for the kernel's no, OSError when no answer came.
        """
        try:
            return list(getattr(self._socket, method)(*words, **attributes))
        except OSError:
            self._renew()
        try:
            return list(getattr(self._socket, method)(*words, **attributes))
        except OSError:
            self._renew()
            raise
        except NetlinkError as error:
            if words == ("add",) and error.code == errno.EEXIST:
                return []  # it was added the first time
            raise

    def _renew(self) -> None:
        with contextlib.suppress(OSError):
            new = IPRoute()
            self.close()
            self._socket = new

    def close(self) -> None:
        """Close it, also when a call has failed: that error would come again."""
        try:
            self._socket.close()
        except OSError:
            with contextlib.suppress(AttributeError):  # it comes before the event loop is closed
                self._socket.asyncore.local.event_loop.close()
