"""`pywg genpsk`: a new preshared key on standard output."""

from __future__ import annotations

import os

import click

from pywg.cli.genkey import warn_if_world_accessible
from pywg.cli.wgusage import WG_WORDS, WORDS, refuse_usage
from pywg.noise.keys import PresharedKey


@click.command("genpsk", context_settings=WG_WORDS)
@WORDS
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Print a new preshared key in base64, to be given to both peers."""
    if words:
        refuse_usage(context, "")
    warn_if_world_accessible()
    click.echo(PresharedKey.generate(os.urandom).base64)
