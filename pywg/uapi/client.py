"""The client's side of the configuration protocol: talks to the socket of any userspace WireGuard here.

pywgd, wireguard-go, boringtun and gotatun answer it alike. The kernel's WireGuard is not reached this way.
"""

from __future__ import annotations

import errno
import json
import os
import pathlib
import socket
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, BinaryIO

from pywg.device.snapshot import DeviceSnapshot
from pywg.noise.keys import PublicKey
from pywg.uapi.error import UapiError
from pywg.uapi.format import MAX_LINE, DeviceChange, format_set, parse_get, parse_status
from pywg.uapi.path import SOCKET_DIRECTORY, SOCKET_SUFFIX, socket_path

TIMEOUT = 60.0
"""Seconds that a daemon may be silent before we give up."""


_NOT_OURS = "its daemon does not answer this; only pywgd does"
_NOT_UNDERSTOOD = "what its daemon answers is not understood; is it of another version?"
_LAST_TIME = 2**37
"""Seconds since 1970 of an event that is far from any clock's end."""


def has_daemon(interface: str, directory: pathlib.Path = SOCKET_DIRECTORY) -> bool:
    """Whether a daemon listens for this interface. A socket that none listens on is removed, as by `wg`.

    Where we may not look it is taken for there: who opens it is told why that fails.
    """
    try:
        path = socket_path(interface, directory)
        if not stat.S_ISSOCK(path.stat().st_mode):
            return False
    except PermissionError:
        return True
    except (UapiError, OSError, ValueError):
        return False
    try:
        with _connect(path):
            return True
    except ConnectionRefusedError:
        with suppress(OSError):
            path.unlink()
        return False
    except OSError:
        return True


def list_interfaces(directory: pathlib.Path = SOCKET_DIRECTORY) -> list[str]:
    """The interfaces whose daemons listen, in the directory's own order, which is the one that `wg` shows."""
    try:
        names = os.listdir(directory)  # noqa: PTH208  the same order as readdir's
    except FileNotFoundError:
        return []
    except OSError as error:
        text = f"{directory} cannot be read: {error.strerror}{_hint(error)}"
        raise UapiError(error.errno or errno.EIO, text) from None
    found = [name.removesuffix(SOCKET_SUFFIX) for name in names if name.endswith(SOCKET_SUFFIX)]
    return [interface for interface in found if has_daemon(interface, directory)]


