"""`pywg monitor`: set endpoints anew while an interface runs; see `pywg/host/monitor.py`."""

from __future__ import annotations

import functools
import os
import sys
import tempfile

import click

from pywg.config.files import load
from pywg.errors import PywgError
from pywg.host.monitor import command_line, watched_peers, written
from pywg.host.names import require_network_rights


@click.command("monitor")
@click.argument("config", metavar="CONFIG|NAME")
def command(config: str) -> None:
    """Watch a running tunnel's endpoints, as `pywg up` does in the background.

    Names are resolved again, and other addresses and endpoints tried, when a peer does not answer or the
    network changes. Ends with the interface.
    """
    say = functools.partial(click.echo, err=True)
    loaded = load(config)
    for warning in loaded.warnings:
        say(warning)
    peers = watched_peers(loaded.config)
    if not peers:
        raise PywgError(
            f"{loaded.location.path}: no endpoint is a name, and no peer has several; none can change"
        )
    require_network_rights(f"pywg monitor {config}")
    # What has been imported so far is not needed any more, and would stay in memory as long as the tunnel.
    with tempfile.TemporaryFile() as words:
        words.write(written(peers))
        words.seek(0)
        os.dup2(words.fileno(), 0)
        sys.stdout.flush()
        os.execv(sys.executable, command_line(loaded.location.interface, foreground=True))  # noqa: S606
