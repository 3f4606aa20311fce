"""Wintun's stand-in, compiled with the system's compiler, and the system's end of its adapters."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile

from pywg.tun.wintun import Wintun

VARIABLE = "WINTUN_STAND_IN"
SOURCE = pathlib.Path(__file__).parent / "tools" / "wintun.c"


@functools.cache
def stand_in() -> str:
    """The path of the shared library; it is made once per run, for the programs that a test starts too."""
    if told := os.environ.get(VARIABLE):
        return told
    directory = tempfile.mkdtemp(prefix="pywg-wintun-")
    atexit.register(shutil.rmtree, directory)
    path = pathlib.Path(directory) / "wintun.so"
    subprocess.run(
        [
            os.environ.get("CC", "cc"),
            "-shared",
            "-fPIC",
            "-O1",
            "-Wall",
            "-Werror",
            "-pthread",
            "-o",
            path,
            SOURCE,
        ],
        check=True,
    )
    return str(path)


def load() -> Wintun:
    return Wintun.load(stand_in(), stand_in())


class Host:
    """What Windows does with one adapter."""

    def __init__(self, name: str) -> None:
        self._library = library = ctypes.CDLL(stand_in())
        library.HostFindAdapter.restype = ctypes.c_void_p
        library.HostReceive.restype = ctypes.c_uint32
        found = library.HostFindAdapter(ctypes.c_wchar_p(name))
        assert found, f"there is no adapter {name}"
        self._adapter = ctypes.c_void_p(found)

    def send(self, packet: bytes) -> None:
        self._library.HostSend(self._adapter, packet, len(packet))

    def recv(self, seconds: int = 10) -> bytes:
        buffer = ctypes.create_string_buffer(65536)
        size = self._library.HostReceive(self._adapter, buffer, seconds)
        assert size, "no packet came"
        return buffer.raw[:size]

    def remove(self) -> None:
        self._library.HostRemoveAdapter(self._adapter)


def adapter_exists(name: str) -> bool:
    library = ctypes.CDLL(stand_in())
    library.HostFindAdapter.restype = ctypes.c_void_p
    return bool(library.HostFindAdapter(ctypes.c_wchar_p(name)))


def open_handles() -> int:
    return int(ctypes.CDLL(stand_in()).HostOpenHandles())


def set_administrator(yes: bool) -> None:
    ctypes.CDLL(stand_in()).HostSetAdministrator(int(yes))
