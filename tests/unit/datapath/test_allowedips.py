"""Lookup by longest prefix, against a search through all networks; and with 100 000 of them."""

import ipaddress
import random
import socket
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from pywg.datapath.allowedips import AllowedIps
from pywg.device.session import PeerId
from pywg.wire.network import Network

PEERS = st.integers(1, 4).map(PeerId)


def networks(version: int) -> st.SearchStrategy[Network]:
    """Networks close to each other, so that they contain one another often."""
    bits = 32 if version == 4 else 128
    lengths = st.one_of(st.integers(0, bits), st.integers(bits - 4, bits), st.sampled_from([0, 8, 24, bits]))
    numbers = (
        st.integers(0, 15) | st.integers(0, 15).map(lambda n: n << (bits - 4)) | st.integers(0, 2**bits - 1)
    )
    return st.builds(
        lambda number, length: Network.of(number.to_bytes(bits // 8, "big"), length), numbers, lengths
    )


ANY_NETWORK = st.integers(0, 1).flatmap(lambda six: networks(6 if six else 4))
CHANGES = st.lists(
    st.tuples(st.sampled_from(["add", "remove"]), PEERS, st.lists(ANY_NETWORK, max_size=5)), max_size=12
)


def last_address(network: Network) -> bytes:
    return ipaddress.ip_network(str(network)).broadcast_address.packed


def naive_lookup(owners: dict[Network, PeerId], address: bytes) -> PeerId | None:
    """The owner of the most specific network that contains the address."""
    best = max((n for n in owners if n.covers(address)), key=lambda n: n.prefixlen, default=None)
    return None if best is None else owners[best]


@settings(max_examples=60, deadline=None)
@given(CHANGES, st.lists(ANY_NETWORK, max_size=5))
def test_the_longest_prefix_decides(
    changes: list[tuple[str, PeerId, list[Network]]], asked: list[Network]
) -> None:
    table = AllowedIps()
    owners: dict[Network, PeerId] = {}
    probes = {n.address for _, _, some in changes for n in some}
    probes |= {last_address(n) for _, _, some in changes for n in some}
    probes |= {n.address for n in asked}
    for change, peer, some in changes:
        if change == "add":
            table.add(peer, some)
            owners.update(dict.fromkeys(some, peer))
        else:
            table.remove(peer, some)
            owners = {n: owner for n, owner in owners.items() if n not in some or owner != peer}
        for probe in probes:
            assert table.lookup(probe) == naive_lookup(owners, probe)


def test_an_empty_table_knows_nobody() -> None:
    table = AllowedIps()
    assert table.lookup(bytes(4)) is None
    assert table.lookup(bytes(16)) is None


def test_the_default_routes_cover_everything_of_their_family_only() -> None:
    table = AllowedIps()
    table.add(PeerId(1), [Network.parse("0.0.0.0/0")])
    assert table.lookup(b"\xff" * 4) == 1
    assert table.lookup(b"\xff" * 16) is None
    table.add(PeerId(2), [Network.parse("::/0")])
    assert table.lookup(b"\xff" * 16) == 2


def test_what_was_looked_up_follows_every_change() -> None:
    table = AllowedIps()
    address = ipaddress.ip_address("10.1.2.3").packed
    wide, narrow = Network.parse("10.0.0.0/8"), Network.parse("10.1.2.3/32")
    answers = []
    for change, peer, network in (
        (table.add, 1, wide),
        (table.add, 2, narrow),
        (table.add, 3, narrow),
        (table.remove, 2, narrow),
        (table.remove, 3, narrow),
        (table.remove, 1, wide),
    ):
        change(PeerId(peer), [network])
        answers.append(table.lookup(address))
    assert answers == [1, 2, 3, 3, 1, None]


def test_the_memory_of_lookups_is_bounded() -> None:
    table = AllowedIps()
    table.add(PeerId(1), [Network.parse("10.0.0.0/8")])
    for number in range(20_000):
        assert table.lookup((10 << 24 | number).to_bytes(4, "big")) == 1
        assert table.lookup((11 << 24 | number).to_bytes(4, "big")) is None
    assert len(table._families[socket.AF_INET]._cache) <= 4096


def test_100_000_networks_do_not_slow_lookup_down() -> None:
    """Addresses seen for the first time, so that no answer is remembered."""
    chance = random.Random(1)
    many = [Network.of(chance.randbytes(4), chance.choice([16, 20, 22, 24, 28, 32])) for _ in range(100_000)]
    small, large = AllowedIps(), AllowedIps()
    for number, network in enumerate(many):
        large.add(PeerId(number % 100), [network])
    small.add(PeerId(1), many[:100])
    addresses = [chance.randbytes(4) for _ in range(4000)]

    def seconds(table: AllowedIps) -> float:
        best = 9.9
        for _ in range(5):
            start = time.perf_counter()
            for address in addresses:
                table.lookup(address)
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(large) < 5 * seconds(small)
    owners: dict[Network, PeerId] = {network: PeerId(number % 100) for number, network in enumerate(many)}
    for address in addresses[:5]:
        assert large.lookup(address) == naive_lookup(owners, address)
