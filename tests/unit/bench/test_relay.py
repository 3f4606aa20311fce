"""What the relay decides for each packet."""

import random

import pytest

from tests.tools.relay import Direction


def direction(**settings):
    return Direction(random.Random(7), **settings)


def test_a_packet_leaves_once_after_the_delay():
    assert direction(delay=0.017).take(5.0) == [5.017]


def test_jitter_delays_each_packet_anew_and_none_overtakes_another():
    path = direction(delay=0.01, jitter=0.05)
    dues = [path.take(number * 0.001)[0] for number in range(500)]
    assert dues == sorted(dues)
    assert all(0.01 <= due - number * 0.001 <= 0.06 for number, due in enumerate(dues))
    assert len({round(due - number * 0.001, 6) for number, due in enumerate(dues)}) > 20


def test_a_reordered_packet_leaves_before_those_that_came_earlier():
    path = direction(delay=0.02, reorder=0.25)
    dues = [path.take(number * 0.001)[0] for number in range(1000)]
    overtaking = [number for number, due in enumerate(dues) if due == number * 0.001]
    assert path.reordered == len(overtaking) == pytest.approx(250, rel=0.2)


def test_a_lost_packet_never_leaves_and_is_counted():
    path = direction(loss=0.25)
    gone = sum(path.take(0.0) == [] for _ in range(1000))
    assert path.lost == gone == pytest.approx(250, rel=0.2)
    assert path.taken == 1000


def test_a_duplicated_packet_leaves_twice():
    path = direction(duplicate=0.25)
    twice = sum(len(path.take(0.0)) == 2 for _ in range(1000))
    assert path.duplicated == twice == pytest.approx(250, rel=0.2)


def test_without_settings_every_packet_leaves_at_once():
    assert [direction().take(float(number)) for number in range(3)] == [[0.0], [1.0], [2.0]]
