"""`pywg events`: what happens, as it happens."""

from __future__ import annotations

import json
import sys
from contextlib import suppress

import click

from pywg.observe.eventstream import EventStream, in_words


@click.command("events")
@click.argument("interfaces", nargs=-1, metavar="[INTERFACE]...")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each event, for programs.")
def command(interfaces: tuple[str, ...], as_json: bool) -> None:
    """Tell what happens to interfaces of pywgd: all, or those named; until interrupted or all have ended.

    Handshakes, sessions, endpoints that move, peers that come and go, refusals with their reasons.
    """
    with suppress(KeyboardInterrupt):
        for event in EventStream(interfaces):
            if as_json:
                click.echo(json.dumps(event))
            elif event["kind"] != "watching":
                click.echo(in_words(event))
            sys.stdout.flush()
