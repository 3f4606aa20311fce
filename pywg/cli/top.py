"""`pywg top`: a live view of peers, rates and events, with keys to sort and filter."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from pywg.errors import PywgError

if TYPE_CHECKING:
    from pywg.observe.eventstream import EventStream
    from pywg.observe.top import Top


@click.command("top")
@click.argument("interfaces", nargs=-1, metavar="[INTERFACE]...")
@click.option(
    "--interval", default=1.0, metavar="SECONDS", show_default=True, help="Time between two looks; from 0.1."
)
@click.option("--once", is_flag=True, help="Print one picture after one interval, and leave.")
def command(interfaces: tuple[str, ...], interval: float, once: bool) -> None:
    """Show peers, what they carry now, and the last events, until `q`.

    Keys: s sorts by name, rate, handshake or total; r turns the order; / filters; p pauses; q leaves.
    """
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        raise PywgError(f"top needs the package rich: {sys.executable} -m pip install rich") from None
    if not interval >= 0.1:
        raise click.UsageError("--interval takes seconds, 0.1 or more")
    console = Console()
    if not (once or (console.is_terminal and sys.stdin.isatty())):
        raise PywgError("top needs a terminal; `pywg top --once` prints one picture, `pywg events` a stream")
    from pywg.host import control
    from pywg.observe.eventstream import EventStream
    from pywg.observe.top import Top, look

    chosen = list(interfaces) or control.list_interfaces()
    if not chosen:
        raise PywgError("there is no WireGuard interface here; `pywg up` makes one")
    for interface in interfaces:
        control.get(interface)  # a name that is none is told at once
    top = Top()
    stream: EventStream | None = None
    with suppress(PywgError):
        stream = EventStream(interfaces)
    look(top, chosen)
    if once:
        time.sleep(interval)
        look(top, chosen)
        _take_events(top, stream)
        console.print(top.picture(console.width, console.height))
        return
    _live(top, chosen, interval, stream)


def _live(top: Top, interfaces: list[str], interval: float, stream: EventStream | None) -> None:
    from rich.console import Console
    from rich.live import Live

    from pywg.observe.top import look

    console = Console()
    with _keys() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        due = time.monotonic() + interval
        while True:
            _take_events(top, stream)
            live.update(top.picture(console.width, console.height), refresh=True)
            with suppress(InterruptedError):
                ready, _, _ = select.select([keyboard], [], [], max(0.0, due - time.monotonic()))
                if ready:
                    for key in os.read(keyboard, 64).decode("utf-8", "ignore"):
                        if not top.press(key):
                            return
            if time.monotonic() >= due:
                due = time.monotonic() + interval
                if not top.paused:
                    look(top, interfaces)


def _take_events(top: Top, stream: EventStream | None) -> None:
    if stream is not None and not top.paused:
        top.events.extend(event for event in stream.waiting() if event["kind"] != "watching")


@contextmanager
def _keys() -> Iterator[int]:
    """The keyboard, key by key and without echo; as it was afterwards."""
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        yield keyboard
    except KeyboardInterrupt:
        pass
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
