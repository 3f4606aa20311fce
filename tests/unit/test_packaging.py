"""What is packed and built: a source distribution, and wheels of it with the compiled data path and without.

Each is built once for all tests, with this environment's setuptools and Cython, so that nothing is fetched.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = {"compiled.pyx", "compiled_offload.pxd", "compiled_replay.pxd", "compiled_routes.pxd"} | {
    "aead.h",
    "cookie.h",
    "packet.h",
    "udp.h",
}
NOT_BUILT = "pywg: the portable data path is used, without the compiled one: "


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A wheel, what building it printed, and where it is unpacked."""

    path: pathlib.Path
    output: str
    unpacked: pathlib.Path

    def names(self) -> set[str]:
        with zipfile.ZipFile(self.path) as file:
            return set(file.namelist())

    def run(self, program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one of its programs; nothing of the repository is in reach."""
        code = f"import pywg, sys; assert pywg.__file__.startswith({str(self.unpacked)!r}); "
        code += f"from pywg.cli.{program} import main; sys.argv[0] = {program!r}; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=self.unpacked,
            env={**os.environ, "PYTHONPATH": str(self.unpacked), "PYWG_DATAPATH": "", **environment},
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("packaging")


@pytest.fixture(scope="module")
def sdist(folder):
    """The source distribution of what a clone would hold, changes included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip(f"what belongs to a clone, git tells: {listed.stderr.strip()}")
    tree = folder / "tree"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=tree, check=True, capture_output=True)
    [path] = folder.glob("*.tar.gz")
    return path


def build(source: pathlib.Path, folder: pathlib.Path, **environment: str) -> Wheel:
    """A wheel from a source distribution or a tree, by pip."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--wheel-dir", str(folder), str(source)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout
    [path] = folder.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        file.extractall(folder / "unpacked")
    return Wheel(path, done.stdout, folder / "unpacked")


@pytest.fixture(scope="module")
def with_compiler(sdist, folder):
    return build(sdist, folder / "with-compiler")


@pytest.fixture(scope="module")
def without_compiler(sdist, folder):
    return build(sdist, folder / "without-compiler", CC="/bin/false")


@pytest.fixture(scope="module")
def without_cython(sdist, folder):
    """Cython refuses the source."""
    with tarfile.open(sdist) as file:
        file.extractall(folder / "refused", filter="data")
    [tree] = (folder / "refused").iterdir()
    with (tree / "pywg" / "datapath" / "compiled.pyx").open("a") as source:
        source.write("\ncdef\n")
    return build(tree, folder / "without-cython")


def test_the_source_distribution_has_all_that_the_extension_is_built_from(sdist):
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {f"pywg/datapath/{name}" for name in SOURCES} <= names
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "pywg/py.typed"} <= names
    assert "pywg/datapath/compiled.pyi" in names
    assert not [name for name in names if name.endswith((".c", ".so"))]


def test_a_wheel_has_the_extension_and_its_types_but_no_sources(with_compiler):
    names = with_compiler.names()
    assert [name for name in names if name.endswith(".so")] == [
        name for name in names if name.startswith("pywg/datapath/compiled.cpython-")
    ]
    assert {"pywg/py.typed", "pywg/datapath/compiled.pyi"} <= names
    assert not [name for name in names if name.endswith((".c", ".h", ".pyx", ".pxd"))]
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"pywg", "pywg_vpn"}


def test_a_wheel_that_was_built_with_a_compiler_runs_the_compiled_data_path(with_compiler):
    assert NOT_BUILT not in with_compiler.output
    done = with_compiler.run("pywgd", "--version", PYWG_DATAPATH="compiled")
    assert (done.returncode, done.stderr) == (0, "")
    assert ": compiled data path, " in done.stdout


@pytest.mark.parametrize("kind", ["without_compiler", "without_cython"])
class TestWithoutTheExtension:
    @pytest.fixture
    def wheel(self, kind, request):
        return request.getfixturevalue(kind)

    def test_the_build_goes_on_and_says_so_in_one_line(self, wheel, kind):
        [said] = [line for line in wheel.output.splitlines() if line.strip().startswith(NOT_BUILT)]
        assert {"without_compiler": "/bin/false", "without_cython": "compiled.pyx"}[kind] in said
        assert len(said) < 150, "a reason, no command line"
        assert not [name for name in wheel.names() if name.endswith(".so")]

    def test_the_portable_data_path_runs_and_version_says_so(self, wheel, kind):
        done = wheel.run("pywg", "--version")
        assert (done.returncode, done.stderr) == (0, "")
        assert ", portable data path (the compiled one is not built), " in done.stdout

    def test_insisting_on_the_compiled_one_is_refused_in_a_sentence(self, wheel, kind):
        done = wheel.run("pywgd", "--version", PYWG_DATAPATH="compiled")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "pywgd: PYWG_DATAPATH=compiled, but the compiled one is not built\n"


def test_the_tools_that_tests_build_with_are_those_of_the_build():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["build-system"]["requires"]) <= set(project["dependency-groups"]["test"])
