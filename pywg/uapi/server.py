"""The daemon's side of the configuration protocol: a unix socket that answers `get=1` and `set=1`.

Lines are applied as they arrive and in their order, as in wireguard-go: an error stops there and is answered
with its errno, earlier lines stay. Between chunks of lines the event loop gets its turn, so that no request
holds up traffic, and no client another. What is configured is behind `Configurable`; `format.py` has the
text.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from pywg.device.snapshot import DeviceSnapshot
from pywg.errors import PywgError
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.uapi.error import UapiError
from pywg.uapi.format import (
    MAX_LINE,
    UNKNOWN_ERROR,
    DeviceChange,
    format_get,
    format_set,
    parse_endpoint,
    parse_key,
    parse_network,
    parse_true,
    parse_unsigned,
    split_line,
)
from pywg.uapi.path import SocketFile
from pywg.uapi.watch import wait_until_removed
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

CHUNK = 256
"""Lines that are applied or written before the event loop gets its turn."""

CLIENT_LIMIT = 64
"""Connections at once; one more closes the one that was silent longest."""

SERVICE_BYTES = 4 << 20
"""Bytes of a request to a service of our own."""

FLUSH_TIME = 1.0
"""Seconds that a client has to take the last answer after we are done with it."""

_log = logging.getLogger(__name__)

Handle = TypeVar("Handle")

Write = Callable[[bytes], Coroutine[None, None, None]]
"""Sends a piece of an answer; waits for a client that is slow."""


class Configurable(Protocol[Handle]):
    """What a server configures. All methods are called in the event loop and return at once."""

    def set_private_key(self, key: PrivateKey | None) -> None:
        """Change who we are; None: no key."""

    def set_listen_port(self, port: int) -> None:
        """Listen there, or with 0 on any free port; raises OSError or PywgError when that fails."""

    def set_fwmark(self, mark: int) -> None:
        """Mark what is sent; 0: do not. Raises OSError or PywgError when that fails."""

    def remove_all_peers(self) -> None:
        """Forget all peers."""

    def peer(self, public_key: PublicKey) -> Handle | None:
        """The peer with this key, if there is one."""

    def add_peer(self, public_key: PublicKey) -> Handle:
        """A new peer; raises PywgError when it would be ourselves, which the server silently passes over."""

    def remove_peer(self, handle: Handle) -> None:
        """Forget one peer; its handle is not used again."""

    def set_preshared_key(self, handle: Handle, key: PresharedKey) -> None:
        """Used from the next handshake on."""

    def set_endpoint(self, handle: Handle, endpoint: Endpoint) -> None:
        """Where the peer is."""

    def set_persistent_keepalive(self, handle: Handle, seconds: int) -> None:
        """0: off. Called when everything else that the request says of the peer has been applied."""

    def clear_allowed_ips(self, handle: Handle) -> None:
        """Take away all its networks."""

    def add_allowed_ips(self, handle: Handle, networks: Sequence[Network]) -> None:
        """Give the peer networks, from whoever had them."""

    def remove_allowed_ip(self, handle: Handle, network: Network) -> None:
        """Take a network from the peer; when it is not its own, nothing happens."""

    def snapshot(self) -> DeviceSnapshot:
        """Everything as it is now; not changed afterwards."""

    def commit(self) -> None:
        """Let what was changed take effect; called after each request, and within long ones."""


class Service(Protocol):
    """A request of our own beside `get=1` and `set=1`: pywgd answers it, other daemons hang up."""

    @property
    def endless(self) -> bool:
        """Whether the answer goes on until the client hangs up."""

    async def answer(self, request: list[str], write: Write) -> None:
        """Answer one request, its lines up to the blank one, by calls of `write`. Raises UapiError."""


def apply_change(engine: Configurable[Handle], change: DeviceChange) -> None:
    """Apply what a client would send, within one program. Raises UapiError; earlier lines stay applied."""
    request = _SetRequest(engine)
    try:
        for line in format_set(change):
            request.apply(line)
    finally:
        request.finish_peer()
        engine.commit()


class UapiServer(Generic[Handle]):
    """Serves one device on one listening socket (from `listen`, or inherited) until it is closed.

    file: where the socket is; looked up now when it was not looked up earlier. services: what else is
    answered, by the name that stands before `=1`.
    """

    def __init__(
        self,
        engine: Configurable[Handle],
        listener: socket.socket,
        file: SocketFile | None = None,
        services: Mapping[str, Service] | None = None,
    ) -> None:
        self._engine = engine
        self._services = services or {}
        self._listener = listener
        self._file = file or SocketFile.of(listener)
        self._server: asyncio.Server | None = None
        self._clients: dict[_Connection[Handle], None] = {}

    async def start(self) -> None:
        """Begin to answer."""
        # A socket of the server's own: ours goes on listening until its file has been removed.
        self._server = await asyncio.start_unix_server(
            self._accept, sock=self._listener.dup(), limit=MAX_LINE + 1
        )

    async def wait_until_removed(self) -> None:
        """Return when somebody has removed the socket, which means that the daemon shall end.

        Never returns for an inherited socket that is not at its path here.
        """
        if self._file is None:
            await asyncio.get_running_loop().create_future()
        else:
            await wait_until_removed(self._file)

    async def stop(self) -> None:
        """Hang up and answer nobody any more; the socket stays where it is."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = [client.task for client in self._clients]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop, and remove the socket unless it is another's by now."""
        await self.stop()
        if self._file is not None and self._listener.fileno() >= 0:
            self._file.remove()
        self._listener.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= CLIENT_LIMIT:
            silent = min(self._clients, key=lambda client: client.last_heard)
            del self._clients[silent]
            silent.task.cancel()
        connection = _Connection(self._engine, reader, writer, self._services)
        self._clients[connection] = None
        try:
            await connection.serve()
            writer.close()
            async with asyncio.timeout(FLUSH_TIME):
                await writer.wait_closed()
        except asyncio.CancelledError:
            pass  # the server closes, or makes room; this task ends here anyway
        except OSError as error:  # TimeoutError too
            _log.debug("a client of the configuration socket is gone: %s", error)
        finally:
            writer.transport.abort()
            self._clients.pop(connection, None)


