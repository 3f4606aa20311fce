"""What fuzzing has kept, played without a fuzzer; and whether all that reads strangers' bytes is fuzzed."""

from __future__ import annotations

import ast
import logging
import pathlib
import sys
from collections.abc import Iterator
from types import CodeType, FrameType

import pytest

import pywg
from tests.fuzz.targets import CORPUS, TARGETS, kept

PACKAGE = pathlib.Path(pywg.__file__).parent


@pytest.fixture(autouse=True)
def _loudness() -> Iterator[None]:
    """Targets silence the server's log, as a fuzzer fills it; other tests read it."""
    logger = logging.getLogger("pywg.uapi")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_kept_is_handled(name: str) -> None:
    inputs = kept(name)
    assert inputs, f"fill it: tests/fuzz/run.py --keep --target {name}"
    for data in inputs:
        TARGETS[name].run(data)


def test_the_corpora_are_small() -> None:
    files = list(CORPUS.iterdir())
    assert {path.stem for path in files} == set(TARGETS)
    assert sum(path.stat().st_size for path in files) < 500_000


def untrusted() -> set[tuple[str, str]]:
    """File and name of every function that says of itself that it reads strangers' bytes."""
    return {
        (str(path), node.name)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.endswith("_untrusted")
    }


def test_every_untrusted_function_is_reached_by_a_target() -> None:
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    before = sys.getprofile()
    for name in ("messages", "ip", "noise", "device", "split", "burst", "kernel"):
        target = TARGETS[name]
        sys.setprofile(note)
        try:
            for data in target.seeds():
                target.run(data)
        finally:
            sys.setprofile(before)
    reached = {(code.co_filename, code.co_name) for code in seen}
    assert len(untrusted()) > 10
    assert untrusted() - reached == set()
