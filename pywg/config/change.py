"""From a configuration file's model to the request that applies it to a device, as `wg` would put it.

Sections stay in their order and apart from each other, since the daemon applies them one after the other.
Names of endpoints are resolved before; see `pywg.host.resolve`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pywg.config.model import Config, EndpointName, Operation, Peer
from pywg.config.positions import value_of
from pywg.uapi.format import AllowedIpChange, DeviceChange, PeerChange
from pywg.wire.endpoint import Endpoint


def device_change(config: Config, endpoints: Mapping[EndpointName, Endpoint]) -> DeviceChange:
    """What `wg addconf` asks for: only what the file says changes, and no peer goes.

    endpoints: every endpoint that the file names, resolved.
    """
    interface = config.interface
    return DeviceChange(
        private_key=value_of(interface.private_key),
        listen_port=value_of(interface.listen_port),
        fwmark=value_of(interface.fwmark),
        peers=[_peer_change(peer, endpoints) for peer in config.peers],
    )


def _peer_change(peer: Peer, endpoints: Mapping[EndpointName, Endpoint]) -> PeerChange:
    return PeerChange(
        peer.public_key.value,
        preshared_key=value_of(peer.preshared_key),
        endpoint=None if peer.endpoint is None else endpoints[peer.endpoint.value],
        persistent_keepalive_interval=value_of(peer.persistent_keepalive),
        replace_allowed_ips=peer.replace_allowed_ips,
        allowed_ips=[
            AllowedIpChange(entry.value.network, entry.value.operation is Operation.REMOVE)
            for entry in peer.allowed_ips
        ],
    )
