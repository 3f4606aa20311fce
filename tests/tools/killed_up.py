"""`pywg up`, killed by SIGKILL as soon as it has shown a certain line: killed_up.py LINE CONFIG."""

from __future__ import annotations

import os
import signal
import sys

import click

from pywg.host.tunnel import bring_up


def main() -> None:
    def say(line: str) -> None:
        click.echo(line, err=True)
        if line == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    bring_up(sys.argv[2], say)


main()
