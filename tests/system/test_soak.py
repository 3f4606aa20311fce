"""The soak test's short form: it begins with the first test, runs beside all others, and is asked at the end.

`python -m tests.soak` is the program, and tells what it does.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.system.net import eventually

MINUTES = 5


class Run:
    """The soak test's process."""

    def __init__(self, log: pathlib.Path) -> None:
        self._log = log
        command = [sys.executable, "-m", "tests.soak", "--minutes", str(MINUTES)]
        command += ["--cycle", "20", "--rate", "200000", "--interval", "0.05"]
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                command,
                cwd=pathlib.Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        return self._log.read_text(errors="replace")


@pytest.fixture(scope="session")
def run(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The one run."""
    made = Run(tmp_path_factory.mktemp("soak") / "log")
    try:
        yield made
    finally:
        made.process.terminate()
        made.process.wait()


@pytest.mark.first
def test_a_long_run_begins(run: Run) -> None:
    eventually("it runs", lambda: "begun" in run.output() or run.process.poll() is not None, timeout=60)
    assert run.process.poll() is None, run.output()


@pytest.mark.last
@pytest.mark.timeout(60 * MINUTES + 240)
def test_nothing_leaks_or_is_lost_over_rekeys_moves_reloads_and_peers_that_come_and_go(run: Run) -> None:
    deadline = time.monotonic() + 60 * MINUTES + 180
    while run.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert run.process.poll() == 0, run.output()
    figures = json.loads(run.output().splitlines()[-1])
    assert min(figures[name] for name in ("cycles", "reloads", "moves", "peers", "transfers")) >= MINUTES
    assert figures["handshakes"] >= MINUTES * 60 // 130
