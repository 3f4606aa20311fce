"""Hooks run in order, by bash with wg-quick's options, and tell where they failed."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pywg.config.positions import Located, Position
from pywg.errors import PywgError
from pywg.host.hooks import run_hooks
from pywg.host.steps import Interrupted, Steps


def hooks(*commands: str) -> list[Located[str]]:
    return [Located(command, Position("wg0.conf", 3 + i, 10)) for i, command in enumerate(commands)]


def run(*commands: str) -> list[str]:
    shown: list[str] = []
    run_hooks("PostUp", hooks(*commands), "wg7", shown.append)
    return shown


def failure(*commands: str) -> str:
    with pytest.raises(PywgError) as caught:
        run(*commands)
    return str(caught.value)


def test_hooks_run_in_order_with_the_interface_s_name(tmp_path):
    file = tmp_path / "out"
    shown = run(f"echo %i one >> {file}", f"echo two %i %i >> {file}")
    assert file.read_text() == "wg7 one\ntwo wg7 wg7\n"
    assert shown == [f"echo wg7 one >> {file}", f"echo two wg7 wg7 >> {file}"]


def test_bash_runs_them_as_wg_quick_would(tmp_path):
    file = tmp_path / "out"
    run(f"[[ x == @(x|y) ]] && cat <(echo $LC_ALL) > {file}")
    assert file.read_text() == "C\n"


@pytest.mark.parametrize("command", ["false; true", "false | true", "(exit 1)", "false # really"])
def test_any_failing_part_fails_the_hook(command):
    assert failure(command) == f"wg0.conf:3:10: PostUp: the command ended with status 1: '{command}'"


def test_the_first_failure_stops_the_rest(tmp_path):
    file = tmp_path / "out"
    message = failure("true", "exit 3", f"touch {file}")
    assert message == "wg0.conf:4:10: PostUp: the command ended with status 3: 'exit 3'"
    assert not file.exists()


def test_a_hook_ended_by_a_signal_is_told():
    assert "PostUp: the command was ended by SIGKILL: " in failure("kill -9 $$")
    assert f"PostUp: the command was ended by signal {signal.SIGRTMIN + 3}: " in failure(
        f"kill -{signal.SIGRTMIN + 3} $$"
    )


def test_neither_controls_nor_keys_reach_the_screen():
    key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    message = failure(f"false '{key}' '\x1b[31m'")
    assert key not in message
    assert message.isprintable()
    shown: list[str] = []
    run_hooks("PreUp", hooks("true '\x1b[31m'"), "wg7", shown.append)
    assert shown == ["true '\\x1b[31m'"]


def test_bytes_that_are_no_text_are_passed_on(tmp_path):
    file = tmp_path / "out"
    run(os.fsdecode(b"printf '\xff' > ") + str(file))
    assert file.read_bytes() == b"\xff"


def test_without_bash_sh_runs_them(tmp_path, monkeypatch):
    monkeypatch.setattr("pywg.host.hooks._SYSTEM_FOLDERS", ())
    (tmp_path / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / "out"
    run(f"echo $0 > {file}")
    assert file.read_text() == f"{tmp_path}/sh\n"
    assert failure("false; true").startswith("wg0.conf:3:10: PostUp: the command ended with status 1")


def test_the_shell_is_found_with_nothing_in_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run("true") == ["true"]


def test_without_any_shell_a_sentence_says_so(monkeypatch):
    monkeypatch.setattr("pywg.host.hooks.shutil.which", lambda name, path: f"/nowhere/{name}")
    assert failure("true") == "no shell can be started for 'true': No such file or directory"


def test_an_interrupt_ends_a_running_hook():
    began = time.monotonic()
    with pytest.raises(Interrupted), Steps(lambda line: None) as steps:
        run_hooks("PostUp", hooks(f"kill -TERM {os.getpid()}; exec sleep 60"), "wg7", steps.show)
    assert time.monotonic() - began < 30


def test_the_system_s_programs_are_found_behind_those_of_path(tmp_path, monkeypatch):
    (tmp_path / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    file = tmp_path / "out"
    run(f"echo $PATH > {file}")
    first, second, *others = file.read_text().strip().split(":")
    assert (first, second) == (str(tmp_path), "/bin")
    assert "/usr/sbin" in others
    assert "/bin" not in others
