"""The registry of findings against its documents, and how causes hide their consequences."""

from __future__ import annotations

import re

import pytest

from pywg.observe.findings import KINDS, Finding, Severity, settle
from tests.documents import ROOT, Page

PAGE = Page(ROOT / "docs/reference/findings.md")


def codes(*found: Finding) -> list[str]:
    return [finding.code for finding in settle(found)]


def test_every_finding_is_described_in_order_with_its_severity_and_causes_and_no_other():
    described = re.findall(r"^## (\S+)\n\n\*(\w+)\*: ([^\n]*)\.\n\n(.*?)(?=^## |\Z)", PAGE.text, re.M | re.S)
    assert [code for code, *_ in described] == list(KINDS)
    for code, severity, summary, text in described:
        kind = KINDS[code]
        assert (severity, summary) == (kind.severity.value, kind.summary)
        causes = re.search(r"^Causes: (.*?)\.$", text, re.M | re.S)
        assert re.findall(r"`([\w-]+)`", causes[1] if causes else "") == list(kind.causes), code
        lasts = re.search(r"^Told after ([\d.]+) s\.$", text, re.M)
        assert float(lasts[1] if lasts else 0) == kind.lasts


def test_every_cause_is_a_finding():
    assert {cause for kind in KINDS.values() for cause in kind.causes} <= set(KINDS)


def test_no_finding_is_the_cause_of_its_causes():
    """Else both would hide each other, and nothing would be told."""

    def explained_by(code: str, seen: frozenset[str]) -> None:
        assert code not in seen, code
        for cause in KINDS[code].causes:
            explained_by(cause, seen | {code})

    for code in KINDS:
        explained_by(code, frozenset())


def test_a_cause_hides_its_consequence_of_the_same_peer():
    route, silence = Finding("no-route", "", peer="a"), Finding("handshake-unanswered", "", peer="a")
    assert codes(silence, route) == ["no-route"]


def test_a_cause_of_another_peer_hides_nothing():
    route, silence = Finding("no-route", "", peer="a"), Finding("handshake-unanswered", "", peer="b")
    assert codes(silence, route) == ["no-route", "handshake-unanswered"]


def test_a_cause_of_the_interface_hides_consequences_of_every_peer():
    down = Finding("interface-down", "")
    assert codes(Finding("handshake-unanswered", "", peer="b"), down) == ["interface-down"]


def test_a_hidden_finding_still_hides():
    found = [Finding(code, "", peer="a") for code in ("handshake-unanswered", "not-sent", "no-route")]
    assert codes(*found) == ["no-route"]


@pytest.mark.parametrize(("lasted", "told"), [(0.5, []), (60.0, ["handshake-unanswered"])])
def test_what_has_not_lasted_is_not_told(lasted: float, told: list[str]):
    assert codes(Finding("handshake-unanswered", "", peer="a", lasted=lasted)) == told


def test_the_worst_comes_first_and_then_the_likeliest():
    found = [
        Finding(code, "") for code in ("keepalive-off", "mtu-too-large", "under-load", "config-mistakes")
    ]
    assert codes(*found) == ["config-mistakes", "mtu-too-large", "under-load", "keepalive-off"]
    milder = Finding("mtu-too-large", "", severity=Severity.NOTE)
    assert codes(milder, Finding("under-load", "")) == ["under-load", "mtu-too-large"]
