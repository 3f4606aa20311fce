"""`pywg showconf`: the settings of an interface as a configuration file."""

from __future__ import annotations

import click

from pywg.cli import wgformat
from pywg.cli.wgusage import WG_WORDS, WORDS, refuse_usage
from pywg.host import control


@click.command("showconf", context_settings=WG_WORDS)
@WORDS
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Print the settings of INTERFACE as a file for `setconf`. It holds the private key."""
    if len(words) != 1:
        refuse_usage(context, "<interface>")
    click.echo(wgformat.showconf(control.get(words[0])), nl=False)
