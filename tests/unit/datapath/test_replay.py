"""The window against a set, which never forgets."""

from hypothesis import given
from hypothesis import strategies as st

from pywg.datapath.replay import ReplayWindow

WINDOW = 8128
LIMIT = 2**64 - 2**13 - 1

# Counters that stay near each other, with jumps of all sizes in between.
STEPS = st.one_of(
    st.integers(-3, 3),
    st.integers(-70, 70),
    st.integers(-9000, 9000),
    st.sampled_from([-WINDOW - 1, -WINDOW, -WINDOW + 1, WINDOW, 64, -64, 8192, -8192, 8191, 2**32]),
)


@given(st.integers(0, 20_000), st.lists(STEPS, max_size=200))
def test_it_takes_what_is_new_and_not_too_old(start: int, steps: list[int]) -> None:
    window = ReplayWindow()
    seen: set[int] = set()
    counter = start
    for step in [0, *steps]:
        counter = max(0, min(LIMIT - 1, counter + step))
        greatest = max(seen, default=counter)
        expected = counter not in seen and greatest - counter <= WINDOW
        assert window.accept(counter) is expected
        if expected:
            seen.add(counter)


def test_all_counters_in_order_are_taken() -> None:
    window = ReplayWindow()
    assert all(window.accept(counter) for counter in range(20_000))
    assert not any(window.accept(counter) for counter in range(20_000))


def test_all_counters_in_the_window_are_taken_backwards() -> None:
    window = ReplayWindow()
    greatest = 100_000
    assert window.accept(greatest)
    assert all(window.accept(counter) for counter in range(greatest - 1, greatest - WINDOW - 1, -1))
    assert not any(window.accept(counter) for counter in range(greatest - WINDOW - 100, greatest + 1))


def test_a_jump_over_the_whole_ring_forgets_what_was_in_it() -> None:
    window = ReplayWindow()
    for counter in range(8192):
        window.accept(counter)
    assert window.accept(8192 * 1000 + 8191)
    assert all(window.accept(8192 * 1000 + offset) for offset in range(63, 8191))


def test_the_greatest_counters_of_a_session_are_taken() -> None:
    window = ReplayWindow()
    assert window.accept(LIMIT - 1)
    assert window.accept(LIMIT - 2)
    assert not window.accept(LIMIT - 1)
    assert not window.accept(0)
