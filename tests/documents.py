"""Reads the project's documents: their links and headings, and the commands in them that tests play.

A page that says `<!-- stage: NAME -->` is played from top to bottom on the hosts of that stage. Its `console`
blocks hold lines `HOST# command`, each followed by what it prints, where that is to be checked: `...` stands
for anything, a number before a unit for any number. The block behind `<!-- file: HOST NAME -->` becomes a
file. A block behind `<!-- not played: REASON -->` is left out. ALICE-PUBLIC-KEY stands for what is in alice's
file `publickey`.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]

_FENCE = re.compile(
    r"^(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)[ ]*$", re.MULTILINE | re.DOTALL
)
_STAGE = re.compile(r"^<!-- stage: ([\w-]+) -->$", re.MULTILINE)
_FILE = re.compile(r"<!-- file: (\w+) (\S+) -->\s*\Z")
_NOT_PLAYED = re.compile(r"<!-- not played: \S.* -->\s*\Z")
_PROMPT = re.compile(r"^(\w+)[#$] (.*)")
_HEADING = re.compile(r"^(#+) +(.*?) *$", re.MULTILINE)
_TARGET = re.compile(r"^\(([\w.-]+)\)=$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`\n]+`")
_KEY = re.compile(r"\b([A-Z]+)-(PUBLIC|PRIVATE)-KEY\b")


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, the line where it begins, and the page's text before it."""

    language: str
    text: str
    line: int
    before: str

    @property
    def is_left_out(self) -> bool:
        return _NOT_PLAYED.search(self.before) is not None


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """Write a file into the host's directory."""

    host: str
    name: str
    text: str
    line: int


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """Run a command on a host; `prints` is checked unless it is empty."""

    host: str
    command: str
    prints: str
    line: int


class Page:
    """One Markdown file."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def prose(self) -> str:
        """The text without its blocks."""
        return _FENCE.sub("", self.text)

    @property
    def stage(self) -> str | None:
        found = _STAGE.search(self.text)
        return found[1] if found else None

    def blocks(self) -> list[Block]:
        return [
            Block(
                found["info"].strip(),
                found["body"],
                self.text.count("\n", 0, found.start()) + 1,
                self.text[: found.start()],
            )
            for found in _FENCE.finditer(self.text)
        ]

    def steps(self) -> Iterator[File | Command]:
        """What is played, in the page's order."""
        for block in self.blocks():
            if block.is_left_out:
                continue
            if file := _FILE.search(block.before):
                yield File(file[1], file[2], block.text, block.line)
            elif block.language == "console":
                yield from _commands(block)

    def anchors(self) -> set[str]:
        """What a link may name behind a `#`: headings as GitHub and MyST write them, and explicit targets."""
        return {slug(heading[2]) for heading in _HEADING.finditer(self.prose)} | set(
            _TARGET.findall(self.text)
        )

    def headings(self) -> list[str]:
        return [heading[2] for heading in _HEADING.finditer(self.prose)]

    def links(self) -> list[str]:
        return _LINK.findall(_CODE.sub("code", self.prose))


def _commands(block: Block) -> Iterator[Command]:
    """A command goes on in the next line after a backslash, and to the end mark of a here-document."""
    lines = block.text.splitlines()
    number = 0
    while number < len(lines):
        found = _PROMPT.match(lines[number])
        if found is None:
            raise ValueError(f"line {block.line + 1 + number}: output without a command")
        host, command, begin = found[1], [found[2]], number
        number += 1
        while command[-1].endswith("\\"):
            command.append(lines[number])
            number += 1
        if here := re.search(r"<<'?(\w+)'?", found[2]):
            while command[-1] != here[1]:
                command.append(lines[number])
                number += 1
        prints = []
        while number < len(lines) and not _PROMPT.match(lines[number]):
            prints.append(lines[number])
            number += 1
        yield Command(host, "\n".join(command), "\n".join(prints).strip(), block.line + 1 + begin)


def slug(heading: str) -> str:
    """The anchor of a heading."""
    text = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return text.replace(" ", "-")


def with_keys(text: str, read: Callable[[str, str], str]) -> str:
    """Put keys in their places; read(host, `publickey` or `privatekey`) gives them."""
    return _KEY.sub(lambda found: read(found[1].lower(), f"{found[2].lower()}key"), text)


def pattern(prints: str) -> str:
    """A regular expression for what a document says is printed."""
    parts = [
        "".join(
            re.escape(piece) if index % 2 == 0 else r"\d+(?:\.\d+)? \w+"
            for index, piece in enumerate(_split_measures(part))
        )
        for part in prints.split("...")
    ]
    return r".*?".join(parts)


def _split_measures(text: str) -> list[str]:
    """Text and measures (`1.06 KiB`) in turn."""
    return re.split(r"(\b\d+(?:\.\d+)? (?:ms|bytes|B|KiB|MiB)\b)", text)


def pages() -> list[Page]:
    """Every document of the project, in order."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    return [Page(path) for path in sorted(paths) if "_build" not in path.parts]
