"""Networks beside those of `ipaddress`: what is read, what is refused, text, order, and what is in them."""

import ipaddress
import re
import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pywg.wire.network import Network

ADDRESSES = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)),
    st.tuples(st.ip_addresses(v=6), st.integers(0, 128)),
    # Few different ones, so that some are equal, or in one another.
    st.tuples(st.integers(0, 7).map(ipaddress.IPv4Address), st.integers(28, 32)),
    st.tuples(st.integers(0, 7).map(ipaddress.IPv6Address), st.integers(124, 128)),
)
VALID = ADDRESSES.map(lambda pair: f"{pair[0]}/{pair[1]}")


@st.composite
def slips(draw: st.DrawFn) -> str:
    """A text that was right before something was inserted, removed or replaced."""
    text = draw(VALID)
    begin = draw(st.integers(0, len(text)))
    end = min(len(text), begin + draw(st.integers(0, 2)))
    return text[:begin] + draw(st.text("0123456789abcdefF:./%- \0٣", max_size=2)) + text[end:]


def theirs(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """What `ipaddress` makes of a text, less what it takes and nobody else: masks, zones, lengths like 08."""
    address, _, length = text.rpartition("/")
    if not address or "%" in address or not re.fullmatch(r"0|[1-9][0-9]*", length):
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


@given(VALID | slips() | st.text("0123456789abcdef:./"))
@example("10.0.0.0")
@example("10.0.0.0/")
@example("/8")
@example("10.0.0.0/33")
@example("10.0.0.0/08")
@example("010.0.0.0/8")
@example("10.0.0/8")
@example("10.0.0.0/255.0.0.0")
@example("::/129")
@example("fe80::1%lo/64")
@example("1::2:3:4:5:6:7:8/128")
@example("::ffff:10.1.2.3/104")
def test_what_ipaddress_reads_is_read_and_nothing_else(text: str) -> None:
    expected = theirs(text)
    if expected is None:
        with pytest.raises(ValueError, match="not an address with a prefix length"):
            Network.parse(text)
        return
    network = Network.parse(text)
    assert (network.address, network.prefixlen) == (expected.network_address.packed, expected.prefixlen)
    assert (network.version, network.max_prefixlen) == (expected.version, expected.max_prefixlen)
    assert network.is_one_address == (expected.num_addresses == 1)


@given(ADDRESSES)
def test_the_text_is_that_of_inet_ntop_and_is_read_back(
    pair: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int],
) -> None:
    address, length = pair
    expected = ipaddress.ip_network((address, length), strict=False)
    network = Network.of(address.packed, length)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    assert str(network) == f"{socket.inet_ntop(family, expected.network_address.packed)}/{length}"
    assert ipaddress.ip_network(str(network)) == expected
    assert Network.parse(str(network)) == network
    assert str(network) in repr(network)


def test_a_mapped_address_is_written_as_wg_writes_it() -> None:
    assert str(Network.parse("::ffff:10.0.0.0/104")) == "::ffff:10.0.0.0/104"
    assert str(Network.parse("1:0:2:0:3:0:4:0/128")) == "1:0:2:0:3:0:4:0/128"


@given(VALID, VALID)
def test_those_are_equal_that_are_equal_for_ipaddress(one: str, other: str) -> None:
    are_equal = theirs(one) == theirs(other)
    assert (Network.parse(one) == Network.parse(other)) == are_equal
    assert len({Network.parse(one), Network.parse(other)}) == 2 - are_equal


@given(st.lists(ADDRESSES))
def test_the_order_within_a_family_is_that_of_ipaddress(
    pairs: list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]],
) -> None:
    for version in (4, 6):
        expected = sorted(
            ipaddress.ip_network(pair, strict=False) for pair in pairs if pair[0].version == version
        )
        ours = sorted(
            Network.of(address.packed, length) for address, length in pairs if address.version == version
        )
        assert ours == [Network.parse(str(network)) for network in expected]


@given(VALID, ADDRESSES)
def test_an_address_is_in_a_network_as_with_ipaddress(
    text: str, pair: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]
) -> None:
    expected = theirs(text)
    assert expected is not None
    assert Network.parse(text).covers(pair[0].packed) == (pair[0] in expected)
    assert Network.parse(text).covers(expected.broadcast_address.packed)


@pytest.mark.parametrize(
    ("address", "length"),
    [(b"", 0), (bytes(3), 8), (bytes(5), 8), (bytes(4), 33), (bytes(4), -1), (bytes(16), 129)],
)
def test_no_network_is_made_of_other_sizes(address: bytes, length: int) -> None:
    with pytest.raises(ValueError, match="no address of"):
        Network.of(address, length)
