"""Which peer an inner address belongs to: lookup by longest prefix (WireGuard paper, section 2).

One dictionary per prefix length in use, tried from the longest to the shortest. With 100 000 networks of a
few lengths that is a few probes; what was looked up lately is answered from a cache of bounded size.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from pywg.device.session import PeerId
from pywg.wire.network import Network

CACHE_SIZE = 4096


class _Family:
    """The networks of one address family."""

    def __init__(self, address_bits: int) -> None:
        self._bits = address_bits
        self._by_length: dict[int, dict[int, PeerId]] = {}
        self._probes: list[tuple[int, dict[int, PeerId]]] = []  # (shift, prefixes), longest prefix first
        self._cache: dict[bytes, PeerId | None] = {}

    def add(self, prefix: int, length: int, peer: PeerId) -> None:
        prefixes = self._by_length.get(length)
        if prefixes is None:
            prefixes = self._by_length[length] = {}
            self._order_probes()
        prefixes[prefix >> (self._bits - length)] = peer
        self._cache.clear()

    def remove(self, prefix: int, length: int, peer: PeerId) -> None:
        prefixes = self._by_length.get(length, {})
        key = prefix >> (self._bits - length)
        if prefixes.get(key) != peer:
            return
        del prefixes[key]
        if not prefixes:
            del self._by_length[length]
            self._order_probes()
        self._cache.clear()

    def _order_probes(self) -> None:
        self._probes = [
            (self._bits - length, self._by_length[length]) for length in sorted(self._by_length, reverse=True)
        ]

    def lookup(self, address: bytes) -> PeerId | None:
        try:
            return self._cache[address]
        except KeyError:
            pass
        number = int.from_bytes(address, "big")
        found = None
        for shift, prefixes in self._probes:
            found = prefixes.get(number >> shift)
            if found is not None:
                break
        if len(self._cache) >= CACHE_SIZE:
            self._cache.clear()
        self._cache[address] = found
        return found


class AllowedIps:
    """Networks of both families, each owned by one peer."""

    def __init__(self) -> None:
        self._families = {
            socket.AF_INET: _Family(32),
            socket.AF_INET6: _Family(128),
        }
        self._lookup4 = self._families[socket.AF_INET].lookup
        self._lookup6 = self._families[socket.AF_INET6].lookup

    def add(self, peer: PeerId, networks: Iterable[Network]) -> None:
        """Give networks to a peer, taking each from whoever had it."""
        for network in networks:
            self._family(network).add(int.from_bytes(network.address, "big"), network.prefixlen, peer)

    def remove(self, peer: PeerId, networks: Iterable[Network]) -> None:
        """Take networks from a peer; those that belong to another stay."""
        for network in networks:
            self._family(network).remove(int.from_bytes(network.address, "big"), network.prefixlen, peer)

    def _family(self, network: Network) -> _Family:
        return self._families[socket.AF_INET if network.version == 4 else socket.AF_INET6]

    def lookup(self, address: bytes) -> PeerId | None:
        """The peer of an address (4 or 16 bytes, network order), by longest prefix; None: nobody's."""
        return self._lookup4(address) if len(address) == 4 else self._lookup6(address)
