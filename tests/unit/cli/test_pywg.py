"""The tool's entry: help without imports, questions about mistyped commands, errors as sentences."""

from __future__ import annotations

import subprocess
import sys

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
    assert imported == "['pywg', 'pywg.cli', 'pywg.cli.pywg', 'pywg.errors']"
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
