"""The tool's entry: help without imports, questions about mistyped commands, errors as sentences."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pywg.cli.pywg import COMMANDS, main


def test_help_lists_every_command_and_imports_none():
    program = (
        "import sys\n"
        "from pywg.cli.pywg import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(sorted(name for name in sys.modules if name.startswith('pywg')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *_, imported = done.stdout.splitlines()
    assert imported == "['pywg', 'pywg.cli', 'pywg.cli.pywg', 'pywg.cli.streams', 'pywg.errors']"
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


def test_help_fits_80_columns():
    done = CliRunner().invoke(main, ["--help"])
    assert done.exit_code == 0
    assert max(map(len, done.output.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_a_module_with_help_of_its_own(name):
    command = main.get_command(click.Context(main), name)
    assert command.name == name
    assert command.help


def test_a_mistyped_command_gets_a_question_and_status_2():
    done = CliRunner().invoke(main, ["shwo"])
    assert done.exit_code == 2
    assert "there is no command 'shwo'; did you mean 'show'?" in done.output


def test_an_unknown_command_is_told_with_status_2():
    done = CliRunner().invoke(main, ["xyzzy"])
    assert done.exit_code == 2
    assert "there is no command 'xyzzy'\n" in done.output


def test_an_unknown_option_is_told_with_status_2():
    done = CliRunner().invoke(main, ["--nonsense", "up"])
    assert done.exit_code == 2
    assert "--nonsense" in done.output


def test_the_version_names_the_data_path():
    done = CliRunner().invoke(main, ["--version"])
    assert done.exit_code == 0
    assert done.output.startswith("pywg ")
    assert "data path" in done.output


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to write into")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["genkey"], ["new", "--help"]])
def test_output_that_finds_no_place_is_told_in_a_sentence(arguments):
    program = "import sys; from pywg.cli.pywg import main; main(prog_name='pywg')"
    said = "pywg: the output cannot be written: No space left on device; see `df -h`\n"
    assert run_on_a_full_disk(program, arguments) == (1, said)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to write into")
@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_so_is_the_daemon_s(argument):
    said = "pywgd: the output cannot be written: No space left on device\n"
    assert run_on_a_full_disk("from pywg.cli.pywgd import main; main()", [argument]) == (1, said)


def run_on_a_full_disk(program: str, arguments: list[str]) -> tuple[int, str]:
    """The exit status, and what standard error says."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    return done.returncode, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix closes it")
@pytest.mark.parametrize("arguments", [["--help"], ["genkey"], ["strip", "./wg0.conf"]])
def test_output_that_is_closed_is_told_in_a_sentence(arguments, tmp_path):
    (tmp_path / "wg0.conf").write_text("[Interface]\n")
    program = "from pywg.cli.pywg import main; main(prog_name='pywg')"
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    *_, said = done.stderr.splitlines()
    assert (done.returncode, said) == (
        1,
        "pywg: the output cannot be written: Bad file descriptor; it is closed",
    )


def test_what_the_character_set_lacks_is_a_question_mark():
    program = "from pywg.cli import streams; streams.settle(); print('\\N{HORIZONTAL ELLIPSIS}')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert done.stdout.rstrip() == b"?"


@pytest.mark.parametrize("command", ["show", "set"])
def test_the_usage_of_wgs_commands_fits_80_columns(command):
    done = CliRunner().invoke(main, [command, "a", "b", "c"] if command == "show" else [command])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Usage: main {command} ")
    assert max(map(len, done.stderr.splitlines())) <= 80


@pytest.mark.parametrize(
    ("variables", "has_colours"), [({"NO_COLOR": None}, True), ({"NO_COLOR": "1"}, False)]
)
def test_the_doctor_has_colours_unless_told_not_to(variables, has_colours, tmp_path):
    file = tmp_path / "wg0.conf"
    file.write_text("[Interface]\nPrivateKey = abc\n")
    done = CliRunner().invoke(main, ["doctor", os.fspath(file)], env=variables, color=True)
    assert done.exit_code == 3
    assert "error: config-mistakes" in done.stdout
    assert ("\x1b[" in done.stdout) == has_colours
