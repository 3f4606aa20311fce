import random

import pytest

from bench.stats import Summary, bootstrap_median, paired_ratios, quantile, summarize


def test_a_summary_holds_the_median_and_both_ends():
    assert summarize([5, 1, 3, 100]) == Summary(4, 1, 100, 4)


def test_nothing_has_no_summary():
    assert summarize([]) is None


def test_ratios_pair_samples_of_the_same_round_only():
    ours, theirs = {1: 10.0, 2: 40.0, 4: 1000.0}, {1: 5.0, 2: 10.0, 3: 1.0}
    assert paired_ratios(ours, theirs) == Summary(3.0, 2.0, 4.0, 2)


def test_a_round_in_which_the_other_has_nothing_does_not_count():
    assert paired_ratios({1: 10.0, 2: 10.0}, {1: 0.0, 2: 5.0}) == Summary(2.0, 2.0, 2.0, 1)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1), (0.995, 100)])
def test_a_quantile_is_a_value_that_was_measured(share, value):
    assert quantile(range(100, 0, -1), share) == value


def test_nothing_has_no_quantile():
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_an_interval_holds_the_median_of_what_the_values_come_from():
    held = 0
    for seed in range(40):
        chance = random.Random(seed)
        estimate = bootstrap_median([[chance.gauss(1.0, 0.05) for _ in range(60)]], resamples=400)
        held += estimate.low <= 1.0 <= estimate.high
    assert 34 <= held <= 40


def test_more_values_make_the_interval_narrower():
    chance = random.Random(3)
    values = [chance.gauss(1.0, 0.05) for _ in range(1000)]
    few, many = bootstrap_median([values[:50]]), bootstrap_median([values])
    assert many.high - many.low < (few.high - few.low) / 2


def test_what_differs_between_groups_makes_the_interval_wider():
    chance = random.Random(4)
    groups = [[chance.gauss(middle, 0.001) for _ in range(50)] for middle in (0.9, 1.0, 1.1)]
    apart, together = (
        bootstrap_median(groups),
        bootstrap_median([[value for group in groups for value in group]]),
    )
    assert apart.low < 0.91
    assert apart.high > 1.09
    assert together.low > 0.95
    assert together.high < 1.05


def test_the_same_values_have_the_same_interval():
    groups = [[1.0, 1.2, 0.9, 1.1], [1.05, 0.95]]
    assert bootstrap_median(groups) == bootstrap_median(groups)
    assert bootstrap_median(groups).median == pytest.approx(1.025)
    assert bootstrap_median(groups).count == 6


def test_nothing_has_no_interval():
    assert bootstrap_median([[], []]) is None
