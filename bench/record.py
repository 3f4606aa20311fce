"""The file of a run: the plan, the machine, the versions and every sample, saved after each.

So a run that was stopped is taken up where it was, and tables and plots can be made anew at any time.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import time
from typing import Any

from bench.measurements import MEASUREMENTS
from bench.programs import PROGRAMS, REPOSITORY, TOOLS, Program

FORMAT = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a run measures: names of measurements and of programs, rounds, seconds of each load."""

    measurements: tuple[str, ...]
    programs: tuple[str, ...]
    rounds: int
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One program, measured once. values: figures by their short names; error: why there are none.

    at: seconds since 1970. took: seconds. load: of the machine in the minute before. stolen: the share of CPU
    time (0 to 1) that the hypervisor gave to others meanwhile.
    """

    measurement: str
    program: str
    round: int
    values: dict[str, float]
    error: str = ""
    at: float = 0.0
    took: float = 0.0
    load: float = 0.0
    stolen: float = 0.0


@dataclasses.dataclass(slots=True)
class Run:
    """A plan and what there is of it."""

    plan: Plan
    machine: dict[str, Any]
    versions: dict[str, str]
    commit: str
    begun: float
    samples: list[Sample] = dataclasses.field(default_factory=list)
    command: str = ""

    def done(self) -> set[tuple[str, int, str]]:
        return {(sample.measurement, sample.round, sample.program) for sample in self.samples}

    def steps(self) -> list[tuple[str, int, str]]:
        """Measurement, round and program of every sample of the plan, in the order of taking."""
        plan = self.plan
        return [
            (measurement, turn, program)
            for measurement in plan.measurements
            for turn in range(1, plan.rounds + 1)
            for program in plan.programs
            if applies(measurement, PROGRAMS[program])
        ]

    def missing(self) -> list[tuple[str, int, str]]:
        done = self.done()
        return [step for step in self.steps() if step not in done]

    def forget_broken_round(self) -> None:
        """Drop the samples of a round that was stopped in its midst: programs are compared within minutes."""
        broken = {(measurement, turn) for measurement, turn, _ in self.missing()}
        self.samples = [sample for sample in self.samples if (sample.measurement, sample.round) not in broken]

    def forget_failed_rounds(self) -> None:
        """Drop the rounds in which a sample could not be taken."""
        failed = {(sample.measurement, sample.round) for sample in self.samples if sample.error}
        self.samples = [sample for sample in self.samples if (sample.measurement, sample.round) not in failed]

    def by_round(self, measurement: str, figure: str, program: str) -> dict[int, float]:
        """The samples of one figure of one program, by round."""
        return {
            sample.round: sample.values[figure]
            for sample in self.samples
            if sample.measurement == measurement and sample.program == program and figure in sample.values
        }

    def save(self, path: pathlib.Path) -> None:
        """Write the file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n")
        unfinished.replace(path)


def applies(measurement: str, program: Program) -> bool:
    """Whether a program has this measurement: the bare path has no daemon."""
    return MEASUREMENTS[measurement].bare or not program.is_bare


def load(path: pathlib.Path) -> Run:
    """Read the file of a run. Raises ValueError with a sentence when it is none."""
    try:
        data = json.loads(path.read_text())
        if data.pop("format") != FORMAT:
            raise ValueError
        plan: dict[str, Any] = data.pop("plan")
        for names in ("measurements", "programs"):
            plan[names] = tuple(plan[names])
        samples = [Sample(**sample) for sample in data.pop("samples")]
        return Run(plan=Plan(**plan), samples=samples, **data)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not a file that this version of the benchmark wrote") from None


def describe_machine() -> dict[str, Any]:
    """What is known of the machine, as far as it matters for speed. `boot` changes when it starts anew."""
    cpu = pathlib.Path("/proc/cpuinfo").read_text()
    fields = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in cpu.split("\n\n", 1)[0].splitlines())
    }
    flags = set(fields.get("flags", "").split())
    interesting = ("avx2", "avx512f", "avx512_ifma", "vaes", "gfni", "hypervisor")
    memory = pathlib.Path("/proc/meminfo").read_text().split()
    return {
        "cpu": fields.get("model name", platform.machine()),
        "cpus": os.cpu_count() or 1,
        "threads_per_core": _threads_per_core(),
        "flags": [flag for flag in interesting if flag in flags],
        "memory_mb": int(memory[1]) // 1000,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "tcp_congestion": pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "boot": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    }


def _threads_per_core() -> int:
    siblings = pathlib.Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings")
    try:
        return int(siblings.read_text().strip().replace(",", ""), 16).bit_count()
    except OSError:
        return 1


def describe_commit() -> str:
    """The commit of this repository, with "-dirty" when files differ from it; empty outside of one."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def new_run(plan: Plan, command: str) -> Run:
    """A run of which nothing is measured yet, on this machine."""
    versions = {name: PROGRAMS[name].version() for name in plan.programs if not PROGRAMS[name].is_bare}
    flags = {"iperf3": "--version", "ping": "-V", "wg": "--version"}
    for tool in TOOLS.keys() & flags.keys():
        said = subprocess.run([tool, flags[tool]], capture_output=True, text=True, check=False).stdout
        versions[tool] = said.splitlines()[0] if said else ""
    return Run(plan, describe_machine(), versions, describe_commit(), time.time(), command=command)
