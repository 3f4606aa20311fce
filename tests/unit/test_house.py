"""Which package imports which: those before it in `docs/architecture.md`, and the daemon nothing of tools."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYWG = ROOT / "pywg"
MODULES = sorted([*PYWG.rglob("*.py"), PYWG / "datapath" / "compiled.pyx"])


def part_of(path: Path) -> str:
    """The package, or the single module."""
    return path.relative_to(PYWG).parts[0].removesuffix(".py")


def house() -> list[str]:
    """The packages and single modules in the order of the table."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `pywg/([a-z]+)(?:/|\.py)` \|", text, re.MULTILINE)


def imported(path: Path) -> Iterator[str]:
    """The parts of pywg that a module imports, wherever in it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".pyx":
        yield from re.findall(r"^\s*(?:from|import) pywg\.([a-z]+)", text, re.MULTILINE)
        return
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.ImportFrom(module="pywg", names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module)) if module.startswith("pywg."):
                yield module.split(".")[1]
            case ast.Import(names=names):
                yield from (name.name.split(".")[1] for name in names if name.name.startswith("pywg."))


def test_the_table_has_all_there_is():
    assert set(house()) == {path.relative_to(PYWG).parts[0].removesuffix(".py") for path in MODULES} - {
        "__init__"
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PYWG)))
def test_a_module_imports_only_from_packages_before_its_own(path):
    own, order = part_of(path), house()
    before = order[: order.index(own) + 1] if own in order else []
    assert set(imported(path)) <= {*before, "__version__"}


def test_the_daemon_imports_nothing_that_only_the_tool_needs():
    program = (
        "import sys\n"
        "import pywg.cli.pywgd, pywg.cli.daemon\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'click', 'rich', 'pyroute2'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
