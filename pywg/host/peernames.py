"""What people call the peers of an interface: the names that its configuration file gives in comments.

They are those that `up` kept, else those in /etc/wireguard. pywgd is told them for its logs and events.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from pywg.config import files
from pywg.config.model import Dialect
from pywg.config.parse import parse
from pywg.errors import PywgError
from pywg.host import state
from pywg.noise.keys import PublicKey
from pywg.uapi.client import Client
from pywg.uapi.error import UapiError

FILE_LIMIT = 256 * 1024
"""Bytes of the largest file that is read for its names: 2000 peers, 0.2 s."""

_MAY_NAME = re.compile(r"#.*name", re.IGNORECASE)


def peer_names(interface: str) -> dict[PublicKey, str]:
    """The names of the peers that have one. Never fails: what cannot be read names nobody."""
    if not files.is_interface_name(interface):
        return {}
    try:
        known = state.read(interface)
    except OSError:
        known = None
    if known is not None:
        return _by_key(known.names)
    return names_in_file(str(files.CONFIG_DIRECTORY / f"{interface}.conf"))


def tell_names(interface: str, kept: dict[str, str]) -> None:
    """Tell a daemon the names, by public key in base64, in place of all that it knows.

    Only pywgd takes them; for others, and the kernel, nothing happens.
    """
    with contextlib.suppress(UapiError), Client.open(interface) as client:
        client.set_names(_by_key(kept))


def names_in_file(path: str) -> dict[PublicKey, str]:
    """The names in a configuration file; none when it cannot be read, or has mistakes."""
    try:
        if not Path(path).is_file():
            return {}
        text = files.read_text(path, FILE_LIMIT)
        if not _MAY_NAME.search(text):
            return {}
        return _by_key(state.named_peers(parse(text, path, Dialect.WG_QUICK)))
    except (PywgError, OSError):
        return {}


def _by_key(kept: dict[str, str]) -> dict[PublicKey, str]:
    names = {}
    for key, name in kept.items():
        with contextlib.suppress(PywgError):
            names[PublicKey.from_base64(key)] = name
    return names
