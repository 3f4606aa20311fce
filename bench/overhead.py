"""What looking inside costs: probes, metrics, events and captures, each beside the same tunnel without it.

    python -m bench.overhead --help

Whole samples of separate tunnels differ by more than what is looked for. So both sides of a comparison are up
at the same time and carry a load in turns of a fraction of a second, in an order that is mirrored (A B B A);
every such block gives one ratio, and of the ratios the median is told, with an interval. What can be switched
is switched on one tunnel; builds have a tunnel each, and all is started anew several times, since two starts
of one program differ too.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time

from bench import builds, cli, comparisons, instructions, record, runner
from bench.comparisons import COMPARISONS, OFF, ON, PHASES, Comparison, Phase, Run, Sample
from bench.live import Capture, Events, Live, Metrics, Switch, open_live
from bench.programs import Program
from bench.rig import CommandError, MeasureError
from tests.probes import probes_of

STATE = cli.RESULTS / "overhead.json"
PUBLISHED = cli.PUBLISHED / "overhead"
STARTS = 8
BUILDING = 25.0  # seconds of each, about
COUNTING = 15.0
OPENING = 8.0
CAPTURED = 0.3  # seconds of capture, after which a tunnel is one that had one
REFERENCE = "plain"
SWITCHES: dict[str, type[Switch]] = {"metrics": Metrics, "events": Events, "capture": Capture}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.overhead",
        description="Measure what probes, metrics, events and captures cost. Needs root and a quiet machine.",
    )
    parser.add_argument(
        "--only", metavar="NAMES", help=f"with commas: {', '.join(COMPARISONS)}; default: all"
    )
    parser.add_argument(
        "--starts",
        type=cli.positive_int,
        default=STARTS,
        metavar="N",
        help=f"how often all is started anew; default: {STARTS}",
    )
    parser.add_argument(
        "--state",
        type=pathlib.Path,
        default=STATE,
        metavar="FILE",
        help=f"of the run; default: {cli.shown(STATE)}",
    )
    cli.add_reporting(parser, PUBLISHED, "page and JSON")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Run it; returns the exit status."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run = comparisons.load(options.source) if options.source else measure(options)
    except (cli.RefusedError, ValueError) as error:
        return _end(str(error), cli.EXIT_REFUSED)
    except FileNotFoundError as error:
        return _end(f"{error.filename}: {error.strerror}", cli.EXIT_REFUSED)
    except (MeasureError, CommandError, AssertionError, OSError, subprocess.SubprocessError) as error:
        return _end(f"{error}; {cli.shown(options.state)} has the whole starts", cli.EXIT_FAILED)
    except KeyboardInterrupt:
        return _end(f"stopped; {cli.shown(options.state)} has the whole starts", cli.EXIT_STOPPED)
    print(comparisons.conditions(run))
    print(comparisons.table(run))
    print(comparisons.instructions(run))
    print(comparisons.scrape_cost(run))
    print(comparisons.absolute(run))
    if options.publish:
        options.publish.mkdir(parents=True, exist_ok=True)
        run.save(options.publish / "results.json")
        (options.publish / "results.md").write_text(comparisons.page(run))
        print(f"page and JSON are in {cli.shown(options.publish)}", file=sys.stderr)
    return 0


def _end(sentence: str, status: int) -> int:
    print(f"bench.overhead: {sentence}", file=sys.stderr)
    return status


def chosen(words: str | None) -> list[Comparison]:
    """The comparisons that were asked for. Raises RefusedError for one that there is not."""
    names = cli.words_of(words) if words else list(COMPARISONS)
    for name in names:
        if name not in COMPARISONS:
            raise cli.RefusedError(f"there is no comparison {name!r}; there are {', '.join(COMPARISONS)}")
    return [comparison for name, comparison in COMPARISONS.items() if name in names]


def measure(options: argparse.Namespace) -> Run:
    """Take all slices; the file is saved after each start, so it has whole ones."""
    wanted = chosen(options.only)
    cli.check(record.Plan((), ("pywg",), options.starts, 1.0))
    phases = [phase for phase in PHASES if any(comparison.phase == phase.name for comparison in wanted)]
    variants = variants_of(wanted)
    words = ["python", "-m", "bench.overhead", *(["--only", options.only] if options.only else [])]
    run = Run(
        [comparison.name for comparison in wanted],
        0,
        record.describe_machine(),
        "",
        record.describe_commit(),
        time.time(),
        shlex.join([*words, "--starts", str(options.starts)]),
    )
    costs = [OPENING, *(seconds_of(phase, variants) for phase in phases)]
    counted = counted_of(wanted, variants)
    before = [BUILDING * (1 + ("bare" in variants)), *([COUNTING * len(counted)] if counted else [])]
    steps = [*before, *costs * options.starts]
    print(f"about {runner.clock(sum(steps))}; it goes to {cli.shown(options.state)}", file=sys.stderr)
    cli.put_aside(options.state)
    run.save(options.state)
    with tempfile.TemporaryDirectory(prefix="pywg-bench-builds-") as name:
        folder = pathlib.Path(name)
        with runner.progress(steps, len(steps)) as report:
            report("building")
            programs = make_programs(folder, variants)
            run.version = builds.version(programs[REFERENCE])
            if counted:
                report("counting instructions")
                run.instructions = {name: instructions.count(folder / name) for name in counted}
            for _ in range(options.starts):
                take_start(run, programs, phases, report)
                run.save(options.state)
    return run


def counted_of(wanted: list[Comparison], variants: list[str]) -> list[str]:
    """The builds of which instructions are to be counted, and can be."""
    if not {"probes", "captured"} & {comparison.name for comparison in wanted}:
        return []
    if reason := instructions.missing():
        print(reason, file=sys.stderr)
        return []
    return [name for name in (REFERENCE, "bare") if name in variants]


def variants_of(wanted: list[Comparison]) -> list[str]:
    """The builds that are to run; the reference always: on its tunnel things are switched."""
    used = {name for c in wanted if c.phase == "builds" for name in (c.ours, c.theirs)}
    return [name for name in (REFERENCE, "bare", "captured", "control") if name == REFERENCE or name in used]


def seconds_of(phase: Phase, variants: list[str]) -> float:
    """About how long a phase of one start takes."""
    sides, extra = (len(variants), 0.08) if phase.name == "builds" else (2, 0.03)
    return phase.blocks * 2 * sides * (phase.seconds + extra)


def make_programs(folder: pathlib.Path, variants: list[str]) -> dict[str, Program]:
    """A build for each variant, all made in one way. Raises MeasureError when one is not as it should be."""
    trees = {REFERENCE: builds.build(folder / REFERENCE, probes=True)}
    for name in variants[1:]:
        if name == "bare":
            trees[name] = builds.build(folder / name, probes=False)
        else:
            trees[name] = builds.copy(trees[REFERENCE], folder / name)
    for name, tree in trees.items():
        if bool(probes_of(builds.module(tree))) == (name == "bare"):
            raise MeasureError(f"the build {name} has{'' if name == 'bare' else ' no'} probes")
    return {name: builds.daemon(name, tree) for name, tree in trees.items()}


def take_start(run: Run, programs: dict[str, Program], phases: list[Phase], report: runner.Report) -> None:
    """Start everything and take the slices of all phases; they count only when all are there."""
    start = run.starts
    chance = random.Random(start)
    order = list(programs)
    chance.shuffle(order)
    loads = tuple(dict.fromkeys(phase.load for phase in phases))
    samples: list[Sample] = []
    with contextlib.ExitStack() as stack:
        report(f"start {start + 1}: tunnels")
        lives = {name: stack.enter_context(open_live(programs[name], loads)) for name in order}
        for name, live in lives.items():
            uses_only(live, programs[name])
        if "captured" in lives:
            capture_once(lives["captured"], loads[0])
        for phase in phases:
            report(f"start {start + 1}: {phase.name}, {phase.load}")
            if phase.name == "builds":
                samples += builds_phase(lives, phase, start, chance)
            else:
                switch = SWITCHES[phase.name](lives[REFERENCE].rig)
                samples += switch_phase(lives[REFERENCE], switch, phase, start, chance)
                if isinstance(switch, Metrics):
                    run.scrapes += switch.scrapes()
    run.samples += samples
    run.starts += 1


def uses_only(live: Live, program: Program) -> None:
    """Raises MeasureError unless both daemons have the module of their own build."""
    tree = program.variables()["PYTHONPATH"]
    for task in live.rig.daemons.values():
        maps = pathlib.Path(f"/proc/{task.pid}/maps").read_text().splitlines()
        modules = {line.split()[-1] for line in maps if "/datapath/compiled." in line}
        if modules != {str(builds.module(pathlib.Path(tree)))}:
            raise MeasureError(f"the daemon of {program.name} runs {modules or 'no compiled data path'}")


def capture_once(live: Live, load: str) -> None:
    """Have a capture run and end at both daemons. Raises MeasureError when it saw nothing."""
    capture = Capture(live.rig)
    with live.loads[load].flows():
        capture.on()
        time.sleep(CAPTURED)
        capture.off()
    if not capture.bytes:
        raise MeasureError("the capture was empty")


def builds_phase(lives: dict[str, Live], phase: Phase, start: int, chance: random.Random) -> list[Sample]:
    """The tunnels carry the load in turns, in an order of their own for each block, there and back."""
    samples = []
    for block in range(phase.blocks):
        order = list(lives)
        chance.shuffle(order)
        for name in order + order[::-1]:
            load = lives[name].loads[phase.load]
            with load.flows():
                samples.append(Sample(phase.name, phase.load, start, block, name, load.slice(phase.seconds)))
    return samples


def switch_phase(live: Live, switch: Switch, phase: Phase, start: int, chance: random.Random) -> list[Sample]:
    """The load flows all the time; what is switched is on, off, off, on or the other way round."""
    samples = []
    load = live.loads[phase.load]
    with load.flows():
        for block in range(phase.blocks):
            first, second = chance.choice(((ON, OFF), (OFF, ON)))
            for variant in (first, second, second, first):
                if variant == ON:
                    switch.on()
                try:
                    one = load.slice(phase.seconds, switch.servers)
                finally:
                    if variant == ON:
                        switch.off()
                samples.append(Sample(phase.name, phase.load, start, block, variant, one))
    return samples


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
