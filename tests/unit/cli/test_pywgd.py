"""The daemon's command line and environment, read without making anything; the rest is in tests/system."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

import pytest

from pywg import __version__
from pywg.cli.pywgd import USAGE, Command, keeps_output, open_uapi, parse, report, run
from pywg.errors import PywgError


@pytest.mark.parametrize("option", ["-f", "--foreground"])
def test_the_option_and_the_variable_ask_for_the_foreground(option: str) -> None:
    assert parse([option, "wg0"], {}) == Command("wg0", foreground=True)
    assert parse(["wg0"], {"WG_PROCESS_FOREGROUND": "1"}) == Command("wg0", foreground=True)


@pytest.mark.parametrize("value", ["", "0", "true"])
def test_any_other_value_of_the_variable_leaves_it_in_the_background(value: str) -> None:
    assert parse(["wg0"], {}) == Command("wg0", foreground=False)
    assert parse(["wg0"], {"WG_PROCESS_FOREGROUND": value}) == Command("wg0", foreground=False)


@pytest.mark.parametrize(
    "arguments",
    [[], [""], ["-f"], ["-f", ""], ["-f", "-f"], ["wg0", "-f"], ["wg0", "wg1"], ["--version", "wg0"]],
)
def test_other_command_lines_get_the_usage_and_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments, {}) == 2
    assert capsys.readouterr() == ("", USAGE)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_asked_for_help_it_prints_the_usage(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([option], {}) == 0
    assert capsys.readouterr() == (USAGE, "")


def test_the_version_is_told_in_wireguard_go_s_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"], {}) == 0
    first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert first == f"pywgd v{__version__}"
    assert second == ""
    assert third.startswith("Userspace WireGuard daemon for linux: ")


@pytest.mark.parametrize(
    ("level", "kept"),
    [(None, False), ("", False), ("silent", False), ("error", True), ("verbose", True), ("info", True)],
)
def test_output_is_kept_in_the_background_if_a_level_is_set(level: str | None, kept: bool) -> None:
    assert keeps_output({} if level is None else {"LOG_LEVEL": level}) == kept


def test_an_inherited_socket_is_taken_with_its_file(tmp_path: os.PathLike[str]) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        path = os.path.join(tmp_path, "wg9.sock")
        listener.bind(path)
        listener.listen()
        copy = os.dup(listener.fileno())
        os.set_inheritable(copy, True)
        uapi = open_uapi("wg0", {"WG_UAPI_FD": str(copy)})
        assert uapi.listener.fileno() == copy
        assert not os.get_inheritable(copy)
        assert uapi.file is not None
        assert str(uapi.file.path) == path
        uapi.close()
        assert list(pathlib.Path(tmp_path).iterdir()) == []


def test_an_inherited_socket_without_a_file_here_is_taken_too() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0pywg-test-" + str(os.getpid()))
        listener.listen()
        uapi = open_uapi("wg0", {"WG_UAPI_FD": str(os.dup(listener.fileno()))})
        assert uapi.file is None
        uapi.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_socket_that_is_not_unix_or_does_not_listen_is_refused(family: socket.AddressFamily) -> None:
    with socket.socket(family) as other:
        if family == socket.AF_INET:
            other.bind(("127.0.0.1", 0))
            other.listen()
        with pytest.raises(PywgError, match="is not a unix socket that listens"):
            open_uapi("wg0", {"WG_UAPI_FD": str(os.dup(other.fileno()))})


def test_an_error_of_ours_is_reported_as_a_sentence_and_a_fault_with_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report(PywgError("no luck"), "wg0", to_syslog=False)
    assert capsys.readouterr().err == "pywgd: wg0: no luck\n"
    try:
        os.fstat(-1)
    except OSError as error:
        report(error, "wg0", to_syslog=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "pywgd: wg0: Traceback (most recent call last):"
    assert lines[-1] == "pywgd: wg0: OSError: [Errno 9] Bad file descriptor"
    assert all(line.startswith("pywgd: wg0: ") for line in lines)


def test_what_is_imported_before_it_goes_into_the_background_is_little() -> None:
    program = (
        "import sys, pywg.cli.pywgd, pywg.tun.linux, pywg.uapi.listen, pytun\n"
        "heavy = {'asyncio', 'logging', 'ssl', 'ctypes', 'cryptography', 'nacl', 'uvloop', 'click'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
