"""Builds the compiled data path with ThreadSanitizer, and feeds its threads random events between commands.

Python itself is not built so; its locks are seen all the same, so only races in our own C are told. With
`--tests` the unit tests of the data path are run instead. Other arguments are those of `fuzz_compiled.py`.
Ends with a status that is not 0 when there was a race; the report has file and line.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests.fuzz import run_asan

TESTS = ("tests/unit/datapath/test_compiled.py", "tests/unit/datapath/test_confirmation.py")


def build(tree: pathlib.Path) -> dict[str, str]:
    """Put the build beside copies of the package and the tests; returns the environment for it."""
    run_asan.copy(tree)
    sanitize = "-fsanitize=thread"
    run_asan.compile_there(tree, {"CC": "gcc", "CFLAGS": f"{sanitize} -g -O1", "LDFLAGS": sanitize})
    return dict(
        os.environ,
        LD_PRELOAD=str(run_asan.library_of_gcc("libtsan.so")),
        TSAN_OPTIONS="exitcode=66 second_deadlock_stack=1",
        PYTHONMALLOC="malloc",
        PYTHONPATH=str(tree),
    )


def main() -> int:
    arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="pywg-tsan-") as folder:
        tree = pathlib.Path(folder)
        environment = build(tree)
        if "--tests" in arguments:
            arguments.remove("--tests")
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, *arguments]
        else:
            command = [sys.executable, "tests/fuzz/fuzz_compiled.py", "--threads", *arguments]
        # Its shadow of the memory does not fit every layout that addresses are randomized to.
        fixed = [setarch, "-R"] if (setarch := shutil.which("setarch")) else []
        return subprocess.run([*fixed, *command], cwd=tree, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
