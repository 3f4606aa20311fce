"""The bucket: 20 a second, bursts of 5, forgotten after a second, and never more than its table holds."""

import ipaddress
import time

from hypothesis import given
from hypothesis import strategies as st

from pywg.device.ratelimiter import RateLimiter

PER_SECOND = 20
BURST = 5


def allowed(limiter: RateLimiter, host: str, now: float, number: int) -> int:
    return sum(limiter.allow(host, now) for _ in range(number))


def test_five_pass_at_once() -> None:
    assert allowed(RateLimiter(), "192.0.2.1", 0.0, 10) == BURST


def test_twenty_a_second_pass_afterwards() -> None:
    limiter = RateLimiter()
    allowed(limiter, "192.0.2.1", 0.0, 10)
    assert sum(allowed(limiter, "192.0.2.1", step / 64, 1) for step in range(1, 641)) in (199, 200, 201)


def test_one_more_passes_after_a_twentieth_of_a_second() -> None:
    limiter = RateLimiter()
    allowed(limiter, "192.0.2.1", 0.0, BURST)
    assert not limiter.allow("192.0.2.1", 0.0499)
    assert limiter.allow("192.0.2.1", 0.0501)
    assert not limiter.allow("192.0.2.1", 0.0502)


def test_addresses_have_buckets_of_their_own() -> None:
    limiter = RateLimiter()
    allowed(limiter, "192.0.2.1", 0.0, 10)
    assert allowed(limiter, "192.0.2.2", 0.0, 10) == BURST


def test_an_ipv6_64_has_one_bucket() -> None:
    limiter = RateLimiter()
    assert sum(limiter.allow(f"2001:db8:1:2:{host:x}::1", 0.0) for host in range(10)) == BURST
    assert limiter.allow("2001:db8:1:3::1", 0.0)


def test_an_ipv4_address_and_an_ipv6_64_are_never_the_same() -> None:
    limiter = RateLimiter()
    allowed(limiter, "32.1.13.184", 0.0, 10)
    assert limiter.allow("2001:db8::1", 0.0)


def test_an_address_is_forgotten_after_a_second_of_silence() -> None:
    limiter = RateLimiter()
    limiter.allow("192.0.2.1", 0.0)
    limiter.allow("192.0.2.2", 0.5)
    limiter.allow("192.0.2.3", 1.001)
    assert len(limiter) == 2
    limiter.allow("192.0.2.3", 1.6)
    assert len(limiter) == 1


def test_an_address_that_is_refused_stays_known() -> None:
    limiter = RateLimiter()
    for step in range(400):
        limiter.allow("192.0.2.1", step / 128)
        assert len(limiter) == 1


def test_the_table_is_bounded_and_addresses_beyond_it_are_refused() -> None:
    limiter = RateLimiter()
    for number in range(65_536):
        assert limiter.allow_packed(number.to_bytes(4, "big"), 0.0)
    assert not limiter.allow("255.255.255.255", 0.0)
    assert limiter.allow("0.0.0.1", 0.0)
    assert len(limiter) == 65_536


def test_forgetting_a_full_table_takes_no_time_to_speak_of() -> None:
    limiter = RateLimiter()
    for number in range(65_536):
        limiter.allow_packed(number.to_bytes(4, "big"), 0.0)
    start = time.perf_counter()
    assert limiter.allow("255.255.255.255", 1.5)
    assert time.perf_counter() - start < 1
    assert len(limiter) == 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]), st.floats(0, 0.2)), max_size=300
    )
)
def test_no_address_ever_passes_more_than_its_burst_and_rate(visits: list[tuple[str, float]]) -> None:
    limiter = RateLimiter()
    now = 0.0
    passed: dict[str, list[float]] = {}
    for host, wait in visits:
        now += wait
        if limiter.allow(host, now):
            passed.setdefault(host, []).append(now)
    for times in passed.values():
        for first, start in enumerate(times):
            for last, end in enumerate(times[first:], first):
                assert last - first + 1 <= BURST + PER_SECOND * (end - start) + 1e-6


@given(st.ip_addresses())
def test_text_and_bytes_of_an_address_are_the_same(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    limiter = RateLimiter()
    allowed(limiter, str(address), 0.0, BURST)
    assert not limiter.allow_packed(address.packed, 0.0)
