"""A run: its steps, its file, being stopped and taken up, and its tables."""

import dataclasses
import json
import pathlib

import pytest

from bench import cli, record, tables
from bench.measurements import ALIASES, MEASUREMENTS, choose, prefixes
from bench.programs import PROGRAMS
from bench.record import Plan, Run, Sample

PLAN = Plan(("tcp1", "memory"), ("pywg", "wireguard-go", "bare"), 2, 1.0)
MACHINE = {
    "cpu": "a processor",
    "cpus": 2,
    "threads_per_core": 1,
    "flags": ["avx2"],
    "kernel": "6.1",
    "tcp_congestion": "cubic",
    "python": "3.11",
}


def make_run(samples=()):
    return Run(PLAN, dict(MACHINE), {"wireguard-go": "v1"}, "0123", 0.0, list(samples), "python -m bench")


def make_sample(measurement, turn, program, **values):
    return Sample(measurement, program, turn, values)


def test_programs_take_turns_within_a_round():
    assert make_run().steps()[:4] == [
        ("tcp1", 1, "pywg"),
        ("tcp1", 1, "wireguard-go"),
        ("tcp1", 1, "bare"),
        ("tcp1", 2, "pywg"),
    ]


def test_the_bare_path_has_no_memory_to_measure():
    assert ("memory", 1, "bare") not in make_run().steps()


def test_a_round_that_was_stopped_in_its_midst_is_taken_anew():
    whole = [make_sample("tcp1", 1, program, forward=1.0) for program in PLAN.programs]
    run = make_run([*whole, make_sample("tcp1", 2, "pywg", forward=1.0)])
    run.forget_broken_round()
    assert run.samples == whole
    assert run.missing()[0] == ("tcp1", 2, "pywg")


def test_a_round_in_which_one_failed_can_be_taken_anew():
    whole = [make_sample("tcp1", 1, program, forward=1.0) for program in PLAN.programs]
    run = make_run(
        [*whole, make_sample("tcp1", 2, "pywg", forward=1.0), Sample("tcp1", "bare", 2, {}, "it failed")]
    )
    run.forget_failed_rounds()
    assert run.samples == whole


def test_a_run_is_read_as_it_was_written(tmp_path):
    run = make_run([make_sample("tcp1", 1, "pywg", forward=1.5), Sample("tcp1", "bare", 1, {}, "it failed")])
    file = tmp_path / "folder" / "run.json"
    run.save(file)
    assert record.load(file) == run
    assert [path.name for path in file.parent.iterdir()] == ["run.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "plan": {}}'])
def test_a_file_that_is_no_run_is_refused_with_a_sentence(tmp_path, text):
    file = tmp_path / "run.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"run\.json is not a file that"):
        record.load(file)


def test_the_ratio_table_compares_with_wireguard_go_round_by_round():
    run = make_run(
        [
            make_sample("tcp1", 1, "pywg", forward=2.0),
            make_sample("tcp1", 1, "wireguard-go", forward=1.0),
            make_sample("tcp1", 2, "pywg", forward=3.0),
            make_sample("tcp1", 2, "wireguard-go", forward=1.0),
        ]
    )
    assert "| TCP, 1 stream | higher | **2.50** (2.00–3.00) | – |" in tables.ratios(run)


def test_a_far_path_is_compared_with_the_bare_one():
    run = make_run()
    run.plan = dataclasses.replace(PLAN, measurements=("far",))
    run.samples = [make_sample("far", 1, "pywg", forward=94.0), make_sample("far", 1, "bare", forward=100.0)]
    assert "TCP (over bare) | higher | **0.94** | – |" in tables.ratios(run)


def test_the_ratio_of_one_thing_in_two_units_is_told_once():
    run = make_run()
    run.plan = dataclasses.replace(PLAN, measurements=("udp64", "udp1372"))
    run.samples = [
        make_sample(name, 1, program, kpps=rate, gigabits=rate * 0.011, lost=50.0)
        for program, rate in (("pywg", 50.0), ("wireguard-go", 10.0))
        for name in run.plan.measurements
    ]
    assert tables.ratios(run).count("UDP, 64 bytes, delivered") == 1
    assert tables.ratios(run).count("UDP, 1372 bytes, delivered") == 1
    assert "| UDP, 1372 bytes, delivered, kpps | 50 |" in tables.medians(run)
    assert "| UDP, 1372 bytes, delivered, Gbit/s | 0.55 |" in tables.medians(run)


def test_faults_are_told_only_where_there_are_some():
    run = make_run()
    run.plan = dataclasses.replace(PLAN, measurements=("ping",))
    run.samples = [make_sample("ping", 1, "pywg", mean=50.0, lost=0.0)]
    assert "lost" not in tables.medians(run)
    run.samples.append(make_sample("ping", 2, "pywg", mean=50.0, lost=1.0))
    assert "lost" in tables.medians(run)


def test_the_page_names_failures_machine_and_versions():
    run = make_run([Sample("tcp1", "pywg", 1, {}, "MeasureError: no route\nmore")])
    page = tables.page(run, ["throughput"])
    assert "- tcp1, round 1, pywg: MeasureError: no route\n" in page
    assert "a processor, 2 CPUs" in page
    assert "wireguard-go: v1" in page
    assert "(throughput.png)" in page


def test_a_page_that_is_published_again_keeps_its_title(tmp_path):
    pytest.importorskip("matplotlib")
    run = make_run([make_sample("tcp1", 1, "pywg", gigabits=1.0)])
    for title in ("# Measured", "# Near and far"):
        cli.publish(run, tmp_path, "wireguard-go")
        page = tmp_path / "results.md"
        text = page.read_text()
        assert text.startswith(f"{title}\n")
        page.write_text(text.replace(title, "# Near and far"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00712, "0.00712"),
        (0.5, "0.5"),
        (5.034, "5.03"),
        (81.96, "82"),
        (1234.5, "1234"),
        (100.0, "100"),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(value, text):
    assert tables.number(value) == text


def test_measurements_are_chosen_by_name_group_and_alias_each_once():
    names = [measurement.name for measurement in choose(["latency", "cpu", "tcp1"])]
    assert names == ["tcp1", "tcp8", "ping", "pingpong"]


def test_an_unknown_word_chooses_nothing():
    with pytest.raises(LookupError, match="tcp9"):
        choose(["tcp1", "tcp9"])


def test_every_alias_stands_for_measurements_that_exist():
    assert {name for names in ALIASES.values() for name in names} <= MEASUREMENTS.keys()


def test_every_fixed_comparison_is_with_a_program_that_exists():
    besides = {figure.beside for m in MEASUREMENTS.values() for figure in m.figures if figure.beside}
    assert besides <= PROGRAMS.keys()


def test_the_allowed_ips_of_a_large_hub_are_different_ones():
    found = prefixes(5000)
    assert len(set(found)) == 5000
    assert found == prefixes(5000)


def test_a_saved_file_is_json_for_others_too(tmp_path):
    file = pathlib.Path(tmp_path, "run.json")
    make_run([make_sample("tcp1", 1, "pywg", forward=1.0)]).save(file)
    assert json.loads(file.read_text())["samples"][0]["values"] == {"forward": 1.0}