class Client:
    """A way to one daemon. Each request has its own connection, since boringtun answers only one on each."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._connection: socket.socket | None = None

    @classmethod
    def open(cls, interface: str, directory: pathlib.Path = SOCKET_DIRECTORY) -> Client:
        """Connect to the daemon of an interface; raises UapiError (ENOENT, ECONNREFUSED, EACCES, ...)."""
        client = cls(socket_path(interface, directory))
        client._connection = client._connected()
        return client

    def get(self) -> DeviceSnapshot:
        """The device with its peers, in the daemon's order."""
        with self._request(["get=1"]) as answer:
            return parse_get(_lines(answer))

    def set(self, changes: str | DeviceChange) -> None:
        """Apply changes; as text: the lines between `set=1` and the blank line.

        The daemon applies line by line, so what comes before a line that it refuses stays applied.
        """
        if isinstance(changes, str):
            lines: Iterable[str] = changes.strip("\n").split("\n") if changes.strip("\n") else []
            if "" in lines:
                raise UapiError(errno.EINVAL, "a blank line would end the request before its end")
        else:
            lines = format_set(changes)
        with self._request(["set=1", *lines]) as answer:
            parse_status(_lines(answer))

    def statistics(self) -> dict[str, Any]:
        """What pywgd has counted, as `pywg.observe.statistics` writes it.

        Raises UapiError; EOPNOTSUPP when another daemon is there, which knows no such request.
        """
        with self.stream("stats=1") as answer:
            statistics = _object(_first_line(answer))
            parse_status(_lines(answer))
        return statistics

    def events(self) -> Iterator[dict[str, Any]]:
        """What happens from now on, one after the other, until the daemon ends. Errors as `statistics`.

        The first thing is `{"kind": "watching", ...}`: from there on nothing is missed.
        """
        with self.stream("events=1") as answer:
            yield _event(_first_line(answer))
            with suppress(ConnectionResetError):
                for line in answer:
                    if line.endswith(b"\n"):  # else the daemon was killed while it wrote
                        yield _event(line.decode("ascii", "replace"))

    def set_log_level(self, level: str) -> None:
        """Log as with this LOG_LEVEL from now on. Errors as `statistics`."""
        with self.stream("log=1", f"level={level}") as answer:
            parse_status([_first_line(answer)])

    def set_names(self, names: Mapping[PublicKey, str]) -> None:
        """What people call the peers, for logs and events; replaces all names. Errors as `statistics`."""
        with self.stream("names=1", *(f"{bytes(key).hex()}={name}" for key, name in names.items())) as answer:
            parse_status([_first_line(answer)])

    @staticmethod
    def explain_end(said: bytes) -> None:
        """Raise UapiError for the end of an answer that was to have none: refused, or not understood."""
        if not said:
            raise UapiError(errno.EOPNOTSUPP, _NOT_OURS)
        parse_status([said.decode("ascii", "replace").strip()])

    def stream(self, *request: str) -> BinaryIO:
        """Send a request that only pywgd knows; its answer has no limit of time."""
        connection = self._connection or self._connected()
        self._connection = None
        with connection:
            connection.settimeout(None)
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(("\n".join(request) + "\n\n").encode())
            return connection.makefile("rb")

    def close(self) -> None:
        """Let go of the connection. Closing twice is harmless."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self) -> socket.socket:
        try:
            return _connect(self._path)
        except OSError as error:
            text = f"no daemon answers at {self._path}: {error.strerror or error}{_hint(error)}"
            raise UapiError(error.errno or errno.EIO, text) from None

    def _request(self, lines: list[str]) -> BinaryIO:
        connection = self._connection or self._connected()
        self._connection = None
        with connection:
            # A daemon that refuses a line may answer, and close, before it has read the rest.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(("\n".join(lines) + "\n\n").encode("utf-8", "surrogateescape"))
            return connection.makefile("rb")


def _hint(error: OSError) -> str:
    return "; try again as root" if error.errno == errno.EACCES else ""


def _connect(path: pathlib.Path) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this system has no unix sockets")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Blocking, since otherwise a daemon that many connect to at once is not waited for.
        seconds = struct.pack("@ll", int(TIMEOUT), 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        connection.connect(str(path))
        connection.settimeout(TIMEOUT)
    except BaseException:
        connection.close()
        raise
    return connection


def _first_line(answer: BinaryIO) -> str:
    """The first line of an answer that only pywgd gives; another daemon hangs up."""
    try:
        line = answer.readline()
    except ConnectionResetError:
        line = b""
    if not line:
        raise UapiError(errno.EOPNOTSUPP, _NOT_OURS)
    text = line.decode("ascii", "replace").rstrip("\n")
    if text.startswith("errno="):
        parse_status([text])
    return text


def _object(line: str) -> dict[str, Any]:
    """What pywgd says in one line of JSON."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise UapiError(errno.EPROTO, _NOT_UNDERSTOOD)
    return said


def _event(line: str) -> dict[str, Any]:
    """One with what every event has, and nothing else in the places of texts."""
    said = _object(line)
    at = said.get("time")
    if (
        not isinstance(said.get("kind"), str)
        or not (isinstance(at, int | float) and 0 <= at < _LAST_TIME)
        or not all(
            isinstance(said.get(name, ""), str | None) for name in ("peer", "name", "endpoint", "text")
        )
    ):
        raise UapiError(errno.EPROTO, _NOT_UNDERSTOOD)
    return said


def _lines(answer: BinaryIO) -> Iterator[str]:
    """The answer's lines without newlines, up to its blank line."""
    while True:
        try:
            line = answer.readline(MAX_LINE + 1)
        except TimeoutError:
            raise UapiError(errno.ETIMEDOUT, f"the daemon said nothing for {TIMEOUT:.0f} s") from None
        except OSError as error:
            raise UapiError(error.errno or errno.EIO, f"the daemon hung up: {error.strerror}") from None
        if line == b"\n":
            return
        if not line.endswith(b"\n"):
            raise UapiError(errno.EPROTO, "the daemon's answer breaks off")
        yield line[:-1].decode("ascii", "replace")
