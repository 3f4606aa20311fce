"""Key logs, with which Wireshark opens WireGuard's messages: for debugging, by whoever owns the tunnel.

Each handshake is four lines, in the form that Wireshark's `wg.keylog_file` reads. Whoever has them can read
what went through the sessions that came of these handshakes, and can be us: they have our private key.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import TextIO

from pywg.device.peer import Peer
from pywg.engine import Engine
from pywg.errors import PywgError
from pywg.noise.keys import PrivateKey
from pywg.observe.ownfile import open_own

VARIABLE = "WG_KEYLOGFILE"


def lines_of(private_key: PrivateKey, peer: Peer, ephemeral: PrivateKey) -> str:
    """One handshake."""
    keys = (
        ("LOCAL_STATIC_PRIVATE_KEY", private_key),
        ("REMOTE_STATIC_PUBLIC_KEY", peer.public_key),
        ("LOCAL_EPHEMERAL_PRIVATE_KEY", ephemeral),
        ("PRESHARED_KEY", peer.preshared_key),
    )
    return "".join(f"{name} = {base64.b64encode(bytes(key)).decode()}\n" for name, key in keys)


def follow(engine: Engine, write: Callable[[str], object]) -> Callable[[], None]:
    """Call `write` with the lines of each handshake from now on; returns what ends that."""

    def take(peer: Peer, ephemeral: PrivateKey) -> None:
        private_key = engine.device.private_key
        assert private_key is not None
        write(lines_of(private_key, peer, ephemeral))

    return engine.watch_keys(take)


def open_file(path: str) -> TextIO:
    """Open a key log to add to, for its owner alone. Raises PywgError."""
    try:
        descriptor = open_own(path, append=True)
    except OSError as error:
        raise PywgError(f"{VARIABLE}={path} can't be written: {error.strerror}") from None
    return os.fdopen(descriptor, "w", buffering=1, encoding="ascii")
