"""Arithmetic of networks: what is left of some when others are taken out of them.

It works on ranges of numbers, so the time goes with the number of networks, not with the product of two.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator

from pywg.errors import PywgError
from pywg.wire.network import Network


class TooManyNetworks(PywgError):  # noqa: N818  a limit, not a failure of the arithmetic
    """More networks would be left than are wanted."""


class Taken:
    """Networks of both families that are to be taken out of others."""

    def __init__(self, networks: Iterable[Network]) -> None:
        ranges: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for network in networks:
            ranges[network.version].append(_range(network))
        self._ranges = {version: _merged(sorted(found)) for version, found in ranges.items()}

    def meets(self, network: Network) -> bool:
        """Whether any address of `network` is taken."""
        return next(self._within(network), None) is not None

    def out_of(self, network: Network, limit: int) -> list[Network]:
        """What is left of `network`: the fewest networks, by address.

        Raises TooManyNetworks when there would be more than `limit`.
        """
        cursor, end = _range(network)
        left: list[Network] = []
        for first, last in self._within(network):
            _cover(cursor, first - 1, network, left, limit)
            cursor = last + 1
        _cover(cursor, end, network, left, limit)
        return left

    def _within(self, network: Network) -> Iterator[tuple[int, int]]:
        """The ranges that have an address in common with `network`."""
        begin, end = _range(network)
        ranges = self._ranges[network.version]
        for index in range(bisect.bisect_left(ranges, begin, key=lambda span: span[1]), len(ranges)):
            if ranges[index][0] > end:
                return
            yield ranges[index]


def _range(network: Network) -> tuple[int, int]:
    first = int.from_bytes(network.address, "big")
    return first, first + (1 << network.max_prefixlen - network.prefixlen) - 1


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in spans:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _cover(first: int, last: int, like: Network, found: list[Network], limit: int) -> None:
    """Append the fewest networks that are exactly the addresses from `first` to `last`, if there are any."""
    while first <= last:
        aligned = (first & -first).bit_length() - 1 if first else like.max_prefixlen
        host_bits = min(aligned, (last - first + 1).bit_length() - 1)
        if len(found) >= limit:
            raise TooManyNetworks(f"more than {limit} networks are left")
        address = first.to_bytes(like.max_prefixlen // 8, "big")
        found.append(Network.of(address, like.max_prefixlen - host_bits))
        first += 1 << host_bits
