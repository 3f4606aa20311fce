"""What a configuration file says, typed; every value keeps the place where it stands.

The names are those of the file's keys. `merge_peers` answers what a list of `[Peer]` sections amounts to when
they are applied one after the other, as `wg setconf` does.
"""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
from collections.abc import Sequence
from typing import TypeAlias

from pywg.config.positions import Located, Mistake, Position
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wire.network import Network

InterfaceAddress: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def network_of(address: InterfaceAddress) -> Network:
    """The network that an interface is in by its address."""
    return Network.of(address.packed, address.network.prefixlen)


class Dialect(enum.Enum):
    """Whose files: those of `wg setconf`, or those of `wg-quick`, which know more keys."""

    WG = "wg"
    WG_QUICK = "wg-quick"


class Operation(enum.Enum):
    """What an entry of AllowedIPs asks for: the plain and the `+` form add, the `-` form takes away."""

    SET = ""
    ADD = "+"
    REMOVE = "-"


@dataclasses.dataclass(frozen=True, slots=True)
class AllowedIP:
    """One entry of AllowedIPs; host bits are cleared, and `host_bits` tells that there were some."""

    network: Network
    operation: Operation = Operation.SET
    host_bits: bool = dataclasses.field(default=False, compare=False)

    def __str__(self) -> str:
        return f"{self.operation.value}{self.network}"


@dataclasses.dataclass(frozen=True, slots=True)
class EndpointName:
    """An endpoint as it was written: a host name or a numeric address, and a port number or a service's name.

    Nothing is resolved here. `host` is without brackets.
    """

    host: str
    port: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class KeyFile:
    """A key that is in a file of its own. `path` is as it was written, with references to the environment."""

    path: str


@dataclasses.dataclass(frozen=True, slots=True)
class KeyVariable:
    """A key that is in the environment variable of this name."""

    name: str


KeySource: TypeAlias = KeyFile | KeyVariable


@dataclasses.dataclass(slots=True)
class Interface:
    """The `[Interface]` section; when it comes more than once, all of them together.

    private_key_source: where the key is, when it is not in this file; `private_key` is what was found there.

    fwmark: 0 is `off`. table: `auto`, `off`, a number or the name of a routing table. mtu: bytes.
    Hooks are commands, in order, with `%i` not replaced yet.
    """

    private_key: Located[PrivateKey] | None = None
    listen_port: Located[int] | None = None
    fwmark: Located[int] | None = None
    addresses: list[Located[InterfaceAddress]] = dataclasses.field(default_factory=list)
    dns_servers: list[Located[Address]] = dataclasses.field(default_factory=list)
    dns_search: list[Located[str]] = dataclasses.field(default_factory=list)
    mtu: Located[int] | None = None
    table: Located[int | str] | None = None
    pre_up: list[Located[str]] = dataclasses.field(default_factory=list)
    post_up: list[Located[str]] = dataclasses.field(default_factory=list)
    pre_down: list[Located[str]] = dataclasses.field(default_factory=list)
    post_down: list[Located[str]] = dataclasses.field(default_factory=list)
    save_config: Located[bool] | None = None
    private_key_source: Located[KeySource] | None = None


@dataclasses.dataclass(slots=True)
class Peer:
    """One `[Peer]` section.

    replace_allowed_ips: whether the entries replace what the peer has; false once a `+` or `-` was given.
    persistent_keepalive: seconds, 0 is `off`.
    name: what people call it. more_endpoints: to be tried after `endpoint`, in this order.
    disallowed_ips: what is not to be allowed although allowed_ips has it. Of a file that was loaded,
    allowed_ips is without them, and preshared_key is what was found at preshared_key_source.
    """

    public_key: Located[PublicKey]
    preshared_key: Located[PresharedKey] | None = None
    endpoint: Located[EndpointName] | None = None
    persistent_keepalive: Located[int] | None = None
    allowed_ips: list[Located[AllowedIP]] = dataclasses.field(default_factory=list)
    replace_allowed_ips: bool = True
    name: Located[str] | None = None
    preshared_key_source: Located[KeySource] | None = None
    more_endpoints: list[Located[EndpointName]] = dataclasses.field(default_factory=list)
    disallowed_ips: list[Located[Network]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class Config:
    """A whole file. `warnings` are things that work, but perhaps not as was meant.

    extensions: the keys of all lines that only pywg reads, in their order; names of peers are not among them.
    """

    interface: Interface = dataclasses.field(default_factory=Interface)
    peers: list[Peer] = dataclasses.field(default_factory=list)
    warnings: list[Mistake] = dataclasses.field(default_factory=list, compare=False)
    extensions: list[Located[str]] = dataclasses.field(default_factory=list, compare=False)


def strip(config: Config) -> Config:
    """The same without what only wg-quick or pywg knows; of a loaded file, with all of its keys."""
    interface = config.interface
    return Config(
        Interface(interface.private_key, interface.listen_port, interface.fwmark),
        [
            Peer(
                peer.public_key,
                peer.preshared_key,
                peer.endpoint,
                peer.persistent_keepalive,
                peer.allowed_ips,
                peer.replace_allowed_ips,
            )
            for peer in config.peers
        ],
        config.warnings,
    )


def merge_peers(peers: Sequence[Peer]) -> list[Peer]:
    """What the sections amount to on a device that has no peers yet: each public key once.

    A later section's values stand, those it does not give stay; its AllowedIPs replace the earlier ones, also
    when it has none, unless they are incremental. A network belongs to the peer that was given it last.
    Of files that were loaded: disallowed_ips have been taken out of allowed_ips, and are not repeated.
    """
    merged: dict[PublicKey, Peer] = {}
    owner: dict[Network, PublicKey] = {}
    owned: dict[PublicKey, dict[Network, Position]] = {}
    for section in peers:
        key = section.public_key.value
        before = merged.get(key, section)
        merged[key] = Peer(
            section.public_key,
            section.preshared_key or before.preshared_key,
            section.endpoint or before.endpoint,
            section.persistent_keepalive or before.persistent_keepalive,
            name=section.name or before.name,
            preshared_key_source=section.preshared_key_source
            or (None if section.preshared_key else before.preshared_key_source),
            more_endpoints=(section if section.endpoint else before).more_endpoints,
        )
        mine = owned.setdefault(key, {})
        if section.replace_allowed_ips:
            for network in mine:
                del owner[network]
            mine.clear()
        for entry in section.allowed_ips:
            network = entry.value.network
            if entry.value.operation is not Operation.REMOVE:
                if network in owner:
                    del owned[owner[network]][network]
                owner[network] = key
                mine[network] = entry.position
            elif owner.get(network) == key:
                del owner[network], mine[network]
    for key, peer in merged.items():
        peer.allowed_ips = [Located(AllowedIP(network), position) for network, position in owned[key].items()]
    return list(merged.values())
