"""The names of metrics: what the reference, the dashboard and the alert rules use is what exists."""

from __future__ import annotations

import json
import re

import pytest

from pywg.observe import metrics
from pywg.observe.counted import from_statistics
from pywg.observe.findings import settle
from tests.documents import ROOT

NAME = re.compile(r"\b(?:wireguard|pywg)_[a-z_0-9]+\b")
SUFFIXES = re.compile(r"_(?:bucket|sum|count|total)$")


def families() -> dict[str, str]:
    """The name of each metric, without `_total`, and its help."""
    return {family.name: family.documentation for family in vars(metrics._Families()).values()}


def used(text: str) -> set[str]:
    names = {SUFFIXES.sub("", name) for name in NAME.findall(text)}
    return names - {"pywg_"}


@pytest.mark.parametrize("file", ["metrics/pywg-dashboard.json", "metrics/pywg-alerts.yml"])
def test_dashboard_and_alerts_use_metrics_that_exist(file: str) -> None:
    names = used((ROOT / "docs" / file).read_text())
    assert names
    assert names <= set(families())


def test_the_reference_lists_every_metric_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "pywg-metrics.md").read_text()
    rows = re.findall(r"^(`(?:pywg|wireguard)_[^\n]*`)\n: ", page, re.MULTILINE)
    assert used("\n".join(rows)) == set(families())


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    dashboard = json.loads((ROOT / "docs/metrics/pywg-dashboard.json").read_text())
    assert dashboard["title"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize(
    ("counts", "unit", "limits", "totals"),
    [
        ([1, 2, 3], 1, ["0", "1", "+Inf"], [1, 3, 6]),
        ([1, 2, 3, 4], 1e-6, ["1e-06", "2e-06", "4e-06", "+Inf"], [1, 3, 6, 10]),
    ],
)
def test_histograms_are_cumulative(
    counts: list[int], unit: float, limits: list[str], totals: list[float]
) -> None:
    buckets = metrics._buckets(counts, unit)
    assert [limit for limit, _ in buckets] == limits
    assert [total for _, total in buckets] == totals


def test_what_counts_alone_tell_is_a_metric_and_causes_hide_consequences() -> None:
    handshakes = {"initiations_sent": 3, "initiations_received": 0, "completed": 0, "gave_up": 0}
    peer = {
        "public_key": "KEY",
        "name": None,
        "waiting_since": 9.0,
        "last_handshake": None,
        "handshakes": handshakes,
    }
    peers = [peer | {"handshakes": handshakes | {"refused": {}}}]
    said = {"is_up": True, "under_load": False, "peers": peers}
    assert [f.code for f in settle(from_statistics(said))] == ["handshake-unanswered"]
    said["peers"] = [peer | {"handshakes": handshakes | {"refused": {"bad-tag": 2}}}]
    assert [f.code for f in settle(from_statistics(said))] == ["preshared-key-differs"]
    assert [f.code for f in settle(from_statistics(said | {"is_up": False}))] == ["interface-down"]
    said["peers"] = [peers[0] | {"waiting_since": None}]
    assert [f.code for f in settle(from_statistics(said))] == []
