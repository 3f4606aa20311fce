"""What `up` keeps about a tunnel, so that `down` works when its file has changed or gone, and after a crash.

One JSON file for each interface and network namespace, in /run/pywg, readable by its owner alone; never a
key. It is written before a step that outlives the interface, so it may tell more than was done, never less.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pywg.config.model import Config, merge_peers
from pywg.config.positions import Located, Position, value_of
from pywg.host.routing import Rule

VERSION = 1
"""Of the file's form. A file of another version is not understood, and is left alone."""

DIRECTORY_VARIABLE = "PYWG_STATE_DIR"

_DEFAULT_DIRECTORY = "/run/pywg"
_SIZE_LIMIT = 16 * 1024 * 1024
_KINDS = {"interface": str, "path": str, "backend": str, "owner": str, "firewall": list, "names": dict}
_FILE_NAME = re.compile(r"(.{1,15})@(\d+)\.json")


def directory() -> Path:
    """Where the files are: what the environment variable PYWG_STATE_DIR says, else /run/pywg."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or _DEFAULT_DIRECTORY)


@dataclasses.dataclass(slots=True)
class State:
    """A tunnel that `up` brought up, or is bringing up.

    path: of its file, absolute. backend: `kernel` or `userspace`. index: of the interface; None until it
    exists. finished: whether `up` came to its end. owner: the process that runs `up`, as `process_identity`
    gives it; starter: the one that it started as the daemon, which ends when that is in the background.
    table: the routing table of its default routes, which is also their mark; None without default routes.
    firewall: what was used for which IP version, as in `nftables/4`. dns, monitor: what those parts need to
    undo. names: what people call the peers, by public key in base64. given: what of the file `reload`
    compares.
    """

    interface: str
    path: str
    backend: str
    index: int | None = None
    finished: bool = False
    owner: str = ""
    starter: str = ""
    pre_down: list[Located[str]] = dataclasses.field(default_factory=list)
    post_down: list[Located[str]] = dataclasses.field(default_factory=list)
    save_config: bool = False
    table: int | None = None
    rules: list[Rule] = dataclasses.field(default_factory=list)
    firewall: list[str] = dataclasses.field(default_factory=list)
    dns: dict[str, Any] | None = None
    monitor: dict[str, Any] | None = None
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    given: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def begin(cls, interface: str, path: str, backend: str, config: Config) -> State:
        """The state with which `up` begins."""
        section = config.interface
        return cls(
            interface,
            str(Path(path).absolute()),
            backend,
            owner=process_identity(os.getpid()),
            pre_down=section.pre_down,
            post_down=section.post_down,
            save_config=section.save_config is not None and section.save_config.value,
            names=named_peers(config),
            given=given_by(config),
        )

    @property
    def is_running(self) -> bool:
        """Whether the interface that was made is still there."""
        return self.index is not None and index_of(self.interface) == self.index

    @property
    def is_owned(self) -> bool:
        """Whether the `up` that began it still works on it."""
        return not self.finished and is_alive(self.owner)

    def to_json(self) -> dict[str, Any]:
        """What is written."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["pre_down"] = [[hook.value, *hook.position] for hook in self.pre_down]
        values["post_down"] = [[hook.value, *hook.position] for hook in self.post_down]
        values["rules"] = [dataclasses.asdict(rule) for rule in self.rules]
        return {"version": VERSION, "boot": _boot(), **values}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> State:
        """The opposite of `to_json`; raises ValueError, KeyError or TypeError for anything else."""
        if values["version"] != VERSION:
            raise ValueError(values["version"])
        known = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
        for name in ("pre_down", "post_down"):
            known[name] = [
                Located(text, Position(path, line, column)) for text, path, line, column in values[name]
            ]
            if not all(isinstance(hook.value, str) for hook in known[name]):
                raise TypeError(name)
        known["rules"] = [Rule(**rule) for rule in values["rules"]]
        for name, kind in _KINDS.items():
            if not isinstance(known.get(name, kind()), kind):
                raise TypeError(name)
        if not isinstance(known.get("index"), int | None):
            raise TypeError("index")
        return cls(**known)


def named_peers(config: Config) -> dict[str, str]:
    """The names that a file gives to peers, by public key in base64; of two for one peer, the later."""
    return {peer.public_key.value.base64: peer.name.value for peer in config.peers if peer.name is not None}


def given_by(config: Config) -> dict[str, Any]:
    """What a file says, and the running interface does not tell: only what JSON has."""
    section = config.interface
    return {
        "addresses": [str(address.value) for address in section.addresses],
        "mtu": value_of(section.mtu),
        "fwmark": value_of(section.fwmark),
        "table": value_of(section.table),
        "dns": [
            [str(server.value) for server in section.dns_servers],
            [domain.value for domain in section.dns_search],
        ],
        "endpoints": {
            peer.public_key.value.base64: [
                str(name.value) for name in (peer.endpoint, *peer.more_endpoints) if name is not None
            ]
            for peer in merge_peers(config.peers)
        },
    }


def read(interface: str) -> State | None:
    """The state of an interface of this network namespace and since this boot; None when there is none."""
    return _read(_file_of(interface))


def read_all() -> list[State]:
    """Those of all interfaces of this network namespace."""
    states = []
    for file in sorted(directory().glob("*.json")) if directory().is_dir() else []:
        match = _FILE_NAME.fullmatch(file.name)
        if match and int(match[2]) == _namespace() and (state := _read(file)):
            states.append(state)
    return states


def write(state: State) -> None:
    """Write it, at once or not at all. Raises OSError."""
    file = _file_of(state.interface)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            json.dump(state.to_json(), stream, indent=1)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove(interface: str) -> None:
    """Forget it; none is no error. Raises OSError."""
    file = _file_of(interface)
    if file.exists():  # else a folder that may not be written would be an error
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Keep other processes out while states are looked at and changed; where no lock can be had, do not."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            directory().mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(directory() / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def process_identity(pid: int) -> str:
    """A process's number and when it started, as numbers are used again; "" when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    status, *_ = fields = text.rpartition(")")[2].split()
    return "" if status == "Z" else f"{pid}/{fields[19]}"


def is_alive(identity: str) -> bool:
    """Whether the process of that identity still runs."""
    pid = identity.partition("/")[0]
    return re.fullmatch("[0-9]{1,10}", pid) is not None and process_identity(int(pid)) == identity


def _read(file: Path) -> State | None:
    try:
        if file.stat().st_size > _SIZE_LIMIT:
            return None
        return parse(file.read_text(encoding="utf-8", errors="surrogateescape"), _boot())
    except OSError:
        return None


def parse(text: str, boot: str) -> State | None:
    """A file's text; None when it is of another boot than this one, or not to be understood."""
    try:
        values = json.loads(text)
        return State.from_json(values) if values["boot"] == boot else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _file_of(interface: str) -> Path:
    return directory() / f"{interface}@{_namespace()}.json"


def _namespace() -> int:
    return Path("/proc/self/ns/net").stat().st_ino


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def index_of(interface: str) -> int | None:
    """The interface's number in this network namespace; None when there is no such interface."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return None
