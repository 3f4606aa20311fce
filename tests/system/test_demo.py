"""`make demo` cut short: what it started ends with it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import signal
import subprocess
import sys

import pytest

from tests.system.net import eventually

DEMO = pathlib.Path(__file__).parents[2] / "demo" / "demo.py"

pytestmark = pytest.mark.usefixtures("namespaces")


def processes_with(variable: str) -> list[str]:
    """The command lines of processes that were started with this in their environment."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if variable.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_story_leaves_no_daemons(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    mark = secrets.token_hex()
    log = tmp_path / "log"
    with log.open("wb") as stream:
        story = subprocess.Popen(
            [sys.executable, DEMO],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYWG_TEST_MARK": mark, "TMPDIR": str(tmp_path)},
        )
    try:
        eventually("packets flow", lambda: "bytes from 10.0.0.2" in log.read_text(), timeout=60)
        assert len([line for line in processes_with(mark) if "pywgd" in line]) == 2
        os.killpg(story.pid, number)  # as the terminal does
        assert story.wait(20) == (130 if number == signal.SIGINT else 1)
    finally:
        story.kill()
        story.wait()
    assert ("interrupted; nothing is left behind" in log.read_text()) == (number == signal.SIGINT)
    assert processes_with(mark) == []
    assert list(tmp_path.iterdir()) == [log]
