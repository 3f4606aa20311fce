"""Two engines on tunnel devices of a test: real handshakes and datagrams over the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence

from pywg.bind.udp import UdpBind
from pywg.datapath.portable import PortableDataPath
from pywg.device.device import Device
from pywg.engine import Engine
from pywg.noise.keys import PrivateKey
from pywg.tun.base import Tun, TunGoneError
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network


class Pair:
    """Engines whose inner addresses are 10.0.0.1 and 10.0.0.2, and the tasks that run them."""

    def __init__(self, tuns: Sequence[Tun]) -> None:
        self._keys = [PrivateKey.generate(os.urandom) for _ in tuns]
        self._engines = []
        for tun, key in zip(tuns, self._keys, strict=True):
            engine = Engine(Device(os.urandom, time.time_ns), PortableDataPath(tun), tun, UdpBind.open)
            engine.set_private_key(key)
            self._engines.append(engine)
        self.tasks = [asyncio.create_task(engine.run()) for engine in self._engines]

    def introduce(self) -> None:
        """Make each the other's peer; both tunnel devices are up by now."""
        ports = [engine.snapshot().listen_port for engine in self._engines]
        for at, engine in enumerate(self._engines):
            peer = engine.add_peer(self._keys[1 - at].public_key)
            engine.set_endpoint(peer, Endpoint("127.0.0.1", ports[1 - at]))
            engine.add_allowed_ips(peer, [Network.parse(f"10.0.0.{2 - at}/32")])
            engine.commit()


@contextlib.asynccontextmanager
async def running_pair(tuns: Sequence[Tun]) -> AsyncIterator[Pair]:
    """Run two engines; in the end both have ended and the tunnel devices are closed."""
    pair = Pair(tuns)
    try:
        await asyncio.sleep(0)
        yield pair
    finally:
        for task in pair.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, TunGoneError):
                await task
        for tun in tuns:
            tun.close()
