"""Medians, spreads and paired ratios of a few samples."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """The middle and the ends of some samples."""

    median: float
    low: float
    high: float
    count: int


def summarize(values: Iterable[float]) -> Summary | None:
    """None when there is no sample."""
    known = sorted(values)
    return Summary(statistics.median(known), known[0], known[-1], len(known)) if known else None


def paired_ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Summary | None:
    """Of ours over theirs, round by round; rounds that one of them lacks do not count."""
    return summarize(
        ours[turn] / theirs[turn] for turn in sorted(ours.keys() & theirs.keys()) if theirs[turn]
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that a share (0 to 1) of all values do not exceed. Raises ValueError if empty."""
    if not values:
        raise ValueError("no values, so no quantile")
    known = sorted(values)
    return known[max(0, -(-round(share * len(known) * 1e6) // 1_000_000) - 1)]
