"""The file of a run of `bench.overhead`: its slices, the ratios of its blocks, and the tables of them."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

from bench.instructions import Counts
from bench.live import Slice
from bench.stats import Estimate, bootstrap_median
from bench.tables import NOTHING, number, rows

FORMAT = 1
MARGIN = 0.01
UNDER = f"costs under {MARGIN * 100:g} %"
ENOUGH = 12  # blocks; of fewer a bootstrap says nothing
ON, OFF = "on", "off"


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """ours over theirs: two variants of a phase's slices.

    gated: whether it is to cost less than MARGIN; the others tell how good the method is, or are for
    information. usual, share: what people do is called so, and it is this share of what was done here.
    """

    name: str
    label: str
    phase: str
    ours: str
    theirs: str
    gated: bool = True
    usual: str = ""
    share: float = 1.0


COMPARISONS = {
    comparison.name: comparison
    for comparison in (
        Comparison("probes", "probes built in, over a build without", "builds", "plain", "bare"),
        Comparison("captured", "capture off after one ran, over never", "builds", "captured", "plain"),
        Comparison("control", "the same build twice", "builds", "control", "plain", gated=False),
        Comparison(
            *("metrics", "metrics asked for every second, over none", "metrics", ON, OFF, False),
            *("metrics asked for every 15 s", 1 / 15),
        ),
        Comparison(
            *("events", "8 readers of events, 8 statistics a second, over none", "events", ON, OFF, False),
            *("1 reader, 1 a second (`pywg top`)", 1 / 8),
        ),
        Comparison("capturing", "a capture of everything runs, over off", "capture", ON, OFF, gated=False),
    )
}


@dataclasses.dataclass(frozen=True, slots=True)
class Phase:
    """A comparison's slices: which load, of how many seconds, how many blocks of them in each start."""

    name: str
    load: str
    seconds: float
    blocks: int


PHASES = (
    Phase("builds", "tcp", 0.4, 10),
    Phase("builds", "udp", 0.4, 2),
    Phase("metrics", "tcp", 1.0, 2),
    Phase("events", "tcp", 1.0, 2),
    Phase("capture", "tcp", 0.5, 2),
)
"""In their order: a capture is last, since after it the tunnel is no longer one that had none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One slice. start, block: which one, from 0; blocks are counted within a start, a phase and a load."""

    phase: str
    load: str
    start: int
    block: int
    variant: str
    slice: Slice


@dataclasses.dataclass(slots=True)
class Run:
    """What was compared, where, and every slice.

    scrapes: how often metrics were answered. instructions: of a burst, by build, burst and stage.
    """

    comparisons: list[str]
    starts: int
    machine: dict[str, Any]
    version: str
    commit: str
    begun: float
    command: str
    samples: list[Sample] = dataclasses.field(default_factory=list)
    scrapes: int = 0
    instructions: dict[str, Counts] = dataclasses.field(default_factory=dict)

    def save(self, path: pathlib.Path) -> None:
        """Write the file, whole or not at all; a slice is a line."""
        path.parent.mkdir(parents=True, exist_ok=True)
        head = {"format": FORMAT, **dataclasses.asdict(dataclasses.replace(self, samples=[]))}
        del head["samples"]
        lines = ",\n".join(json.dumps(dataclasses.asdict(sample)) for sample in self.samples)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(head, indent=1)[:-2] + f',\n "samples": [\n{lines}\n]}}\n')
        unfinished.replace(path)


def load(path: pathlib.Path) -> Run:
    """Read the file of a run. Raises ValueError with a sentence when it is none."""
    try:
        data = json.loads(path.read_text())
        if data.pop("format") != FORMAT:
            raise ValueError
        samples = [Sample(**{**sample, "slice": Slice(**sample["slice"])}) for sample in data.pop("samples")]
        return Run(samples=samples, **data)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not a file that this version of bench.overhead wrote") from None


