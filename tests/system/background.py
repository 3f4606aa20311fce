"""Cases that mostly wait run side by side in threads, so that all of them take as long as the longest one.

The body of a test marked `@pytest.mark.background(body=prepare)` has a thread; `prepare(ours, theirs, ...)`
makes it from the test's own parameters. The threads start with the first test that uses the fixture
`background`, for those tests only that were selected; the fixture `finish` waits for the test's own thread
and fails as it failed.
"""

from __future__ import annotations

import concurrent.futures
import pathlib
from collections.abc import Callable
from typing import Concatenate, ParamSpec

import pytest

from tests.system.net import Lab

WORKERS = 12
Body = Callable[[Lab], None]
P = ParamSpec("P")


def play(case: Callable[Concatenate[Lab, P], None], *arguments: P.args, **options: P.kwargs) -> Body:
    """The body that plays a case with these arguments in the lab that it is given."""
    return lambda lab: case(lab, *arguments, **options)


class Background:
    """The threads, by the id of their test."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._pool = concurrent.futures.ThreadPoolExecutor(WORKERS, thread_name_prefix="case")
        self._futures: dict[str, concurrent.futures.Future[None]] = {}
        self._labs: list[Lab] = []

    def start(self, item: pytest.Item, body: Body) -> None:
        """Put a test's body in line."""
        directory = self._directory / f"case{len(self._futures)}"
        directory.mkdir()
        self._futures[item.nodeid] = self._pool.submit(self._run, directory, body)

    def _run(self, directory: pathlib.Path, body: Body) -> None:
        with Lab(directory) as lab:
            self._labs.append(lab)
            try:
                body(lab)
            except BaseException as error:
                error.add_note(lab.evidence())
                raise

    def finish(self, item: pytest.Item) -> None:
        """Wait for this test's thread, and fail as it failed."""
        self._futures[item.nodeid].result()

    def close(self) -> None:
        """End also what still runs, by taking its hosts away."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for lab in self._labs:
            lab.close()
        self._pool.shutdown()
