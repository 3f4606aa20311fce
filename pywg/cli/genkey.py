"""`pywg genkey`: a new private key on standard output."""

from __future__ import annotations

import os
import stat
import sys

import click

from pywg.cli.wgusage import WG_WORDS, WORDS, refuse_usage
from pywg.noise.keys import PrivateKey


def warn_if_world_accessible() -> None:
    """A secret redirected into a file that others may open deserves a word on standard error."""
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
    except (OSError, ValueError):
        return
    if stat.S_ISREG(mode) and mode & stat.S_IRWXO:
        click.echo(
            "Warning: others may open the file that this key goes into; say 'umask 077' before.", err=True
        )


@click.command("genkey", context_settings=WG_WORDS)
@WORDS
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Print a new private key in base64.

    Keep it in a file that only you can read:

        umask 077; pywg genkey > private.key
    """
    if words:
        refuse_usage(context, "")
    warn_if_world_accessible()
    click.echo(PrivateKey.generate(os.urandom).base64)
