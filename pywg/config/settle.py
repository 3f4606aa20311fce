"""What a file refers to: keys in files of their own and in the environment, and networks left out of others.

Afterwards a model says all that is applied to a device. A key's text is in no message, and neither is the
value of an environment variable, since it may be a key where a path was meant.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pywg.config.comments import expand, references
from pywg.config.model import Config, KeyFile, KeySource, Operation, Peer
from pywg.config.networks import Taken, TooManyNetworks
from pywg.config.parse import MISTAKE_LIMIT
from pywg.config.positions import ConfigError, Located, Mistake, printable
from pywg.errors import PywgError
from pywg.noise.keys import PresharedKey, PrivateKey
from pywg.wire.network import Network

NETWORK_LIMIT = 100_000
"""Networks that DisallowedIPs may leave in one file; one address taken out of ::/0 leaves 128."""

KEY_FILE_LIMIT = 4096
"""Bytes of the largest file that is read as a key; a key has 44."""

_SHOWN_PATH = 120
_KEY_TEXT = re.compile(r"[A-Za-z0-9+/]{43}=")

K = TypeVar("K", PrivateKey, PresharedKey)


class _Bad(Exception):  # noqa: N818  caught where it gets its position
    """Why there is no key, as the end of a sentence."""


def settle_keys(config: Config, directory: Path, environment: Mapping[str, str]) -> list[str]:
    """Look up all keys that are elsewhere; paths are relative to `directory`. The model is changed.

    Returns the paths of the key files that were read. Raises ConfigError with every key that was not found.
    """
    mistakes: list[Mistake] = []
    paths: list[str] = []

    def look_up(name: str, source: Located[KeySource] | None, kind: type[K]) -> Located[K] | None:
        if source is None:
            return None
        if isinstance(source.value, KeyFile):
            name += "File"
        try:
            text, path = _text_of(source.value, directory, environment)
            key = _key(text, kind, "the file" if path else "the variable")
        except _Bad as bad:
            mistakes.append(Mistake(source.position, f"{name}: {bad}"))
            return None
        if path:
            paths.append(path)
        return Located(key, source.position)

    interface = config.interface
    interface.private_key = (
        look_up("PrivateKey", interface.private_key_source, PrivateKey) or interface.private_key
    )
    for peer in config.peers:
        found = look_up("PresharedKey", peer.preshared_key_source, PresharedKey)
        peer.preshared_key = found or peer.preshared_key
    if mistakes:
        mistakes.sort(key=lambda mistake: mistake.position)
        raise ConfigError(mistakes[:MISTAKE_LIMIT], max(0, len(mistakes) - MISTAKE_LIMIT))
    return paths


def settle_allowed_ips(config: Config) -> None:
    """Take each peer's DisallowedIPs out of its AllowedIPs. The model is changed.

    Entries with a `-` stay. Raises ConfigError when more than NETWORK_LIMIT networks would be left.
    """
    room = NETWORK_LIMIT
    for peer in config.peers:
        if not peer.disallowed_ips:
            continue
        _warn_of_idle(config, peer)
        taken = Taken(network.value for network in peer.disallowed_ips)
        left = []
        for entry in peer.allowed_ips:
            if entry.value.operation is Operation.REMOVE:
                left.append(entry)
                continue
            try:
                networks = taken.out_of(entry.value.network, room)
            except TooManyNetworks:
                text = f"DisallowedIPs: leaves more than {NETWORK_LIMIT} networks; take away fewer"
                raise ConfigError([Mistake(peer.disallowed_ips[0].position, text)]) from None
            room -= len(networks)
            left += [
                dataclasses.replace(entry, value=dataclasses.replace(entry.value, network=network))
                for network in networks
            ]
        if not peer.replace_allowed_ips and all(entry.value.operation is Operation.SET for entry in left):
            # The entry that made the list incremental is gone: the others say so now, as `wg` reads them.
            left = [
                dataclasses.replace(entry, value=dataclasses.replace(entry.value, operation=Operation.ADD))
                for entry in left
            ]
            peer.replace_allowed_ips = not left
        peer.allowed_ips = left


def _warn_of_idle(config: Config, peer: Peer) -> None:
    """An entry that takes nothing away is probably a slip of the pen."""
    allowed: list[Network] = [
        entry.value.network for entry in peer.allowed_ips if entry.value.operation is not Operation.REMOVE
    ]
    everything = Taken(allowed)
    for entry in peer.disallowed_ips:
        if not everything.meets(entry.value) and len(config.warnings) < MISTAKE_LIMIT:
            text = f"DisallowedIPs: {entry.value} takes nothing away; no AllowedIPs of the peer meet it"
            config.warnings.append(Mistake(entry.position, text))


def _text_of(source: KeySource, directory: Path, environment: Mapping[str, str]) -> tuple[str, str]:
    """The key's text, and the path of its file if it was in one."""
    if not isinstance(source, KeyFile):
        return _variable(source.name, environment), ""
    names = [name for name in references(source.path) if name is not None]
    path = directory / expand(source.path, {name: _variable(name, environment) for name in names})
    # With the environment's part in it, the path is told as it stands in the file.
    shown = _shown(source.path if names else str(path))
    try:
        with path.open("rb") as file:
            data = file.read(KEY_FILE_LIMIT + 1)
    except FileNotFoundError:
        raise _Bad(f"{shown} does not exist") from None
    except IsADirectoryError:
        raise _Bad(f"{shown} is a directory, not a file with a key in it") from None
    except PermissionError:
        raise _Bad(f"{shown} may not be read by this user; try again as root") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "this is no path"
        raise _Bad(f"{shown} cannot be read: {reason}") from None
    if len(data) > KEY_FILE_LIMIT:
        raise _Bad(f"{shown} is larger than {KEY_FILE_LIMIT} bytes; this is no key")
    return data.decode("latin-1"), str(path)


def _variable(name: str, environment: Mapping[str, str]) -> str:
    value = environment.get(name)
    if value:
        return value
    hint = ""
    if name == "CREDENTIALS_DIRECTORY":
        hint = "; systemd sets it for services with LoadCredential="
    raise _Bad(f"the environment variable {name} is {'not set' if value is None else 'empty'}{hint}")


def _key(text: str, kind: type[K], where: str) -> K:
    text = text.strip(" \t\r\n")
    if not text:
        raise _Bad(f"{where} is empty")
    try:
        return kind.from_base64(text)
    except PywgError:
        raise _Bad(f"{where} holds something else than one key, which is 44 characters of base64") from None


def _shown(path: str) -> str:
    path = printable(_KEY_TEXT.sub("(a key)", path))
    return f"'{path if len(path) <= _SHOWN_PATH else '...' + path[-_SHOWN_PATH:]}'"
