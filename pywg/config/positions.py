"""Where in a file something stands, and the mistakes found there, all told together.

No text of a file is put into a message but through `quote`, which shows one short printable line
and never a key.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from pywg.errors import PywgError
from pywg.errors import printable as printable  # noqa: PLC0414  used together with these

T = TypeVar("T")

_QUOTE_LIMIT = 60
_KEY_TEXT = re.compile(r"[A-Za-z0-9+/]{40,}={0,2}")


class Position(NamedTuple):
    """A place in a file: line and column count from 1, in characters; line 0 is the file as a whole."""

    path: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}" if self.line else self.path


@dataclasses.dataclass(frozen=True, slots=True)
class Located(Generic[T]):
    """A value and where it stands. Equal to another when the values are."""

    value: T
    position: Position = dataclasses.field(compare=False, repr=False)


def value_of(located: Located[T] | None) -> T | None:
    """The value where there is one."""
    return None if located is None else located.value


@dataclasses.dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong, or that deserves a warning: `text` is a sentence without its full stop."""

    position: Position
    text: str

    def __str__(self) -> str:
        return f"{self.position}: {self.text}"


class ConfigError(PywgError):
    """Every mistake of a file, in the file's order; the message has one line for each."""

    def __init__(self, mistakes: Sequence[Mistake], more: int = 0) -> None:
        """`more` is how many further mistakes were found and not kept."""
        lines = [str(mistake) for mistake in mistakes]
        if more:
            lines.append(f"{mistakes[0].position.path}: and {more} more mistakes")
        super().__init__("\n".join(lines))
        self.mistakes = tuple(mistakes)
        self.more = more


def quote(text: str) -> str:
    """`text` in quotes, on one line, printable, at most about 60 characters, without any key in it."""
    text = _KEY_TEXT.sub("(a key)", text)
    shown = printable(text[: _QUOTE_LIMIT + 1])  # an escape is longer than what it stands for
    if len(shown) > _QUOTE_LIMIT:
        shown = shown[: _QUOTE_LIMIT - 3] + "..."
    return f"'{shown}'"


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """The question that follows an unknown word, such as `; did you mean 'AllowedIPs'?`, or nothing."""
    close = closest(word, names)
    return f"; did you mean '{close}'?" if close else ""


def closest(word: str, names: Iterable[str]) -> str | None:
    """The name that `word` was probably meant to be, whatever its case."""
    by_lower = {name.lower(): name for name in names}
    found = difflib.get_close_matches(word.lower()[:_QUOTE_LIMIT], by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None
