"""What a log gets: levels as a journal reads them, and no more lines than a disk bears."""

from __future__ import annotations

import logging
import os
import pathlib
import sys

import pytest

from pywg.observe import logs


@pytest.fixture
def root() -> logging.Logger:
    return logging.getLogger()


def record(text: str, *values: object, level: int = logging.DEBUG, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("pywg", level, "", 0, text, values, None)
    vars(made).update(extra)
    return made


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_of_one_kind_are_limited_and_the_next_says_how_many_there_were() -> None:
    clock = Clock()
    limit = logs.RateLimit(clock)
    passed = [limit.filter(record("from %s", number)) for number in range(1000)]
    assert passed == [True] * logs.BURST + [False] * (1000 - logs.BURST)
    clock.now += 1.1 / logs.RATE
    late = record("from %s", "afar")
    assert limit.filter(late)
    assert late.getMessage() == f"from afar (and {1000 - logs.BURST} lines like this one before)"
    assert not limit.filter(record("from %s", 1))


def test_other_kinds_are_not_held_up() -> None:
    limit = logs.RateLimit(Clock())
    while limit.filter(record("flood")):
        pass
    assert limit.filter(record("something else"))
    assert limit.filter(record("flood", kind="an event"))


def test_after_a_quiet_time_a_burst_passes_again() -> None:
    clock = Clock()
    limit = logs.RateLimit(clock)
    while limit.filter(record("x")):
        pass
    clock.now += logs.BURST / logs.RATE
    assert sum(limit.filter(record("x")) for _ in range(1000)) == logs.BURST


@pytest.mark.parametrize(
    ("level", "priority"), [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3)]
)
def test_a_journal_gets_the_level_before_each_line(level: int, priority: int) -> None:
    said = logs.JournalFormatter("wg0").format(record("one\n%s", "two", level=level))
    assert said == f"<{priority}>wg0: one\n<{priority}>wg0: two"


def started(root: logging.Logger, environment: dict[str, str]) -> logging.Handler:
    before, level = list(root.handlers), root.level
    try:
        logs.start("wg0", environment, to_syslog=False)
        (handler,) = [handler for handler in root.handlers if handler not in before]
        return handler
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def test_the_journal_is_known_by_its_device_and_inode(
    root: logging.Logger, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        status = os.fstat(stream.fileno())
        named = started(root, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert isinstance(named.formatter, logs.JournalFormatter)
        other = started(root, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not isinstance(other.formatter, logs.JournalFormatter)


def test_a_terminal_gets_the_level_the_interface_and_the_time(root: logging.Logger) -> None:
    said = started(root, {"LOG_LEVEL": "debug"}).format(record("text", level=logging.INFO))
    assert said.startswith("INFO: (wg0) 20")
    assert said.endswith(" text")
