"""`pywg strip`: a configuration file as `wg setconf` takes it."""

from __future__ import annotations

import click

from pywg.config.files import load_text, locate, read_text
from pywg.config.plain import plain_text
from pywg.config.positions import ConfigError, Mistake


@click.command("strip")
@click.option("--strict", is_flag=True, help="Refuse a file that wg-quick would not understand in full.")
@click.argument("config", metavar="CONFIG|NAME")
def command(config: str, strict: bool) -> None:
    """Print a configuration file without what only wg-quick and pywg know.

    What is left is what `wg setconf` takes. Keys from other files and from the environment are put in, and
    DisallowedIPs taken out of AllowedIPs. With --strict, every such line is a mistake.

    \b
    pywg syncconf wg0 <(pywg strip wg0)
    """
    location = locate(config)
    text = read_text(location.path)
    loaded = load_text(location, text, with_keys=not strict)
    for warning in loaded.warnings:
        click.echo(warning, err=True)
    if strict and loaded.config.extensions:
        raise ConfigError(
            [
                Mistake(entry.position, f"{entry.value}: only pywg reads this line; wg-quick passes over it")
                for entry in loaded.config.extensions
            ]
        )
    stripped = plain_text(text, loaded.config)
    click.echo(stripped.encode("utf-8", "surrogateescape"), nl=False)
