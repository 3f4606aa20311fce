"""Steps are shown, done, and undone in reverse when one fails or a signal comes."""

from __future__ import annotations

import signal

import pytest

from pywg.errors import PywgError
from pywg.host.steps import Interrupted, Steps, Undo


def test_steps_are_shown_before_they_are_done_and_stay_when_all_succeed():
    lines = []
    with Steps(lines.append) as steps:
        steps.run("one", lambda: lines.append("did one"), Undo("un-one", lambda: lines.append("bad")))
        steps.run("two", lambda: lines.append("did two"))
    assert lines == ["[#] one", "did one", "[#] two", "did two"]


def test_a_failure_undoes_all_earlier_steps_in_reverse():
    lines = []

    def fail():
        raise PywgError("no")

    def story():
        with Steps(lines.append) as steps:
            steps.run("one", lambda: None, Undo("un-one", lambda: lines.append("undid one")))
            steps.run("two", lambda: None, Undo("un-two", lambda: lines.append("undid two")))
            steps.run("three", fail, Undo("un-three", lambda: lines.append("bad")))

    with pytest.raises(PywgError, match="no"):
        story()
    assert lines == [
        *("[#] one", "[#] two", "[#] three"),
        *("[#] un-two", "undid two", "[#] un-one", "undid one"),
    ]


def test_an_undo_that_fails_is_told_and_the_others_go_on():
    lines = []

    def fail():
        raise OSError(5, "broken")

    def story():
        with Steps(lines.append) as steps:
            steps.run("one", lambda: None, Undo("un-one", lambda: lines.append("undid one")))
            steps.run("two", lambda: None, Undo("un-two", fail))
            raise KeyError

    with pytest.raises(KeyError):
        story()
    assert lines[2:] == [
        "[#] un-two",
        "pywg: this could not be undone: [Errno 5] broken",
        "[#] un-one",
        "undid one",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_undoes_the_steps(number):
    outside = signal.signal(number, signal.default_int_handler)  # it may be ignored, as behind nohup
    before = signal.getsignal(number)
    lines = []

    def story():
        with Steps(lines.append) as steps:
            steps.run("one", lambda: None, Undo("un-one", lambda: lines.append("undid one")))
            steps.run("two", lambda: signal.raise_signal(number))
            lines.append("went on")

    try:
        with pytest.raises(Interrupted, match=number.name):
            story()
        assert lines == ["[#] one", "[#] two", "[#] un-one", "undid one"]
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, outside)


def test_a_signal_during_a_step_that_can_be_undone_waits_for_its_end():
    lines = []

    def act():
        signal.raise_signal(signal.SIGTERM)
        lines.append("did it whole")

    def story():
        with Steps(lines.append) as steps:
            steps.run("one", act, Undo("un-one", lambda: lines.append("undid one")))
            lines.append("went on")

    with pytest.raises(Interrupted):
        story()
    assert lines == ["[#] one", "did it whole", "[#] un-one", "undid one"]


def test_a_signal_does_not_stop_the_way_back():
    lines = []

    def undo():
        signal.raise_signal(signal.SIGINT)
        lines.append("undid one")

    def story():
        with Steps(lines.append) as steps:
            steps.run("one", lambda: None, Undo("un-one", undo))
            raise KeyError

    with pytest.raises(KeyError):
        story()
    assert lines[-1] == "undid one"


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Steps(lambda line: None):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
