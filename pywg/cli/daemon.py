"""What `pywgd` does once it has forked: one engine and one configuration server, until told to end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time

from pywg.bind.udp import UdpBind
from pywg.datapath import describe, open_datapath
from pywg.device.device import Device
from pywg.engine import Engine
from pywg.tun.base import Tun, TunGoneError
from pywg.uapi.server import UapiServer

logger = logging.getLogger(__name__)


async def run(tun: Tun, listener: socket.socket) -> None:
    """Serve until device or socket is removed, or a SIGTERM or SIGINT arrives; leaves nothing behind."""
    device = Device(os.urandom, time.time_ns)
    engine = Engine(device, open_datapath(tun), tun, UdpBind.open)
    server = UapiServer(engine, listener)
    loop = asyncio.get_running_loop()
    told_to_end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_end.set)

    await server.start()
    logger.info("started, %s", describe())
    carrying = asyncio.create_task(engine.run())
    endings = [
        carrying,
        asyncio.create_task(server.wait_until_removed()),
        asyncio.create_task(told_to_end.wait()),
    ]
    try:
        await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for ending in endings:
            ending.cancel()
        results = await asyncio.gather(*endings, return_exceptions=True)
        await server.close()
        tun.close()
    failure = results[0]
    if isinstance(failure, TunGoneError):
        logger.info("%s", failure)
    elif isinstance(failure, Exception):
        raise failure