def total(slices: list[Slice]) -> Slice:
    """All of them as one."""
    return Slice(*(sum(getattr(one, field.name) for one in slices) for field in dataclasses.fields(Slice)))


def rate(one: Slice) -> float:
    """Gbit/s that arrived."""
    return one.bytes * 8 / one.seconds / 1e9


def cost(one: Slice) -> float:
    """CPU seconds per GiB of the daemons and of those who look at them, the mean of both ends."""
    return (one.cpu_sender + one.cpu_receiver + one.aside) / 2e9 / (one.bytes / 2**30)


def ratios(
    run: Run, comparison: Comparison, load: str, figure: Callable[[Slice], float]
) -> list[list[float]]:
    """One ratio for each block that has both variants, by start."""
    blocks: dict[tuple[int, int], dict[str, list[Slice]]] = {}
    for sample in run.samples:
        if (sample.phase, sample.load) == (comparison.phase, load):
            block = blocks.setdefault((sample.start, sample.block), {})
            block.setdefault(sample.variant, []).append(sample.slice)
    found: dict[int, list[float]] = {}
    for (start, _), block in sorted(blocks.items()):
        if comparison.ours in block and comparison.theirs in block:
            ours, theirs = (figure(total(block[name])) for name in (comparison.ours, comparison.theirs))
            found.setdefault(start, []).append(ours / theirs)
    return list(found.values())


def verdict(estimate: Estimate, better: str) -> str:
    """Whether the interval shows that less than MARGIN is lost, or more, or neither."""
    if estimate.count < ENOUGH:
        return "too few"
    low, high = estimate.low, estimate.high
    if better == "higher":  # so that both read as a cost
        low, high = 2 - high, 2 - low
    if high <= 1 + MARGIN:
        return "yes"
    return "no" if low > 1 + MARGIN else "not resolved"


def table(run: Run) -> str:
    """A row for each comparison, load and figure."""
    body = []
    for name in run.comparisons:
        comparison = COMPARISONS[name]
        for load in ("tcp", "udp"):
            for figure, what, better in ((rate, "throughput", "higher"), (cost, "CPU per GiB", "lower")):
                estimate = bootstrap_median(ratios(run, comparison, load, figure))
                if estimate is None:
                    continue
                known = [f"{load.upper()}, {what}", better]
                told = verdict(estimate, better) if comparison.gated else NOTHING
                body.append([comparison.label, *known, *_cells(estimate), told])
                if comparison.usual:
                    usual = diluted(estimate, comparison.share)
                    body.append([comparison.usual, *known, *_cells(usual), verdict(usual, better)])
    header = ["what", "figure", "better", "ratio", "95 % interval", "blocks", UNDER]
    return rows(header, body)


def instructions(run: Run) -> str:
    """A row for each comparison of builds and each burst; empty when none were counted."""
    body = []
    never, ended = ("plain", "never"), ("plain", "ended")
    sides = {"probes": (("bare", "never"), never), "captured": (never, ended)}
    for name, (theirs, ours) in sides.items():
        if name not in run.comparisons or not {theirs[0], ours[0]} <= run.instructions.keys():
            continue
        for burst in run.instructions[ours[0]]:
            before, after = (run.instructions[build][burst][stage] for build, stage in (theirs, ours))
            said = "yes" if after / before <= 1 + MARGIN else "no"
            counts = [f"{before:.0f}", f"{after:.0f}"]
            body.append([COMPARISONS[name].label, burst, *counts, f"**{after / before:.5f}**", said])
    header = ["what", "burst each way", "without", "with", "ratio", UNDER]
    return rows(header, body) if body else ""


def _cells(estimate: Estimate) -> list[str]:
    return [f"**{estimate.median:.4f}**", f"{estimate.low:.4f}–{estimate.high:.4f}", str(estimate.count)]


