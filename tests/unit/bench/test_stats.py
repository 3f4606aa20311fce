import pytest

from bench.stats import Summary, paired_ratios, quantile, summarize


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
