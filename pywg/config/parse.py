"""The grammar of configuration files: text in, model out, or every mistake at once.

Two dialects share it. Of a line that is `wg`'s, a `#` begins a comment anywhere and white space does not
count, not even inside a word; of wg-quick's own keys, values are words, and hooks keep their `#`. There,
some comments are read too, see `comments.py`; what they refer to is looked up later, in `settle.py`.
Facts from wireguard-tools' `config.c` and `wg-quick`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from pywg.config.comments import (
    MARKER,
    name_start,
    nearly_setting,
    only_reference,
    references,
    setting_start,
)
from pywg.config.model import (
    Address,
    AllowedIP,
    Config,
    Dialect,
    EndpointName,
    Interface,
    InterfaceAddress,
    KeyFile,
    KeySource,
    KeyVariable,
    Operation,
    Peer,
)
from pywg.config.positions import (
    ConfigError,
    Located,
    Mistake,
    Position,
    closest,
    did_you_mean,
    printable,
    quote,
)
from pywg.errors import PywgError
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wire.network import Network

MISTAKE_LIMIT = 100
"""Mistakes that are kept and told; further ones are counted."""

HOPELESS = 10_000
"""Mistakes after which the rest is not read: what has so many is no configuration file."""

ENTRY_LIMIT = 10_000
"""Entries of one line of wg-quick's own, addresses or name servers; more are no configuration."""

NAME_LIMIT = 64
"""Characters of a peer's name that are kept."""

PATH_LIMIT = 4096
"""Characters of the longest path that the system takes."""

