"""The words of `wg set`, from the command line to a change: a grammar of its own, without dashes.

Words are read in order; keys are read from their files, and names of endpoints resolved, on the way.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pywg.config import parse
from pywg.config.model import Operation
from pywg.config.positions import did_you_mean, quote
from pywg.errors import PywgError
from pywg.host.resolve import resolve_endpoint
from pywg.noise.keys import BASE64_LENGTH, PresharedKey, PrivateKey, PublicKey
from pywg.uapi.format import AllowedIpChange, DeviceChange, PeerChange

USAGE = (
    "<interface> [listen-port <port>] [fwmark <mark>] [private-key <file>] [peer <public key> [remove] "
    "[preshared-key <file>] [endpoint <host>:<port>] [persistent-keepalive <seconds>] "
    "[allowed-ips [+|-]<address>/<length>[,...]]]..."
)

_DEVICE_WORDS = ("listen-port", "fwmark", "private-key", "peer")
_PEER_WORDS = ("peer", "remove", "preshared-key", "endpoint", "persistent-keepalive", "allowed-ips")
_SPACE = " \t\n\v\f\r"
_WITHOUT_SPACE = str.maketrans("", "", _SPACE)

T = TypeVar("T")
Key = TypeVar("Key", PrivateKey, PresharedKey)


def read_words(words: Sequence[str], say: Callable[[str], None]) -> DeviceChange:
    """What the words behind the interface's name ask for. Raises PywgError.

    say: prints a line that is no error: a name that is asked for again, bits behind a prefix.
    """
    change = DeviceChange()
    peers: list[PeerChange] = []
    rest = iter(words)
    for word in rest:
        if word == "peer":
            peers.append(PeerChange(_public_key(_value(word, rest))))
        elif not peers:
            _read_device_word(change, word, rest)
        else:
            _read_peer_word(peers[-1], word, rest, say)
    change.peers = peers
    return change


def _read_device_word(change: DeviceChange, word: str, rest: Iterator[str]) -> None:
    match word:
        case "listen-port":
            change.listen_port = _converted(word, parse.listen_port, _value(word, rest))
        case "fwmark":
            change.fwmark = _converted(word, parse.fwmark, _value(word, rest))
        case "private-key":
            change.private_key = read_key_file(PrivateKey, _value(word, rest))
        case _:
            raise _unknown(word, _DEVICE_WORDS, _PEER_WORDS, "stands behind 'peer' and a public key")


def _read_peer_word(peer: PeerChange, word: str, rest: Iterator[str], say: Callable[[str], None]) -> None:
    match word:
        case "remove":
            peer.remove = True
        case "preshared-key":
            peer.preshared_key = read_key_file(PresharedKey, _value(word, rest))
        case "endpoint":
            name = _converted(word, parse.endpoint_name, _value(word, rest))
            peer.endpoint = resolve_endpoint(name, say)
        case "persistent-keepalive":
            seconds = _converted(word, parse.persistent_keepalive, _value(word, rest))
            peer.persistent_keepalive_interval = seconds
        case "allowed-ips":
            _read_allowed_ips(peer, _value(word, rest).translate(_WITHOUT_SPACE), say)
        case _:
            raise _unknown(word, _PEER_WORDS, _DEVICE_WORDS, "stands before the first 'peer'")


def _read_allowed_ips(peer: PeerChange, text: str, say: Callable[[str], None]) -> None:
    """They replace what the peer has, also when there are none; one `+` or `-` makes all incremental."""
    peer.replace_allowed_ips = True
    changes = list(peer.allowed_ips)
    for entry in text.split(",") if text else ():
        allowed_ip = _converted("allowed-ips", parse.allowed_ip, entry)
        if allowed_ip.host_bits:
            say(f"Warning: allowed-ips: {quote(entry)} has host bits set; {allowed_ip.network} is used")
        if allowed_ip.operation is not Operation.SET:
            peer.replace_allowed_ips = False
        changes.append(AllowedIpChange(allowed_ip.network, allowed_ip.operation is Operation.REMOVE))
    peer.allowed_ips = changes


def read_key_file(kind: type[Key], path: str) -> Key:
    """A key from a file, with white space behind it at the most; an empty file means: no key.

    /dev/stdin reads standard input. Nothing coming out of a pipe is an error, not an empty file: whatever was
    to write the key has failed. Raises PywgError, whose sentence does not show what the file holds.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(BASE64_LENGTH)
            if not data and file.seekable():
                return kind(bytes(32))
            while more := file.read(65536):
                if more.strip(_SPACE.encode()):
                    raise PywgError(f"{quote(path)} holds more than one key")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PywgError(f"the key file {quote(path)} cannot be read: {reason}{_hint(error)}") from None
    try:
        return kind.from_base64(data.decode("latin-1"))
    except PywgError as error:
        raise PywgError(f"{quote(path)}: {error}") from None


def _hint(error: Exception) -> str:
    is_missing = isinstance(error, OSError) and error.errno == errno.ENOENT
    return "; keys are given in files, or on standard input with /dev/stdin" if is_missing else ""


def _public_key(text: str) -> PublicKey:
    try:
        return PublicKey.from_base64(text)
    except PywgError as error:
        raise PywgError(f"peer: {error}") from None


def _value(word: str, rest: Iterator[str]) -> str:
    value = next(rest, None)
    if value is None:
        raise PywgError(f"'{word}' is the last word; its value is missing")
    return value


def _converted(word: str, convert: Callable[[str], T], text: str) -> T:
    try:
        return convert(text)
    except parse.BadValue as bad:
        raise PywgError(f"{word}: {bad}") from None


def _unknown(word: str, here: Sequence[str], elsewhere: Sequence[str], where: str) -> PywgError:
    if word in elsewhere:
        return PywgError(f"'{word}' {where}")
    return PywgError(f"unknown word {quote(word)}{did_you_mean(word, here)}")
