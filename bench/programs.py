"""The programs that are compared: where each is found, how it is started, and what installs it.

All of them have wireguard-go's command line and socket. `bare` is the path itself, without any of them.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "pywg" / "bin"
KEEP_PRIVILEGES = "--disable-drop-privileges"


@dataclasses.dataclass(frozen=True)
class Program:
    """One program.

    name: what the tables call it. binary: empty for the bare path. options: its arguments before the name of
    the interface. environment: also given to what brings a whole tunnel up. contains: what its `--version`
    has to say.
    """

    name: str
    help: str
    binary: str = ""
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    install: str = ""
    contains: str = ""

    @property
    def is_bare(self) -> bool:
        return not self.binary

    @property
    def is_ours(self) -> bool:
        return self.binary == "pywgd"

    def path(self) -> str | None:
        """Our own programs stand beside the Python that runs this, the others in the cache or on PATH."""
        beside = pathlib.Path(sys.executable).parent
        folders = [beside] if self.is_ours else [CACHE]
        return shutil.which(self.binary, path=":".join(map(str, folders))) or shutil.which(self.binary)

    def version(self) -> str:
        """What it says of itself, on one line; of a Go program also what it was built from."""
        path = self.path()
        if path is None:
            return ""
        said = _output([path, "--version"], dict(self.environment))
        if self.binary == "wireguard" and shutil.which("go"):
            for line in _output(["go", "version", "-m", path]).splitlines():
                if line.split()[:1] == ["mod"]:
                    said = f"{said.partition(chr(10))[0]} ({line.split()[2]})"
        lines = said.strip().splitlines()
        return " ".join(" ".join(lines if self.is_ours else lines[:1]).split())

    def missing(self) -> str | None:
        """None when it can be measured here; else a sentence that says what to do."""
        if self.is_bare:
            return None
        if self.path() is None:
            return f"{self.name}: `{self.binary}` is not on PATH; install it: {self.install}"
        if self.contains not in (said := self.version()):
            last = said.rpartition("pywg.errors.PywgError: ")[2]
            return f"{self.name}: no {self.contains} here ({last or 'no version'}); {self.install}"
        return None

    def variables(self) -> dict[str, str]:
        return dict(self.environment)


def _output(command: list[str], environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=20,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


PROGRAMS: dict[str, Program] = {
    program.name: program
    for program in (
        Program(
            "pywg",
            "with the compiled data path",
            "pywgd",
            ("-f",),
            (("PYWG_DATAPATH", "compiled"), ("LOG_LEVEL", "error")),
            "a C compiler, then: pip install .",
            "compiled data path",
        ),
        Program(
            "pywg-openssl",
            "with the compiled data path, and no faster cipher library than OpenSSL",
            "pywgd",
            ("-f",),
            (("PYWG_DATAPATH", "compiled"), ("PYWG_CIPHER", "openssl"), ("LOG_LEVEL", "error")),
            "a C compiler, then: pip install .",
            "compiled data path",
        ),
        Program(
            "pywg-portable",
            "with the data path in Python",
            "pywgd",
            ("-f",),
            (("PYWG_DATAPATH", "portable"), ("LOG_LEVEL", "error")),
            "pip install .",
            "portable data path",
        ),
        Program(
            "wireguard-go",
            "HEAD of wireguard-go",
            "wireguard",
            ("-f",),
            (("LOG_LEVEL", "error"),),
            "go install golang.zx2c4.com/wireguard@latest",
        ),
        Program(
            "boringtun",
            "Cloudflare's",
            "boringtun-cli",
            ("-f", "-v", "error", KEEP_PRIVILEGES),
            (("WG_SUDO", "true"), ("WG_LOG_LEVEL", "error")),
            "cargo install boringtun-cli",
        ),
        Program(
            "gotatun",
            "Mullvad's",
            "gotatun",
            ("-f", "-v", "error", KEEP_PRIVILEGES),
            (("WG_SUDO", "true"), ("WG_LOG_LEVEL", "error")),
            "cargo install gotatun-cli",
        ),
        Program("bare", "the path without a tunnel: the limit"),
    )
}

TOOLS = {
    "ip": "apt install iproute2",
    "wg": "apt install wireguard-tools",
    "ping": "apt install iputils-ping",
    "iperf3": "apt install iperf3",
    "nsenter": "apt install util-linux",
}
"""What every run needs."""

ETHR = "ethr"
ETHR_INSTALL = "go install github.com/microsoft/ethr@latest"
