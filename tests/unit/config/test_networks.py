"""Networks out of networks, against sets of addresses and against the standard library."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pywg.config.networks import Taken, TooManyNetworks
from pywg.wire.network import Network
from tests.unit.config.strategies import networks

small = st.one_of(
    st.tuples(st.integers(0, 255), st.integers(24, 32)).map(
        lambda n: Network.of(bytes((255, 255, 255, n[0])), n[1])
    ),
    st.tuples(st.integers(0, 255), st.integers(120, 128)).map(
        lambda n: Network.of(bytes(15) + bytes((n[0],)), n[1])
    ),
)
"""Networks at the end of IPv4 and at the beginning of IPv6, few enough addresses to list."""


def net(text: str):
    return Network.parse(text)


def of_library(networks):
    return [ipaddress.ip_network(str(network)) for network in networks]


@settings(deadline=None)
@given(small, st.lists(small, max_size=6))
def test_what_is_left_is_every_address_that_was_not_taken(network, taken):
    left = of_library(Taken(taken).out_of(network, 1000))
    [network], taken = of_library([network]), of_library(taken)
    addresses = [address for part in left for address in part]
    expected = {
        address
        for address in network
        if not any(address in other for other in taken if other.version == network.version)
    }
    assert set(addresses) == expected
    assert len(addresses) == len(expected)
    assert left == list(ipaddress.collapse_addresses(left)), "the fewest, in order"


@settings(deadline=None)
@given(networks, networks)
def test_one_out_of_another_is_what_the_library_says(network, other):
    left = of_library(Taken([other]).out_of(network, 1000))
    network, other = of_library([network, other])
    if network.version != other.version or not network.overlaps(other):
        assert left == [network]
    elif network.subnet_of(other):
        assert left == []
    else:
        assert left == sorted(network.address_exclude(other))


@settings(deadline=None)
@given(networks, st.lists(networks, max_size=5))
def test_taking_away_twice_is_taking_away_once(network, others):
    taken = Taken(others)
    left = taken.out_of(network, 10_000)
    assert [part for once in left for part in taken.out_of(once, 10_000)] == left
    assert not any(taken.meets(part) for part in left)
    assert taken.meets(network) is (left != [network])


def test_private_networks_out_of_everything():
    left = Taken(map(net, ["10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12", "10.1.0.0/16"]))
    parts = left.out_of(net("0.0.0.0/0"), 100)
    assert net("8.0.0.0/7") in parts
    assert net("11.0.0.0/8") in parts
    assert sum(part.num_addresses for part in of_library(parts)) == 2**32 - 2**24 - 2**20 - 2**16
    assert left.out_of(net("::/0"), 100) == [net("::/0")]


def test_too_many_networks_are_refused_at_once():
    every_other = [net(f"2001:db8::{number:x}/128") for number in range(1, 4000, 2)]
    assert len(Taken(every_other).out_of(net("2001:db8::/116"), 3000)) > 2000
    with pytest.raises(TooManyNetworks):
        Taken(every_other).out_of(net("::/0"), 1000)
