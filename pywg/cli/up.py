"""`pywg up`: bring up the tunnel of a configuration file."""

from __future__ import annotations

import functools
import os

import click

from pywg.errors import PywgError
from pywg.host import ahead, system


@click.command("up")
@click.option(
    "--backend",
    type=click.Choice(["kernel", "userspace"]),
    help="The kernel's WireGuard or pywgd; by default the kernel's where there is one.",
)
@click.option("--dry-run", is_flag=True, help="Show the steps, and do none of them; needs no rights.")
@click.argument("config", metavar="CONFIG|NAME")
def command(config: str, backend: str | None, dry_run: bool) -> None:
    """Bring up the tunnel of a configuration file: ./wg0.conf, or wg0 for /etc/wireguard/wg0.conf.

    Each step is shown as the command that would do it. When one fails, all earlier ones are undone.
    Mistakes in the file are told all at once, with line and column, and nothing is changed.
    """
    say = functools.partial(click.echo, err=True)
    if system.has_own_ways():
        if dry_run or backend == "kernel":
            raise PywgError("--dry-run and --backend kernel are not there on this system; leave them out")
        system.bring_up(config, say)
    else:
        with ahead.daemon_ahead(config, backend, dry=dry_run) as daemon:
            from pywg.host import tunnel
            from pywg.host.steps import ignore_interrupts

            tunnel.bring_up(config, say, backend=backend, dry=dry_run, ahead=daemon)
            ignore_interrupts()
        # Whoever waits for us may use the tunnel now; all is printed, and tidying up memory takes 40 ms.
        os._exit(0)