def _operation(line: bytes) -> str:
    """`stats` of `stats=1`."""
    return line.removesuffix(b"=1\n").decode("ascii", "replace")


class _LineTooLongError(Exception):
    """A line is longer than MAX_LINE."""


class _Lines:
    """The lines that a client sends, with their newlines; the last may have none. Keeps one read at most."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._complete: list[bytes] = []  # in reverse
        self._rest = b""

    @property
    def waiting(self) -> bool:
        """Whether `take` has a line without `receive`."""
        return bool(self._complete)

    async def receive(self) -> None:
        """Wait until there is a line to take; raises _LineTooLongError."""
        while not self._complete:
            try:
                data = await self._reader.read(MAX_LINE + 1)
            except ConnectionError:
                data = b""
            if not data:
                self._complete, self._rest = [self._rest], b""
                return
            lines = (self._rest + data).split(b"\n")
            self._rest = lines.pop()
            if len(self._rest) > MAX_LINE or (lines and len(lines[0]) > MAX_LINE):
                raise _LineTooLongError
            self._complete = [line + b"\n" for line in reversed(lines)]

    def take(self) -> bytes:
        """The next line; at the end an empty one."""
        return self._complete.pop()

    async def next(self) -> bytes:
        """`receive` and `take`."""
        await self.receive()
        return self.take()

    def push_back(self, line: bytes) -> None:
        """Let `next` return this line once more."""
        self._complete.append(line)


class _Connection(Generic[Handle]):
    """One client, from its first request to its last."""

    def __init__(
        self,
        engine: Configurable[Handle],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        services: Mapping[str, Service],
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.last_heard = 0.0
        self._engine = engine
        self._lines = _Lines(reader)
        self._writer = writer
        self._services = services

    async def serve(self) -> None:
        """Answer until the client hangs up or says something that is no request."""
        loop = asyncio.get_running_loop()
        with suppress(_LineTooLongError):
            while True:
                self.last_heard = loop.time()
                operation = await self._lines.next()
                if operation == b"get=1\n":
                    await self._get()
                elif operation == b"set=1\n":
                    await self._set()
                elif (service := self._services.get(_operation(operation))) is not None:
                    await self._serve(service)
                else:
                    return
                await self._writer.drain()
                await asyncio.sleep(0)

    async def _get(self) -> None:
        if await self._lines.next() != b"\n":
            self._answer(UapiError(errno.EINVAL, "get=1 takes no lines"))
            return
        lines = format_get(self._engine.snapshot())
        while chunk := list(itertools.islice(lines, CHUNK)):
            chunk.append("")
            self._writer.write("\n".join(chunk).encode())
            await self._writer.drain()
            await asyncio.sleep(0)
        self._answer(None)

    async def _serve(self, service: Service) -> None:
        request: list[str] = []
        size = 0
        while (line := await self._lines.next()) not in (b"\n", b""):
            size += len(line)
            if size > SERVICE_BYTES:
                self._answer(UapiError(errno.EINVAL, f"a request has {SERVICE_BYTES} bytes at the most"))
                raise _LineTooLongError
            request.append(line.decode("utf-8", "replace").rstrip("\r\n"))
        try:
            if service.endless:
                await self._until_hung_up(service.answer(request, self._write))
            else:
                await service.answer(request, self._write)
        except UapiError as error:
            self._answer(error)
        else:
            self._answer(None)

    async def _until_hung_up(self, answer: Coroutine[None, None, None]) -> None:
        """Go on with an endless answer until it fails, or the client hangs up or says anything more."""
        answering = asyncio.ensure_future(answer)
        hung_up = asyncio.ensure_future(self._lines.receive())
        try:
            await asyncio.wait((answering, hung_up), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                await answering
        finally:
            for task in (answering, hung_up):
                task.cancel()
            await asyncio.gather(answering, hung_up, return_exceptions=True)

    async def _write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _set(self) -> None:
        request = _SetRequest(self._engine)
        try:
            await self._apply(request)
        except UapiError as error:
            self._answer(error)
            await self._skip_request()
        except _LineTooLongError:
            self._answer(UapiError(errno.EIO, f"a line is longer than {MAX_LINE} bytes"))
            raise
        except Exception as error:
            _log.exception("a set request failed")
            self._answer(UapiError(UNKNOWN_ERROR, str(error)))
            await self._skip_request()
        else:
            self._answer(None)

    async def _apply(self, request: _SetRequest[Handle]) -> None:
        applied = 0  # since others had their turn
        try:
            while True:
                if applied >= CHUNK or not self._lines.waiting:
                    if applied:
                        request.catch_up()
                        self._engine.commit()
                        applied = 0
                        await asyncio.sleep(0)
                    await self._lines.receive()
                    request.look_again()
                line = self._lines.take()
                text = line.removesuffix(b"\n").removesuffix(b"\r").decode("ascii", "replace")
                if not text:
                    return
                request.apply(text)
                applied += 1
        finally:
            request.finish_peer()
            self._engine.commit()

    async def _skip_request(self) -> None:
        """Pass over what the client had sent behind a refused line, so that its next request is understood.

        That ends at the blank line; or, for a client that never sends it, where a request begins.
        """
        await self._writer.drain()
        count = 0
        while (line := await self._lines.next()) not in (b"\n", b""):
            if line in (b"get=1\n", b"set=1\n"):
                self._lines.push_back(line)
                return
            count += 1
            if count % CHUNK == 0:
                await asyncio.sleep(0)

    def _answer(self, error: UapiError | None) -> None:
        if error is not None:
            _log.error("UAPI: %s", error)
        self._writer.write(f"errno={-error.errno if error is not None else 0}\n\n".encode())


def _number_of(error: OSError | PywgError) -> int:
    """The system's errno behind an error; EADDRINUSE, wireguard-go's for all of these, when there is none."""
    cause = error.__cause__ if isinstance(error, PywgError) else error
    return (cause.errno if isinstance(cause, OSError) else None) or errno.EADDRINUSE


class _SetRequest(Generic[Handle]):
    """A `set=1` in progress: which peer its lines are about."""

    def __init__(self, engine: Configurable[Handle]) -> None:
        self._engine = engine
        self._public_key: PublicKey | None = None
        self._handle: Handle | None = None  # None with a public key: its lines are read and change nothing
        self._created = False
        self._keepalive: int | None = None
        self._networks: list[Network] = []  # read, but not given to the peer yet: one by one takes long

    def apply(self, line: str) -> None:
        """Apply one line, or keep it for `catch_up`; raises UapiError."""
        key, value = split_line(line)
        if key == "allowed_ip" and value[:1] != "-" and self._public_key is not None:
            self._networks.append(parse_network(key, value))
            return
        self.catch_up()
        if key == "public_key":
            self._begin_peer(parse_key(PublicKey, key, value))
        elif self._public_key is None:
            self._apply_to_device(key, value)
        else:
            self._apply_to_peer(key, value)

    def catch_up(self) -> None:
        """Give the peer what was kept: before any other line, and before others have their turn."""
        if self._networks:
            networks, self._networks = self._networks, []
            if self._handle is not None:
                self._engine.add_allowed_ips(self._handle, networks)

    def look_again(self) -> None:
        """After others had their turn: find the peer anew, as it may have been removed."""
        if self._public_key is not None and self._handle is not None:
            self._handle = self._engine.peer(self._public_key)

    def finish_peer(self) -> None:
        """The peer's last line was applied. Only now may keepalives begin: the endpoint is known."""
        self.catch_up()
        if self._handle is not None and self._keepalive is not None:
            self._engine.set_persistent_keepalive(self._handle, self._keepalive)
        self._keepalive = None

    def _begin_peer(self, public_key: PublicKey) -> None:
        self.finish_peer()
        self._public_key = public_key
        self._handle = self._engine.peer(public_key)
        self._created = self._handle is None
        if self._handle is None:
            with suppress(PywgError):
                self._handle = self._engine.add_peer(public_key)

    def _apply_to_device(self, key: str, value: str) -> None:
        match key:
            case "private_key":
                private_key = parse_key(PrivateKey, key, value)
                self._engine.set_private_key(None if private_key.is_zero else private_key.clamped())
            case "listen_port":
                port = parse_unsigned(key, value, 16)
                try:
                    self._engine.set_listen_port(port)
                except (OSError, PywgError) as error:
                    raise UapiError(_number_of(error), f"listen_port {port}: {error}") from None
            case "fwmark":
                mark = parse_unsigned(key, value, 32)
                try:
                    self._engine.set_fwmark(mark)
                except (OSError, PywgError) as error:
                    raise UapiError(_number_of(error), f"fwmark {mark}: {error}") from None
            case "replace_peers":
                parse_true(key, value)
                self._engine.remove_all_peers()
            case _:
                raise UapiError(errno.EINVAL, f"{key[:80]!r} is no key of a device")

    def _apply_to_peer(self, key: str, value: str) -> None:
        engine, handle = self._engine, self._handle
        match key:
            case "allowed_ip":
                network = parse_network(key, value.removeprefix("-"))
                if handle is not None:
                    engine.remove_allowed_ip(handle, network)
            case "replace_allowed_ips":
                parse_true(key, value)
                if handle is not None:
                    engine.clear_allowed_ips(handle)
            case "endpoint":
                endpoint = parse_endpoint(key, value)
                if handle is not None:
                    engine.set_endpoint(handle, endpoint)
            case "preshared_key":
                preshared_key = parse_key(PresharedKey, key, value)
                if handle is not None:
                    engine.set_preshared_key(handle, preshared_key)
            case "persistent_keepalive_interval":
                self._keepalive = parse_unsigned(key, value, 16)
            case "update_only":
                parse_true(key, value)
                if self._created:
                    self._drop_peer()
            case "remove":
                parse_true(key, value)
                self._drop_peer()
            case "protocol_version":
                if value != "1":
                    raise UapiError(errno.EINVAL, f"protocol_version is '{value[:80]}'; only 1 exists")
            case _:
                raise UapiError(errno.EINVAL, f"{key[:80]!r} is no key of a peer")

    def _drop_peer(self) -> None:
        if self._handle is not None:
            self._engine.remove_peer(self._handle)
            self._handle = None
