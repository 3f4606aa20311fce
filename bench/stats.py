"""Medians, spreads and paired ratios of a few samples, and how sure a median of many is."""

from __future__ import annotations

import dataclasses
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence

SEED = 20
RESAMPLES = 4000


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """The middle and the ends of some samples."""

    median: float
    low: float
    high: float
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """The median of some samples, and where to expect that of all which might be taken."""

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


def bootstrap_median(
    groups: Sequence[Sequence[float]], share: float = 0.95, resamples: int = RESAMPLES
) -> Estimate | None:
    """The median of all values and its percentile bootstrap interval; None when there is no value.

    groups: values that have something in common, such as one start of the programs; groups are drawn anew and
    then values within them, so what differs between starts makes the interval wider. share: of the resamples'
    medians that the interval holds. The same values have the same interval every time.
    """
    known = [group for group in groups if group]
    values = [value for group in known for value in group]
    if not values:
        return None
    chance = random.Random(SEED)
    medians = sorted(
        statistics.median(
            [value for group in _drawn(chance, known) for value in chance.choices(group, k=len(group))]
        )
        for _ in range(resamples)
    )
    tail = (1 - share) / 2
    return Estimate(
        statistics.median(values), quantile(medians, tail), quantile(medians, 1 - tail), len(values)
    )


def _drawn(chance: random.Random, groups: list[Sequence[float]]) -> list[Sequence[float]]:
    return chance.choices(groups, k=len(groups))
