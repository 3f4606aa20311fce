"""The man pages, built and rendered as a terminal of 80 columns shows them."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[pathlib.Path]:
    """`make docs` installs what this needs."""
    pytest.importorskip("sphinx")
    if shutil.which("man") is None:
        pytest.skip("there is no man; apt-get install man-db")
    folder = tmp_path_factory.mktemp("man")
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "man", ROOT / "docs", folder / "pages"],
        check=True,
        capture_output=True,
    )
    return sorted(path for path in (folder / "pages").iterdir() if path.is_file())


def test_every_page_is_rendered_in_80_columns_and_no_word_is_cut(built: list[pathlib.Path]) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    for page in built:
        done = subprocess.run(
            ["man", "--warnings", "-l", page], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stderr == "", page.name
        lines = done.stdout.splitlines()
        assert len(lines) > 20, page.name
        assert [line for line in lines if len(line) > 80 or line.endswith("\N{HYPHEN}")] == [], page.name
