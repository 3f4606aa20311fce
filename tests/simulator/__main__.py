"""`python -m tests.simulator`: one run, its figures, and the command that repeats it."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time

from tests.simulator.invariants import Violation
from tests.simulator.simulation import HOUR, Plan, Simulation


def main(arguments: list[str] | None = None) -> int:
    """Play a run; 1 when an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--peers", type=int, default=1, help="machines beside the hub (default: 1)")
    parser.add_argument("--hours", type=float, default=24.0, help="of virtual time (default: 24)")
    parser.add_argument("--seed", type=int, help="replays a run; without it a new one is drawn")
    parser.add_argument(
        "--calm", type=float, default=1.0, help="how much rarer everything is than usual (default: 1)"
    )
    options = parser.parse_args(arguments)
    seed = int.from_bytes(os.urandom(4), "little") if options.seed is None else options.seed
    command = (
        f"python -m tests.simulator --peers {options.peers} --hours {options.hours!r} "
        f"--calm {options.calm!r} --seed {seed}"
    )
    print(command, flush=True)
    simulation = Simulation(Plan.of(options.peers, options.hours * HOUR, options.calm), seed)
    try:
        simulation.play()
    except Exception as error:  # an invariant that did not hold, or what nobody expected
        print(f"after {simulation.elapsed():.3f} s of virtual time: {error}", file=sys.stderr)
        print(f"this repeats it: {command}", file=sys.stderr)
        if not isinstance(error, Violation):
            raise
        return 1
    print("\n".join(figures(simulation)))
    return 0


def figures(simulation: Simulation) -> list[str]:
    """What was simulated, in lines."""
    lines = [f"{name:32}{count:>12,}" for name, count in sorted(simulation.count.items())]
    for knowing, name in ((True, "slowest recovery, s"), (False, "slowest from a lost session, s")):
        lines.append(f"{name:32}{simulation.slowest[knowing]:12.3f}")
    lines += [
        f"{'violations':32}{0:12}",
        f"{'CPU, s':32}{time.process_time():12.1f}",
        f"{'greatest memory, MB':32}{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:12.0f}",
        f"{'trace':12}{simulation.trace():>32}",
    ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
