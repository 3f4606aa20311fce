"""Takes the samples of a run, one after the other, and shows how far it is."""

from __future__ import annotations

import compileall
import contextlib
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from bench import procfs
from bench.measurements import MEASUREMENTS, Settings
from bench.programs import PROGRAMS, REPOSITORY
from bench.record import Run, Sample
from bench.rig import CommandError, MeasureError

Report = Callable[[str], None]


def take(run: Run, path: pathlib.Path) -> None:
    """Take every sample that the plan still lacks; the file is saved after each."""
    # As pip does when it installs: else each start of a program from a tree that is worked in compiles it.
    compileall.compile_dir(REPOSITORY / "pywg", quiet=2)
    with tempfile.TemporaryDirectory(prefix="pywg-bench-shared-") as directory:
        settings = Settings(run.plan.seconds, pathlib.Path(directory))
        missing = run.missing()
        costs = [MEASUREMENTS[name].cost(run.plan.seconds) for name, _, _ in missing]
        steps = run.steps()
        with progress(costs, len(steps), seconds_of(run, steps) - sum(costs)) as report:
            for name, turn, program in missing:
                report(f"{name}, round {turn} of {run.plan.rounds}, {program}")
                sample = take_one(name, turn, program, settings)
                run.samples.append(sample)
                run.save(path)
                if sample.error:
                    report(f"{name}, round {turn}, {program} failed: {sample.error.splitlines()[0]}")


def take_one(name: str, turn: int, program: str, settings: Settings) -> Sample:
    """One sample. A program that fails is a result too."""
    load = float(pathlib.Path("/proc/loadavg").read_text().split()[0])
    stolen, ticks = procfs.stolen_and_all()
    at, begun = time.time(), time.monotonic()
    values: dict[str, float] = {}
    error = ""
    try:
        values = MEASUREMENTS[name].run(PROGRAMS[program], settings)
    except (
        MeasureError,
        CommandError,
        AssertionError,
        OSError,
        subprocess.SubprocessError,
        ValueError,
    ) as failure:
        error = f"{type(failure).__name__}: {failure}"
    stolen_now, ticks_now = procfs.stolen_and_all()
    share = (stolen_now - stolen) / max(1, ticks_now - ticks)
    return Sample(
        name,
        program,
        turn,
        values,
        error,
        round(at, 3),
        round(time.monotonic() - begun, 3),
        load,
        round(share, 4),
    )


def seconds_of(run: Run, steps: list[tuple[str, int, str]]) -> float:
    """About how long the steps take."""
    return sum(MEASUREMENTS[name].cost(run.plan.seconds) for name, _, _ in steps)


def clock(seconds: float) -> str:
    """'1 h 05 min', '12 min' or '40 s'."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"


@contextlib.contextmanager
def progress(
    costs: list[float], total: int, done: float = 0.0, stream: TextIO = sys.stderr
) -> Iterator[Report]:
    """A bar on a terminal where rich is installed, else a line per step.

    costs: seconds of each step that is ahead. total: of how many steps these are the last. done: seconds of
    those before.
    """
    if stream.isatty():
        try:
            with _bar(costs, done) as report:
                yield report
                return
        except ImportError:
            pass
    counts = {"at": total - len(costs)}

    def line(text: str) -> None:
        if " failed: " not in text:
            counts["at"] += 1
        print(f"[{counts['at']}/{total}] {text}", file=stream, flush=True)

    yield line


@contextlib.contextmanager
def _bar(costs: list[float], done: float) -> Iterator[Report]:
    # Without rich, steps are told line by line.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.percentage:3.0f} %"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=done + sum(costs))
        bar.update(task, completed=done)
        ahead = iter([0.0, *costs])

        def report(text: str) -> None:
            if " failed: " in text:
                bar.console.print(text, style="red", highlight=False)
            else:
                bar.update(task, description=text, advance=next(ahead))

        yield report
        bar.update(task, description="done", advance=costs[-1] if costs else 0)
