"""New files that match each other: for two hosts, or for a hub and its clients.

Only models are made here; nothing is written, and randomness is handed in.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from pywg.config.model import (
    AllowedIP,
    Config,
    EndpointName,
    Interface,
    InterfaceAddress,
    Peer,
)
from pywg.config.positions import Located, Position
from pywg.errors import PywgError
from pywg.noise.keys import PresharedKey, PrivateKey
from pywg.wire.network import Network

KEEPALIVE = 25
"""Seconds; it keeps the way open to a host that cannot be called."""

_NEW = Position("new")

AddressPool: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
"""A network whose addresses new hosts are given."""


class Member(NamedTuple):
    """A host of the new network; `endpoint` is where it can be reached, if it can be called."""

    name: str
    endpoint: EndpointName | None = None


def matching_files(
    hub: Member,
    others: Sequence[Member],
    networks: Sequence[AddressPool],
    random: Callable[[int], bytes],
    *,
    preshared: bool,
    route_all: bool,
) -> dict[str, Config]:
    """A model for each member, by name: everybody is a peer of the hub, and of nobody else.

    networks: one or two, of different families; the hub gets the first address of each. route_all: the others
    send packets for all of the networks to the hub, else only those for the hub. Raises PywgError when a
    network has too few addresses.
    """
    members = [hub, *others]
    keys = [PrivateKey.generate(random) for _ in members]
    addresses = list(zip(*(_addresses(network, len(members)) for network in networks), strict=True))
    shared = [PresharedKey.generate(random) if preshared else None for _ in others]

    def peer(number: int, allowed: list[Network], psk: PresharedKey | None, *, calls: bool) -> Peer:
        member = members[number]
        return Peer(
            Located(keys[number].public_key, _NEW),
            None if psk is None else Located(psk, _NEW),
            None if member.endpoint is None else Located(member.endpoint, _NEW),
            Located(KEEPALIVE, _NEW) if calls else None,
            [Located(AllowedIP(network), _NEW) for network in allowed],
            name=Located(member.name, _NEW),
        )

    def interface(number: int) -> Interface:
        endpoint = members[number].endpoint
        return Interface(
            Located(keys[number], _NEW),
            Located(int(endpoint.port), _NEW) if endpoint else None,
            addresses=[Located(address, _NEW) for address in addresses[number]],
        )

    def alone(number: int) -> list[Network]:
        return [Network.of(address.packed, address.max_prefixlen) for address in addresses[number]]

    files = {
        hub.name: Config(
            interface(0),
            [
                peer(number, alone(number), psk, calls=hub.endpoint is None)
                for number, psk in enumerate(shared, 1)
            ],
        )
    }
    everybody = [Network.of(network.network_address.packed, network.prefixlen) for network in networks]
    to_hub = everybody if route_all else alone(0)
    for number, psk in enumerate(shared, 1):
        calls = members[number].endpoint is None
        files[members[number].name] = Config(interface(number), [peer(0, to_hub, psk, calls=calls)])
    return files


def _addresses(network: AddressPool, count: int) -> list[InterfaceAddress]:
    """The first addresses for hosts, with the network's prefix length."""
    found: list[InterfaceAddress] = []
    if isinstance(network, ipaddress.IPv4Network):
        for address in itertools.islice(network.hosts(), count):
            found.append(ipaddress.IPv4Interface((address, network.prefixlen)))
    else:
        for address6 in itertools.islice(network.hosts(), count):
            found.append(ipaddress.IPv6Interface((address6, network.prefixlen)))
    if len(found) < count:
        raise PywgError(f"{network} has {len(found)} addresses for {count} hosts; take a larger network")
    return found
