"""Fuzzes every target for some seconds, and says what that amounted to.

Python targets along the coverage of pywg's Python; those of the compiled data path once more along the
coverage of its C, built with AddressSanitizer and UndefinedBehaviorSanitizer; then random events on its
threads. Starts from the kept corpora and the targets' own seeds; `--keep` replaces the corpora by the
smallest sets of inputs that cover as much. Status 1 when something was found; the inputs lie in --findings.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import hashlib
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.fuzz import run_asan  # noqa: E402
from tests.fuzz.targets import TARGETS, keep, kept  # noqa: E402

CORPUS_BYTES = 24_000
"""Of what is kept for one target, at most."""

LOCATIONS = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)/")
EXECUTED = re.compile(r"stat::number_of_executed_units:\s+(\d+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One target, on the tree itself or on a sanitized copy."""

    name: str
    tree: pathlib.Path
    environment: dict[str, str]
    work: pathlib.Path
    sanitized: bool

    @property
    def title(self) -> str:
        return f"{self.name} (sanitized)" if self.sanitized else self.name

    def command(self, *arguments: str | pathlib.Path) -> list[str]:
        script = self.tree / "tests" / "fuzz" / "fuzz.py"
        return [sys.executable, str(script), self.name, *map(str, arguments)]

    def run(self, command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.work,
            env={**self.environment, "TMPDIR": str(self.work)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )

    def fuzz(self, seconds: int, findings: pathlib.Path) -> tuple[str, bool]:
        """A line of figures, with the output behind it when something was found; and whether it was."""
        corpus = self.work / "corpus"
        prefix = findings / f"{self.title.replace(' ', '-')}-"
        done = self.run(
            self.command(
                f"-max_total_time={seconds}",
                "-print_final_stats=1",
                "-timeout=20",
                "-rss_limit_mb=3000",
                f"-artifact_prefix={prefix}",
                corpus,
            ),
            seconds + 300,
        )
        executed, covered = EXECUTED.search(done.stdout), LOCATIONS.findall(done.stdout)
        places, features, inputs = covered[-1] if covered else ("?", "?", "?")
        number = f"{int(executed[1]):,}" if executed else "?"
        bad = done.returncode != 0 or not executed
        line = _row(self.title, number, places, features, inputs, "FOUND" if bad else "nothing")
        return (f"{line}\n{done.stdout[-6000:]}" if bad else line), bad

    def smallest(self) -> list[bytes]:
        """The smallest set of inputs that covers what the corpus covers, as far as there is room for it."""
        small = self.work / "small"
        small.mkdir()
        again = self.work / "again"
        again.write_text(f'#!/bin/sh\nexec {" ".join(self.command())} "$@"\n')
        again.chmod(0o700)
        self.environment["FUZZ_AGAIN"] = str(again)
        self.run(self.command("-set_cover_merge=1", small, self.work / "corpus"), 900)
        return [path.read_bytes() for path in small.iterdir()]


def _row(title: str, *values: str) -> str:
    return f"{title:<22}" + "".join(f"{value:>11}" for value in values)


def prepared(job: Job) -> Job:
    """Its seeds lie in its folder."""
    corpus = job.work / "corpus"
    corpus.mkdir(parents=True)
    for each in [*kept(job.name), *TARGETS[job.name].seeds()]:
        (corpus / hashlib.sha256(each).hexdigest()[:20]).write_bytes(each)
    return job


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="for each target")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at once")
    parser.add_argument("--findings", type=pathlib.Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--keep", action="store_true", help="replace the kept corpora")
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    options.findings.mkdir(parents=True, exist_ok=True)
    guided = importlib.util.find_spec("atheris") is not None
    found = False
    with tempfile.TemporaryDirectory(prefix="pywg-fuzz-") as folder:
        here = pathlib.Path(folder)
        tree = here / "tree"
        tree.mkdir()
        sanitized = run_asan.build(tree)
        jobs = []
        if guided:
            jobs = [Job(name, ROOT, dict(os.environ), here / name, False) for name in names]
            if run_asan.can_guide():
                jobs += [
                    Job(name, tree, dict(sanitized), here / f"{name}-c", True)
                    for name in names
                    if TARGETS[name].sanitized
                ]
            else:
                print("the compiled data path is fuzzed at random: there is no clang here")
        else:
            print("random events only: atheris is not installed; pip install --group fuzz")
        print(_row("target", "executions", "places", "features", "inputs", "found"), flush=True)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for line, bad in pool.map(
                lambda job: prepared(job).fuzz(options.seconds, options.findings), jobs
            ):
                print(line, flush=True)
                found = found or bad
        if options.target is None:
            command = [sys.executable, str(tree / "tests" / "fuzz" / "fuzz_compiled.py")]
            command += ["--seconds", str(options.seconds)]
            done = subprocess.run(
                command, cwd=tree, env=sanitized, capture_output=True, text=True, check=False
            )
            output = done.stdout.strip().split("\n")
            print(f"random events, threads (sanitized): {output[-1]}")
            if done.returncode:
                found = True
                print("\n".join(output[-3:]), done.stderr[-6000:], sep="\n")
        if options.keep and not found:
            for name in names:
                union = {each for job in jobs if job.name == name for each in job.smallest()}
                keep(name, _within(sorted(union, key=len)))
    if found:
        print(f"inputs lie in {options.findings}; play one: tests/fuzz/fuzz.py TARGET FILE")
    return int(found)


def _within(inputs: list[bytes]) -> list[bytes]:
    """The first of them that fit; rare paths need few bytes more often than many."""
    taken, size = [], 0
    for each in inputs:
        size += len(each) * 4 // 3 + 3
        if size > CORPUS_BYTES:
            break
        taken.append(each)
    return taken


if __name__ == "__main__":
    sys.exit(main())
