"""Wintun, the tunnel driver for Windows, through its DLL: rings of packets, and events, no descriptors.

The functions and their errors are those of `wintun.h`, the events kernel32's. The two libraries are handed
in, so that on another system stand-ins can take their place: ctypes calls them alike.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Callable
from ctypes import POINTER, c_int, c_uint32, c_void_p, c_wchar_p
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pywg.errors import PywgError

RING_CAPACITY = 0x800000
"""Bytes of each ring, a power of two; wireguard-go takes the same."""

LARGEST_PACKET = 0xFFFF

ERROR_ACCESS_DENIED = 5
ERROR_HANDLE_EOF = 38
ERROR_BUFFER_OVERFLOW = 111
ERROR_NO_MORE_ITEMS = 259

DLL_VARIABLE = "PYWG_WINTUN_DLL"

_INFINITE = 0xFFFFFFFF
_WAIT_FAILED = 0xFFFFFFFF
_ARCHITECTURES = {"amd64": "amd64", "x86_64": "amd64", "arm64": "arm64", "aarch64": "arm64", "x86": "x86"}

_load: Callable[..., ctypes.CDLL] = getattr(ctypes, "WinDLL", ctypes.CDLL)
_last_error: Callable[[], int] = getattr(ctypes, "get_last_error", ctypes.get_errno)


class Wintun:
    """The DLL's functions, typed, and the system's that wait for its events. Make one with `load`.

    Raises OSError with Windows' numbers.
    """

    def __init__(self, wintun: ctypes.CDLL, kernel32: ctypes.CDLL) -> None:
        def function(
            library: ctypes.CDLL, name: str, result: object, *arguments: object
        ) -> Callable[..., int]:
            found = getattr(library, name)
            found.restype, found.argtypes = result, arguments
            return found  # type: ignore[no-any-return]

        self._create = _function(wintun, "WintunCreateAdapter", c_void_p, c_wchar_p, c_wchar_p, c_void_p)
        self._close = _function(wintun, "WintunCloseAdapter", None, c_void_p)
        self._start = _function(wintun, "WintunStartSession", c_void_p, c_void_p, c_uint32)
        self._end = _function(wintun, "WintunEndSession", None, c_void_p)
        self._event = _function(wintun, "WintunGetReadWaitEvent", c_void_p, c_void_p)
        self._receive = _function(wintun, "WintunReceivePacket", c_void_p, c_void_p, POINTER(c_uint32))
        self._release = _function(wintun, "WintunReleaseReceivePacket", None, c_void_p, c_void_p)
        self._allocate = _function(wintun, "WintunAllocateSendPacket", c_void_p, c_void_p, c_uint32)
        self._send = _function(wintun, "WintunSendPacket", None, c_void_p, c_void_p)
        self._create_event = _function(kernel32, "CreateEventW", c_void_p, c_void_p, c_int, c_int, c_wchar_p)
        self._set_event = _function(kernel32, "SetEvent", c_int, c_void_p)
        self._close_handle = _function(kernel32, "CloseHandle", c_int, c_void_p)
        self._wait = _function(
            kernel32, "WaitForMultipleObjects", c_uint32, c_uint32, POINTER(c_void_p), c_int, c_uint32
        )

    @classmethod
    def load(cls, wintun: str | None = None, kernel32: str = "kernel32.dll") -> Wintun:
        """Load the DLL, from where `find_dll` finds it if not told, and the system's. Raises PywgError."""
        path = wintun or find_dll()
        try:
            dll = _load(path, **_keep_errors())
        except OSError as error:
            raise PywgError(f"Wintun cannot be loaded from {path}: {error}") from None
        return cls(dll, _load(kernel32, **_keep_errors()))

    def create_adapter(self, name: str, kind: str) -> int:
        """Make an adapter of this name; returns its handle."""
        return _checked(self._create(name, kind, None))

    def close_adapter(self, adapter: int) -> None:
        """Remove the adapter."""
        self._close(adapter)

    def start_session(self, adapter: int, capacity: int) -> int:
        """Open the rings; returns the session's handle."""
        return _checked(self._start(adapter, capacity))

    def end_session(self, session: int) -> None:
        """Close the rings; nobody may use the session or its event any more."""
        self._end(session)

    def read_wait_event(self, session: int) -> int:
        """The event that is set when packets have come; it belongs to the session."""
        return _checked(self._event(session))

    def receive(self, session: int) -> bytes | None:
        """The next packet, or None. Raises OSError: ERROR_HANDLE_EOF when the adapter goes away."""
        size = c_uint32()
        packet = self._receive(session, ctypes.byref(size))
        if not packet:
            number = _last_error()
            if number == ERROR_NO_MORE_ITEMS:
                return None
            raise _failed(number)
        try:
            return ctypes.string_at(packet, size.value)
        finally:
            self._release(session, packet)

    def send(self, session: int, packet: bytes) -> None:
        """Hand a packet to the system. Raises OSError: ERROR_BUFFER_OVERFLOW when the ring is full."""
        room = _checked(self._allocate(session, len(packet)))
        ctypes.memmove(room, packet, len(packet))
        self._send(session, room)

    def create_event(self) -> int:
        """An event of our own, which stays set once it is; returns its handle."""
        return _checked(self._create_event(None, True, False, None))

    def set_event(self, event: int) -> None:
        """Let those who wait for it go on."""
        _checked(self._set_event(event))

    def close_event(self, event: int) -> None:
        """Close an event of our own."""
        self._close_handle(event)

    def wait(self, *events: int) -> int:
        """Wait, without the interpreter's lock, until one is set; returns which, the first if several are."""
        handles = (c_void_p * len(events))(*events)
        which = self._wait(len(events), handles, False, _INFINITE)
        if which == _WAIT_FAILED:
            raise _failed(_last_error())
        return which


def find_dll() -> str:
    """Where wintun.dll is: PYWG_WINTUN_DLL, beside Python, or in the package pytun-pmd3, which brings it.

    Raises PywgError that says where to get it.
    """
    if told := os.environ.get(DLL_VARIABLE):
        return told
    candidates = [Path(sys.executable).with_name("wintun.dll")]
    architecture = _ARCHITECTURES.get(platform.machine().lower())
    package = find_spec("pytun_pmd3")  # found, not imported
    if architecture and package is not None and package.origin:
        candidates.append(Path(package.origin).parent / "wintun" / "bin" / architecture / "wintun.dll")
    for candidate in candidates:
        with contextlib.suppress(OSError):
            if candidate.is_file():
                return str(candidate)
    raise PywgError(
        "wintun.dll is missing. Get it with: pip install pytun-pmd3; or from https://www.wintun.net/, "
        f"and put it beside {sys.executable} or name it in {DLL_VARIABLE}"
    )


def _function(library: ctypes.CDLL, name: str, result: object, *arguments: object) -> Callable[..., int]:
    found: Any = getattr(library, name)
    found.restype, found.argtypes = result, arguments
    return found  # type: ignore[no-any-return]


def _keep_errors() -> dict[str, bool]:
    """Ask ctypes to keep the error number of each call per thread."""
    return {"use_last_error" if hasattr(ctypes, "WinDLL") else "use_errno": True}


def _checked(result: int | None) -> int:
    if not result:
        raise _failed(_last_error())
    return result


def _failed(number: int) -> OSError:
    describe = getattr(ctypes, "FormatError", None)
    return OSError(number, describe(number).strip() if describe else f"Windows' error {number}")