def diluted(estimate: Estimate, share: float) -> Estimate:
    """The same where what costs is done less often, by this share."""
    median, low, high = (1 + (ratio - 1) * share for ratio in (estimate.median, estimate.low, estimate.high))
    return Estimate(median, low, high, estimate.count)


def absolute(run: Run) -> str:
    """What the figures were without anything, and how much slices differ."""
    body = []
    for variant, phase, load in (
        ("plain", "builds", "tcp"),
        ("plain", "builds", "udp"),
        (OFF, "metrics", "tcp"),
    ):
        slices = [s.slice for s in run.samples if (s.variant, s.phase, s.load) == (variant, phase, load)]
        if len(slices) > 1:
            body.append(
                [
                    f"{load.upper()}, slices of {PHASE_SECONDS[phase, load]:g} s",
                    *(_middle([figure(one) for one in slices]) for figure in (rate, cost)),
                    str(len(slices)),
                ]
            )
    return rows(["load", "Gbit/s", "CPU per end, s/GiB", "slices"], body)


PHASE_SECONDS = {(phase.name, phase.load): phase.seconds for phase in PHASES}


def _middle(values: list[float]) -> str:
    median = statistics.median(values)
    return f"{number(median)} ± {statistics.stdev(values) / median:.0%}"


def scrape_cost(run: Run) -> str:
    """A sentence on the CPU time of the exporters; empty when there were none."""
    slices = [s.slice for s in run.samples if s.phase == "metrics" and s.variant == ON]
    if not slices or not run.scrapes:
        return ""
    aside = sum(one.aside for one in slices) / 1e6 / (2 * len(slices))
    return (
        f"`pywg metrics` took {number(aside)} ms of CPU time for each answer; asked every 15 s, as is usual, "
        f"that is {aside / 15_000:.3%} of one CPU.\n"
    )


def conditions(run: Run) -> str:
    """When, where and with what, as a list."""
    machine = run.machine
    day = datetime.datetime.fromtimestamp(run.begun, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return "\n".join(
        [
            f"- {day}, commit {run.commit or 'unknown'}; {run.version}",
            f"- {machine['cpu']}, {machine['cpus']} CPUs ({machine['threads_per_core']} per core); "
            f"Linux {machine['kernel']}, TCP cubic, Python {machine['python']}",
            f"- everything started anew {run.starts} times, {len(run.samples)} slices, none left out",
            f"- `{run.command}`",
            "",
        ]
    )


def page(run: Run) -> str:
    """The whole page."""
    counted = instructions(run)
    return "\n".join(
        part
        for part in (
            "# What looking inside costs\n",
            "Both sides of a comparison were up at the same time and carried the load in turns, slice by "
            "slice, in an order that is mirrored within each block (A B B A). Every block has one ratio. The "
            "table has their median and its 95 % interval by a bootstrap that draws starts first and then "
            "blocks within them. Metrics, events and captures were switched on and off at both ends of one "
            "tunnel; builds had a tunnel each. The build that stands beside its own copy shows how far the "
            "method itself is off. [How to repeat it](../../howto/measure.md"
            "#measure-what-looking-inside-costs).\n",
            conditions(run),
            "## Ratios\n",
            table(run),
            "The last column says what the interval shows: *yes*: less than one hundredth is lost; *no*: "
            "more is; *not resolved*: it holds both; *too few*: there are no blocks enough to tell. What was "
            "done more often than is usual, so that it can be seen at all, has a second row, in which the "
            "difference from 1 is divided by how much more often.\n",
            scrape_cost(run),
            "## Instructions\n" if counted else "",
            "Counted by valgrind for a burst out and one in, in the data path and its cipher library, "
            "without the kernel. Two counts hardly differ, so the ratio has no interval.\n"
            if counted
            else "",
            counted,
            "## What they are ratios of\n",
            "Medians without any of it, and the standard deviation of slices.\n",
            absolute(run),
            "Every slice is in [results.json](results.json).\n",
        )
        if part
    )
