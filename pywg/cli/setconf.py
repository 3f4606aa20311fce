"""`pywg setconf`: see `conffile.py`."""

from __future__ import annotations

import click

from pywg.cli import conffile
from pywg.cli.wgusage import WG_WORDS, WORDS
from pywg.host import control


@click.command("setconf", context_settings=WG_WORDS)
@WORDS
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Replace all settings of INTERFACE by those of a configuration file, in the form that `wg` reads.

    Peers that the file does not have are removed, and so are keys, port and mark; /dev/stdin is standard
    input.
    """
    interface, change = conffile.read(context, words)
    control.apply(interface, conffile.replacing(change))
