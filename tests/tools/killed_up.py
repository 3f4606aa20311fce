"""`pywg up`, killed by SIGKILL as soon as it has shown a certain line: killed_up.py LINE CONFIG [reload]."""

from __future__ import annotations

import os
import signal
import sys

import click

from pywg.host.reload import reload
from pywg.host.tunnel import bring_up


def main() -> None:
    def say(line: str) -> None:
        click.echo(line, err=True)
        if line == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    (reload if sys.argv[3:] == ["reload"] else bring_up)(sys.argv[2], say)


main()
