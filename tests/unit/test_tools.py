"""The scripts in tools/ that decide whether a run of the tests has passed."""

import pathlib
import subprocess
import sys

TEST_TWICE = pathlib.Path(__file__).parents[2] / "tools" / "test-twice"

OF_A_BUSY_MACHINE = """
import pathlib

def test_that_fails_once():
    first = pathlib.Path("been-here")
    if not first.exists():
        first.touch()
        raise AssertionError

def test_beside_it():
    pathlib.Path("count").open("a").write("x")
"""


def played(directory: pathlib.Path, tests: str, *chosen: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_it.py").write_text(tests)
    command = [str(TEST_TWICE), sys.executable, "-m", "pytest", "-q", "-p", "no:randomly"]
    command += chosen or ["test_it.py"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_what_fails_once_is_played_again_without_the_others(tmp_path: pathlib.Path) -> None:
    done = played(tmp_path, OF_A_BUSY_MACHINE)
    assert done.returncode == 0, done.stdout
    assert "1 failed beside the others" in done.stdout
    assert (tmp_path / "count").read_text() == "x"


def test_that_holds_also_where_single_tests_were_chosen(tmp_path: pathlib.Path) -> None:
    (tmp_path / "test_other.py").write_text("def test_other():\n    open('count', 'a').write('y')\n")
    chosen = [f"test_it.py::test_{name}" for name in ("that_fails_once", "beside_it")]
    done = played(tmp_path, OF_A_BUSY_MACHINE, *chosen, "test_other.py::test_other")
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "count").read_text() == "xy"


def test_what_fails_twice_fails(tmp_path: pathlib.Path) -> None:
    assert played(tmp_path, "def test_it():\n    assert False\n").returncode == 1


def test_many_failures_are_no_matter_of_luck(tmp_path: pathlib.Path) -> None:
    many = "".join(f"def test_{number}():\n    assert False\n" for number in range(6))
    done = played(tmp_path, many)
    assert done.returncode == 1
    assert "once more" not in done.stdout


def test_other_ends_are_handed_on(tmp_path: pathlib.Path) -> None:
    assert played(tmp_path, "import nothing_of_this_name\n").returncode == 2
