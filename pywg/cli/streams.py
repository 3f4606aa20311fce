"""Standard input, output and error, as both programs want them, whatever their caller made of them."""

from __future__ import annotations

import io
import os
import sys


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
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")
