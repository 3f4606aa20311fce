"""Configuration files on disk: which file a name means, what interface it is for, and its text.

Reading is bounded, whatever the path leads to; every failure is a sentence that names the path.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from pathlib import Path
from typing import NamedTuple

from pywg.config.model import Config, Dialect
from pywg.config.parse import parse
from pywg.config.positions import ConfigError, Mistake, Position
from pywg.config.settle import settle_allowed_ips, settle_keys
from pywg.errors import PywgError

SIZE_LIMIT = 16 * 1024 * 1024
"""Bytes of the largest file that is read; 10 000 peers take 2 MB."""

CONFIG_DIRECTORY = Path("/etc/wireguard")

_NAME = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Location(NamedTuple):
    """A configuration file, and the interface that its name stands for. `path` is as messages show it."""

    path: str
    interface: str


class Loaded(NamedTuple):
    """What `load` gives. `warnings` are lines for a person: the file's own, and on its permissions."""

    location: Location
    config: Config
    warnings: list[str]


def is_interface_name(name: str) -> bool:
    """Whether wg-quick and the kernel take it: 1 to 15 characters of [a-zA-Z0-9_=+.-], not `.` or `..`."""
    return _NAME.fullmatch(name) is not None and name not in (".", "..")


def locate(argument: str) -> Location:
    """The file that an argument of `up` and `down` means.

    As for wg-quick, a bare interface name means /etc/wireguard/NAME.conf. Unlike wg-quick, `wg0.conf` without
    a slash is the file of that name in the current directory when there is no /etc/wireguard/wg0.conf.conf.
    Raises PywgError when the file does not exist, may not be looked for, or its name is no interface's.
    """
    if not argument:
        raise PywgError("an empty word names no file and no interface")
    path = argument
    if is_interface_name(argument):
        path = str(CONFIG_DIRECTORY / f"{argument}.conf")
        if argument.endswith(".conf") and _exists(path) is not True:
            path = argument
    exists = _exists(path)
    if exists is None:
        raise PywgError(f"`{path}' may not be looked for by this user; try again as root")
    if not exists:
        hint = "; for a file elsewhere give a path with a '/' in it" if path != argument else ""
        near = f"{'./' if path != argument else ''}{argument}.conf"
        if _exists(near):
            hint = f"; `{near}' does"
        raise PywgError(f"`{path}' does not exist{hint}")
    name = Path(path).name
    if not name.endswith(".conf") or not is_interface_name(name[: -len(".conf")]):
        raise PywgError(
            f"{path}: the file's name must be the interface's name, at most 15 of a-z A-Z 0-9 _ = + . -, "
            "followed by .conf"
        )
    return Location(path, name[: -len(".conf")])


def _exists(path: str) -> bool | None:
    """Whether the file is there; None: this user may not know."""
    try:
        return Path(path).exists()
    except PermissionError:
        return None


def read_text(path: str, limit: int = SIZE_LIMIT) -> str:
    """A file's text; bytes that are not UTF-8 become surrogates, as in file names.

    Raises ConfigError when it cannot be read, is no text, or is longer than `limit` bytes.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except IsADirectoryError:
        raise _unreadable(path, "is a directory, not a configuration file") from None
    except FileNotFoundError:
        raise _unreadable(path, "does not exist") from None
    except PermissionError:
        raise _unreadable(path, "may not be read by this user; try again as root") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _unreadable(path, f"cannot be read: {reason}") from None
    if len(data) > limit:
        raise _unreadable(path, f"is larger than {limit // 1024 // 1024} MiB; this is no configuration file")
    if data.startswith(_UTF_16_MARKS):
        raise _unreadable(path, "is UTF-16 text; save it as UTF-8")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise _unreadable(path, f"is a binary file: there is a zero byte in line {line}")
    return data.decode("utf-8", "surrogateescape")


def permission_warning(path: str) -> str | None:
    """wg-quick's warning, when both the file and its directory may be reached by everybody."""
    try:
        real = Path(path).resolve(strict=True)
        mode, directory = real.stat().st_mode, real.parent.stat().st_mode
    except OSError:
        return None
    if stat.S_IMODE(mode) & stat.S_IMODE(directory) & 0o007:
        return f"Warning: `{path}' is world accessible; close it with: chmod 600 {shlex.quote(path)}"
    return None


def load(argument: str, *, with_keys: bool = True) -> Loaded:
    """Find, read and parse the wg-quick file that `argument` means.

    Keys that are in files of their own or in the environment are read too, unless `with_keys` is False, and
    DisallowedIPs are taken out of AllowedIPs. Raises PywgError: ConfigError with every mistake when the file
    was found.
    """
    location = locate(argument)
    return load_text(location, read_text(location.path), with_keys=with_keys)


def load_text(location: Location, text: str, *, with_keys: bool = True) -> Loaded:
    """The same for the text of a file that was read. Raises ConfigError."""
    config = parse(text, location.path, Dialect.WG_QUICK)
    paths = [location.path]
    if with_keys:
        directory = Path(os.path.realpath(location.path)).parent
        paths += settle_keys(config, directory, os.environ)
    settle_allowed_ips(config)
    permissions = [warning for path in dict.fromkeys(paths) if (warning := permission_warning(path))]
    return Loaded(location, config, permissions + [f"Warning: {warning}" for warning in config.warnings])


def write_text(path: str, text: str) -> None:
    """Put `text` into a file that only its owner may read, at once or not at all. Raises PywgError."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_bytes(path: str, data: bytes) -> None:
    """As `write_text` does. What is there and is no ordinary file, a device say, is left alone."""
    target = Path(path)
    temporary = target.with_name(f"{target.name}.tmp")
    try:
        if target.exists() and not (target.is_file() or target.is_dir()):
            raise PywgError(f"{path}: cannot be written: it is there already, and is no ordinary file")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PywgError(f"{path}: cannot be written: {error.strerror}") from None


def _unreadable(path: str, text: str) -> ConfigError:
    return ConfigError([Mistake(Position(path), text)])
