"""Fixtures of the system tests: a lab of hosts that removes itself and shows its logs after a failure."""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.system.net import Lab

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
