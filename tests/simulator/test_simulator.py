"""What continuous integration simulates, and that a run can be repeated from its number."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pywg.errors import DropReason
from tests.simulator.__main__ import main
from tests.simulator.flood import MANY_SOURCES, NEW, OLD, ONE_SOURCE, FloodedSimulation
from tests.simulator.invariants import ASK, DAY, MARK, PacketBook, Violation
from tests.simulator.simulation import HOUR, MINUTE, YEAR, Plan, Simulation
from tests.spec.world import udp_packet


def played(plan: Plan, seed: int) -> Simulation:
    """A whole run; a violation tells how to repeat it."""
    simulation = Simulation(plan, seed)
    try:
        simulation.play()
    except Exception as error:
        error.add_note(f"after {simulation.elapsed():.3f} s; {plan}, seed {seed}")
        raise
    return simulation


@pytest.mark.timeout(900)
def test_a_pair_holds_for_a_year():
    simulation = played(Plan.of(1, YEAR, calm=4), seed=1)
    count = simulation.count
    for trouble in (
        "sleeps",
        "crashes",
        "moves",
        "cuts",
        "clock jumps",
        "partitions",
        "hub crashes",
        "herds",
    ):
        assert count[trouble] > 20, trouble
    assert count["packets delivered"] > 10_000
    assert count["sessions"] > 5_000
    assert count["recoveries"] > 500


@pytest.mark.timeout(900)
def test_a_hub_and_a_thousand_peers_hold_for_an_hour():
    simulation = played(Plan.of(1000, HOUR), seed=1)
    count = simulation.count
    assert count["sessions"] > 5_000
    assert count["packets delivered"] > 5_000
    assert count["recoveries"] > 500
    assert count["cookie replies"] > 100


@pytest.mark.parametrize("flood", [ONE_SOURCE, MANY_SOURCES], ids=["one source", "many sources"])
def test_a_flooded_hub_loses_no_packet_of_its_sessions_and_new_ones_begin_by_cookie(flood):
    simulation = FloodedSimulation(flood, seed=1)
    simulation.play()
    assert len(simulation.connected) == NEW
    assert simulation.hub.drops[DropReason.UNDER_LOAD] > 1000
    by_cookie = [machine for machine in simulation.machines[1 + OLD :] if machine.link.cookies]
    assert len(by_cookie) >= NEW / 2
    assert simulation.count["packets delivered"] > 800
    assert simulation.count["sessions"] >= 2 * (2 * OLD + NEW), "those that there were are renewed"


@pytest.mark.parametrize("seed", [1, 2])
def test_two_runs_of_one_seed_are_the_same_byte_for_byte(seed):
    plan = Plan(peers=5, seconds=6 * HOUR, talk=10 * MINUTE, crash=HOUR, hub=HOUR)
    first, second = played(plan, seed), played(plan, seed)
    assert first.count == second.count
    assert first.trace() == second.trace()
    assert first.trace() != played(plan, seed + 10).trace()


def test_a_run_is_the_same_in_another_process_with_other_hashes():
    def trace(hash_seed: str) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "tests.simulator", "--peers", "3", "--hours", "5", "--seed", "7"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        return run.stdout.splitlines()[-1]

    assert trace("1") == trace("2")


def test_a_run_prints_its_seed_and_a_failing_one_what_repeats_it(capsys, monkeypatch):
    assert main(["--peers", "1", "--hours", "0.5", "--seed", "3"]) == 0
    command = "python -m tests.simulator --peers 1 --hours 0.5 --calm 1.0 --seed 3"
    assert capsys.readouterr().out.startswith(command + "\n")

    def fail(self: Simulation) -> None:
        raise Violation("nothing holds")

    monkeypatch.setattr(Simulation, "play", fail)
    assert main(["--peers", "1", "--hours", "0.5", "--seed", "3"]) == 1
    told = capsys.readouterr().err
    assert "nothing holds" in told
    assert told.endswith(f"{command}\n")


def test_a_run_without_a_seed_draws_one(capsys):
    assert main(["--hours", "0.1"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert main(["--hours", "0.1"]) == 0
    assert capsys.readouterr().out.splitlines()[0] != first


def a_packet(number: int) -> bytes:
    return udp_packet("10.0.0.1", "10.0.0.2", MARK.pack(ASK, 1, 2, number))


def test_the_book_of_packets_knows_what_nobody_sent_and_what_comes_a_day_late():
    book = PacketBook()
    for packet in (a_packet(1), udp_packet("10.0.0.1", "10.0.0.2", b"short")):
        with pytest.raises(Violation, match=r"nobody sent|never sent"):
            book.arrived(2, packet)
    late = book.send(a_packet, (2,), 0.0, forged=False)
    book.send(a_packet, (2,), DAY, forged=False)
    assert len(book) == 1
    with pytest.raises(Violation, match="a day late"):
        book.arrived(2, late)
