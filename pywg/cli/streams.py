"""Standard input, output and error, as both programs want them, whatever their caller made of them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import BinaryIO, cast


class Messages(io.TextIOWrapper):
    """Standard error: a message that nobody takes, say in a pipe that none reads, hinders nothing."""

    def __init__(self, encoding: str) -> None:
        unbuffered = cast(BinaryIO, io.FileIO(2, "w", closefd=False))  # what failed is not tried again
        super().__init__(unbuffered, encoding, "backslashreplace", write_through=True)

    def write(self, text: str, /) -> int:
        """Write it, if that can be."""
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)


def settle() -> None:
    """Open what is closed, and print what the terminal's character set lacks as a question mark.

    Whatever is opened next would take a closed stream's number, and be taken for it. Reading finds the end
    then, messages are lost, and output that was asked for fails like that into a full file.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest number that is free
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is sys.__stderr__ or sys.__stderr__ is None:
        sys.stderr = Messages(sys.stderr.encoding)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")
