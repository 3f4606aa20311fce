"""A responder's session that was heard from is answered under, on both data paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from pywg.device.session import Session
from pywg.tun.base import TunOffload
from tests import twins

OURS, THEIRS = twins.OURS[4], "10.1.0.1"
PATHS = {"portable": "PortableDataPath", "compiled": "CompiledDataPath"}


@pytest.fixture(name="rig", params=PATHS)
def _rig(request: pytest.FixtureRequest) -> Iterator[twins.Rig]:
    module = pytest.importorskip(f"pywg.datapath.{request.param}", reason="build it with: pip install .")
    rig = twins.Rig(getattr(module, PATHS[request.param]), TunOffload())
    twins.set_up(rig)  # session 11 with peer 1, born at 0
    yield rig
    rig.close()


def responders(index: int, born: float) -> Session:
    return dataclasses.replace(twins.session(1, index, may_send=False), initiator=False, born=born)


def indices_sent_to(rig: twins.Rig) -> set[int]:
    """The receiver indices of what we send when a packet for the peer comes from the tunnel device."""
    rig.tun.deliver(twins.packet(OURS, THEIRS, b"answer", protocol=17))
    return {int.from_bytes(index, "little") for _, index in rig.settle(2.0).sent}


def test_a_session_that_was_not_heard_from_sends_nothing(rig: twins.Rig) -> None:
    rig.path.install(responders(50, born=1.0))
    assert indices_sent_to(rig) == {111}


def test_an_answer_goes_under_the_younger_session_before_anybody_activates_it(rig: twins.Rig) -> None:
    rig.path.install(responders(50, born=1.0))
    rig.arrive(0, [twins.data_message(50, 0, b"")])
    rig.settle(2.0)
    assert indices_sent_to(rig) == {150}


def test_an_older_session_does_not_take_the_place_of_a_younger_one(rig: twins.Rig) -> None:
    rig.path.install(responders(50, born=-1.0))
    rig.arrive(0, [twins.data_message(50, 0, b"")])
    rig.settle(2.0)
    assert indices_sent_to(rig) == {111}


def test_a_session_that_was_retired_after_it_was_heard_from_is_forgotten(rig: twins.Rig) -> None:
    rig.path.install(responders(50, born=1.0))
    rig.arrive(0, [twins.data_message(50, 0, b"")])
    rig.settle(2.0)
    rig.path.retire(50)
    assert 150 not in indices_sent_to(rig)
