"""Fixtures of the system tests: a lab of hosts that removes itself and shows its logs after a failure."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from tests.system import cases
from tests.system.background import Background
from tests.system.faults import Faults, compile_library
from tests.system.net import Lab
from tests.system.programs import PROGRAMS, Program
from tests.system.tunnel import Tunnel

CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


def missing(sentence: str) -> NoReturn:
    """End the test because something is not installed: a skip, or a failure where all has to be there."""
    if CI:
        pytest.fail(f"CI has to have it: {sentence}", pytrace=False)
    pytest.skip(sentence)


@pytest.fixture(scope="session")
def namespaces() -> None:
    """What every host needs: leave to make namespaces and to open /dev/net/tun."""
    if os.geteuid():
        missing("hosts are network namespaces: run as root, or by `make test`, which makes a user namespace")
    done = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True)
    if done.returncode:
        missing(f"no namespaces here: {done.stderr.strip()}")
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        missing(f"no tunnel devices here: /dev/net/tun: {error.strerror}")


@pytest.fixture
def lab(namespaces: None, tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """An empty lab; after a failure the logs of what ran in it are part of the report."""
    with Lab(tmp_path) as made:
        yield made
        report = getattr(request.node, "report_call", None)
        if report is not None and report.failed:
            print(made.evidence())


def installed(name: str) -> Program:
    """The program of this name; ends the test when it is not here."""
    program = PROGRAMS[name]
    if reason := program.missing():
        missing(reason)
    return program


@pytest.fixture
def ours(request: pytest.FixtureRequest) -> Program:
    """The program under test."""
    return installed(request.config.getoption("--ours"))


@pytest.fixture
def theirs(program: str) -> Program:
    """The other program of an interoperability case, named by the test's parameter."""
    return installed(program)


@pytest.fixture(scope="session")
def background(
    namespaces: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Background]:
    """The threads of the selected tests that run in the background, started."""
    threads = Background(tmp_path_factory.mktemp("background"))
    ours = PROGRAMS[request.config.getoption("--ours")]
    marked = [(item, item.get_closest_marker("background")) for item in request.session.items]
    # The longest first; the others take turns meanwhile.
    for item, mark in sorted(marked, key=lambda pair: "rekey" not in pair[0].name):
        if mark is None:
            continue
        options = dict(getattr(item, "callspec").params)  # noqa: B009  only functions have one
        theirs = PROGRAMS[options.pop("program")]
        if not ours.missing() and not theirs.missing():
            threads.start(item, mark.kwargs["body"](ours, theirs, **options))
    try:
        yield threads
    finally:
        threads.close()


@pytest.fixture
def finish(
    background: Background, ours: Program, theirs: Program, request: pytest.FixtureRequest
) -> Callable[[], None]:
    """Wait for the thread with this test's body."""
    return lambda: background.finish(request.node)


@pytest.fixture(scope="session")
def fault_library(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The library that makes calls fail, compiled."""
    return compile_library(tmp_path_factory.mktemp("faults") / "faults.so")


@pytest.fixture
def faults(fault_library: pathlib.Path, tmp_path: pathlib.Path) -> Faults:
    """Makes calls of one program fail."""
    return Faults(fault_library, tmp_path)


@pytest.fixture
def faulty(lab: Lab, ours: Program, faults: Faults) -> Tunnel:
    """A tunnel that packets pass through, calls of whose left program can be made to fail."""
    return cases.connected(lab, faults.into(ours), installed("wireguard-go"))
