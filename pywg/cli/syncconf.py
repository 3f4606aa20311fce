"""`pywg syncconf`: see `conffile.py`."""

from __future__ import annotations

import click

from pywg.cli import conffile
from pywg.cli.wgusage import WG_WORDS, WORDS
from pywg.host import control


@click.command("syncconf", context_settings=WG_WORDS)
@WORDS
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Make the settings of INTERFACE equal to those of a configuration file, as `setconf` does.

    Unlike there, the sessions of peers that stay are not disturbed; /dev/stdin is standard input.
    """
    interface, change = conffile.read(context, words)
    if change.peers:
        change = conffile.synchronizing(change, control.get(interface))
    else:
        change = conffile.replacing(change)
    control.apply(interface, change)
