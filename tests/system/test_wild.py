"""Files from the wild on a daemon: `wg-quick strip` and `wg setconf` beside our reading of the same file."""

from __future__ import annotations

import pathlib
import shutil
import sys
from collections.abc import Iterator

import pytest

from pywg.config.model import strip
from pywg.config.write import write
from tests.system.commands import INTERFACE, Shell, state
from tests.system.conftest import missing
from tests.system.net import Lab, eventually
from tests.system.programs import PROGRAMS
from tests.unit.config.test_wild import WILD, files, read

pytestmark = pytest.mark.usefixtures("namespaces")

PYWG = pathlib.Path(sys.executable).with_name("pywg")
NO_WAITING = {"WG_ENDPOINT_RESOLUTION_RETRIES": "0"}


@pytest.fixture(scope="module")
def shell(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A host with one daemon, and the files in /run/wild."""
    if shutil.which("wg-quick") is None:
        missing("wg-quick is not installed: apt install wireguard-tools")
    program = PROGRAMS["pywgd"]
    if sentence := program.missing():
        missing(sentence)
    with Lab(tmp_path_factory.mktemp("wild")) as lab:
        host = lab.host("host")
        program.bring_up(host, INTERFACE)
        host.run("ip", "link", "set", "lo", "up")
        host.run("cp", "-r", str(WILD), "/run/wild")
        host.run("chmod", "-R", "go-rwx", "/run/wild")
        made = Shell(host)
        lab.closers.append(made.close)
        yield made


def apply(shell: Shell, program: str, *arguments: str) -> tuple[bool, list[str], str]:
    """Strip with one of the two, for `wg setconf`: whether both were content, the state, and the text."""
    assert shell.run("wg", "setconf", INTERFACE, "/dev/null").succeeded
    stripped = shell.run(program, "strip", *arguments)
    if not stripped.succeeded:
        return False, [], stripped.output
    done = shell.run("wg", "setconf", INTERFACE, "/dev/stdin", input=stripped.output, **NO_WAITING)
    return done.succeeded, state(shell), stripped.output


@pytest.mark.parametrize("path", files("taken"))
def test_we_and_wg_quick_strip_to_the_same_text_and_the_same_state(shell: Shell, path: pathlib.Path) -> None:
    file = f"/run/wild/taken/{path.name}"
    theirs = apply(shell, "wg-quick", file)
    assert theirs[0]
    assert apply(shell, "pywg", file) == theirs
    # Kept lines say nothing about what we read in them: so once more from our model.
    assert shell.run("wg", "setconf", INTERFACE, "/dev/null").succeeded
    text = write(strip(read(path)))
    assert shell.run("pywg", "setconf", INTERFACE, "/dev/stdin", input=text, **NO_WAITING).succeeded
    assert state(shell) == theirs[1]


@pytest.mark.parametrize("path", files("refused"))
def test_what_wg_or_wg_quick_refuses_we_refuse(shell: Shell, path: pathlib.Path) -> None:
    file = f"/run/wild/refused/{path.name}"
    assert not apply(shell, "wg-quick", file)[0]
    done = shell.run("pywg", "strip", file)
    assert (done.status, done.output) == (1, "")


@pytest.mark.parametrize("path", files("warned"))
def test_what_we_warn_of_is_stripped_to_what_wg_takes(shell: Shell, path: pathlib.Path) -> None:
    file = f"/run/wild/warned/{path.name}"
    assert not apply(shell, "wg-quick", file)[0]
    taken, has, _ = apply(shell, "pywg", file)
    assert taken
    assert len(has) == 2


# --- New files. -------------------------------------------------------------------------------------------


def test_new_files_bring_up_a_pair_whichever_program_reads_them(lab: Lab) -> None:
    alice, bob = lab.host("alice"), lab.host("bob")
    lab.join(alice, bob, ["192.0.2.1/24"], ["192.0.2.2/24"])
    networks = ["--network", "10.9.0.0/24", "--network6", "fd09::/64"]
    directory = lab.directory / "keys"
    alice.run(PYWG, "new", "alice=192.0.2.1:51820", "bob", *networks, "--psk", "-o", directory)
    assert "PresharedKey" in alice.run("wg-quick", "strip", directory / "alice.conf")
    for host in (alice, bob):
        host.run(PYWG, "up", directory / f"{host.name}.conf")
    for address in ("10.9.0.1", "fd09::1"):
        ping = ["ping", "-c1", "-W2", address]
        eventually(f"an answer of {address}", lambda: "1 received" in bob.run(*ping, check=False))  # noqa: B023
    assert "1 received" in alice.run("ping", "-c1", "-W5", "fd09::2")
    assert '"name": "bob"' in alice.run(PYWG, "show", "alice", "--json")
    for host in (alice, bob):
        host.run(PYWG, "down", directory / f"{host.name}.conf")
