"""Nothing that only Linux has is imported on the way to running on macOS or Windows."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
EVERYWHERE = ("noise", "wire", "device", "tun", "bind", "datapath", "uapi", "config")
"""Packages that are of use on every system, but for their `linux` modules."""

COMMANDS = [
    *("up", "down", "show", "set", "setconf", "addconf", "syncconf", "showconf"),
    *("genkey", "genpsk", "pubkey", "pywg", "pywgd"),
]
"""Those that do something there, or say in a sentence that they do not."""

OWN = {
    "darwin": ["cli.daemon", "host.system", "host.darwin_tunnel", "host.darwin_monitor", "host.network"],
    "win32": ["host.system", "host.windows_tunnel", "host.network"],
}


@pytest.mark.parametrize("platform", OWN)
def test_every_module_that_another_system_needs_can_be_imported_there(platform):
    packages = [ROOT / "pywg" / package for package in EVERYWHERE]
    paths = [path for package in packages for path in package.glob("*.py") if path.stem != "linux"]
    wanted = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(paths)]
    wanted += [f"pywg.{name}" for name in ("clock", "engine", *OWN[platform])]
    wanted += [f"pywg.cli.{name}" for name in COMMANDS]
    tool = ROOT / "tests" / "tools" / "import_as.py"
    done = subprocess.run([sys.executable, tool, platform, *wanted], capture_output=True, text=True, cwd=ROOT)
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
