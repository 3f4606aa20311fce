"""The commands in the documents are run as they stand there, and print what it says there.

Which pages, and how they are marked, says `tests/documents.py`. Each host has one shell, so that what one
command leaves there (umask, background jobs, `$?`) is there for the next.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.documents import Command, File, Page, pages, pattern, with_keys
from tests.system.conftest import missing
from tests.system.net import CommandError, Host, Lab, eventually

COMMAND_LIMIT = 30.0
"""Seconds that no command of a document needs."""

NOBODY = 65534
PROGRAMS = {
    "curl",
    "iperf3",
    "iptables",
    "jq",
    "nft",
    "ping",
    "sysctl",
    "tcpdump",
    "tshark",
    "wg",
    "wg-quick",
}
PATH = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"


class Shell:
    """A bash on a host, in a directory of its own, that is given one command after the other."""

    def __init__(self, host: Host, directory: pathlib.Path, user: int = 0) -> None:
        directory.mkdir()
        os.chown(directory, user, user)
        self.name, self.directory = host.name, directory
        self._log = directory.with_suffix(".log")
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        with self._log.open("wb") as log:
            self._bash = subprocess.Popen(
                [
                    *("nsenter", f"--target={host.pid}", "--net", "--mount", "--"),
                    *("env", "-C", str(directory), *as_user, "bash", "--noprofile", "--norc"),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **os.environ,
                    "PATH": PATH,
                    "PYTHONUNBUFFERED": "1",
                    "LC_ALL": "C.UTF-8",
                    "HOME": str(directory),
                },
            )
        self._count = 0

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        self._bash.kill()
        self._bash.wait()

    def _printed(self, since: int = 0) -> str:
        return self._log.read_bytes()[since:].decode(errors="replace")

    def run(self, command: str, expected: str = "") -> tuple[int, str]:
        """Its status and what it printed; a background command is waited for until it printed `expected`."""
        self._count += 1
        end = f"--- end of command {self._count}: "
        since = self._log.stat().st_size
        ask = f"__status=$?; echo; echo '{end}'$__status; (exit $__status)\n"
        # A command that starts another shell, which reads the rest, gets no input redirected.
        text = f"{command}\n" if command.endswith(" bash") else f"{{ {command}\n}} </dev/null\n"
        assert self._bash.stdin is not None
        self._bash.stdin.write((text + ask).encode())
        self._bash.stdin.flush()

        def ended() -> re.Match[str] | None:
            return re.search(rf"(.*)\n{re.escape(end)}(\d+)\n", self._printed(since), re.DOTALL)

        found = eventually(f"the end of: {command}", ended, COMMAND_LIMIT)
        if command.endswith("&") and expected:
            matches = re.compile(pattern(expected), re.DOTALL)
            eventually(
                f"{expected!r} from: {command}", lambda: matches.search(self._printed(since)), COMMAND_LIMIT
            )
        return int(found[2]), found[1]


class Stage:
    """The hosts that a page is played on, and their shells."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.shells: dict[str, Shell] = {}

    def read_key(self, host: str, name: str) -> str:
        return (self.shells[host].directory / name).read_text().strip()

    def play(self, page: Page) -> None:
        steps = list(page.steps())
        for number, step in enumerate(steps):
            place = f"{page.name}:{step.line}"
            if isinstance(step, File):
                path = self.shells[step.host].directory / step.name
                path.touch(0o600)
                path.write_text(with_keys(step.text, self.read_key))
            else:
                following = steps[number + 1] if number + 1 < len(steps) else None
                self._run(place, step, following)

    def _run(self, place: str, step: Command, following: File | Command | None) -> None:
        expected = with_keys(step.prints, self.read_key)
        status, printed = self.shells[step.host].run(with_keys(step.command, self.read_key), expected)
        says_status = isinstance(following, Command) and following.command == "echo $?"
        if status and not says_status:
            raise CommandError(f"{place}: {step.command}: ended with status {status}:\n{printed}")
        if expected and not step.command.endswith("&"):
            lines = "\n".join(line.rstrip() for line in printed.strip().splitlines())
            assert re.fullmatch(pattern(expected), lines, re.DOTALL), (
                f"{place}: {step.command}: printed\n{printed}"
            )


