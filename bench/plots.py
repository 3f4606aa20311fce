"""Plots of a run, each as PNG and SVG: bars per program, and curves of how figures grow."""

from __future__ import annotations

import pathlib

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.measurements import MEASUREMENTS
from bench.record import Run
from bench.stats import Summary, summarize
from bench.tables import number

COLOURS = {  # Okabe and Ito's, which the colour-blind can tell apart
    "pywg": "#0072B2",
    "pywg-openssl": "#882255",
    "pywg-portable": "#56B4E9",
    "wireguard-go": "#E69F00",
    "boringtun": "#D55E00",
    "gotatun": "#CC79A7",
    "bare": "#999999",
}
INK, FAINT = "#222222", "#888888"
PANEL = (3.8, 2.3)  # inches

BARS: dict[str, tuple[str, ...]] = {
    "throughput": (
        "tcp1.forward",
        "tcp1.back",
        "tcp8.forward",
        "tcp8.back",
        "udp1372.gigabits",
        "udp64.kpps",
    ),
    "cpu": ("tcp1.cpu", "tcp8.cpu", "udp64.cpu", "handshakes.cpu"),
    "latency": ("ping.mean", "ping.p99", "pingpong.p50", "pingpong.p99"),
    "memory-startup": ("memory.idle", "memory.loaded", "start.accepts", "up.first_ping"),
    "handshakes": ("handshakes.rate", "handshakes.p99"),
    "far": ("far.forward", "far.back", "far.ping"),
    "ethr": (
        "ethr-tcp1.forward",
        "ethr-tcp8.forward",
        "ethr-udp.kpps",
        "ethr-connections.rate",
        "ethr-latency.p50",
    ),
}
"""Panels of each plot, as MEASUREMENT.FIGURE."""

CURVES = ("setconf", "dump", "rss", "tcp")
LIMIT_APART = 2.5
"""The bare path is told in words, not by a bar, when it is so many times beyond the best program."""


def draw(run: Run, folder: pathlib.Path) -> list[str]:
    """Write the plots for which there are samples; returns their names."""
    mpl.use("Agg")
    mpl.rcParams.update(
        {
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": FAINT,
            "text.color": INK,
            "svg.fonttype": "none",
            "svg.hashsalt": "pywg",
            "figure.constrained_layout.use": True,
        }
    )
    drawn = []
    for name, wanted in BARS.items():
        panels = [panel for panel in wanted if summaries(run, panel)]
        if panels:
            _save(_bars(run, panels), folder, name)
            drawn.append(name)
    for kind, words in (("peers", "peers"), ("ips", "allowed IPs")):
        if len(scales(run, kind)) > 1:
            _save(_curves(run, kind, words), folder, f"growth-{kind}")
            drawn.append(f"growth-{kind}")
    return drawn


def summaries(run: Run, panel: str) -> dict[str, Summary]:
    """Of one figure, by program."""
    measurement, _, figure = panel.partition(".")
    found = {
        program: summarize(run.by_round(measurement, figure, program).values())
        for program in run.plan.programs
    }
    return {program: summary for program, summary in found.items() if summary}


def scales(run: Run, kind: str) -> list[int]:
    """The xs of a growth curve of which there are samples."""
    known = {sample.measurement for sample in run.samples if sample.values}
    return sorted(m.scale for m in MEASUREMENTS.values() if m.group == kind and m.scale and m.name in known)


def _bars(run: Run, panels: list[str]) -> Figure:
    columns = min(3, len(panels)) if len(panels) != 4 else 2
    height = -(-len(panels) // columns)
    figure, grid = pyplot.subplots(
        height, columns, figsize=(PANEL[0] * columns, PANEL[1] * height), squeeze=False
    )
    for place, axes in enumerate(grid.flat):
        if place < len(panels):
            _bar_panel(run, panels[place], axes)
        else:
            axes.set_axis_off()
    return figure


def _bar_panel(run: Run, panel: str, axes: Axes) -> None:
    measurement, _, short = panel.partition(".")
    wanted = next(figure for figure in MEASUREMENTS[measurement].figures if figure.name == short)
    found = summaries(run, panel)
    axes.set_title(wanted.label)
    note = f"{wanted.unit}, {wanted.better} is better".lstrip(", ")
    others = [summary.median for program, summary in found.items() if program != "bare"]
    if "bare" in found and others and found["bare"].median > LIMIT_APART * max(others):
        note += f"; bare path {number(found.pop('bare').median)}"
    axes.set_xlabel(note, color=FAINT)
    top = max(summary.high for summary in found.values()) or 1.0
    for place, (program, summary) in enumerate(found.items()):
        axes.barh(place, summary.median, color=COLOURS[program], height=0.7)
        axes.plot([summary.low, summary.high], [place, place], color=INK, linewidth=0.9)
        axes.text(summary.high + top * 0.02, place, number(summary.median), va="center")
    axes.set_yticks(range(len(found)), list(found))
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", colors=FAINT)
    axes.set_xlim(0, top * 1.22)
    axes.invert_yaxis()


def _curves(run: Run, kind: str, words: str) -> Figure:
    xs = scales(run, kind)
    figure, grid = pyplot.subplots(2, 2, figsize=(PANEL[0] * 2, PANEL[1] * 2.3), squeeze=False)
    for short, axes in zip(CURVES, grid.flat, strict=True):
        wanted = next(figure for figure in MEASUREMENTS[f"{kind}{xs[0]}"].figures if figure.name == short)
        axes.set_title(f"{wanted.label.partition(', ')[0]}, {wanted.unit}, {wanted.better} is better")
        for program in run.plan.programs:
            points = [(x, summaries(run, f"{kind}{x}.{short}").get(program)) for x in xs]
            known = [(x, summary) for x, summary in points if summary]
            if known:
                axes.plot(
                    [x for x, _ in known],
                    [summary.median for _, summary in known],
                    color=COLOURS[program],
                    marker="o",
                    markersize=4,
                    label=program,
                )
        axes.set_xscale("log")
        if short in ("setconf", "dump", "rss"):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: number(value))
        else:
            axes.set_ylim(bottom=0)
        axes.set_xticks(xs, [f"{x:,}".replace(",", " ") for x in xs])
        axes.minorticks_off()
        axes.set_xlabel(words, color=FAINT)
        axes.tick_params(colors=FAINT)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _save(figure: Figure, folder: pathlib.Path, name: str) -> None:
    figure.savefig(folder / f"{name}.png", dpi=150)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)
