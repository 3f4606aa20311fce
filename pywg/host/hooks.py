"""The commands that a configuration file runs before and after: PreUp, PostUp, PreDown, PostDown.

They run one after the other by bash, where it is installed, with the options that wg-quick's own shell has;
`%i` is the interface's name. The first that fails stops them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pywg.config.positions import ConfigError, Located, Mistake, printable, quote
from pywg.errors import PywgError

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

_PATIENCE = 5.0
"""Seconds that a command has to end after we were told to."""


def run_hooks(
    name: str,
    hooks: Sequence[Located[str]],
    interface: str,
    show: Callable[[str], None],
    *,
    dry: bool = False,
) -> None:
    """Run the hooks of one kind; `name` is their key in the file, `show` prints each command before it runs.

    dry: only show them.
    Raises ConfigError with the hook's place in the file when one ends with another status than 0.
    """
    for hook in hooks:
        command = hook.value.replace("%i", interface)
        show(printable(command))
        status = 0 if dry else _run(command)
        if status:
            raise ConfigError([Mistake(hook.position, f"{name}: {_ended(status)}: {quote(command)}")])


def _run(command: str) -> int:
    environment = _environment()
    bash, sh = (shutil.which(name, path=environment["PATH"]) for name in ("bash", "sh"))
    shell = [bash, "-e", "-o", "pipefail", "-O", "extglob"] if bash else [sh or "/bin/sh", "-e"]
    # On Windows cmd.exe runs it, which splits the line by itself; a bash there may be another system's.
    arguments = command if sys.platform == "win32" else [*shell, "-c", command]
    try:
        process = subprocess.Popen(arguments, shell=isinstance(arguments, str), env=environment)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PywgError(f"no shell can be started for {quote(command)}: {reason}") from None
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def _environment() -> dict[str, str]:
    """Ours, and what a command line relies on: messages in English, the system's own programs, and `pywg`."""
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    if sys.platform != "win32":
        more = (*_SYSTEM_FOLDERS, str(Path(sys.executable).parent))
        folders += [folder for folder in more if folder not in folders]
    return {**os.environ, "LC_ALL": "C", "PATH": os.pathsep.join(folders)}


def _ended(status: int) -> str:
    if status > 0:
        return f"the command ended with status {status}"
    try:
        return f"the command was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"the command was ended by signal {-status}"
