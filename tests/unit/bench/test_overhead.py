"""What looking inside costs: ratios of blocks, what their interval shows, and the file of a run."""

import itertools
import re

import pytest

from bench import comparisons, instructions, overhead
from bench.cli import RefusedError
from bench.comparisons import COMPARISONS, OFF, ON, PHASES, Run, Sample
from bench.live import Slice
from bench.rig import MeasureError
from bench.stats import Estimate
from tests.documents import ROOT

MACHINE = {"cpu": "a processor", "cpus": 2, "threads_per_core": 1, "kernel": "6.1", "python": "3.11"}
GIB = 2**30


def make_slice(size=GIB, seconds=1.0, sender=10**9, receiver=10**9, aside=0):
    return Slice(seconds, size, 1, sender, receiver, aside)


def make_run(samples=()):
    names = list(COMPARISONS)
    return Run(names, 2, dict(MACHINE), "pywgd", "0123", 0.0, "python -m bench.overhead", list(samples))


def block_of(start, block, *variants):
    """Slices of half and of double speed make one block whose ratio is that of what arrived."""
    return [Sample("metrics", "tcp", start, block, name, one) for name, one in variants]


def ratios(run, name, figure=comparisons.rate):
    return comparisons.ratios(run, COMPARISONS[name], "tcp", figure)


def test_a_block_has_one_ratio_of_all_its_slices():
    on, off = make_slice(3 * GIB), make_slice(GIB)
    run = make_run(block_of(0, 0, (ON, on), (OFF, off), (OFF, on), (ON, on)))
    assert ratios(run, "metrics") == [[pytest.approx(6 / 4)]]


def test_ratios_are_kept_by_start():
    pair = ((ON, make_slice(2 * GIB)), (OFF, make_slice()))
    run = make_run(block_of(0, 0, *pair) + block_of(0, 1, *pair) + block_of(1, 0, *pair))
    assert ratios(run, "metrics") == [[2.0, 2.0], [2.0]]


def test_a_block_of_which_a_side_is_missing_has_no_ratio():
    assert ratios(make_run(block_of(0, 0, (ON, make_slice()))), "metrics") == []


def test_the_cost_is_the_mean_of_both_ends_and_has_who_looks_in_it():
    one = make_slice(2 * GIB, sender=4 * 10**9, receiver=2 * 10**9, aside=2 * 10**9)
    assert comparisons.cost(one) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("low", "high", "better", "said"),
    [
        (0.992, 1.05, "higher", "yes"),
        (0.985, 1.001, "higher", "not resolved"),
        (0.95, 0.985, "higher", "no"),
        (0.9, 1.009, "lower", "yes"),
        (0.999, 1.02, "lower", "not resolved"),
        (1.011, 1.02, "lower", "no"),
    ],
)
def test_only_what_the_whole_interval_shows_is_said(low, high, better, said):
    assert comparisons.verdict(Estimate((low + high) / 2, low, high, 100), better) == said


def test_of_a_few_blocks_nothing_is_said():
    assert comparisons.verdict(Estimate(1.0, 1.0, 1.0, comparisons.ENOUGH - 1), "higher") == "too few"


def test_what_is_done_less_often_costs_less():
    assert comparisons.diluted(Estimate(1.3, 0.85, 1.6, 7), 1 / 3) == Estimate(
        pytest.approx(1.1), pytest.approx(0.95), pytest.approx(1.2), 7
    )


def test_a_run_is_the_same_after_it_was_saved(tmp_path):
    run = make_run(block_of(1, 2, (ON, make_slice(aside=5)), (OFF, make_slice())))
    run.scrapes = 4
    run.save(tmp_path / "run.json")
    assert comparisons.load(tmp_path / "run.json") == run


def test_a_run_of_which_there_is_nothing_yet_can_be_saved(tmp_path):
    make_run().save(tmp_path / "run.json")
    assert comparisons.load(tmp_path / "run.json") == make_run()


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"format": 1}')
    with pytest.raises(
        ValueError, match=r"run\.json is not a file that this version of bench\.overhead wrote"
    ):
        comparisons.load(tmp_path / "run.json")


def test_the_page_has_a_row_for_what_was_measured_and_for_what_is_usual():
    pair = ((ON, make_slice(int(0.985 * GIB))), (OFF, make_slice()))
    run = make_run(itertools.chain.from_iterable(block_of(0, block, *pair) for block in range(12)))
    page = comparisons.page(run)
    second, usual = "metrics asked for every second, over none", "metrics asked for every 15 s"
    assert f"| {second} | TCP, throughput | higher | **0.9850** | 0.9850–0.9850 | 12 | – |" in page
    assert f"| {usual} | TCP, throughput | higher | **0.9990** | 0.9990–0.9990 | 12 | yes |" in page
    assert "UDP" not in page


def test_the_page_has_counted_instructions_only_where_there_are_some():
    run = make_run()
    assert "valgrind" not in comparisons.page(run)
    run.instructions = {
        "plain": {"1 packet": {"never": 1020.0, "ended": 1020.0}},
        "bare": {"1 packet": {"never": 1000.0, "ended": 1000.0}},
    }
    page = comparisons.page(run)
    assert "| probes built in, over a build without | 1 packet | 1000 | 1020 | **1.02000** | no |" in page
    assert "| capture off after one ran, over never | 1 packet | 1020 | 1020 | **1.00000** | yes |" in page


def test_a_sum_that_is_not_there_is_no_count():
    assert instructions.total_of("events: Ir\nsummary: 871103\n") == 871103
    with pytest.raises(MeasureError, match="valgrind counted nothing"):
        instructions.total_of("events: Ir\nsummary: 0\n")


def test_instructions_are_counted_of_builds_that_are_compared(monkeypatch):
    monkeypatch.setattr(instructions, "missing", lambda: None)
    names = {words: overhead.chosen(words) for words in ("probes", "captured", "metrics")}
    counted = {
        words: overhead.counted_of(wanted, overhead.variants_of(wanted)) for words, wanted in names.items()
    }
    assert counted == {"probes": ["plain", "bare"], "captured": ["plain"], "metrics": []}


def test_comparisons_are_chosen_by_name():
    assert [c.name for c in overhead.chosen("events,probes")] == ["probes", "events"]
    with pytest.raises(RefusedError, match="there is no comparison 'tea'; there are probes, "):
        overhead.chosen("tea")


def test_builds_that_no_comparison_needs_are_not_made():
    assert overhead.variants_of(overhead.chosen("metrics")) == ["plain"]
    assert overhead.variants_of(overhead.chosen("probes")) == ["plain", "bare"]


def test_every_comparison_has_slices_and_captures_come_last():
    assert {c.phase for c in COMPARISONS.values()} == {phase.name for phase in PHASES}
    assert PHASES[-1].name == "capture"


def test_every_option_is_described_and_no_other(capsys):
    with pytest.raises(SystemExit):
        overhead.parse(["--help"])
    has = re.findall(r"^  (--[a-z]+)", capsys.readouterr().out, re.MULTILINE)
    page = (ROOT / "docs/howto/measure.md").read_text().partition("## Measure what looking inside costs\n")[2]
    assert re.findall(r"^`(--[a-z]+)`\n: ", page.partition("\n## ")[0], re.MULTILINE) == has
