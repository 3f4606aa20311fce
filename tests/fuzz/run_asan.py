"""Builds the compiled data path with AddressSanitizer and UndefinedBehaviorSanitizer, and fuzzes that build.

Needs gcc with libasan. The tree is copied to a temporary folder, so the build in the tree stays as it is.
Arguments are those of `fuzz_compiled.py`; ends with status 1 when something was found.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = "-fsanitize=address,undefined -fno-sanitize=alignment -fno-sanitize-recover=undefined -g -O1"


def build(tree: pathlib.Path) -> None:
    """Put a sanitized build beside copies of the package and the tests."""
    for part in ("pywg", "tests"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tree)
    environment = dict(os.environ, CFLAGS=FLAGS, LDFLAGS="-fsanitize=address,undefined")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=tree, env=environment, check=True)
    if not list((tree / "pywg" / "datapath").glob("compiled*.so")):
        raise SystemExit("the sanitized build did not come about")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="pywg-asan-") as folder:
        tree = pathlib.Path(folder)
        build(tree)
        ask = ["gcc", "-print-file-name=libasan.so"]
        asan = subprocess.run(ask, check=True, capture_output=True, text=True)
        environment = dict(
            os.environ,
            LD_PRELOAD=asan.stdout.strip(),
            ASAN_OPTIONS="detect_leaks=0:abort_on_error=0:exitcode=1",
            UBSAN_OPTIONS="print_stacktrace=1",
            PYTHONMALLOC="malloc",
            PYTHONPATH=folder,
        )
        command = [sys.executable, str(tree / "tests" / "fuzz" / "fuzz_compiled.py"), *sys.argv[1:]]
        return subprocess.run(command, cwd=tree, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
