"""Nothing that only Linux has is imported on the way to running on macOS or Windows."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
LINUX_ONLY = {"pywg.host.linux"}
"""What belongs to Linux by its name, and is imported there alone."""

UNIX_ONLY = LINUX_ONLY | {
    "pywg.host.daemon",
    "pywg.host.dns",
    "pywg.host.resolvfile",
    "pywg.host.state",
    "pywg.host.tunnel",
    "pywg.tun.linux",
}
"""What locks files or makes ioctls: `up`, `down` and the daemon of the other systems."""


def modules() -> set[str]:
    names = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "pywg").rglob("*.py"))
    return {".".join(name.parts).removesuffix(".__init__") for name in names}


@pytest.mark.parametrize(("platform", "not_there"), [("darwin", LINUX_ONLY), ("win32", UNIX_ONLY)])
def test_every_module_that_another_system_needs_can_be_imported_there(platform, not_there):
    wanted = sorted(modules() - not_there)
    assert "pywg.cli.up" in wanted
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "tools" / "import_as.py", platform, *wanted],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def run_as(platform: str, *command: str) -> tuple[int, str]:
    tool = ROOT / "tests" / "tools" / "run_as.py"
    done = subprocess.run(
        [sys.executable, tool, platform, *command], capture_output=True, text=True, cwd=ROOT
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "wg0.conf"
    path.touch(0o600)
    path.write_text("[Interface]\nTable = 5\nSaveConfig = true\n")
    return str(path)


@pytest.mark.parametrize(("platform", "system"), [("darwin", "macOS"), ("win32", "Windows")])
def test_up_refuses_what_the_system_has_not(platform, system, file):
    status, printed = run_as(platform, "pywg", "up", file)
    assert status == 1
    assert f"{file}:2:9: Table: {system} has one routing table" in printed
    assert f"{file}:3:14: SaveConfig: saving on the way down is not done on {system} yet" in printed


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_up_refuses_options_that_are_not_there(platform, file):
    status, printed = run_as(platform, "pywg", "up", "--dry-run", file)
    assert (status, printed) == (
        1,
        "pywg: --dry-run and --backend kernel are not there on this system; leave them out\n",
    )


def test_on_windows_down_and_the_daemon_say_what_to_do_instead(file):
    assert run_as("win32", "pywg", "down", "wg0") == (
        1,
        "pywg: press Ctrl-C where `pywg up wg0' runs: on Windows that takes it down\n",
    )
    assert run_as("win32", "pywgd", "wg0") == (
        1,
        "pywgd: wg0: no daemon for Windows yet: pywg up stays and is one\n",
    )


def test_on_macos_the_daemon_wants_the_name_of_a_utun():
    assert run_as("darwin", "pywgd", "-f", "wg0") == (
        1,
        "pywgd: wg0: 'wg0' is no interface name for macOS: it must be 'utun' or 'utun4'\n",
    )


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_the_version_tells_that_the_portable_data_path_carries(platform):
    status, printed = run_as(platform, "pywg", "--version")
    assert status == 0
    assert f"portable data path (there is no compiled one for {platform})" in printed
