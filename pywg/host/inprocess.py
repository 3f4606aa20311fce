"""An engine in this program: its event loop runs in a thread, and whoever started it goes on.

For systems on which there is no daemon to configure over a socket. The loop is one that can watch sockets,
which Windows' own kind cannot.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pywg.bind.udp import UdpBind
from pywg.datapath.portable import PortableDataPath
from pywg.device.device import Device
from pywg.engine import Engine
from pywg.tun.base import Tun

T = TypeVar("T")


class EngineThread:
    """One engine, running from the start on. The tunnel device stays the caller's, and open."""

    def __init__(self, tun: Tun) -> None:
        self._loop = asyncio.SelectorEventLoop()
        self._engine = Engine(Device(os.urandom, time.time_ns), PortableDataPath(tun), tun, UdpBind.open)
        self._task: asyncio.Task[None] | None = None
        self._ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="pywg-engine", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[Engine], T]) -> T:
        """Do something with the engine, in its thread; returns and raises what that does."""

        async def job() -> T:
            return work(self._engine)

        return asyncio.run_coroutine_threadsafe(job(), self._loop).result()

    def has_ended(self, seconds: float) -> bool:
        """Wait a while for the engine's end; raises what ended it (TunGoneError) if it ended by itself."""
        try:
            self._ended.result(seconds)
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """End it, and wait: sockets are closed, keys forgotten. Twice is harmless."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._cancel)
            self._thread.join()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._engine.run())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            self._ended.set_result(None)
        except BaseException as error:
            self._ended.set_exception(error)
        finally:
            self._loop.close()
