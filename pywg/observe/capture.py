"""`capture=1`: what a daemon carries, as a pcapng stream, until the client hangs up."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import socket

from pywg.datapath.tap import Tapped, Wanted
from pywg.engine import Engine
from pywg.observe import keylog, pcapng
from pywg.uapi.error import UapiError
from pywg.uapi.server import Write
from pywg.wire.endpoint import Endpoint, LocalAddress

PAUSE = 0.02
"""Seconds between two looks; what comes in between waits in the tap."""

SNAPLEN = 65535

LOCAL_ADDRESSES = 1000
"""Endpoints whose way is remembered."""

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
        self._local_addresses: dict[Endpoint, LocalAddress | None] = {}

    async def answer(self, request: list[str], write: Write) -> None:
        """A pcapng file without an end."""
        wanted, with_secrets, name = _parse(request)
        if self._runs:
            raise UapiError(errno.EBUSY, "another capture of this interface runs")
        secrets: list[str] = []
        end_keys = keylog.follow(self._engine, secrets.append) if with_secrets else None
        self._runs = True
        self._local_addresses.clear()
        self._engine.set_tap(wanted)
        try:
            await write(pcapng.header(name, wanted.snaplen))
            while True:
                try:
                    await asyncio.sleep(PAUSE)
                except asyncio.CancelledError:  # the client has enough; what has passed until now is its
                    await write(self._since_last_time(secrets))
                    raise
                if said := self._since_last_time(secrets):
                    await write(said)
        finally:
            self._runs = False
            self._engine.set_tap(None)
            if end_keys is not None:
                end_keys()

    def _since_last_time(self, secrets: list[str]) -> bytes:
        """Blocks of everything that was copied; secrets come before what they open, and are taken."""
        tapped, lost = self._engine.take_tapped()
        port = self._engine.listen_port
        blocks = [pcapng.secrets(lines) for lines in secrets]
        secrets.clear()
        blocks += [pcapng.packet(self._with_local_address(one), port) for one in tapped]
        if lost:
            blocks.append(pcapng.lost(lost))
        return b"".join(blocks)

    def _with_local_address(self, tapped: Tapped) -> Tapped:
        """The same with the address that the system has chosen for it; it may have chosen another since."""
        endpoint = tapped.endpoint
        if endpoint is None or endpoint.local is not None:
            return tapped
        local = self._local_addresses.get(endpoint)
        if local is None:
            if len(self._local_addresses) >= LOCAL_ADDRESSES:
                self._local_addresses.clear()
            local = self._local_addresses[endpoint] = _source_to(endpoint, self._engine.fwmark)
        return dataclasses.replace(tapped, endpoint=dataclasses.replace(endpoint, local=local))


def _source_to(endpoint: Endpoint, mark: int) -> LocalAddress | None:
    """The address that datagrams to an endpoint leave from; None when there is no way. Sends nothing."""
    with socket.socket(endpoint.family, socket.SOCK_DGRAM) as probe:
        try:
            if mark and hasattr(socket, "SO_MARK"):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            probe.connect(endpoint.sockaddr)
        except OSError:
            return None
        return LocalAddress(probe.getsockname()[0].partition("%")[0], 0)


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
