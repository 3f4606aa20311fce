"""Our daemon with every other implementation of WireGuard, over real sockets and tunnel devices.

The columns of the table are the programs, the rows the names in the `interop` marks. Where another program
fails a case against itself too, it is played in a weaker form here; test_known_failures.py shows what fails.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.system import cases
from tests.system.background import Body, play
from tests.system.net import Lab
from tests.system.programs import OTHERS, Program, with_unconnected_sockets

each_program = pytest.mark.parametrize("program", OTHERS)
each_side = pytest.mark.parametrize("side", ["ours", "theirs"])
pytestmark = pytest.mark.usefixtures("background")


def order(initiator: str, ours: Program, theirs: Program) -> tuple[Program, Program]:
    """The initiator and its responder; in other cases the one to which something happens, and the other."""
    return (ours, theirs) if initiator == "ours" else (theirs, ours)


# Pairwise: each value of each column meets each value of every other column. Both families are always inside.
@pytest.mark.interop("pings of 0 to 1400 bytes")
@pytest.mark.parametrize(
    ("initiator", "psk", "outer"),
    [("ours", True, 4), ("ours", False, 6), ("theirs", True, 6), ("theirs", False, 4)],
)
@each_program
def test_pings_of_every_size_come_back(
    lab: Lab, ours: Program, theirs: Program, program: str, *, initiator: str, psk: bool, outer: int
) -> None:
    cases.pings_of_every_size(lab, *order(initiator, ours, theirs), psk=psk, outer=outer)


@pytest.mark.interop("different PSKs: nothing gets through")
@each_program
def test_different_psks_let_nothing_through(lab: Lab, ours: Program, theirs: Program, program: str) -> None:
    cases.a_wrong_psk_lets_nothing_through(lab, ours, theirs)


@pytest.mark.interop("100 MB of TCP each way, same hash")
@each_program
def test_a_hundred_megabytes_of_tcp_arrive_unchanged_each_way(
    lab: Lab, ours: Program, theirs: Program, program: str
) -> None:
    cases.tcp_each_way(lab, ours, theirs, megabytes=100)


@pytest.mark.interop("cookie under load: we get it")
@each_program
def test_a_cookie_from_a_loaded_responder_is_answered(
    lab: Lab, ours: Program, theirs: Program, program: str
) -> None:
    cases.the_initiator_answers_a_cookie(lab, ours, theirs)


@pytest.mark.interop("cookie under load: we give it")
@each_program
def test_under_load_a_cookie_is_given_and_honoured(
    lab: Lab, ours: Program, theirs: Program, program: str
) -> None:
    cases.the_initiator_answers_a_cookie(lab, theirs, ours)


@pytest.mark.interop("restarted, and speaks first")
@each_side
@each_program
def test_the_restarted_side_initiates_anew(
    lab: Lab, ours: Program, theirs: Program, program: str, side: str
) -> None:
    cases.the_restarted_side_comes_back(lab, *order(side, ours, theirs))


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("program", ["wireguard-go"])
def test_our_handshake_messages_are_marked_for_low_delay(
    lab: Lab, ours: Program, theirs: Program, program: str, outer: int
) -> None:
    cases.handshakes_carry_tos(lab, ours, theirs, outer=outer, tos=0x88)


# --- Cases that mostly wait: their bodies run side by side --------------------------------------------------


def rekeys(ours: Program, theirs: Program, initiator: str) -> Body:
    return play(cases.no_packet_is_lost_over_a_rekey, *order(initiator, ours, theirs))


@pytest.mark.background(body=rekeys)
@pytest.mark.interop("rekey after 120 s, no packet lost")
@pytest.mark.parametrize("initiator", ["ours", "theirs"])
@each_program
def test_no_packet_of_a_paced_stream_is_lost_over_a_rekey(finish: Callable[[], None], initiator: str) -> None:
    finish()


def moves(ours: Program, theirs: Program, side: str) -> Body:
    # boringtun's sockets are each connected from the address that goes away: test_known_failures.py.
    theirs = with_unconnected_sockets(theirs)
    # gotatun may shut down when its port is set while packets arrive: test_known_failures.py.
    port = (side, theirs.name) != ("theirs", "gotatun")
    return play(cases.the_endpoint_moves, *order(side, ours, theirs), port=port)


@pytest.mark.background(body=moves)
@pytest.mark.interop("endpoint moves during traffic")
@each_side
@each_program
def test_traffic_follows_an_endpoint_that_moves(finish: Callable[[], None], side: str) -> None:
    finish()


def changes_key(ours: Program, theirs: Program) -> Body:
    return play(cases.the_key_changes, ours, theirs)


@pytest.mark.background(body=changes_key)
@pytest.mark.interop("our key changes during traffic")
@each_program
def test_traffic_goes_on_after_our_key_has_changed(finish: Callable[[], None]) -> None:
    finish()


def changes_their_key(ours: Program, theirs: Program) -> Body:
    return play(cases.the_key_changes, theirs, ours)


# gotatun shuts down when its key is set while it runs: test_known_failures.py.
@pytest.mark.background(body=changes_their_key)
@pytest.mark.interop("their key changes during traffic")
@pytest.mark.parametrize("program", [name for name in OTHERS if name != "gotatun"])
def test_traffic_goes_on_after_their_key_has_changed(finish: Callable[[], None]) -> None:
    finish()


def is_behind_nat(ours: Program, theirs: Program, side: str) -> Body:
    return play(cases.keepalive_holds_a_nat_open, *order(side, ours, theirs))


@pytest.mark.background(body=is_behind_nat)
@pytest.mark.interop("keepalive through a NAT of 2 s")
@each_side
@each_program
def test_a_persistent_keepalive_holds_a_nat_open(finish: Callable[[], None], side: str) -> None:
    finish()


def is_forgotten_by_nat(ours: Program, theirs: Program) -> Body:
    return play(cases.keepalive_holds_a_nat_open, ours, theirs, keepalive=False)


@pytest.mark.background(body=is_forgotten_by_nat)
@pytest.mark.parametrize("program", ["wireguard-go"])
def test_without_a_keepalive_the_nat_forgets(finish: Callable[[], None]) -> None:
    """The counterpart: the router of the cases above really forgets."""
    finish()


def notices_restart(ours: Program, theirs: Program, side: str) -> Body:
    restarted, other = order(side, ours, theirs)
    return play(cases.a_restart_of_the_other_side_is_noticed, other, restarted)


@pytest.mark.background(body=notices_restart)
@pytest.mark.interop("restarted, other side notices")
@each_side
@each_program
def test_a_restart_is_noticed_by_the_other_side(finish: Callable[[], None], side: str) -> None:
    finish()
