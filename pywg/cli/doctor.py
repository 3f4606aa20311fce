"""`pywg doctor`: why a tunnel does not work, and what to do about it."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pywg.observe.checks import Subject
    from pywg.observe.findings import Finding

VERSION = 1
"""Of the JSON's form, which only grows."""

FOUND = 3
"""The exit status when there is a finding of the severity `error`."""

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command("doctor")
@click.argument("tunnel", required=False, metavar="[INTERFACE|FILE]")
@click.option("--other", metavar="FILE", help="The file of the other end: both are compared exactly.")
@click.option(
    "--ping", multiple=True, metavar="ADDRESS", help="Ping this address of a peer; may be repeated."
)
@click.option(
    "--wait",
    type=click.FloatRange(0.5, 600),
    default=6.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for handshakes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--bundle", metavar="FILE", help="Also write a report without keys, names and addresses.")
@click.pass_context
def command(  # noqa: PLR0917  click gives them by name
    ctx: click.Context,
    tunnel: str | None,
    other: str | None,
    ping: tuple[str, ...],
    wait: float,
    as_json: bool,
    bundle: str | None,
) -> None:
    """Find out why a tunnel does not work: a running interface, a file, or all interfaces.

    Peers without a session are sent one datagram, so that a handshake begins; those with one are pinged.
    Nothing is changed. Exit status 3: something that keeps the tunnel from working was found.
    """
    from pywg.observe.diagnosis import diagnose, subjects

    looked_at = subjects(tunnel, other, ping, wait)
    with ThreadPoolExecutor(len(looked_at)) as threads:
        results = list(zip(looked_at, threads.map(diagnose, looked_at), strict=True))
    if as_json:
        value = {"version": VERSION, "tunnels": [_to_json(*result) for result in results]}
        click.echo(json.dumps(value, indent=2))
    else:
        for number, (subject, findings) in enumerate(results):
            text = ("\n" if number else "") + "\n".join(_told(subject, findings))
            click.echo(text, color=False if os.environ.get("NO_COLOR") else None)
    if bundle is not None:
        from pywg.observe.bundle import write_bundle

        write_bundle(bundle, results)
        click.echo(f"pywg: the report is in {bundle}; read it before you send it", err=True)
    if any(finding.weight.value == "error" for _, findings in results for finding in findings):
        ctx.exit(FOUND)


def _to_json(subject: Subject, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "interface": subject.interface,
        "file": subject.path,
        "findings": [finding.to_json() for finding in findings],
    }


def _told(subject: Subject, findings: Sequence[Finding]) -> list[str]:
    """Lines for a person: one block for each finding."""
    width = max(60, min(80, shutil.get_terminal_size().columns))
    counts = [
        f"{count} {severity}{'' if count == 1 else 's'}"
        for severity in _COLOURS
        if (count := sum(finding.weight.value == severity for finding in findings))
    ]
    lines = [click.style(f"{subject.interface}: {', '.join(counts) or 'nothing found'}", bold=True)]
    for finding in findings:
        severity = finding.weight.value
        lines += ["", click.style(f"{severity}: {finding.code}", fg=_COLOURS[severity], bold=True)]
        for line in finding.seen.splitlines():
            lines += textwrap.wrap(
                line, width, initial_indent="  ", subsequent_indent="  ", break_long_words=False
            )
        for line in finding.do:
            lines += _wrapped(line, width)
    return lines


def _wrapped(line: str, width: int) -> list[str]:
    """A command over several lines can still be pasted; what is said of it goes on as a comment."""
    command, mark, comment = line.partition("# ")
    wrap = textwrap.TextWrapper(width - 6, break_long_words=False, break_on_hyphens=False)
    parts = wrap.wrap(command)
    lines = [f"    {'  ' if number else ''}{part}" for number, part in enumerate(parts)]
    lines = [f"{part} \\" for part in lines[:-1]] + lines[-1:]
    if not mark:
        return lines
    if lines and len(lines[-1]) + len(comment) + 4 <= width:
        return [*lines[:-1], f"{lines[-1]}  # {comment}"]
    return [f"    # {part}" for part in wrap.wrap(comment)] + lines
