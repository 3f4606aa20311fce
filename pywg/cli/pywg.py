"""`pywg`, the tool: finds the command that is asked for and imports only that one.

Every command is a module of this package with a click command named `command`. What they are called and what
`pywg --help` says of them stands here, so that help and a mistyped name cost no import.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any

import click

from pywg.cli import streams
from pywg.errors import PywgError, is_shortage, remedy

NO_PLACE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO), "see `df -h`"),
    errno.EBADF: "it is closed",
}
"""What writing to a full file, a full disk, or a closed output ends with, and what to say of it."""

SECTIONS = {
    "Tunnels": {
        "up": "Bring up the tunnel of a configuration file.",
        "down": "Take it down again.",
        "save": "Write a running tunnel into its file.",
        "reload": "Put a changed file into the running tunnel.",
        "monitor": "Set endpoints anew as names and networks change.",
        "show": "Show interfaces, peers and traffic.",
    },
    "Settings of a running interface": {
        "set": "Change settings and peers.",
        "setconf": "Replace all settings by a file's.",
        "addconf": "Add a file's settings.",
        "syncconf": "Make settings equal to a file's, sessions stay.",
        "showconf": "Print the settings as a file.",
    },
    "Files": {
        "new": "Write new files for two hosts, or for a hub and its clients.",
        "strip": "Print a file without what only wg-quick and pywg know.",
        "qr": "Show a file as a QR code, for a phone.",
    },
    "Looking inside": {
        "doctor": "Find out why a tunnel does not work.",
        "top": "Watch peers, rates and events.",
        "events": "Tell what happens, as it happens.",
        "capture": "Capture packets and datagrams for Wireshark.",
        "metrics": "Serve metrics to Prometheus.",
    },
    "Keys": {
        "genkey": "Make a new private key.",
        "genpsk": "Make a new preshared key.",
        "pubkey": "The public key to a private key.",
    },
}
"""The commands by section, with what the list of commands says of each."""

COMMANDS = {name: help for commands in SECTIONS.values() for name, help in commands.items()}


class Commands(click.Group):
    """The group of all commands, which are imported when they run."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click does; what the system has run out of is told in a sentence, with exit status 1."""
        streams.settle()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if is_shortage(error.errno):
                click.echo(f"pywg: {os.strerror(error.errno)}{remedy(error.errno)}", err=True)
                sys.exit(1)
            if error.errno not in NO_PLACE:
                raise
            what = f"{error.strerror}; {NO_PLACE[error.errno]}"
            click.echo(f"pywg: the output cannot be written: {what}", err=True)
            # What is left in the buffer would be tried again at the end, and complained of.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names, in the order of the list."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command; None when there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"pywg.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a question about a name that is nearly one."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            import difflib

            close = difflib.get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f"there is no command '{name}'" + (f"; did you mean '{close[0]}'?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands, from the table."""
        width = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in commands.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what it could not do is told in a sentence, with exit status 1."""
        try:
            return super().invoke(ctx)
        except PywgError as error:
            click.echo(_told(error), err=True)
            ctx.exit(1)


def _told(error: PywgError) -> str:
    """Lines that begin with a place in a file stay as they are, for editors and grep."""
    # Errors are rare, and only click is imported before a command is known.
    from pywg.config.positions import ConfigError

    return str(error) if isinstance(error, ConfigError) else f"pywg: {error}"


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from pywg import __version__
    from pywg.datapath import describe

    try:
        click.echo(f"pywg {__version__}, {describe()}")
    except PywgError as error:
        click.echo(f"pywg: {error}", err=True)
        ctx.exit(1)
    ctx.exit()


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version, the data path and the ciphers, and exit.",
)
def main() -> None:
    """Userspace WireGuard: tunnels, settings, keys.

    Try `pywg up ./wg0.conf`, then `pywg show`.
    """
