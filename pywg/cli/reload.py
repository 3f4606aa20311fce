"""`pywg reload`: put a changed configuration file into its running tunnel."""

from __future__ import annotations

import functools

import click

from pywg.host.reload import reload
from pywg.host.steps import ignore_interrupts


@click.command("reload")
@click.argument("config", metavar="CONFIG|NAME")
def command(config: str) -> None:
    """Put a changed file into the running tunnel; what stays the same is not touched.

    Sessions of peers that stay go on. Each change is shown as the command that would do it; when one fails,
    all earlier ones are undone. Hooks do not run.
    """
    reload(config, functools.partial(click.echo, err=True))
    ignore_interrupts()
