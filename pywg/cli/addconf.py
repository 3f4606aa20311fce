"""`pywg addconf`: see `conffile.py`."""

from __future__ import annotations

import click

from pywg.cli import conffile
from pywg.cli.wgusage import WG_WORDS, WORDS
from pywg.host import control


@click.command("addconf", context_settings=WG_WORDS)
@WORDS
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Add the settings of a configuration file, in the form that `wg` reads, to those of INTERFACE.

    Nothing is removed that the file does not name; /dev/stdin is standard input.
    """
    interface, change = conffile.read(context, words)
    control.apply(interface, change)
