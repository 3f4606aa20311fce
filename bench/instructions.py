"""Instructions that the compiled data path takes for a burst, counted by valgrind: exact on a busy machine.

Only what happens inside `step` is counted: the data path and its cipher library, without the kernel.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

from bench.programs import REPOSITORY
from bench.rig import MeasureError

TOOL = "valgrind"
BURSTS = 50
LIMIT = 600.0  # seconds
SIZES = {"45 packets of 1360 bytes": 45, "1 packet of 64 bytes": 1}
"""What a burst has each way."""
STAGES = ("never", "ended")
"""There was no capture; one ran and has ended."""

Counts = dict[str, dict[str, float]]


def count(tree: pathlib.Path) -> Counts:
    """Instructions of a burst, both ways together, by size and stage, of the build in the folder `tree`.

    valgrind's files stay in a folder there. Raises MeasureError.
    """
    folder = tree / TOOL
    folder.mkdir()
    done = subprocess.run(
        [
            *(TOOL, "--tool=callgrind", "--separate-threads=yes", "--collect-atstart=no"),
            *("--toggle-collect=__pyx_pw_*CompiledDataPath_*step", f"--callgrind-out-file={folder}/out"),
            *(sys.executable, "-P", "-m", "bench.bursts", str(BURSTS)),
        ],
        env={
            **os.environ,
            "PYTHONPATH": f"{tree}{os.pathsep}{REPOSITORY}",
            "PYTHONHASHSEED": "0",
            "PYWG_DATAPATH": "compiled",
        },
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        raise MeasureError(f"no instructions were counted: {done.stderr.strip()[-500:]}")
    # Each stage had a thread of its own; the first thread and the whole process come before them.
    texts = [path.read_text() for path in sorted(folder.glob("out-*"))[-len(SIZES) * len(STAGES) :]]
    totals = iter([total_of(text) for text in texts])
    return {size: {stage: next(totals) / BURSTS for stage in STAGES} for size in SIZES}


def total_of(text: str) -> int:
    """The sum in one of callgrind's files. Raises MeasureError."""
    found = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    if found is None or not int(found[1]):
        raise MeasureError("valgrind counted nothing")
    return int(found[1])


def missing() -> str | None:
    """None where instructions can be counted; else a sentence."""
    return None if shutil.which(TOOL) else f"instructions are not counted: `{TOOL}` is not on PATH"