def two_hosts(lab: Lab) -> list[Host]:
    alice, bob = lab.host("alice"), lab.host("bob")
    lab.join(alice, bob, ["192.0.2.1/24"], ["192.0.2.2/24"])
    return [alice, bob]


def three_hosts(lab: Lab) -> list[Host]:
    """Carol is on bob's LAN, by his second interface, and knows of no other network."""
    alice, bob = two_hosts(lab)
    carol = lab.host("carol")
    lab.join(bob, carol, ["192.168.50.1/24"], ["192.168.50.2/24"])
    return [alice, bob, carol]


def may_run_pywg(user: int) -> bool:
    """Whether this user reaches our interpreter, which may be in somebody's closed home directory."""
    try:
        return not subprocess.run(
            [sys.executable, "-c", ""], user=user, capture_output=True, check=False
        ).returncode
    except OSError:
        return False


def ordinary_user(lab: Lab) -> list[Host]:
    """A host where everybody may open /dev/net/tun, as distributions have it."""
    host = lab.host("user")
    make = "mknod /run/tun c 10 200 && chmod 666 /run/tun && mount --bind /run/tun /dev/net/tun"
    host.run("sh", "-c", make)
    return [host]


STAGES: dict[str, Callable[[Lab], list[Host]]] = {
    "two-hosts": two_hosts,
    "tunnel": two_hosts,
    "three-hosts": three_hosts,
    "ordinary-user": ordinary_user,
}

CONFIGURATIONS = {
    "alice": """\
[Interface]
PrivateKey = ALICE-PRIVATE-KEY
Address = 10.0.0.1/24

[Peer]
PublicKey = BOB-PUBLIC-KEY
Endpoint = 192.0.2.2:51820
AllowedIPs = 10.0.0.2/32
""",
    "bob": """\
[Interface]
PrivateKey = BOB-PRIVATE-KEY
Address = 10.0.0.2/24
ListenPort = 51820

[Peer]
PublicKey = ALICE-PUBLIC-KEY
AllowedIPs = 10.0.0.1/32
""",
}


def make_tunnel(stage: Stage) -> None:
    """Keys and files as the tutorial makes them, and both ends up."""
    for shell in stage.shells.values():
        assert shell.run("umask 077; pywg genkey | tee privatekey | pywg pubkey > publickey")[0] == 0
    for host, text in CONFIGURATIONS.items():
        (stage.shells[host].directory / "wg0.conf").write_text(with_keys(text, stage.read_key))
    for shell in stage.shells.values():
        status, printed = shell.run("chmod 600 wg0.conf && pywg up ./wg0.conf")
        assert status == 0, printed


PLAYED = [page for page in pages() if page.stage]


@pytest.fixture
def stage(lab: Lab, tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    name = request.param
    made = Stage(tmp_path)
    user = NOBODY if name == "ordinary-user" and may_run_pywg(NOBODY) else 0
    try:
        for host in STAGES[name](lab):
            made.shells[host.name] = Shell(host, tmp_path / host.name, user)
        if name == "tunnel":
            make_tunnel(made)
        yield made
    finally:
        for shell in made.shells.values():
            shell.__exit__()


@pytest.mark.root
@pytest.mark.parametrize(
    ("page", "stage"),
    [pytest.param(page, page.stage, id=page.name) for page in PLAYED],
    indirect=["stage"],
)
def test_the_commands_of_a_page_do_what_it_says(page: Page, stage: Stage):
    words = {word for step in page.steps() if isinstance(step, Command) for word in step.command.split()}
    for program in sorted(words & PROGRAMS):
        if shutil.which(program, path=PATH) is None:
            missing(f"{page.name} needs {program}; apt-get install its package")
    stage.play(page)
