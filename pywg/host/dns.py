"""The name servers and search domains of a tunnel (`DNS =`), set while it is up as wg-quick sets them.

There are three ways, and the first that serves here is taken: systemd-resolved where names are asked of it,
`resolvconf` where it is installed, else /etc/resolv.conf itself. Of tunnels that are up at once the servers
of the one that came last count, and whichever goes down, those of the others are there again. A change can
be recorded and taken back by another process, more than once.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pywg.errors import PywgError
from pywg.host import resolvfile
from pywg.host.names import interface_exists

RESOLV_CONF = Path("/etc/resolv.conf")
INTERFACE_ORDER = Path("/etc/resolvconf/interface-order")
NSSWITCH_CONF = Path("/etc/nsswitch.conf")
RESOLVED_SOCKET = Path("/run/systemd/resolve/io.systemd.Resolve")

_RESOLVED_FOLDERS = (Path("/run/systemd/resolve"), Path("/usr/lib/systemd"), Path("/lib/systemd"))
_STUB = re.compile(r"^\s*nameserver\s+127\.0\.0\.5[34]\s*$", re.MULTILINE)
_NSS_RESOLVE = re.compile(r"^\s*hosts:.*\bresolve\b", re.MULTILINE)
_PATTERN = re.compile(r"([A-Za-z0-9-]+)\*")
_LIMIT = 60.0
"""Seconds that a program of others may take."""


class DnsChange(Protocol):
    """One tunnel's name servers, to be set and to be taken back.

    Taking back what was never set, or was taken back already, does nothing.
    """

    @property
    def shown(self) -> str:
        """The command that sets them, as one would type it."""

    @property
    def undo_shown(self) -> str:
        """The command that takes them back now."""

    def apply(self) -> None:
        """Set them. Raises PywgError; then nothing is set."""

    def undo(self) -> None:
        """Take them back. Raises PywgError."""

    def record(self) -> dict[str, Any]:
        """What `recall_dns` makes the same change from; only what JSON has."""


def choose_dns(interface: str, servers: Sequence[str], search: Sequence[str]) -> DnsChange:
    """How the interface's name servers and search domains are to be set here; nothing is changed yet.

    servers: numeric addresses, at least one. Raises PywgError when every way would reach beyond this network.
    """
    if resolved_runs_here() and _resolved_is_asked():
        return ResolvedDns(interface, servers, search)
    if has_resolvconf():
        return ResolvconfDns(f"{resolvconf_prefix()}{interface}", servers, search)
    if _is_of_another_network(RESOLV_CONF):
        raise PywgError(
            f"{RESOLV_CONF} is the machine's here, and this is another network namespace; give that one "
            f"its own (`ip netns exec NAME` takes /etc/netns/NAME/resolv.conf), or leave DNS out"
        )
    return FileDns(interface, servers, search)


def recall_dns(record: Mapping[str, Any]) -> DnsChange:
    """The change that `DnsChange.record` described. Raises PywgError when it is no such description."""
    try:
        name, servers, search = record["name"], record["servers"], record["search"]
        match record["way"]:
            case "resolved":
                return ResolvedDns(name, servers, search)
            case "resolvconf":
                return ResolvconfDns(name, servers, search)
            case "file":
                return FileDns(name, servers, search, Path(record["path"]))
    except (KeyError, TypeError):
        pass
    raise PywgError("what was recorded of the name servers cannot be read; nothing of them was restored")


class ResolvedDns:
    """By systemd-resolved, which forgets what it knows of an interface that is deleted."""

    def __init__(self, interface: str, servers: Sequence[str], search: Sequence[str]) -> None:
        self._interface, self._servers, self._search = interface, list(servers), list(search)

    @property
    def _commands(self) -> list[list[str]]:
        domains = [*self._search, "~."]  # all names are asked of this interface's servers
        return [
            ["resolvectl", "dns", self._interface, *self._servers],
            ["resolvectl", "domain", self._interface, *domains],
        ]

    @property
    def shown(self) -> str:
        """Two commands on one line."""
        return "; ".join(map(shlex.join, self._commands))

    @property
    def undo_shown(self) -> str:
        """One command."""
        return f"resolvectl revert {self._interface}"

    def apply(self) -> None:
        """Set servers, then domains."""
        try:
            for command in self._commands:
                _run(command)
        except BaseException:
            self._revert(check=False)
            raise

    def undo(self) -> None:
        """Let resolved forget the interface's servers and domains."""
        if interface_exists(self._interface) and resolved_runs_here():
            self._revert(check=True)

    def _revert(self, *, check: bool) -> None:
        _run(["resolvectl", "revert", self._interface], check=check)

    def record(self) -> dict[str, Any]:
        """See DnsChange."""
        return {"way": "resolved", "name": self._interface, "servers": self._servers, "search": self._search}


class ResolvconfDns:
    """By `resolvconf`, openresolv's or Debian's; `name` is what it shall call the interface."""

    def __init__(self, name: str, servers: Sequence[str], search: Sequence[str]) -> None:
        self._name, self._servers, self._search = name, list(servers), list(search)

    @property
    def shown(self) -> str:
        """With the standard input that it reads."""
        lines = shlex.join(resolv_conf_text(self._servers, self._search).splitlines())
        return f"printf '%s\\n' {lines} | resolvconf -a {self._name} -m 0 -x"

    @property
    def undo_shown(self) -> str:
        """One command."""
        return f"resolvconf -d {self._name} -f"

    def apply(self) -> None:
        """First of all by metric 0, and exclusively, where that is known."""
        try:
            self._run("-a", self._name, "-m", "0", "-x")
        except BaseException:
            self._run("-d", self._name, "-f", check=False)
            raise

    def undo(self) -> None:
        """Also when it knows nothing of the interface."""
        self._run("-d", self._name, "-f")

    def _run(self, *arguments: str, check: bool = True) -> None:
        settings = resolv_conf_text(self._servers, self._search)
        _run([_resolvconf() or "resolvconf", *arguments], settings, check=check)

    def record(self) -> dict[str, Any]:
        """See DnsChange."""
        return {"way": "resolvconf", "name": self._name, "servers": self._servers, "search": self._search}


