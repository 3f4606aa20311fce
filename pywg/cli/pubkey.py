"""`pywg pubkey`: the public key to a private key, from standard input to standard output."""

from __future__ import annotations

import sys

import click

from pywg.cli.wgusage import WG_WORDS, WORDS, refuse_usage
from pywg.errors import PywgError
from pywg.noise.keys import BASE64_LENGTH, PrivateKey

_SPACE = b" \t\n\v\f\r\0"
_BLOCK = 65536


@click.command("pubkey", context_settings=WG_WORDS)
@WORDS
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Read a private key in base64 from standard input and print its public key.

    pywg genkey | tee private.key | pywg pubkey > public.key
    """
    if words:
        refuse_usage(context, "")
    source = sys.stdin.buffer
    text = source.read(BASE64_LENGTH)
    while rest := source.read(_BLOCK):
        if rest.strip(_SPACE):
            raise PywgError("something follows the key on standard input; give the key alone")
    key = PrivateKey.from_base64(text.rstrip(_SPACE).decode("latin-1"))
    click.echo(key.public_key.base64)
