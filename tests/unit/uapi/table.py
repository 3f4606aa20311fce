"""A device that is only its table of peers: what the server configures when no packets matter."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Sequence

from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.errors import PywgError
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network


@dataclasses.dataclass(slots=True, eq=False)
class TablePeer:
    public_key: PublicKey
    preshared_key: PresharedKey = dataclasses.field(default_factory=lambda: PresharedKey.ZERO)
    endpoint: Endpoint | None = None
    keepalive: int = 0
    networks: dict[Network, None] = dataclasses.field(default_factory=dict)


class TableDevice:
    """`Configurable`, as wireguard-go behaves. Port 1 is taken. `calls` counts commits."""

    def __init__(self) -> None:
        self.private_key: PrivateKey | None = None
        self.listen_port = 0
        self.fwmark = 0
        self.peers: dict[PublicKey, TablePeer] = {}
        self.owners: dict[Network, TablePeer] = {}
        self.commits = 0
        self.keepalives_began: list[tuple[Endpoint | None, int]] = []

    def set_private_key(self, key: PrivateKey | None) -> None:
        self.private_key = key
        if key is not None and key.public_key in self.peers:
            self.remove_peer(self.peers[key.public_key])

    def set_listen_port(self, port: int) -> None:
        if port == 1:
            raise OSError(errno.EADDRINUSE, "port 1 is taken")
        self.listen_port = port

    def set_fwmark(self, mark: int) -> None:
        self.fwmark = mark

    def remove_all_peers(self) -> None:
        self.peers.clear()
        self.owners.clear()

    def peer(self, public_key: PublicKey) -> TablePeer | None:
        return self.peers.get(public_key)

    def add_peer(self, public_key: PublicKey) -> TablePeer:
        if self.private_key is not None and self.private_key.public_key == public_key:
            raise PywgError("that is us")
        assert public_key not in self.peers
        peer = self.peers[public_key] = TablePeer(public_key)
        return peer

    def remove_peer(self, handle: TablePeer) -> None:
        self.clear_allowed_ips(handle)
        del self.peers[handle.public_key]

    def _known(self, handle: TablePeer) -> TablePeer:
        assert self.peers[handle.public_key] is handle, "the server used the handle of a removed peer"
        return handle

    def set_preshared_key(self, handle: TablePeer, key: PresharedKey) -> None:
        self._known(handle).preshared_key = key

    def set_endpoint(self, handle: TablePeer, endpoint: Endpoint) -> None:
        self._known(handle).endpoint = endpoint

    def set_persistent_keepalive(self, handle: TablePeer, seconds: int) -> None:
        if seconds and not handle.keepalive:
            self.keepalives_began.append((handle.endpoint, seconds))
        self._known(handle).keepalive = seconds

    def clear_allowed_ips(self, handle: TablePeer) -> None:
        for network in self._known(handle).networks:
            del self.owners[network]
        handle.networks.clear()

    def add_allowed_ips(self, handle: TablePeer, networks: Sequence[Network]) -> None:
        for network in networks:
            if (owner := self.owners.get(network)) is not None:
                del owner.networks[network]
            self.owners[network] = self._known(handle)
            handle.networks[network] = None

    def remove_allowed_ip(self, handle: TablePeer, network: Network) -> None:
        if self.owners.get(network) is self._known(handle):
            del self.owners[network], handle.networks[network]

    def snapshot(self) -> DeviceSnapshot:
        peers = [
            PeerSnapshot(
                peer.public_key,
                peer.preshared_key,
                peer.endpoint,
                persistent_keepalive_interval=peer.keepalive,
                allowed_ips=list(peer.networks),
            )
            for peer in self.peers.values()
        ]
        return DeviceSnapshot(self.private_key, self.listen_port, self.fwmark, peers)

    def commit(self) -> None:
        self.commits += 1
