"""Options of the test suite, and the table of interoperability cases at the end of a run.

A test marked `@pytest.mark.interop("name of the case")` is one case for the program in its parameter
`program`.
"""

from __future__ import annotations

import collections
import pathlib
import signal
from collections.abc import Generator

import pytest

TABLE: pytest.StashKey[collections.Counter[tuple[str, str, str]]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pywg")
    group.addoption(
        "--interop-table", metavar="FILE", help="also write the table of interoperability cases to FILE"
    )
    group.addoption(
        "--ours",
        default="pywgd",
        metavar="PROGRAM",
        help="the program that stands in our place in the interoperability cases (default: pywgd)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "interop(case): a case of the interoperability table")
    config.addinivalue_line("markers", "root: needs namespaces of its own, so root or a user namespace")
    config.addinivalue_line("markers", "background(body): the body runs in a thread beside other tests")
    config.addinivalue_line("markers", "first: begins what takes long, before all other tests")
    config.addinivalue_line("markers", "last: waits for what was begun, after all other tests")
    config.stash[TABLE] = collections.Counter()
    # Whoever starts the tests in the background may have had these ignored, which every program inherits.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {"first": 0, "last": 2}
    items.sort(
        key=lambda item: min(
            (places[mark.name] for mark in item.iter_markers() if mark.name in places), default=1
        )
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # What a fixture's teardown wants to know: whether the test went well.
    setattr(item, f"report_{report.when}", report)
    marker = item.get_closest_marker("interop")
    if marker is not None and (report.when == "call" or not report.passed):
        callspec = getattr(item, "callspec", None)
        program = str(callspec.params["program"]) if callspec else "-"
        item.config.stash[TABLE][marker.args[0], program, report.outcome] += 1
    return report


def interop_table(counts: collections.Counter[tuple[str, str, str]], ours: str) -> list[str]:
    """The lines of the table: a row per case, a column per program, `passed/run` in each cell."""
    cases = list(dict.fromkeys(case for case, _, _ in counts))
    programs = list(dict.fromkeys(program for _, program, _ in counts))

    def cell(case: str, program: str) -> str:
        passed, failed, skipped = (counts[case, program, kind] for kind in ("passed", "failed", "skipped"))
        run = f"{passed}/{passed + failed}" if passed + failed else ""
        return " ".join(part for part in (run, f"{skipped} skipped" if skipped else "") if part)

    def total(program: str) -> str:
        passed = sum(counts[case, program, "passed"] for case in cases)
        return f"{passed}/{passed + sum(counts[case, program, 'failed'] for case in cases)}"

    rows = [[f"{ours} with", *programs]]
    rows += [[case, *(cell(case, program) for program in programs)] for case in cases]
    rows.append(["all", *map(total, programs)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash[TABLE]
    if not counts:
        return
    lines = interop_table(counts, config.getoption("--ours"))
    terminalreporter.section("interoperability: passed/run")
    for line in lines:
        terminalreporter.line(line)
    if path := config.getoption("--interop-table"):
        pathlib.Path(path).write_text("\n".join(lines) + "\n")
