"""`pywg down`: take down the tunnel of a configuration file."""

from __future__ import annotations

import functools

import click

from pywg.host import system


@click.command("down")
@click.argument("config", metavar="CONFIG|NAME")
def command(config: str) -> None:
    """Take down the tunnel that `pywg up` brought up from the same file or name.

    PreDown runs before, PostDown after the interface is deleted; its daemon ends with it.
    """
    say = functools.partial(click.echo, err=True)
    if system.has_own_ways():
        system.take_down(config, say)
    else:
        from pywg.host import tunnel

        tunnel.take_down(config, say)
