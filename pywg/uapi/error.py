"""The error of the configuration protocol, which carries an errno."""

from __future__ import annotations

from pywg.errors import PywgError, printable


class UapiError(PywgError):
    """A request failed. `errno` is the number without its sign: EINVAL, EPROTO, EIO, EADDRINUSE, ...

    The message quotes what the other side has sent; nothing in it steers a terminal or begins a line.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(printable(message))
        self.errno = number
