"""`pywg down`: take down the tunnel of a configuration file."""

from __future__ import annotations

import functools

import click

from pywg.host.tunnel import take_down


@click.command("down")
@click.argument("config", metavar="CONFIG|NAME")
def command(config: str) -> None:
    """Take down the tunnel that `pywg up` brought up from the same file or name.

    PreDown runs before, PostDown after the interface is deleted; its daemon ends with it.
    """
    take_down(config, functools.partial(click.echo, err=True))
