"""`pywg up`: bring up the tunnel of a configuration file."""

from __future__ import annotations

import functools

import click

from pywg.host.tunnel import bring_up


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
    bring_up(config, functools.partial(click.echo, err=True), backend=backend, dry=dry_run)
