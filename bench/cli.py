"""The command line: what to measure, with whom, how often; then the run, its tables and its plots."""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys

from bench import record, runner, tables
from bench.measurements import ALIASES, MEASUREMENTS, Measurement, choose
from bench.programs import PROGRAMS, REPOSITORY, TOOLS
from bench.record import Plan, Run

RESULTS = REPOSITORY / "bench" / "results"
STATE = RESULTS / "run.json"
PUBLISHED = REPOSITORY / "docs" / "benchmarks"
ROUNDS = 5
SECONDS = 3.0
LONGEST = 600
EXIT_FAILED, EXIT_REFUSED, EXIT_STOPPED = 1, 2, 130

DESCRIPTION = (
    "Measure pywg beside other userspace WireGuard programs, in turn, on two hosts made of namespaces."
)
EPILOG = """\
examples:
  python -m bench                                        everything, with every program
  python -m bench --only tcp1,cpu --peers pywg,wireguard-go --rounds 5
  python -m bench --only latency --seconds 2
  python -m bench --list                                 what there is, and what is missing here
  python -m bench --from bench/results/run.json --publish

A run that was stopped (Ctrl-C) is taken up by the same command. Needs root; all traffic stays between
network namespaces that are removed afterwards.
"""


class RefusedError(Exception):
    """What was asked for can't be done; the message says why, and what to do."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", metavar="NAMES", help="measurements, groups or aliases, with commas (see --list)"
    )
    parser.add_argument(
        "--peers", metavar="NAMES", help=f"programs: {', '.join(PROGRAMS)}; default: all of them"
    )
    parser.add_argument("--rounds", type=positive_int, default=ROUNDS, metavar="N", help=f"default: {ROUNDS}")
    parser.add_argument(
        "--seconds", type=positive, default=SECONDS, metavar="S", help=f"of each load; default: {SECONDS:g}"
    )
    parser.add_argument("--list", action="store_true", help="say what can be measured, and leave")
    parser.add_argument(
        "--state",
        type=pathlib.Path,
        default=STATE,
        metavar="FILE",
        help=f"of the run; default: {shown(STATE)}",
    )
    parser.add_argument("--fresh", action="store_true", help="do not take up an unfinished run")
    parser.add_argument("--retry", action="store_true", help="take the rounds anew in which something failed")
    parser.add_argument(
        "--reference", choices=PROGRAMS, default=tables.REFERENCE, metavar="NAME", help="what ratios are to"
    )
    add_reporting(parser, PUBLISHED, "page, plots and JSON")
    return parser.parse_args(arguments)


def add_reporting(parser: argparse.ArgumentParser, published: pathlib.Path, what: str) -> None:
    """The options that report a run: `source` and `publish`."""
    parser.add_argument(
        "--from", type=pathlib.Path, dest="source", metavar="FILE", help="measure nothing, report this run"
    )
    parser.add_argument(
        "--publish",
        nargs="?",
        type=pathlib.Path,
        const=published,
        metavar="FOLDER",
        help=f"write {what}; default: {shown(published)}",
    )


def main(arguments: list[str]) -> int:
    """Run it; returns the exit status."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.list:
            print(listing(), end="")
            return 0
        run = record.load(options.source) if options.source else measure(options)
        finish(run, options)
    except (RefusedError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except FileNotFoundError as error:
        print(f"bench: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        print(f"\nbench: stopped; the same command goes on with {shown(options.state)}", file=sys.stderr)
        return EXIT_STOPPED
    return EXIT_FAILED if any(sample.error for sample in run.samples) else 0


def listing() -> str:
    """Programs and measurements, and what is missing for them here."""
    lines = ["programs (--peers):"]
    for program in PROGRAMS.values():
        lines.append(f"  {program.name:17} {program.missing() or program.help}")
    group = ""
    lines.append("measurements (--only), by group:")
    for measurement in MEASUREMENTS.values():
        if measurement.group != group:
            group = measurement.group
            lines.append(f" {group}")
        lines.append(f"  {measurement.name:17} {measurement.missing() or measurement.help}")
    lines.append("aliases (--only):")
    lines += [f"  {alias:17} {', '.join(names)}" for alias, names in ALIASES.items()]
    return "\n".join(lines) + "\n"


def make_plan(options: argparse.Namespace) -> Plan:
    """What the options ask for. Raises RefusedError for unknown names."""
    if options.only:
        try:
            chosen = choose(words_of(options.only))
        except LookupError as error:
            raise RefusedError(f"there is no measurement {error.args[0]!r}; --list shows all") from None
    else:
        chosen = [measurement for measurement in MEASUREMENTS.values() if not measurement.missing()]
        _say_left_out([measurement for measurement in MEASUREMENTS.values() if measurement.missing()])
    programs = words_of(options.peers) if options.peers else list(PROGRAMS)
    for name in programs:
        if name not in PROGRAMS:
            raise RefusedError(f"there is no program {name!r}; there are {', '.join(PROGRAMS)}")
    programs = list(dict.fromkeys(programs))
    names = tuple(
        m.name for m in chosen if any(record.applies(m.name, PROGRAMS[program]) for program in programs)
    )
    if not names:
        raise RefusedError("the bare path has none of these measurements; choose a program too")
    return Plan(names, tuple(programs), options.rounds, options.seconds)


def check(plan: Plan) -> None:
    """Raises RefusedError when something is missing here."""
    if os.geteuid():
        raise RefusedError("this makes network namespaces and tunnel devices: run it as root")
    lacking = [
        f"`{tool}` is not on PATH; install it: {how}" for tool, how in TOOLS.items() if not shutil.which(tool)
    ]
    for name in plan.programs:
        lacking.append(PROGRAMS[name].missing() or "")
    for name in plan.measurements:
        measurement = MEASUREMENTS[name]
        lacking.append(measurement.missing() or "")
    if "far" in plan.measurements and not shutil.which("tc"):
        lacking.append("`tc` is not on PATH; install it: apt install iproute2")
    lacking = [sentence for sentence in lacking if sentence]
    if lacking:
        chosen = "\nOr choose what is there: --peers, --only (see --list)."
        raise RefusedError("something is missing:\n  " + "\n  ".join(lacking) + chosen)
    done = subprocess.run(
        ["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RefusedError(f"no namespaces can be made here: {done.stderr.strip()}")
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        raise RefusedError(f"no tunnel devices can be made here: /dev/net/tun: {error.strerror}") from None


def measure(options: argparse.Namespace) -> Run:
    """Take up the run of the state file, or begin one; returns it complete."""
    plan = make_plan(options)
    check(plan)
    run = None if options.fresh else take_up(options.state, plan, retry=options.retry)
    if run is None:
        put_aside(options.state)
        run = record.new_run(plan, _command(options))
    missing = run.missing()
    about = runner.clock(runner.seconds_of(run, missing))
    print(f"{len(missing)} samples, about {about}; they go to {shown(options.state)}", file=sys.stderr)
    run.save(options.state)
    runner.take(run, options.state)
    return run


def take_up(state: pathlib.Path, plan: Plan, *, retry: bool = False) -> Run | None:
    """The unfinished run of this plan on this machine, with whole rounds only; None when there is none.

    retry: rounds in which something failed count as not taken.
    """
    if not state.exists():
        return None
    try:
        run = record.load(state)
    except ValueError:
        return None
    same = (
        run.plan == plan
        and run.machine == record.describe_machine()
        and run.commit == record.describe_commit()
    )
    if retry:
        run.forget_failed_rounds()
    if not same or not run.missing():
        return None
    run.forget_broken_round()
    print(
        f"taking up {shown(state)}: {len(run.samples)} of {len(run.steps())} samples are there",
        file=sys.stderr,
    )
    return run


def finish(run: Run, options: argparse.Namespace) -> None:
    """Print the tables, and publish when asked to."""
    print(tables.conditions(run))
    print(tables.ratios(run, options.reference))
    print(tables.medians(run))
    if failed := tables.failures(run):
        print(f"failed:\n{failed}")
    if options.publish:
        publish(run, options.publish, options.reference)
        print(f"page, plots and JSON are in {shown(options.publish)}", file=sys.stderr)


def publish(run: Run, folder: pathlib.Path, reference: str) -> None:
    """Write the page, the plots and the JSON; a page that is there keeps its title.

    Raises RefusedError without matplotlib.
    """
    try:
        from bench import plots  # noqa: PLC0415  only plots need matplotlib
    except ImportError:
        raise RefusedError("plots need matplotlib: pip install --group bench") from None
    folder.mkdir(parents=True, exist_ok=True)
    drawn = plots.draw(run, folder)
    run.save(folder / "results.json")
    page = folder / "results.md"
    title = page.read_text().partition("\n")[0] if page.exists() else tables.TITLE
    page.write_text(tables.page(run, drawn, reference, title))


def _say_left_out(measurements: list[Measurement]) -> None:
    sentences = dict.fromkeys(
        (measurement.missing() or "").partition(": ")[2] for measurement in measurements
    )
    for sentence in sentences:
        names = ", ".join(m.name for m in measurements if (m.missing() or "").endswith(sentence))
        print(f"left out: {names}: {sentence}", file=sys.stderr)


def _command(options: argparse.Namespace) -> str:
    words = ["python", "-m", "bench"]
    for name in ("only", "peers"):
        if getattr(options, name):
            words += [f"--{name}", getattr(options, name)]
    return shlex.join([*words, "--rounds", str(options.rounds), "--seconds", f"{options.seconds:g}"])


def put_aside(state: pathlib.Path) -> None:
    """Keep an earlier run under the time of its last sample."""
    if state.exists():
        moment = datetime.datetime.fromtimestamp(state.stat().st_mtime).strftime("%Y%m%d-%H%M%S")
        state.rename(state.with_name(f"{state.stem}-{moment}{state.suffix}"))


def shown(path: pathlib.Path) -> str:
    """The path as it is told: from the current folder where it is in there."""
    try:
        return str(path.absolute().relative_to(pathlib.Path.cwd()))
    except ValueError:
        return str(path)


def words_of(text: str) -> list[str]:
    """The words of an option that takes several with commas between them."""
    return [word.strip() for word in text.split(",") if word.strip()]


def positive(text: str) -> float:
    """The seconds that an option names. Raises argparse.ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0 and up to {LONGEST}")
    return value


def positive_int(text: str) -> int:
    """The number above 0 that an option names. Raises argparse.ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)
