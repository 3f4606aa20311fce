"""`capture=1`: what a daemon carries, as a pcapng stream, until the client hangs up."""

from __future__ import annotations

import asyncio
import errno

from pywg.datapath.tap import Wanted
from pywg.engine import Engine
from pywg.observe import keylog, pcapng
from pywg.uapi.error import UapiError
from pywg.uapi.server import Write

PAUSE = 0.02
"""Seconds between two looks; what comes in between waits in the tap."""

SNAPLEN = 65535

_WHAT = {"both": (True, True), "inner": (True, False), "outer": (False, True)}


class CaptureService:
    """`capture=1`; one at a time, since there is one tap.

    Lines: `what=` both, inner or outer; `snaplen=` bytes; `secrets=true` puts what decrypts the datagrams of
    coming sessions into the stream, `name=` how the interface is called in it.
    """

    endless = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs = False

    async def answer(self, request: list[str], write: Write) -> None:
        """A pcapng file without an end."""
        wanted, with_secrets, name = _parse(request)
        if self._runs:
            raise UapiError(errno.EBUSY, "another capture of this interface runs")
        secrets: list[str] = []
        end_keys = keylog.follow(self._engine, secrets.append) if with_secrets else None
        self._runs = True
        self._engine.set_tap(wanted)
        try:
            await write(pcapng.header(name, wanted.snaplen))
            while True:
                await asyncio.sleep(PAUSE)
                tapped, lost = self._engine.take_tapped()
                port = self._engine.listen_port
                pieces = [pcapng.secrets(lines) for lines in secrets]
                secrets.clear()
                pieces += [pcapng.packet(one, port) for one in tapped]
                if lost:
                    pieces.append(pcapng.lost(lost))
                if pieces:
                    await write(b"".join(pieces))
        finally:
            self._runs = False
            self._engine.set_tap(None)
            if end_keys is not None:
                end_keys()


def _parse(request: list[str]) -> tuple[Wanted, bool, str]:
    what, snaplen, with_secrets, name = "both", SNAPLEN, False, "wg"
    for line in request:
        key, _, value = line.partition("=")
        match key:
            case "what" if value in _WHAT:
                what = value
            case "snaplen" if value.isascii() and value.isdigit() and 0 < int(value) <= SNAPLEN:
                snaplen = int(value)
            case "secrets" if value in ("true", "false"):
                with_secrets = value == "true"
            case "name" if 0 < len(value) < 16 and value.isprintable():
                name = value
            case _:
                raise UapiError(errno.EINVAL, f"capture=1 does not know '{line[:80]}'")
    inner, outer = _WHAT[what]
    return Wanted(inner, outer, snaplen), with_secrets, name
