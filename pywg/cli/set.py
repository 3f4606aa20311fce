"""`pywg set`: change settings and peers of a running interface."""

from __future__ import annotations

import click

from pywg.cli.setargs import USAGE, read_words
from pywg.cli.wgusage import WG_WORDS, WORDS, refuse_usage
from pywg.host import control


@click.command("set", context_settings=WG_WORDS)
@WORDS
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Change settings and peers of INTERFACE. What is not named stays as it is.

    \b
    pywg set INTERFACE
        [listen-port PORT] [fwmark MARK|off] [private-key FILE]
        [peer PUBLIC-KEY [remove] [preshared-key FILE]
            [endpoint HOST:PORT] [persistent-keepalive SECONDS|off]
            [allowed-ips [+|-]ADDRESS/LENGTH[,...]] ]...

    Keys are read from files; /dev/stdin is standard input, and an empty file takes the key away. Allowed IPs
    replace those that the peer has, or with + and - are added and taken away.
    """
    if len(words) < 2:
        refuse_usage(context, USAGE)
    interface, *settings = words
    change = read_words(settings, lambda line: click.echo(line, err=True))
    control.apply(interface, change)
