"""Waiting for many descriptors behind one, by a selector of the kernel's and by a thread."""

from __future__ import annotations

import pathlib
import select
import selectors
import socket
import threading

import pytest

from pywg.datapath import readiness
from pywg.datapath.readiness import READ, WRITE, Readiness, SelectorReadiness, ThreadReadiness

LONG, SHORT = 10.0, 0.05


@pytest.fixture(params=["kernel", "thread"])
def waiting(request):
    one = readiness.open_readiness() if request.param == "kernel" else ThreadReadiness()
    yield one
    one.close()


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    yield near, far
    near.close()
    far.close()


def told(waiting: Readiness, timeout: float = LONG) -> bool:
    return bool(select.select([waiting.fileno()], [], [], timeout)[0])


def test_a_descriptor_with_something_to_read_is_told(waiting, pair):
    waiting.watch({pair[0].fileno(): READ})
    assert not told(waiting, SHORT)
    pair[1].send(b"x")
    assert told(waiting)


def test_it_is_told_again_until_all_was_read(waiting, pair):
    waiting.watch({pair[0].fileno(): READ})
    pair[1].send(b"xy")
    for _ in range(2):
        assert told(waiting)
        pair[0].recv(1)
        waiting.taken()
    assert not told(waiting, SHORT)


def test_room_to_write_is_told_only_to_who_waits_for_it(waiting, pair):
    waiting.watch({pair[0].fileno(): READ})
    assert not told(waiting, SHORT)
    waiting.watch({pair[0].fileno(): READ | WRITE})
    assert told(waiting)


def test_what_is_no_longer_watched_may_be_closed(waiting, pair):
    other, far = socket.socketpair()
    waiting.watch({pair[0].fileno(): READ, other.fileno(): READ})
    waiting.watch({pair[0].fileno(): READ})
    other.close()
    far.close()
    assert not told(waiting, SHORT)
    pair[1].send(b"x")
    assert told(waiting)


def test_something_that_came_unannounced_is_told_after_it_was_asked_for(waiting, pair):
    pair[1].send(b"x")
    waiting.watch({pair[0].fileno(): READ})
    assert told(waiting)
    waiting.taken()
    assert told(waiting)


def test_the_thread_ends_with_it():
    before = threading.active_count()
    waiting = ThreadReadiness()
    assert threading.active_count() == before + 1
    waiting.close()
    waiting.close()
    assert threading.active_count() == before


def test_a_system_without_a_selector_that_can_be_watched_gets_the_thread(monkeypatch):
    with_one = readiness.open_readiness()
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
    without = readiness.open_readiness()
    with_one.close()
    without.close()
    assert (type(with_one), type(without)) == (SelectorReadiness, ThreadReadiness)


def test_closing_leaves_no_descriptor():
    descriptors = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    ThreadReadiness().close()
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) == descriptors
