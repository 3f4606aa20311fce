"""release/pins.txt has every requirement, in a version that pyproject.toml allows, with hashes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement

from tests.documents import ROOT

PINS = (ROOT / "release" / "pins.txt").read_text(encoding="utf-8")


def requirements() -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for lines in (project["dependencies"], *project["optional-dependencies"].values()):
        yield from map(Requirement, lines)


def pinned() -> dict[str, tuple[str, list[str]]]:
    """Version and hashes by name."""
    found = {}
    for entry in re.split(r"(?m)^(?=[a-z])", PINS):
        if match := re.match(r"([a-z0-9._-]+)==(\S+)", entry):
            found[match[1]] = match[2], re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)
    return found


@pytest.mark.parametrize("requirement", list(requirements()), ids=str)
def test_every_requirement_is_pinned_to_a_version_that_it_allows(requirement: Requirement) -> None:
    version, _ = pinned()[requirement.name.lower()]
    assert requirement.specifier.contains(version)


def test_every_pin_has_hashes() -> None:
    assert all(hashes for _, hashes in pinned().values())
    assert len(pinned()) == len(re.findall(r"(?m)^[a-z][a-z0-9._-]*==", PINS))
