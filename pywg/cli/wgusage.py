"""What the commands that stand in for `wg`'s have in common on the command line.

`wg` ends with status 1 where click would end with 2, and takes whatever begins with a dash as a word.
"""

from __future__ import annotations

import textwrap
from typing import Any, NoReturn

import click

WG_WORDS: dict[str, Any] = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""Context settings for a command whose arguments are all words of `wg`'s grammar; only --help is ours."""

WORDS = click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="")


def refuse_usage(context: click.Context, arguments: str) -> NoReturn:
    """Say how the command is to be called, and end with `wg`'s status for that."""
    usage = f"Usage: {context.command_path} {arguments}".rstrip()
    lines = textwrap.wrap(usage, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    click.echo("\n".join(lines), err=True)
    context.exit(1)
