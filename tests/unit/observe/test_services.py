"""Counts, events and the log level over a real socket, from a real engine."""

from __future__ import annotations

import asyncio
import json
import logging
import pathlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from pywg.noise.keys import PublicKey
from pywg.observe import services as services_module
from pywg.observe.services import services
from pywg.uapi.client import Client
from pywg.uapi.error import UapiError
from pywg.uapi.listen import listen
from pywg.uapi.server import UapiServer
from tests.unit.test_engine import Node, play, running
from tests.unit.uapi.table import TableDevice

EINVAL = b"errno=-22\n\n"


@asynccontextmanager
async def served(node: Node, directory: pathlib.Path) -> AsyncIterator[pathlib.Path]:
    server = UapiServer(node.engine, listen("wg0", directory), services=services(node.engine))
    await server.start()
    try:
        yield directory / "wg0.sock"
    finally:
        await server.close()


async def ask(path: pathlib.Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()


def with_node(directory: pathlib.Path, story: Callable[[Node, pathlib.Path], Awaitable[None]]) -> None:
    async def whole() -> None:
        node = Node("10.0.0.1")
        async with running(node), served(node, directory) as path:
            await story(node, path)

    play(whole)


def test_statistics_are_one_line_of_json_with_a_version(tmp_path: pathlib.Path) -> None:
    async def story(node: Node, path: pathlib.Path) -> None:
        node.engine.add_peer(PublicKey(b"p" * 32))
        answer = await ask(path, b"stats=1\n\n")
        text, status = answer.split(b"\n", 1)
        assert status == b"errno=0\n\n"
        said = json.loads(text)
        assert said["version"] == 1
        assert said["is_up"] is True
        assert [peer["public_key"] for peer in said["peers"]] == [str(PublicKey(b"p" * 32))]
        assert said["peers"][0]["handshakes"]["completed"] == 0

    with_node(tmp_path, story)


def test_the_client_reads_statistics_and_events(tmp_path: pathlib.Path) -> None:
    async def story(node: Node, path: pathlib.Path) -> None:
        loop = asyncio.get_running_loop()
        said = await loop.run_in_executor(None, Client(path).statistics)
        assert said["peers"] == []
        events = Client(path).events()
        first = await loop.run_in_executor(None, next, events)
        assert first["kind"] == "watching"
        node.engine.add_peer(PublicKey(b"p" * 32))
        second = await loop.run_in_executor(None, next, events)
        assert (second["kind"], second["peer"]) == ("peer-added", str(PublicKey(b"p" * 32)))
        events.close()

    with_node(tmp_path, story)


def test_whoever_hangs_up_is_forgotten(tmp_path: pathlib.Path) -> None:
    async def story(node: Node, path: pathlib.Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"events=1\n\n")
        await reader.readline()
        assert node.engine.device.watcher is not None
        writer.close()
        async with asyncio.timeout(10):
            while node.engine.device.watcher is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    with_node(tmp_path, story)


def test_a_slow_reader_loses_events_and_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services_module, "WAITING_EVENTS", 2)

    async def story(node: Node, path: pathlib.Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"events=1\n\n")
        await reader.readline()
        for number in range(5):
            node.engine.add_peer(PublicKey(bytes([number]) * 32))
        said = [json.loads(await reader.readline()) for _ in range(3)]
        assert [event["kind"] for event in said] == ["peer-added", "peer-added", "lost"]
        assert said[2]["count"] == 3
        writer.close()

    with_node(tmp_path, story)


@pytest.mark.parametrize("request_", [b"stats=1\nmore=1\n\n", b"events=1\nmore=1\n\n", b"log=1\n\n"])
def test_lines_that_do_not_belong_there_are_refused(tmp_path: pathlib.Path, request_: bytes) -> None:
    async def story(node: Node, path: pathlib.Path) -> None:
        assert await ask(path, request_) == EINVAL

    with_node(tmp_path, story)


def test_an_endless_request_is_cut_off(tmp_path: pathlib.Path) -> None:
    async def story(node: Node, path: pathlib.Path) -> None:
        assert await ask(path, b"stats=1\n" + b"x=1\n" * (1 << 20)) == EINVAL

    with_node(tmp_path, story)


def test_the_log_level_changes_while_running(tmp_path: pathlib.Path) -> None:
    root = logging.getLogger()
    before = root.level

    async def story(node: Node, path: pathlib.Path) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, Client(path).set_log_level, "debug")
        assert root.level == logging.DEBUG
        with pytest.raises(UapiError):
            await loop.run_in_executor(None, Client(path).set_log_level, "loud")

    try:
        with_node(tmp_path, story)
    finally:
        root.setLevel(before)


def test_names_that_people_give_are_in_logs_events_and_statistics(tmp_path: pathlib.Path) -> None:
    async def story(node: Node, path: pathlib.Path) -> None:
        loop = asyncio.get_running_loop()
        peer = node.engine.add_peer(PublicKey(b"p" * 32))
        await loop.run_in_executor(None, Client(path).set_names, {peer.public_key: "älice"})
        assert repr(peer) == "peer älice (cHBw…wcHA)"
        said = await loop.run_in_executor(None, Client(path).statistics)
        assert said["peers"][0]["name"] == "älice"
        await loop.run_in_executor(None, Client(path).set_names, {})
        assert repr(peer) == "peer(cHBw…wcHA)"

    with_node(tmp_path, story)


@pytest.mark.parametrize("line", ["nokey", "00=alice", f"{'70' * 32}=a\x1b[2J", f"{'70' * 32}={'a' * 101}"])
def test_names_that_are_none_are_refused(tmp_path: pathlib.Path, line: str) -> None:
    async def story(node: Node, path: pathlib.Path) -> None:
        answer = await ask(path, f"names=1\n{line}\n\n".encode())
        assert answer.startswith(b"errno=-")

    with_node(tmp_path, story)


def test_another_daemon_is_told_from_ours(tmp_path: pathlib.Path) -> None:
    """One that hangs up at a request it does not know, as wireguard-go does."""

    async def story() -> None:
        server = UapiServer(TableDevice(), listen("wg0", tmp_path))
        await server.start()
        try:
            loop = asyncio.get_running_loop()
            with pytest.raises(UapiError, match="only pywgd"):
                await loop.run_in_executor(None, Client(tmp_path / "wg0.sock").statistics)
        finally:
            await server.close()

    play(story)


def test_events_end_when_the_daemon_does(tmp_path: pathlib.Path) -> None:
    seen: list[str] = []

    async def story(node: Node, path: pathlib.Path) -> None:
        began = threading.Event()

        def read() -> None:
            with suppress(UapiError):
                for event in Client(path).events():
                    seen.append(event["kind"])
                    began.set()

        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(None, read)
        await loop.run_in_executor(None, began.wait, 10)
        node.engine.add_peer(PublicKey(b"p" * 32))
        await asyncio.sleep(0)
        stories.append(reading)

    stories: list[asyncio.Future[None]] = []

    async def whole() -> None:
        node = Node("10.0.0.1")
        async with running(node):
            async with served(node, tmp_path) as path:
                await story(node, path)
            await asyncio.wait_for(stories[0], 10)

    play(whole)
    assert seen[0] == "watching"
