"""What setconf, addconf and syncconf do with a file: from its path to the change that `wg` would ask for."""

from __future__ import annotations

import dataclasses

import click

from pywg.cli.wgusage import refuse_usage
from pywg.config.change import device_change
from pywg.config.files import read_text
from pywg.config.model import Dialect
from pywg.config.parse import parse
from pywg.device.snapshot import DeviceSnapshot
from pywg.host.resolve import resolve_all
from pywg.noise.keys import PresharedKey, PrivateKey
from pywg.uapi.format import DeviceChange, PeerChange


def read(context: click.Context, words: tuple[str, ...]) -> tuple[str, DeviceChange]:
    """The interface, and what the file says, to be added. Raises PywgError with every mistake in the file."""
    if len(words) != 2:
        refuse_usage(context, "<interface> <configuration file>")
    interface, path = words
    config = parse(read_text(path), path, Dialect.WG)
    for warning in config.warnings:
        click.echo(f"Warning: {warning}", err=True)
    names = [peer.endpoint for peer in config.peers if peer.endpoint is not None]
    return interface, device_change(config, resolve_all(names, lambda line: click.echo(line, err=True)))


def replacing(change: DeviceChange) -> DeviceChange:
    """The file is all there is: other peers go, and what it does not set is taken away."""
    return dataclasses.replace(
        change,
        private_key=change.private_key or PrivateKey(bytes(32)),
        listen_port=change.listen_port or 0,
        fwmark=change.fwmark or 0,
        replace_peers=True,
    )


def synchronizing(change: DeviceChange, device: DeviceSnapshot) -> DeviceChange:
    """As `replacing`, but peers that the file names stay, so that their sessions do.

    Each other peer is removed by its name. A preshared key or a keepalive that the file does not have is
    taken away where the device has one. Without peers in the file or on the device there is nothing to keep.
    """
    change = replacing(change)
    if not change.peers or not device.peers:
        return change
    named = {peer.public_key for peer in change.peers}
    removed = [
        PeerChange(peer.public_key, remove=True) for peer in device.peers if peer.public_key not in named
    ]
    present = {peer.public_key: peer for peer in device.peers}
    kept = []
    for peer in change.peers:
        now = present.pop(peer.public_key, None)  # the first of several sections on one peer
        if now is not None:
            if peer.preshared_key is None and not now.preshared_key.is_zero:
                peer = dataclasses.replace(peer, preshared_key=PresharedKey.ZERO)  # noqa: PLW2901
            if peer.persistent_keepalive_interval is None and now.persistent_keepalive_interval:
                peer = dataclasses.replace(peer, persistent_keepalive_interval=0)  # noqa: PLW2901
        kept.append(peer)
    return dataclasses.replace(change, replace_peers=False, peers=[*removed, *kept])
