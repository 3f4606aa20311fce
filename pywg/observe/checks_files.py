"""Checks that need only files: mistakes, a file against the running interface, and both ends' files.

With both files nothing is guessed: which keys, ports and allowed IPs do not fit each other.
"""

from __future__ import annotations

from collections.abc import Iterator

from pywg.config.model import Config, Peer, merge_peers
from pywg.config.positions import value_of
from pywg.noise.keys import PublicKey
from pywg.observe.checks import Subject
from pywg.observe.findings import Finding, Severity


def mistakes(subject: Subject) -> Iterator[Finding]:
    """The file cannot be used."""
    if subject.mistakes:
        edit = f"# correct {subject.path}, then: pywg {'reload' if subject.device else 'up'} {subject.path}"
        yield subject.finding("config-mistakes", "\n".join(subject.mistakes), edit)


def two_peers_with_one_network(subject: Subject) -> Iterator[Finding]:
    """Allowed IPs that two sections give: the last one has them."""
    owner: dict[object, str] = {}
    for peer in subject.config.peers if subject.config else ():
        key = peer.public_key.value.base64
        for entry in peer.allowed_ips:
            before = owner.setdefault(entry.value.network, key)
            if before != key and not entry.value.operation.value:
                yield subject.finding(
                    "allowed-ips-twice",
                    f"{entry.value.network} is given to {subject.called(before)} and, at {entry.position}, "
                    f"to {subject.called(key)}, which has it: the first one gets nothing.",
                    f"# in {subject.path}: leave it to one of them, then:",
                    f"pywg reload {subject.interface}",
                    key=before,
                )
            owner[entry.value.network] = key


def own_key_as_peer(subject: Subject) -> Iterator[Finding]:
    """Our own public key pasted where the peer's should be."""
    ours = _own_key(subject)
    keys = [peer.public_key.value for peer in subject.peers_of_file()]
    keys += [peer.public_key for peer in subject.device.peers] if subject.device else []
    if ours is not None and ours in keys:
        yield subject.finding(
            "own-key-as-peer",
            f"The peer {subject.called(ours.base64)} has the public key of this host's own private key.",
            "# on the other host, print its public key, and put it into this file:",
            "pywg show all public-key",
            key=ours.base64,
        )


def file_differs(subject: Subject) -> Iterator[Finding]:
    """The file was changed and not put into the interface."""
    config, device = subject.config, subject.device
    if config is None or device is None:
        return
    differences = []
    key = config.interface.private_key
    if key is not None and device.private_key is not None and key.value != device.private_key:
        differences.append("another private key")
    port = value_of(config.interface.listen_port)
    if port and port != device.listen_port:
        differences.append(f"ListenPort {port} for {device.listen_port}")
    in_file = {peer.public_key.value: peer for peer in subject.peers_of_file()}
    running = {peer.public_key: peer for peer in device.peers}
    differences += [f"the peer {subject.called(k.base64)} in addition" for k in in_file if k not in running]
    differences += [f"no peer {subject.called(k.base64)}" for k in running if k not in in_file]
    for public, peer in in_file.items():
        if public in running:
            has = set(running[public].allowed_ips)
            if {entry.value.network for entry in peer.allowed_ips} != has:
                differences.append(f"other allowed IPs for {subject.called(public.base64)}")
            psk = peer.preshared_key
            if psk is not None and psk.value != running[public].preshared_key:
                differences.append(f"another preshared key for {subject.called(public.base64)}")
    if differences:
        more = f", and {len(differences) - 4} more" if len(differences) > 4 else ""
        yield subject.finding(
            "file-differs",
            f"{subject.path} has, for what runs: {'; '.join(differences[:4])}{more}.",
            f"pywg reload {subject.path}",
        )


