"""The tables in README.md name tests that exist, at least one in every row."""

import pathlib
import re

HERE = pathlib.Path(__file__).parent
ROWS = [
    line
    for line in (HERE / "README.md").read_text().splitlines()
    if line.startswith("| ") and not line.endswith("by |")
]


def test_every_row_names_a_test_that_exists() -> None:
    names = {
        name
        for file in (*HERE.glob("test_*.py"), HERE.parent / "unit/device/test_ratelimiter.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert len(ROWS) >= 59
    for row in ROWS:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert not set(named) - names, row