class FileDns:
    """By /etc/resolv.conf itself."""

    def __init__(
        self, interface: str, servers: Sequence[str], search: Sequence[str], path: Path = RESOLV_CONF
    ) -> None:
        self._interface, self._servers, self._search, self._path = (
            interface,
            list(servers),
            list(search),
            path,
        )

    @property
    def shown(self) -> str:
        """What the file says then; comments that pywg adds are left out."""
        return resolvfile.how_to_write(self._path, resolv_conf_text(self._servers, self._search))

    @property
    def undo_shown(self) -> str:
        """Depends on what was there, and on the tunnels that came since."""
        return resolvfile.how_to_remove(self._path, self._interface)

    def apply(self) -> None:
        """The newest tunnel's settings count."""
        resolvfile.add(self._path, self._interface, resolv_conf_text(self._servers, self._search))

    def undo(self) -> None:
        """Nothing happens when somebody else has written the file since."""
        resolvfile.remove(self._path, self._interface)

    def record(self) -> dict[str, Any]:
        """See DnsChange."""
        return {
            "way": "file",
            "name": self._interface,
            "servers": self._servers,
            "search": self._search,
            "path": str(self._path),
        }


def resolv_conf_text(servers: Sequence[str], search: Sequence[str]) -> str:
    """The lines of resolv.conf(5), the same that wg-quick hands to resolvconf."""
    lines = [f"nameserver {server}" for server in servers]
    if search:
        lines.append(f"search {' '.join(search)}")
    return "".join(f"{line}\n" for line in lines)


def resolvconf_prefix(order: Path = INTERFACE_ORDER) -> str:
    """What goes before an interface's name so that Debian's resolvconf puts it first, as `tun.`; or nothing.

    It is the first pattern of the file that is a word and a star.
    """
    try:
        lines = order.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found = (_PATTERN.fullmatch(line.strip()) for line in lines)
    return next((f"{match[1]}." for match in found if match), "")


def has_resolvconf() -> bool:
    """Whether there is one that works without systemd-resolved."""
    program = _resolvconf()
    return program is not None and Path(program).resolve().name not in ("resolvectl", "systemd-resolve")


def _resolvconf() -> str | None:
    """Its path, also where PATH has only what is for everybody."""
    return shutil.which("resolvconf") or shutil.which("resolvconf", path="/usr/local/sbin:/usr/sbin:/sbin")


def resolved_runs_here(path: Path = RESOLVED_SOCKET) -> bool:
    """Whether systemd-resolved runs, can be told by `resolvectl`, and is of our network namespace.

    It is asked over its socket, since `resolvectl` would start it.
    """
    if shutil.which("resolvectl") is None:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        try:
            connection.connect(str(path))
            size = struct.calcsize("3i")
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            process, _, _ = struct.unpack("3i", credentials)
            theirs = Path(f"/proc/{process}/ns/net").stat()
        except OSError:
            return False
    return os.path.samestat(theirs, Path("/proc/self/ns/net").stat())


def _resolved_is_asked() -> bool:
    """Whether names are looked up there: by its stub, its list of servers, or the C library's module."""
    target = Path(os.path.realpath(RESOLV_CONF))
    return (
        target.parent in _RESOLVED_FOLDERS
        or _STUB.search(_text_of(target)) is not None
        or _NSS_RESOLVE.search(_text_of(NSSWITCH_CONF)) is not None
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _is_of_another_network(path: Path) -> bool:
    """Whether the file is also that of one who started us and who is in another network namespace."""
    if not os.path.lexists(path):
        path = path.parent
    network, file = Path("/proc/self/ns/net").stat(), path.lstat()
    for process in _ancestors():
        with contextlib.suppress(OSError):  # where it may not be looked at
            if not os.path.samestat(network, (process / "ns/net").stat()) and os.path.samestat(
                file, (process / "root" / path.relative_to("/")).lstat()
            ):
                return True
    return False


def _ancestors() -> Iterator[Path]:
    """The folders in /proc of our parent, its parent, and so on to the first process."""
    process = os.getppid()
    while process > 0:
        folder = Path("/proc", str(process))
        yield folder
        try:
            _, _, after_name = (folder / "stat").read_text(errors="replace").rpartition(") ")
            process = int(after_name.split()[1])
        except (OSError, ValueError, IndexError):
            return


def _run(command: list[str], input: str = "", *, check: bool = True) -> None:
    """Run a program to its end. Raises PywgError with what it said, unless `check` is off."""
    try:
        done = subprocess.run(
            command,
            input=os.fsencode(input),
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
            timeout=_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        failure = f"did not end within {_LIMIT:.0f} s"
    except OSError as error:
        failure = f"cannot be started: {error.strerror}"
    else:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        failure = f"ended with status {done.returncode}" + (f": {said[-1]}" if said else "")
        if done.returncode == 0:
            return
    if check:
        raise PywgError(f"{shlex.join(command)} {failure}")