_SPACE = " \t\n\v\f\r"
_WITHOUT_SPACE = str.maketrans("", "", _SPACE)
_WORD = re.compile(r"[^, \t\n\v\f\r]+")
_DECIMAL = re.compile(r"[0-9]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_PLAIN_NAME = re.compile(r"[A-Za-z]{1,24}")
_HOST = re.compile(r"[\w.:%-]+")
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_TABLE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_SEARCH_DOMAIN = re.compile(r"[\w.~-]+")
_KEY_LENGTH = 44
_KEY_TEXT = re.compile(r"[A-Za-z0-9+/]{43}=?")

T = TypeVar("T")
K = TypeVar("K", PrivateKey, PublicKey, PresharedKey)


class Word(NamedTuple):
    """A piece of a line, and the column where it begins."""

    text: str
    column: int


class BadValue(Exception):  # noqa: N818  caught where it gets its position
    """What is wrong with the value just read, as the end of a sentence that begins with the key's name."""


@dataclasses.dataclass(slots=True)
class _PeerSection:
    """A `[Peer]` section that is being read; its public key may come on any of its lines."""

    position: Position
    public_key: Located[PublicKey] | None = None
    public_key_given: bool = False
    preshared_key: Located[PresharedKey] | None = None
    endpoint: Located[EndpointName] | None = None
    persistent_keepalive: Located[int] | None = None
    allowed_ips: list[Located[AllowedIP]] = dataclasses.field(default_factory=list)
    replace_allowed_ips: bool = True
    name: Located[str] | None = None
    preshared_key_source: Located[KeySource] | None = None
    more_endpoints: list[Located[EndpointName]] = dataclasses.field(default_factory=list)
    disallowed_ips: list[Located[Network]] = dataclasses.field(default_factory=list)


def parse(text: str, path: str, dialect: Dialect) -> Config:
    """Read a whole file's text; `path` is how messages name the file.

    Raises ConfigError with every mistake in it. An empty text is a valid file for `wg`, not for wg-quick.
    """
    return _Parser(path, dialect).parse(text)


class _Parser:
    def __init__(self, path: str, dialect: Dialect) -> None:
        self._path = path
        self._dialect = dialect
        self._line = 0
        self._mistakes: list[Mistake] = []
        self._more = 0
        self._config = Config()
        self._section: Interface | _PeerSection | None = None
        self._peers: list[_PeerSection] = []
        self._ignored = False  # inside a section that nobody knows

    def parse(self, text: str) -> Config:
        if text.startswith("\ufeff"):
            text = text[1:]
            self._warn(1, "the file begins with a byte order mark, which wg does not accept; save it without")
        if not text.strip(_SPACE) and self._dialect is Dialect.WG_QUICK:
            raise ConfigError([Mistake(Position(self._path), "the file is empty")])
        for self._line, line in enumerate(text.split("\n"), 1):
            self._read_line(line)
        interface = self._config.interface
        self._refuse_two_keys("PrivateKey", interface.private_key, interface.private_key_source)
        for section in self._peers:
            self._finish_peer(section)
        if self._mistakes:
            raise ConfigError(sorted(self._mistakes, key=lambda mistake: mistake.position), self._more)
        self._warn_of_moved_networks()
        return self._config

    def _at(self, column: int) -> Position:
        return Position(self._path, self._line, column)

    def _mistake(self, position: Position, text: str) -> None:
        if len(self._mistakes) < MISTAKE_LIMIT:
            self._mistakes.append(Mistake(position, text))
        else:
            self._more += 1
            if self._more >= HOPELESS:
                raise ConfigError(sorted(self._mistakes, key=lambda mistake: mistake.position), self._more)

    def _warn(self, column: int, text: str) -> None:
        if len(self._config.warnings) < MISTAKE_LIMIT:
            self._config.warnings.append(Mistake(self._at(column), text))

    def _read_line(self, line: str) -> None:
        code = line.partition("#")[0]
        stripped = code.strip(_SPACE)
        if not stripped:
            if code != line and self._dialect is Dialect.WG_QUICK and not self._ignored:
                self._read_comment(line)
            return
        column = code.index(stripped[0]) + 1
        if stripped[0] == "[":
            self._begin_section(Word(stripped.translate(_WITHOUT_SPACE), column))
            return
        if self._ignored:
            return
        key, equals, _ = code.partition("=")
        if not equals:
            hint = "; a comment begins with '#'" if stripped.startswith((";", "//")) else ""
            self._mistake(self._at(column), f"this is neither '[Section]' nor 'Key = value'{hint}")
            return
        self._read_entry(Word(key.strip(_SPACE), column), line, code, len(key) + 1)

    def _begin_section(self, header: Word) -> None:
        self._ignored = False
        name = header.text.lower()
        if name not in ("[interface]", "[peer]"):
            close = closest(name.strip("[]"), ("Interface", "Peer"))
            hint = f"; did you mean '[{close}]'?" if close else "; there are [Interface] and [Peer]"
            self._mistake(self._at(header.column), f"unknown section {quote(header.text)}{hint}")
            if close is None:
                self._ignored = True
                return
            name = f"[{close.lower()}]"
        if name == "[interface]":
            self._section = self._config.interface
        else:
            self._section = _PeerSection(self._at(header.column))
            self._peers.append(self._section)

    def _read_entry(self, key: Word, line: str, code: str, value_start: int) -> None:
        entry = self._find_entry(key)
        if entry is None:
            return
        if entry.is_hook:
            code = line
        value = code[value_start:].strip(_SPACE)
        start = code.index(value, value_start) if value else value_start
        word = Word(value, start + 1)
        if entry.of_wg and not value and not self._may_be_empty(entry, word):
            self._mistake(self._at(key.column), f"{entry.name}: has no value")
            return
        entry.read(self, entry.name, word)

    def _may_be_empty(self, entry: _Entry, word: Word) -> bool:
        if entry.name != "AllowedIPs" or self._dialect is Dialect.WG:
            return False
        self._warn(word.column, "AllowedIPs: is empty, which wg does not accept; leave the line out instead")
        return True

    def _read_comment(self, line: str) -> None:
        start = setting_start(line)
        if start is not None:
            self._read_extension(line, start)
        elif isinstance(self._section, _PeerSection) and (start := name_start(line)) is not None:
            self._name(line[start:].strip(_SPACE), start + 1)
        elif (key := nearly_setting(line)) and key.lower() in _INTERFACE_EXTENSIONS | _PEER_EXTENSIONS:
            text = f"this is only a comment; pywg reads '{MARKER} {key} = ...', without the blank"
            self._warn(line.index("#") + 1, text)

    def _read_extension(self, line: str, start: int) -> None:
        here = self._at(line.index("#") + 1)
        code = line[:start] + line[start:].partition("#")[0]
        before, equals, _ = code[start:].partition("=")
        key = before.strip(_SPACE)
        if not equals or not _PLAIN_NAME.fullmatch(key):
            # It may have (a part of) a key in it; so it is not repeated.
            self._mistake(here, f"this is not '{MARKER} Key = value'")
            return
        entry = self._find_extension(key, here)
        if entry is None:
            return
        begin = start + len(before) + 1
        value = code[begin:].strip(_SPACE)
        if not value:
            self._mistake(here, f"{entry.name}: has no value")
            return
        self._config.extensions.append(Located(entry.name, here))
        entry.read(self, entry.name, Word(value, code.index(value, begin) + 1))

    def _find_extension(self, key: str, here: Position) -> _Entry | None:
        """The entry for a key behind `#pywg`; None, when that is a mistake and has been noted."""
        if self._section is None:
            self._mistake(here, f"{quote(key)} stands before any [Interface] or [Peer] section")
            return None
        entries, others, plain = _INTERFACE_EXTENSIONS, _PEER_EXTENSIONS, _INTERFACE_ENTRIES
        other_section = "[Peer]"
        if isinstance(self._section, _PeerSection):
            entries, others, plain = _PEER_EXTENSIONS, _INTERFACE_EXTENSIONS, _PEER_ENTRIES
            other_section = "[Interface]"
        if (entry := entries.get(key.lower())) is not None:
            return entry
        if (other := others.get(key.lower())) is not None:
            self._mistake(here, f"'{MARKER} {other.name}' belongs in a section {other_section}")
        elif (ordinary := plain.get(key.lower())) is not None:
            self._mistake(here, f"'{ordinary.name}' is an ordinary key; write it without '{MARKER}'")
        else:
            names = [entry.name for entry in entries.values()]
            self._mistake(here, f"unknown key {quote(key)} behind '{MARKER}'{did_you_mean(key, names)}")
        return None

    def _find_entry(self, key: Word) -> _Entry | None:
        """The entry for this key in this section; None, when that is a mistake and has been noted."""
        here = self._at(key.column)
        if self._section is None:
            name = quote(key.text) if _PLAIN_NAME.fullmatch(key.text) else "this line"
            self._mistake(here, f"{name} stands before any [Interface] or [Peer] section")
            return None
        entries, others, other_section = _INTERFACE_ENTRIES, _PEER_ENTRIES, "[Peer]"
        if isinstance(self._section, _PeerSection):
            entries, others, other_section = _PEER_ENTRIES, _INTERFACE_ENTRIES, "[Interface]"
        squeezed = key.text.translate(_WITHOUT_SPACE)
        entry = entries.get(squeezed.lower()) if squeezed.isascii() else None
        if entry is not None and not entry.of_wg and entry.name.lower() != key.text.lower():
            entry = None  # white space inside the name: wg-quick's keys are not read by wg
        if entry is not None and not entry.of_wg and self._dialect is Dialect.WG:
            hint = "`pywg strip` leaves out what wg does not know"
            self._mistake(here, f"'{entry.name}' is a key of wg-quick's files; {hint}")
            return None
        if entry is not None:
            return entry
        if not _PLAIN_NAME.fullmatch(squeezed):
            # It may be (a part of) a private key, which ends in '=' too; so it is not repeated.
            self._mistake(here, "this line is not 'Key = value' with a key that is known here")
        elif (other := others.get(key.text.lower())) is not None:
            self._mistake(here, f"'{other.name}' belongs in a section {other_section}")
        elif self._dialect is Dialect.WG_QUICK and (own := _extension_called(key.text)) is not None:
            self._mistake(here, f"'{own}' is a key of pywg's own; write the line as '{MARKER} {own} = ...'")
        else:
            names = [e.name for e in entries.values() if e.of_wg or self._dialect is Dialect.WG_QUICK]
            self._mistake(here, f"unknown key {quote(key.text)}{did_you_mean(key.text, names)}")
        return None

    def _refuse_two_keys(self, name: str, inline: object, source: Located[KeySource] | None) -> None:
        if isinstance(inline, Located) and source is not None:
            text = f"there is a {name} in line {inline.position.line} too; keep one of the two"
            self._mistake(source.position, f"{_source_name(name, source.value)}: {text}")

    def _finish_peer(self, section: _PeerSection) -> None:
        self._refuse_two_keys("PresharedKey", section.preshared_key, section.preshared_key_source)
        if section.endpoint is None and section.more_endpoints:
            text = f"Endpoint: the peer's first one is written without '{MARKER}'"
            self._mistake(section.more_endpoints[0].position, text)
        if section.public_key is not None:
            self._config.peers.append(
                Peer(
                    section.public_key,
                    section.preshared_key,
                    section.endpoint,
                    section.persistent_keepalive,
                    section.allowed_ips,
                    section.replace_allowed_ips,
                    section.name,
                    section.preshared_key_source,
                    section.more_endpoints,
                    section.disallowed_ips,
                )
            )
        elif not section.public_key_given:
            self._mistake(section.position, "[Peer]: has no PublicKey")

    def _warn_of_moved_networks(self) -> None:
        owners: dict[object, tuple[PublicKey, int]] = {}
        for peer in self._config.peers:
            for entry in peer.allowed_ips:
                if entry.value.operation is Operation.REMOVE:
                    continue
                key, line = owners.get(entry.value.network, (peer.public_key.value, 0))
                if key != peer.public_key.value:
                    self._line = entry.position.line
                    text = f"AllowedIPs: {entry.value.network} moves here from the peer in line {line}"
                    self._warn(entry.position.column, text)
                owners[entry.value.network] = (peer.public_key.value, entry.position.line)

    # --- Values: called for a key with the rest of its line. ----------------------------------------------

    def _one(self, name: str, word: Word, convert: Callable[[str], T]) -> Located[T] | None:
        try:
            return Located(convert(word.text), self._at(word.column))
        except BadValue as bad:
            self._mistake(self._at(word.column), f"{name}: {bad}")
            return None

    def _wg_one(self, name: str, word: Word, convert: Callable[[str], T]) -> Located[T] | None:
        """A value that wg reads: white space inside it does not count."""
        return self._one(name, Word(word.text.translate(_WITHOUT_SPACE), word.column), convert)

    def _many(self, name: str, word: Word, convert: Callable[[str], T]) -> Iterator[Located[T]]:
        """wg-quick's lists: commas and white space both separate, empty entries do not count."""
        for number, match in enumerate(_WORD.finditer(word.text)):
            entry = Word(match[0], word.column + match.start())
            if number >= ENTRY_LIMIT:
                self._mistake(self._at(entry.column), f"{name}: has more than {ENTRY_LIMIT} entries")
                return
            located = self._one(name, entry, convert)
            if located is not None:
                yield located

    @property
    def _interface(self) -> Interface:
        assert isinstance(self._section, Interface)
        return self._section

    @property
    def _peer(self) -> _PeerSection:
        assert isinstance(self._section, _PeerSection)
        return self._section

    def _secret(self, name: str, word: Word, kind: type[K]) -> Located[K] | None:
        if word.text.startswith("$") and self._dialect is Dialect.WG_QUICK:
            text = f"is no key; one from the environment is written '{MARKER} {name} = ${{VARIABLE}}'"
            self._mistake(self._at(word.column), f"{name}: {text}")
            return None
        return self._wg_one(name, word, lambda text: _key(kind, text))

    def _private_key(self, name: str, word: Word) -> None:
        self._interface.private_key = self._secret(name, word, PrivateKey)

    def _listen_port(self, name: str, word: Word) -> None:
        self._interface.listen_port = self._wg_one(name, word, listen_port)

    def _fwmark(self, name: str, word: Word) -> None:
        self._interface.fwmark = self._wg_one(name, word, fwmark)

    def _address(self, name: str, word: Word) -> None:
        self._interface.addresses.extend(self._many(name, word, interface_address))

    def _dns(self, name: str, word: Word) -> None:
        for located in self._many(name, word, _dns_entry):
            if isinstance(located.value, str):
                self._interface.dns_search.append(Located(located.value, located.position))
            else:
                self._interface.dns_servers.append(Located(located.value, located.position))

    def _mtu(self, name: str, word: Word) -> None:
        self._interface.mtu = self._one(name, word, _mtu) if word.text else None

    def _table(self, name: str, word: Word) -> None:
        self._interface.table = self._one(name, word, _table) if word.text else None

    def _pre_up(self, _: str, word: Word) -> None:
        self._hook(self._interface.pre_up, word)

    def _post_up(self, _: str, word: Word) -> None:
        self._hook(self._interface.post_up, word)

    def _pre_down(self, _: str, word: Word) -> None:
        self._hook(self._interface.pre_down, word)

    def _post_down(self, _: str, word: Word) -> None:
        self._hook(self._interface.post_down, word)

    def _hook(self, hooks: list[Located[str]], word: Word) -> None:
        if word.text:
            hooks.append(Located(word.text, self._at(word.column)))

    def _save_config(self, name: str, word: Word) -> None:
        self._interface.save_config = self._one(name, word, _boolean)

    def _public_key(self, name: str, word: Word) -> None:
        self._peer.public_key_given = True
        self._peer.public_key = self._wg_one(name, word, lambda text: _key(PublicKey, text))

    def _preshared_key(self, name: str, word: Word) -> None:
        self._peer.preshared_key = self._secret(name, word, PresharedKey)

    def _endpoint(self, name: str, word: Word) -> None:
        self._peer.endpoint = self._wg_one(name, word, endpoint_name)

    def _persistent_keepalive(self, name: str, word: Word) -> None:
        self._peer.persistent_keepalive = self._wg_one(name, word, persistent_keepalive)

    def _allowed_ips(self, name: str, word: Word) -> None:
        self._peer.replace_allowed_ips = True
        if not word.text:
            return
        column = word.column
        for text in word.text.split(","):
            begin = column + len(text) - len(text.lstrip(_SPACE))
            located = self._wg_one(name, Word(text, begin), allowed_ip)
            column += len(text) + 1
            if located is None:
                continue
            self._peer.allowed_ips.append(located)
            if located.value.operation is not Operation.SET:
                self._peer.replace_allowed_ips = False
            self._warn_of_host_bits(name, Word(text.strip(_SPACE), begin), located.value)

    def _warn_of_host_bits(self, name: str, word: Word, entry: AllowedIP) -> None:
        if entry.host_bits and len(self._config.warnings) < MISTAKE_LIMIT:
            self._warn(word.column, f"{name}: {quote(word.text)} has host bits set; {entry.network} is used")

    # --- Values of pywg's own. ----------------------------------------------------------------------------

    def _name(self, text: str, column: int) -> None:
        shown = printable(text)[:NAME_LIMIT].strip()
        if not shown:
            return
        if self._peer.name is not None:
            known = self._peer.name
            text = f"the peer is called {quote(known.value)} in line {known.position.line} already"
            self._warn(column, f"{text}; this name is not used, and a name stands behind its [Peer]")
            return
        self._peer.name = Located(shown, self._at(column))

    def _private_key_source(self, name: str, word: Word) -> None:
        section = self._interface
        section.private_key_source = self._key_source(name, word, section.private_key_source)

    def _preshared_key_source(self, name: str, word: Word) -> None:
        section = self._peer
        section.preshared_key_source = self._key_source(name, word, section.preshared_key_source)

    def _key_source(
        self, name: str, word: Word, before: Located[KeySource] | None
    ) -> Located[KeySource] | None:
        if before is not None:
            text = f"line {before.position.line} says already where the key is"
            self._mistake(self._at(word.column), f"{name}: {text}")
            return before
        return self._one(name, word, _key_file if name.endswith("File") else _key_variable)

    def _another_endpoint(self, name: str, word: Word) -> None:
        located = self._wg_one(name, word, endpoint_name)
        if located is not None:
            self._peer.more_endpoints.append(located)

    def _disallowed_ips(self, name: str, word: Word) -> None:
        for match in _WORD.finditer(word.text):
            entry = Word(match[0], word.column + match.start())
            located = self._one(name, entry, _disallowed_ip)
            if located is not None:
                self._warn_of_host_bits(name, entry, located.value)
                self._peer.disallowed_ips.append(Located(located.value.network, located.position))


class _Entry(NamedTuple):
    name: str
    read: Callable[[_Parser, str, Word], None]
    of_wg: bool = True
    is_hook: bool = False


_P = _Parser
_INTERFACE_ENTRIES = {
    entry.name.lower(): entry
    for entry in (
        _Entry("PrivateKey", _P._private_key),
        _Entry("ListenPort", _P._listen_port),
        _Entry("FwMark", _P._fwmark),
        _Entry("Address", _P._address, of_wg=False),
        _Entry("DNS", _P._dns, of_wg=False),
        _Entry("MTU", _P._mtu, of_wg=False),
        _Entry("Table", _P._table, of_wg=False),
        _Entry("PreUp", _P._pre_up, of_wg=False, is_hook=True),
        _Entry("PostUp", _P._post_up, of_wg=False, is_hook=True),
        _Entry("PreDown", _P._pre_down, of_wg=False, is_hook=True),
        _Entry("PostDown", _P._post_down, of_wg=False, is_hook=True),
        _Entry("SaveConfig", _P._save_config, of_wg=False),
    )
}
_PEER_ENTRIES = {
    entry.name.lower(): entry
    for entry in (
        _Entry("PublicKey", _P._public_key),
        _Entry("PresharedKey", _P._preshared_key),
        _Entry("AllowedIPs", _P._allowed_ips),
        _Entry("Endpoint", _P._endpoint),
        _Entry("PersistentKeepalive", _P._persistent_keepalive),
    )
}
_INTERFACE_EXTENSIONS = {
    entry.name.lower(): entry
    for entry in (
        _Entry("PrivateKeyFile", _P._private_key_source),
        _Entry("PrivateKey", _P._private_key_source),
    )
}
_PEER_EXTENSIONS = {
    entry.name.lower(): entry
    for entry in (
        _Entry("PresharedKeyFile", _P._preshared_key_source),
        _Entry("PresharedKey", _P._preshared_key_source),
        _Entry("DisallowedIPs", _P._disallowed_ips),
        _Entry("Endpoint", _P._another_endpoint),
    )
}


def is_only_wg_quick_s(key: str) -> bool:
    """Whether a key of an [Interface] section is one that `wg` does not know. Any case, no blanks around."""
    entry = _INTERFACE_ENTRIES.get(key.lower())
    return entry is not None and not entry.of_wg


def _extension_called(key: str) -> str | None:
    """The name of pywg's own key that this is, whichever section it is for."""
    entry = (_INTERFACE_EXTENSIONS | _PEER_EXTENSIONS).get(key.lower())
    return entry.name if entry else None


def _source_name(key: str, source: KeySource) -> str:
    return f"{key}File" if isinstance(source, KeyFile) else key


# --- Converters: one word to one value; they raise `BadValue` with what is wrong. --------------------------


def _key(kind: type[K], text: str) -> K:
    """No message here repeats the text: it is, or was meant to be, a secret."""
    if len(text) != _KEY_LENGTH:
        raise BadValue(f"is {len(text)} characters long; a key is {_KEY_LENGTH} characters of base64")
    try:
        return kind.from_base64(text)
    except PywgError:
        raise BadValue("is not a key: 43 characters of base64 and a '=' that stand for 32 bytes") from None


def _number(text: str, limit: int, what: str) -> int:
    """`what` says which numbers are right. The length check keeps huge numbers from being converted."""
    if not _DECIMAL.fullmatch(text) or len(text.lstrip("0")) > 10 or int(text) > limit:
        raise BadValue(f"{quote(text)} is not {what}")
    return int(text)


def listen_port(text: str) -> int:
    """A port number, or a service's name as /etc/services has it."""
    if not text[:1].isdigit() and _SERVICE.fullmatch(text):
        try:
            return socket.getservbyname(text, "udp")
        except OSError:
            raise BadValue(f"{quote(text)} is neither a port number nor a UDP service known here") from None
    return _number(text, 65535, "a port number from 0 to 65535")


def fwmark(text: str) -> int:
    """A number, decimal or after `0x`, or `off`, which is 0."""
    what = "'off', a number up to 4294967295, or 0x and up to 8 hexadecimal digits"
    if text.lower() == "off":
        return 0
    if _HEXADECIMAL.fullmatch(text):
        if len(text[2:].lstrip("0")) > 8:
            raise BadValue(f"{quote(text)} is not {what}")
        return int(text, 16)
    return _number(text, 0xFFFFFFFF, what)


def persistent_keepalive(text: str) -> int:
    """Seconds, or `off`, which is 0."""
    if text.lower() == "off":
        return 0
    return _number(text, 65535, "'off' or a number of seconds from 0 to 65535")


def _mtu(text: str) -> int:
    what = "a number of bytes from 68 to 65535"
    mtu = _number(text, 65535, what)
    if mtu < 68:
        raise BadValue(f"{quote(text)} is not {what}")
    return mtu


def _table(text: str) -> int | str:
    if text.lower() in ("auto", "off"):
        return text.lower()
    if _TABLE.fullmatch(text):
        return text
    if _HEXADECIMAL.fullmatch(text) and len(text) <= 10:
        return int(text, 16)
    return _number(text, 0xFFFFFFFF, "'auto', 'off', a number up to 4294967295, or a table's name")


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise BadValue(f"{quote(text)} is neither 'true' nor 'false'")
    return text.lower() == "true"


def _dns_entry(text: str) -> Address | str:
    """wg-quick's rule: what has a colon, or only digits and dots, is a server; the rest are domains."""
    if ":" in text or re.fullmatch(r"[0-9.]+", text):
        return _address(text)
    if not _SEARCH_DOMAIN.fullmatch(text):
        raise BadValue(f"{quote(text)} is neither an address nor a domain")
    return text


def _address(text: str) -> Address:
    """As inet_pton reads it: no zone, no leading zeros, all four numbers."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        packed = socket.inet_pton(family, text)
    except (OSError, ValueError):
        what = "an IPv6" if ":" in text else "an IPv4"
        raise BadValue(f"{quote(text)} is not {what} address") from None
    return ipaddress.IPv6Address(packed) if ":" in text else ipaddress.IPv4Address(packed)


def _address_and_length(text: str) -> tuple[Address, int]:
    host, slash, length = text.partition("/")
    address = _address(host)
    if not slash:
        return address, address.max_prefixlen
    if not _DECIMAL.fullmatch(length):
        raise BadValue(f"{quote(text)} has no prefix length after the '/'")
    if len(length.lstrip("0")) > 3 or int(length) > address.max_prefixlen:
        raise BadValue(f"{quote(text)} has a prefix longer than {address.max_prefixlen}")
    return address, int(length)


def interface_address(text: str) -> InterfaceAddress:
    """An entry of Address: with a prefix length, a dotted IPv4 mask, or neither: the address alone."""
    host, _, mask = text.partition("/")
    if re.fullmatch(r"[0-9]+(\.[0-9]+){3}", mask) and ":" not in host:
        try:
            network = ipaddress.IPv4Network((0, mask))
        except ValueError:
            network = None
        if network is None or str(network.netmask) != mask:
            raise BadValue(f"{quote(text)} has a mask that is not a row of ones followed by zeros")
        text = f"{host}/{network.prefixlen}"
    address, length = _address_and_length(text)
    if isinstance(address, ipaddress.IPv4Address):
        return ipaddress.IPv4Interface((int(address), length))
    return ipaddress.IPv6Interface((int(address), length))


def allowed_ip(text: str) -> AllowedIP:
    """An entry of AllowedIPs: `+` or `-` or nothing, an address, perhaps a prefix length."""
    operation = Operation.SET
    if text[:1] in ("+", "-"):
        operation, text = Operation(text[0]), text[1:]
    if not text:
        raise BadValue("an entry of the list is empty")
    address, length = _address_and_length(text)
    network = Network.of(address.packed, length)
    return AllowedIP(network, operation, network.address != address.packed)


def endpoint_name(text: str) -> EndpointName:
    """`host:port`; brackets around an IPv6 address are customary, and not needed."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise BadValue(f"{quote(text)} has no ']' after the address")
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = text.rpartition(":")
    if colon != ":" or not port:
        raise BadValue(f"{quote(text)} has no port; write it as host:51820 or [2001:db8::1]:51820")
    if not host or not _HOST.fullmatch(host):
        raise BadValue(f"{quote(host)} is neither a host name nor an address")
    if port[0].isdigit():
        _number(port, 65535, "a port number from 0 to 65535")
    elif not _SERVICE.fullmatch(port):
        raise BadValue(f"{quote(port)} is neither a port number nor the name of a service")
    return EndpointName(host, port)


def _disallowed_ip(text: str) -> AllowedIP:
    if text[:1] in ("+", "-"):
        raise BadValue(f"{quote(text)} begins with a sign, which means nothing here")
    return allowed_ip(text)


def _key_file(text: str) -> KeyFile:
    """A path, in which `$NAME` and `${NAME}` may stand. No message repeats it: it may be a key."""
    if _KEY_TEXT.fullmatch(text):
        raise BadValue("this is a key; the path of a file with the key in it is wanted")
    if len(text) > PATH_LIMIT or not text.isprintable():
        raise BadValue("this is no path")
    if None in references(text):
        raise BadValue("a '$' stands before the name of an environment variable; '$$' is the character")
    return KeyFile(text)


def _key_variable(text: str) -> KeyVariable:
    """A reference to the environment. No message repeats it: it may be a key."""
    name = only_reference(text)
    if name is None:
        raise BadValue(
            f"behind '{MARKER}' is the name of an environment variable with the key in it: ${{NAME}}"
        )
    return KeyVariable(name)