def both_files(subject: Subject) -> Iterator[Finding]:
    """Our file beside the other end's."""
    ours, theirs = subject.config, subject.other
    if ours is None or theirs is None:
        return
    our_key, their_key = _public_key(ours), _public_key(theirs)
    if our_key is None or their_key is None:
        missing = subject.path if our_key is None else subject.other_path
        yield subject.finding("no-private-key", f"{missing} has no PrivateKey.", "pywg genkey")
        return
    theirs_here = _peer(ours, their_key)
    ours_there = _peer(theirs, our_key)
    if our_key == their_key:
        yield subject.finding(
            "same-key",
            "Both files have the same PrivateKey: one key is one host.",
            "pywg genkey  # a new PrivateKey for one; its public key goes into the other file",
        )
        return
    if ours_there is None:
        yield subject.finding(
            "other-does-not-know-us",
            f"{subject.other_path} has no peer with this host's public key.",
            f"# in {subject.other_path}, [Peer]:",
            f"PublicKey = {our_key.base64}",
            key=their_key.base64 if theirs_here else None,
        )
    if theirs_here is None:
        yield subject.finding(
            "other-is-unknown",
            f"{subject.path} has no peer with the other host's public key.",
            f"# in {subject.path}, [Peer]:",
            f"PublicKey = {their_key.base64}",
        )
    if theirs_here is None or ours_there is None:
        return
    yield from _pair(subject, ours, theirs, theirs_here, ours_there)


def _pair(
    subject: Subject, ours: Config, theirs: Config, theirs_here: Peer, ours_there: Peer
) -> Iterator[Finding]:
    """Two files that know each other's keys."""
    key = theirs_here.public_key.value.base64
    here, there = value_of(theirs_here.preshared_key), value_of(ours_there.preshared_key)
    if (here is None or here.is_zero) != (there is None or there.is_zero):
        with_it = subject.path if here is not None and not here.is_zero else subject.other_path
        yield subject.finding(
            "preshared-key-differs",
            f"Only {with_it} has a PresharedKey for the other end.",
            "pywg genpsk  # the same PresharedKey in both files, or in none",
            key=key,
        )
    elif here is not None and there is not None and here != there:
        yield subject.finding(
            "preshared-key-differs",
            "The two files have different preshared keys for each other.",
            "pywg genpsk  # the same PresharedKey in both files, or in none",
            key=key,
        )
    sides = (
        (subject.path, ours, theirs_here, subject.other_path, theirs),
        (subject.other_path, theirs, ours_there, subject.path, ours),
    )
    for path, _, peer, other_path, other in sides:
        port = value_of(other.interface.listen_port)
        endpoint = value_of(peer.endpoint)
        if endpoint is not None and port and endpoint.port.isdigit() and int(endpoint.port) != port:
            yield subject.finding(
                "port-differs",
                f"{path} has the Endpoint {endpoint}, but {other_path} has ListenPort = {port}. "
                "Right only where a router translates the port.",
                f"# in {path}: Endpoint = {type(endpoint)(endpoint.host, str(port))}",
                key=key,
            )
        networks = [entry.value.network for entry in peer.allowed_ips]
        for address in other.interface.addresses:
            if not any(network.covers(address.value.packed) for network in networks):
                yield subject.finding(
                    "address-not-allowed",
                    f"{other_path} has the address {address.value.ip}, which {path} does not allow it: "
                    "its packets are dropped there, and none are sent to it.",
                    f"# in {path}, for that peer: AllowedIPs = {address.value.ip}",
                    key=key,
                )
    if theirs_here.endpoint is None and ours_there.endpoint is None:
        yield subject.finding(
            "no-endpoint",
            "Neither file has an Endpoint for the other: nobody can begin.",
            "# give one of them: Endpoint = HOST:PORT",
            key=key,
            severity=Severity.ERROR,
        )
    same = {a.value.ip for a in ours.interface.addresses} & {a.value.ip for a in theirs.interface.addresses}
    for address_of_both in sorted(map(str, same)):
        yield subject.finding(
            "same-address",
            f"Both ends have the address {address_of_both}.",
            "# give one of them another Address, and put that into the other's AllowedIPs",
            key=key,
        )


CHECKS = (mistakes, two_peers_with_one_network, own_key_as_peer, file_differs, both_files)


def _own_key(subject: Subject) -> PublicKey | None:
    if subject.device is not None and subject.device.private_key is not None:
        return subject.device.private_key.public_key
    return _public_key(subject.config) if subject.config is not None else None


def _public_key(config: Config) -> PublicKey | None:
    key = value_of(config.interface.private_key)
    return None if key is None else key.public_key


def _peer(config: Config, key: PublicKey) -> Peer | None:
    return next((peer for peer in merge_peers(config.peers) if peer.public_key.value == key), None)
