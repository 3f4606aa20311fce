"""Timestamps: their form, their rounding, and that they only grow."""

import datetime
import itertools

from hypothesis import given
from hypothesis import strategies as st

from pywg.noise import tai64n

STEP = 2**24
SECOND = 10**9
WALL_CLOCK = st.integers(0, 2**33 * SECOND)


def at(*nanoseconds: int) -> list[bytes]:
    times = iter(nanoseconds)
    clock = tai64n.Tai64nClock(lambda: next(times))
    return [clock.now() for _ in nanoseconds]


def test_the_epoch_is_ten_tai_seconds_past_2_to_the_62() -> None:
    assert at(0) == [bytes.fromhex("400000000000000a00000000")]


def test_nanoseconds_of_the_second_are_rounded_down_to_2_to_the_24() -> None:
    assert at(7 * SECOND + 3 * STEP - 1) == [
        bytes.fromhex("4000000000000011") + (2 * STEP).to_bytes(4, "big")
    ]
    assert at(7 * SECOND + 3 * STEP) == [bytes.fromhex("4000000000000011") + (3 * STEP).to_bytes(4, "big")]


def test_a_clock_that_stands_still_gives_steps_of_2_to_the_24() -> None:
    first, second, third = at(SECOND, SECOND, SECOND)
    assert tai64n.decode(second) == tai64n.decode(first) + STEP
    assert tai64n.decode(third) == tai64n.decode(second) + STEP


def test_a_step_into_the_next_second_is_no_shorter() -> None:
    last_in_second = SECOND - SECOND % STEP
    first, second = at(last_in_second, last_in_second)
    assert tai64n.decode(first) == last_in_second
    assert tai64n.decode(second) >= last_in_second + STEP
    assert tai64n.decode(second) % SECOND % STEP == 0


def test_a_clock_set_back_by_a_year_goes_on_from_the_last_timestamp() -> None:
    year = 365 * 86400 * SECOND
    before, after = at(2 * year, year)
    assert tai64n.decode(after) == tai64n.decode(before) + STEP


def test_a_clock_that_catches_up_is_followed_again() -> None:
    *_, last = at(5 * SECOND, SECOND, 6 * SECOND)
    assert tai64n.decode(last) == 6 * SECOND


@given(
    st.lists(WALL_CLOCK, min_size=2, max_size=70) | st.builds(lambda t, n: [t] * n, WALL_CLOCK, st.just(200))
)
def test_timestamps_always_grow_and_stay_rounded(times: list[int]) -> None:
    stamps = at(*times)
    for earlier, later in itertools.pairwise(stamps):
        assert earlier < later
    for stamp in stamps:
        assert len(stamp) == 12
        assert int.from_bytes(stamp[8:], "big") % STEP == 0
        assert int.from_bytes(stamp[8:], "big") < SECOND


@given(WALL_CLOCK, WALL_CLOCK)
def test_bytes_compare_as_times_do(a: int, b: int) -> None:
    assert (tai64n.encode(a) < tai64n.encode(b)) is (a < b)


@given(WALL_CLOCK)
def test_what_is_encoded_decodes(time: int) -> None:
    assert tai64n.decode(tai64n.encode(time)) == time


@given(st.binary(min_size=12, max_size=12))
def test_any_twelve_bytes_can_be_described(timestamp: bytes) -> None:
    assert tai64n.describe(timestamp)


def test_a_time_is_described_in_utc() -> None:
    moment = datetime.datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=datetime.UTC)
    stamp = tai64n.encode(int(moment.timestamp() * 1000) * 10**6)
    assert tai64n.describe(stamp) == "2024-02-29T12:30:15.250+00:00"


def test_what_is_no_time_is_described_by_its_bytes() -> None:
    assert tai64n.describe(b"\xff" * 12) == "ff" * 12
