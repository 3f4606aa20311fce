"""A running tunnel back into its file, as `wg-quick save` does: `pywg save`, and SaveConfig on the way down.

Keys, port, mark, peers and addresses are the running ones; what only a file can say (DNS, Table, hooks) stays
as the file has it. Unlike with wg-quick, so do names of peers and of endpoints, and keys kept elsewhere.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pywg.config.files import Loaded, read_text, write_text
from pywg.config.model import (
    AllowedIP,
    Config,
    Dialect,
    EndpointName,
    InterfaceAddress,
    Peer,
    merge_peers,
)
from pywg.config.parse import parse
from pywg.config.positions import Located, Position
from pywg.config.write import write
from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.host import control
from pywg.host.linux import LinuxNetwork
from pywg.noise.keys import PresharedKey
from pywg.wire.endpoint import Endpoint

T = TypeVar("T")

_NOWHERE = Position("")


def save_running(loaded: Loaded) -> None:
    """Write the running interface of a file into that file, at once or not at all. Raises PywgError.

    The file is then readable by its owner alone. Where its path is a link, what it leads to is written.
    """
    interface = loaded.location.interface
    device = control.get(interface)
    with LinuxNetwork() as network:
        addresses, mtu = network.all_addresses_of(interface), network.mtu_of(interface)
    path = loaded.location.path
    written = parse(read_text(path), path, Dialect.WG_QUICK)
    config = as_running(loaded.config, device, addresses, mtu, written)
    write_text(os.path.realpath(loaded.location.path), write(config))


def as_running(
    config: Config,
    device: DeviceSnapshot,
    addresses: Sequence[InterfaceAddress],
    mtu: int,
    written: Config | None = None,
) -> Config:
    """The file's model with what runs in place of what it said.

    addresses: those of the interface; link-local ones count only when the file has them, as the kernel makes
    its own. mtu: in bytes; it stays out of a file that says none. written: the file's model before
    DisallowedIPs were taken out, which stay while what they leave is what runs.
    """
    section = config.interface
    before = {peer.public_key.value: peer for peer in merge_peers(config.peers)}
    key_stays = section.private_key is not None and section.private_key.value == device.private_key
    interface = dataclasses.replace(
        section,
        private_key=_located(device.private_key),
        private_key_source=section.private_key_source if key_stays else None,
        listen_port=_located(device.listen_port or None),
        fwmark=_located(device.fwmark or None),
        addresses=[Located(address, _NOWHERE) for address in _ordered(section.addresses, addresses)],
        mtu=section.mtu and Located(mtu, _NOWHERE),
    )
    peers = [_peer(peer, before.get(peer.public_key)) for peer in device.peers]
    if written is not None:
        for peer in peers:
            _keep_disallowed(peer, before.get(peer.public_key.value), written)
    return Config(interface, peers)


def _ordered(
    of_file: Iterable[Located[InterfaceAddress]], running: Sequence[InterfaceAddress]
) -> Iterable[InterfaceAddress]:
    """The running ones, those of the file first and in its order."""
    known = list(dict.fromkeys(address.value for address in of_file))
    yield from (address for address in known if address in running)
    yield from (address for address in running if address not in known and not address.is_link_local)


def _peer(running: PeerSnapshot, before: Peer | None) -> Peer:
    peer = Peer(
        Located(running.public_key, _NOWHERE),
        _located(None if running.preshared_key == PresharedKey.ZERO else running.preshared_key),
        _located(_endpoint_name(running.endpoint)),
        _located(running.persistent_keepalive_interval or None),
        [Located(AllowedIP(network), _NOWHERE) for network in running.allowed_ips],
    )
    if before is None:
        return peer
    peer.name, peer.more_endpoints = before.name, before.more_endpoints
    if peer.preshared_key is not None and peer.preshared_key == before.preshared_key:
        peer.preshared_key_source = before.preshared_key_source
    if before.endpoint is not None and _may_be_at(before.endpoint.value, running.endpoint):
        peer.endpoint = before.endpoint
    return peer


def _keep_disallowed(peer: Peer, before: Peer | None, written: Config) -> None:
    sections = [section for section in written.peers if section.public_key == peer.public_key]
    if before is None or len(sections) != 1 or not sections[0].disallowed_ips:
        return
    given = {entry.value.network for entry in before.allowed_ips}
    if given == {entry.value.network for entry in peer.allowed_ips}:
        peer.allowed_ips, peer.disallowed_ips = sections[0].allowed_ips, sections[0].disallowed_ips


def _may_be_at(name: EndpointName, running: Endpoint | None) -> bool:
    """Whether the file's endpoint is a host's name that may lead to where the peer was last.

    That is so when the port is the same: an address that was a name's today may be another's tomorrow.
    """
    try:
        ipaddress.ip_address(name.host.partition("%")[0])
    except ValueError:
        return running is None or not name.port.isdigit() or int(name.port) == running.port
    return False


def _endpoint_name(endpoint: Endpoint | None) -> EndpointName | None:
    if endpoint is None:
        return None
    host, _, port = str(endpoint).rpartition(":")
    return EndpointName(host.strip("[]"), port)


def _located(value: T | None) -> Located[T] | None:
    return None if value is None else Located(value, _NOWHERE)
