"""`pywg save`: write a running tunnel into its configuration file."""

from __future__ import annotations

import functools

import click

from pywg.host.tunnel import save


@click.command("save")
@click.argument("config", metavar="CONFIG|NAME")
def command(config: str) -> None:
    """Write a running tunnel into its file: ./wg0.conf, or wg0 for /etc/wireguard/wg0.conf.

    Keys, port, mark, peers and addresses are those that it has now; the rest stays as the file has it.
    Comments are lost, but for names of peers.
    """
    save(config, functools.partial(click.echo, err=True))
