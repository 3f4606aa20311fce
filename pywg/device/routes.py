"""Cryptokey routing, the owner's view: which peer has which allowed IPs (WireGuard paper, section 2).

A network belongs to one peer at a time; lookup by longest prefix is the data path's, in its `allowedips.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from pywg.device.session import PeerId
from pywg.wire.network import Network


class Routes:
    """All allowed IPs of a device."""

    def __init__(self) -> None:
        self._owners: dict[Network, PeerId] = {}
        self._networks: dict[PeerId, dict[Network, None]] = {}
        self._lost: dict[PeerId, Network] = {}  # the last network that another peer was given

    def add(self, peer: PeerId, networks: Iterable[Network]) -> None:
        """Give networks to a peer, taking each from whoever had it."""
        mine = self._networks.setdefault(peer, {})
        for network in networks:
            owner = self._owners.setdefault(network, peer)
            if owner != peer:
                del self._networks[owner][network]
                self._owners[network] = peer
                self._lost[owner] = network
            mine[network] = None

    def remove(self, peer: PeerId, networks: Iterable[Network]) -> list[Network]:
        """Take networks from a peer; returns those that it really had."""
        mine = self._networks.get(peer, {})
        had = [network for network in dict.fromkeys(networks) if network in mine]
        for network in had:
            del mine[network]
            del self._owners[network]
        return had

    def clear(self, peer: PeerId) -> list[Network]:
        """Take all networks from a peer; returns them."""
        self._lost.pop(peer, None)
        networks = list(self._networks.pop(peer, ()))
        for network in networks:
            del self._owners[network]
        return networks

    def of(self, peer: PeerId) -> list[Network]:
        """A peer's networks, in the order they were added."""
        return list(self._networks.get(peer, ()))

    def losers(self) -> dict[PeerId, tuple[Network, PeerId]]:
        """Peers that have nothing left since others were given it: the last network, and who has it now."""
        return {
            peer: (network, self._owners[network])
            for peer, network in self._lost.items()
            if not self._networks.get(peer) and network in self._owners
        }

    def __len__(self) -> int:
        return len(self._owners)
