"""`wg` and `pywg` on hosts of their own, fast enough for generated command lines: a helper runs them."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys

from tests.system.net import TOOLS, Host

INTERFACE = "wg0"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    status: int
    output: str
    errors: str

    @property
    def succeeded(self) -> bool:
        return self.status == 0


class Shell:
    """Runs `wg` and `pywg` on one host."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._process = subprocess.Popen(
            [
                *("nsenter", f"--target={host.pid}", "--net", "--mount", "--"),
                *(sys.executable, str(TOOLS / "run_commands.py")),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, *arguments: str, input: str = "", **environment: str) -> Outcome:
        """Run `pywg`, or any other program, to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"program": program, "arguments": arguments, "input": input, "environment": environment}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        outcome = Outcome(**json.loads(self._process.stdout.readline()))
        assert outcome.status != 99, f"{program} {' '.join(arguments)} raised:\n{outcome.errors}"
        return outcome

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def wg_version() -> int:
    """The date that is `wg`'s version, such as 20210914; 0 without `wg`."""
    if shutil.which("wg") is None:
        return 0
    printed = subprocess.run(["wg", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v1\.0\.(\d{8})", printed)
    return int(found[1]) if found else 0


def state(shell: Shell) -> list[str]:
    """What a daemon has been told, from `wg show dump`: peers in order of their keys, a free port masked."""
    first, *peers = shell.run("wg", "show", INTERFACE, "dump").output.splitlines()
    private, public, port, mark = first.split("\t")
    return [
        f"{private} {public} {'free' if int(port) >= 32768 else port} {mark}",
        *sorted(" ".join((*columns[:4], columns[7])) for columns in (peer.split("\t") for peer in peers)),
    ]
