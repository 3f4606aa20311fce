"""What `pywgd` does once it has forked: one engine and one configuration server, until told to end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Iterable
from typing import TextIO

from pywg import clock
from pywg.bind.udp import UdpBind
from pywg.datapath import describe, open_datapath, probes
from pywg.device.device import Device
from pywg.engine import Engine
from pywg.observe import findingslog, keylog
from pywg.observe.services import services
from pywg.tun.base import Tun
from pywg.uapi.path import SocketFile
from pywg.uapi.server import UapiServer

logger = logging.getLogger(__name__)


async def run(
    tun: Tun,
    listener: socket.socket,
    file: SocketFile | None,
    ending: Iterable[signal.Signals],
    key_log: TextIO | None = None,
) -> None:
    """Serve until the socket is removed, or one of the `ending` signals arrives; leaves nothing behind.

    file: where the socket was when it was opened. ending: signals that have been made to wait until now.
    key_log: where the secrets of handshakes are written.
    Raises TunGoneError when the device was removed; what was not ours yet by then is left to the caller.
    """
    told_to_end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in ending:
        loop.add_signal_handler(number, told_to_end.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
    engine = Engine(Device(os.urandom, time.time_ns), open_datapath(tun), tun, UdpBind.open)
    engine.device.probes = probes()
    if key_log is not None:
        keylog.follow(engine, key_log.write)
        logger.warning("secrets are written to %s: who reads it can read the tunnel", key_log.name)
    server = UapiServer(engine, listener, file, services(engine))
    await server.start()
    logger.info("started, %s", describe())
    if not clock.wall_clock_is_right():
        said = time.strftime("%Y-%m-%d", time.gmtime(time.time()))
        logger.error("the wall clock says %s: peers that knew us later refuse us until it is right", said)
    findings = asyncio.create_task(findingslog.follow(engine, tun.name))
    waiting = [
        asyncio.create_task(engine.run()),
        asyncio.create_task(server.wait_until_removed()),
        asyncio.create_task(told_to_end.wait()),
    ]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await server.stop()
        for task in (findings, *waiting):
            task.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        tun.close()  # before the socket goes: whoever sees that gone may make both anew
        await server.close()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
