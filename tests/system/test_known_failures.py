"""What other programs fail whoever is on the other side: shown with themselves, and with ours.

When one of these tests fails, that program is mended, and its case in test_interop.py can be played whole.
"""

from __future__ import annotations

import pathlib

import pytest

from tests.system import cases
from tests.system.conftest import installed
from tests.system.net import Lab
from tests.system.programs import Program

pytestmark = pytest.mark.usefixtures("namespaces")
against = pytest.mark.parametrize("against", ["itself", "ours"])


@against
def test_boringtun_does_not_follow_when_its_own_address_changes(
    tmp_path: pathlib.Path, ours: Program, against: str
) -> None:
    """Each of its sockets is connected to a peer from one address; --disable-connected-udp helps."""
    boringtun = installed("boringtun")
    with Lab(tmp_path) as lab, pytest.raises(AssertionError, match="the endpoint has the new address"):
        cases.the_endpoint_moves(lab, boringtun, boringtun if against == "itself" else ours)


@against
def test_gotatun_shuts_down_when_its_key_is_set_while_it_runs(
    tmp_path: pathlib.Path, ours: Program, against: str
) -> None:
    """It opens sockets and tunnel queue anew before the old ones are gone, and takes that for an error."""
    gotatun = installed("gotatun")
    with Lab(tmp_path) as lab, pytest.raises(AssertionError):
        cases.the_key_changes(lab, gotatun, gotatun if against == "itself" else ours)
    log = next(tmp_path.glob("left-00-*.log")).read_text()
    assert "Failed to bind UDP sockets" in log or "An error occured. Shutting down." in log
