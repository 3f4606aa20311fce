"""What a daemon answers to requests of our own, when it is none of ours, or broken."""

from __future__ import annotations

import errno
import pathlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pywg.uapi.client import Client
from pywg.uapi.error import UapiError

EVENT = b'{"kind": "up", "time": 5.5, "peer": null, "text": "up"}\n'


def answered(directory: pathlib.Path, answer: bytes, ask: Callable[[Client], Any]) -> Any:
    """What the client makes of it, when a daemon answers with these bytes and hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "wg0.sock"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while not connection.recv(100).endswith(b"\n\n"):
                    pass
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with Client.open("wg0", directory) as client:
                return ask(client)
        finally:
            thread.join()


@pytest.mark.parametrize(
    "answer", [b"hello\n", b"[1]\n", b"[" * 10_000 + b"\n", b'{"a"\n', b"{}\nerrno=\n\n"]
)
def test_statistics_that_are_none_are_an_error_in_a_sentence(tmp_path: pathlib.Path, answer: bytes) -> None:
    with pytest.raises(UapiError) as caught:
        answered(tmp_path, answer, Client.statistics)
    assert caught.value.errno in (errno.EPROTO, errno.EINVAL)


@pytest.mark.parametrize(
    "line",
    [
        b"hello\n",
        b"7\n",
        b'{"time": 1}\n',
        b'{"kind": "up"}\n',
        b'{"kind": "up", "time": 1e999}\n',
        b'{"kind": "up", "time": -1}\n',
        b'{"kind": "up", "time": 1, "peer": 7}\n',
    ],
)
def test_events_that_are_none_are_an_error_in_a_sentence(tmp_path: pathlib.Path, line: bytes) -> None:
    taken = []

    def follow(client: Client) -> None:
        taken.extend([next(events := client.events())])
        taken.extend(events)

    with pytest.raises(UapiError) as caught:
        answered(tmp_path, EVENT + line, follow)
    assert caught.value.errno == errno.EPROTO
    assert [event["kind"] for event in taken] == ["up"]


def test_a_daemon_that_is_killed_while_it_tells_an_event_ends_the_events(tmp_path: pathlib.Path) -> None:
    events = answered(tmp_path, EVENT + EVENT[:20], lambda client: list(client.events()))
    assert len(events) == 1
