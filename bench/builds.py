"""Builds of this tree in folders of their own, with and without probes, to run beside each other."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

from bench.programs import REPOSITORY, Program
from bench.rig import MeasureError

PARTS = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
NO_PROBES = "PYWG_NO_PROBES"
BUILD_LIMIT = 600.0


def build(tree: pathlib.Path, *, probes: bool) -> pathlib.Path:
    """Copy the sources into the folder `tree`, which is made, and compile them there; returns `tree`."""
    shutil.copytree(
        REPOSITORY / "pywg",
        tree / "pywg",
        ignore=shutil.ignore_patterns("*.so", "compiled.c", "__pycache__"),
    )
    for name in PARTS:
        shutil.copy2(REPOSITORY / name, tree)
    environment = {name: value for name, value in os.environ.items() if name != NO_PROBES}
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tree,
        env=environment if probes else {**environment, NO_PROBES: "1"},
        capture_output=True,
        text=True,
        timeout=BUILD_LIMIT,
        check=False,
    )
    if done.returncode or not list(tree.glob("pywg/datapath/compiled.*.so")):
        raise MeasureError(f"the data path was not built: {(done.stdout + done.stderr).strip()[-500:]}")
    return tree


def copy(tree: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
    """The same build once more, in files of its own; returns `to`."""
    shutil.copytree(tree, to, ignore=shutil.ignore_patterns("build"))
    return to


def module(tree: pathlib.Path) -> pathlib.Path:
    """The compiled data path of a build."""
    return next(tree.glob("pywg/datapath/compiled.*.so"))


def version(program: Program) -> str:
    """What a daemon says of itself, on one line."""
    command = [program.binary, *program.options[:-1], "--version"]
    environment = {**os.environ, **program.variables()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return " ".join(done.stdout.split())


def daemon(name: str, tree: pathlib.Path) -> Program:
    """`pywgd` of a build, run by this Python."""
    return Program(
        name,
        f"the build in {tree}",
        sys.executable,
        ("-P", "-m", "pywg.cli.pywgd", "-f"),
        (("PYTHONPATH", str(tree)), ("PYWG_DATAPATH", "compiled"), ("LOG_LEVEL", "error")),
    )
