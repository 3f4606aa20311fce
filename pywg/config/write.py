"""A model back into a file's text, in the order and the spelling that `wg showconf` and `wg-quick save` use.

The text holds the private key, unless the model says where else it is. Comments of the file that the model
was read from are not part of it, but for those that pywg reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from pywg.config.model import Config, Interface, KeyFile, KeySource, Operation, Peer
from pywg.config.positions import Located
from pywg.noise.keys import PresharedKey, PrivateKey

T = TypeVar("T")


def write(config: Config) -> str:
    """The file's text; `parse` makes the same model of it."""
    sections = [_interface_lines(config.interface), *(_peer_lines(peer) for peer in config.peers)]
    return "\n".join("".join(f"{line}\n" for line in section) for section in sections)


def _values(items: Iterable[Located[T] | None]) -> Iterator[T]:
    return (item.value for item in items if item is not None)


def _interface_lines(interface: Interface) -> Iterator[str]:
    yield "[Interface]"
    for address in _values(interface.addresses):
        yield f"Address = {address}"
    for server in _values(interface.dns_servers):
        yield f"DNS = {server}"
    for domain in _values(interface.dns_search):
        yield f"DNS = {domain}"
    for mtu in _values([interface.mtu]):
        yield f"MTU = {mtu}"
    for table in _values([interface.table]):
        yield f"Table = {table}"
    for save in _values([interface.save_config]):
        yield f"SaveConfig = {'true' if save else 'false'}"
    yield from _hook_lines("PreUp", interface.pre_up)
    yield from _hook_lines("PostUp", interface.post_up)
    yield from _hook_lines("PreDown", interface.pre_down)
    yield from _hook_lines("PostDown", interface.post_down)
    for port in _values([interface.listen_port]):
        yield f"ListenPort = {port}"
    for mark in _values([interface.fwmark]):
        yield f"FwMark = {mark:#x}" if mark else "FwMark = off"
    yield from _key_lines("PrivateKey", interface.private_key, interface.private_key_source)


def _key_lines(
    name: str, key: Located[PrivateKey] | Located[PresharedKey] | None, source: Located[KeySource] | None
) -> Iterator[str]:
    """A key that is elsewhere stays there."""
    if source is None:
        if key is not None:
            yield f"{name} = {key.value.base64}"
    elif isinstance(source.value, KeyFile):
        yield f"#pywg {name}File = {source.value.path}"
    else:
        yield f"#pywg {name} = ${{{source.value.name}}}"


def _hook_lines(name: str, hooks: Sequence[Located[str]]) -> Iterator[str]:
    return (f"{name} = {command}" for command in _values(hooks))


def _peer_lines(peer: Peer) -> Iterator[str]:
    yield "[Peer]"
    for name in _values([peer.name]):
        yield f"# Name = {name}"
    yield f"PublicKey = {peer.public_key.value.base64}"
    yield from _key_lines("PresharedKey", peer.preshared_key, peer.preshared_key_source)
    yield from _allowed_ips_lines(peer)
    if peer.disallowed_ips:
        yield f"#pywg DisallowedIPs = {', '.join(map(str, _values(peer.disallowed_ips)))}"
    for number, endpoint in enumerate(_values([peer.endpoint, *peer.more_endpoints])):
        yield f"{'#pywg ' if number else ''}Endpoint = {endpoint}"
    for seconds in _values([peer.persistent_keepalive]):
        yield f"PersistentKeepalive = {seconds or 'off'}"


def _allowed_ips_lines(peer: Peer) -> Iterator[str]:
    """One line; two when plain entries on a later line made the list replacing again after a `+` or `-`."""
    entries = list(_values(peer.allowed_ips))
    incremental = [index for index, entry in enumerate(entries) if entry.operation is not Operation.SET]
    if peer.replace_allowed_ips and incremental:
        end = incremental[-1] + 1
        yield f"AllowedIPs = {', '.join(map(str, entries[:end]))}"
        yield f"AllowedIPs = {', '.join(map(str, entries[end:]))}".rstrip()
    elif entries:
        yield f"AllowedIPs = {', '.join(map(str, entries))}"
