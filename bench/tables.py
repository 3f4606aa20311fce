"""The tables of a run in Markdown: medians with their spread, and paired ratios."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator

from bench.measurements import MEASUREMENTS, Figure, Measurement
from bench.programs import PROGRAMS
from bench.record import Run
from bench.stats import Summary, paired_ratios, summarize

REFERENCE = "wireguard-go"
NOTHING = "–"
TITLE = "# Measured"


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def cell(summary: Summary | None) -> str:
    """'5.03 (4.9–5.2)'."""
    if summary is None:
        return NOTHING
    spread = f" ({number(summary.low)}–{number(summary.high)})" if summary.count > 1 else ""
    return number(summary.median) + spread


def ratio_cell(summary: Summary | None) -> str:
    """'**2.1** (1.9–2.3)'."""
    if summary is None:
        return NOTHING
    spread = f" ({summary.low:.2f}–{summary.high:.2f})" if summary.count > 1 else ""
    return f"**{summary.median:.2f}**{spread}"


def reference_of(run: Run, wanted: str = REFERENCE) -> str:
    """The program that ratios are to: `wanted` where the run has it, else the first."""
    return wanted if wanted in run.plan.programs else run.plan.programs[0]


def figures(run: Run) -> Iterator[tuple[Measurement, Figure]]:
    """Every figure of the run of which there is a sample; faults only where there was one."""
    seen: dict[tuple[str, str], bool] = {}
    for sample in run.samples:
        for name, value in sample.values.items():
            seen[sample.measurement, name] = seen.get((sample.measurement, name), False) or value != 0
    for name in run.plan.measurements:
        for figure in MEASUREMENTS[name].figures:
            if seen.get((name, figure.name), False) or (not figure.fault and (name, figure.name) in seen):
                yield MEASUREMENTS[name], figure


def rows(header: list[str], body: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def medians(run: Run) -> str:
    """One row per figure: the median of each program, and the lowest and highest sample."""
    body = [
        [f"{figure.label}, {figure.unit}" if figure.unit else figure.label]
        + [
            cell(summarize(run.by_round(measurement.name, figure.name, program).values()))
            for program in run.plan.programs
        ]
        for measurement, figure in figures(run)
    ]
    return rows(["", *run.plan.programs], body)


def ratios(run: Run, reference: str = REFERENCE) -> str:
    """One row per figure: the median of the ratios that each program has to the reference, round by round.

    What is told in several units has one ratio, and one row.
    """
    to = reference_of(run, reference)
    others = [program for program in run.plan.programs if program != to]
    body = []
    told = set()
    for measurement, figure in figures(run):
        if figure.fault or not figure.better or (measurement.name, figure.label) in told:
            continue
        told.add((measurement.name, figure.label))
        beside = figure.beside if figure.beside in run.plan.programs else to
        theirs = run.by_round(measurement.name, figure.name, beside)
        cells = [
            ratio_cell(
                None
                if program == beside
                else paired_ratios(run.by_round(measurement.name, figure.name, program), theirs)
            )
            for program in others
        ]
        label = figure.label if beside == to else f"{figure.label} (over {beside})"
        if any(text != NOTHING for text in cells):
            body.append([label, figure.better, *cells])
    return rows([f"over {to}", "better", *others], body)


def failures(run: Run) -> str:
    """A list of the samples that could not be taken, empty when there are none."""
    lines = [
        f"- {sample.measurement}, round {sample.round}, {sample.program}: {sample.error.splitlines()[0]}"
        for sample in run.samples
        if sample.error
    ]
    return "\n".join(lines) + "\n" if lines else ""


def conditions(run: Run) -> str:
    """When, where and with what, as a list."""
    machine = run.machine
    day = datetime.datetime.fromtimestamp(run.begun, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    stolen = summarize(sample.stolen * 100 for sample in run.samples)
    lines = [
        f"- {day}, commit {run.commit or 'unknown'}",
        f"- {machine['cpu']}, {machine['cpus']} CPUs ({machine['threads_per_core']} per core), "
        f"{', '.join(machine['flags'])}; Linux {machine['kernel']}, TCP {machine['tcp_congestion']}, "
        f"Python {machine['python']}",
        f"- {run.plan.rounds} rounds, loads of {run.plan.seconds:g} s; CPU time stolen by the hypervisor: "
        f"{cell(stolen)} %",
        f"- `{run.command}`",
    ]
    lines += [f"- {name}: {version}" for name, version in run.versions.items() if version]
    return "\n".join(lines) + "\n"


def page(run: Run, plots: list[str], reference: str = REFERENCE, title: str = TITLE) -> str:
    """The whole page; plots are names of files beside it, without their endings."""
    to = reference_of(run, reference)
    described = "; ".join(f"{name}: {PROGRAMS[name].help}" for name in run.plan.programs)
    parts = [
        f"{title}\n",
        "Programs took turns within the same minutes, on two hosts made of network namespaces; both ends ran "
        "the same program. Only ratios count: absolute figures differ between machines and between hours. "
        f"{described}.\n",
        conditions(run),
        f"## Over {to}\n",
        "The median of the ratios of each round, and in brackets the lowest and the highest.\n",
        ratios(run, reference),
        "## Plots\n" if plots else "",
        "\n".join(f"[![{name}]({name}.png)]({name}.svg)\n" for name in plots),
        "## Medians\n",
        "In brackets the lowest and the highest sample. Every sample is in [results.json](results.json).\n",
        medians(run),
    ]
    failed = failures(run)
    if failed:
        parts += ["## Failed\n", failed]
    return "\n".join(part for part in parts if part)
