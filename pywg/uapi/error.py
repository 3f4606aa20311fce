"""The error of the configuration protocol, which carries an errno."""

from __future__ import annotations

from pywg.errors import PywgError


class UapiError(PywgError):
    """A request failed. `errno` is the number without its sign: EINVAL, EPROTO, EIO, EADDRINUSE, ..."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number
