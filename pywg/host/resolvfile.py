"""/etc/resolv.conf, while tunnels are up that have name servers of their own, and as it was before them.

The file itself keeps, in comments, which tunnels asked for what, in the order they came, and what was there
before; so there is no other place that could be lost or go stale, whatever ends this program or the machine.
Each change is one replacement of the file. Who writes another file meanwhile (a DHCP client) is left alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pywg.errors import PywgError
from pywg.host import state

_MARK = b"# By pywg, for as long as its tunnels are up; what was here before stands below, behind '#|'.\n"
_TUNNEL, _LINK, _ABSENT, _MOUNT = b"#+ ", b"#link ", b"#absent", b"#mount "
_LINE, _UNENDED_LINE = b"#| ", b"#|_"
_BOOT = b"#boot "

_UNREPLACEABLE = {errno.EBUSY, errno.EROFS, errno.EPERM, errno.EACCES, errno.EXDEV}
"""What renaming answers for a mount point, in a read-only directory, and for a file that is immutable."""

_MS_BIND, _MNT_DETACH = 0x1000, 2


@dataclasses.dataclass(frozen=True, slots=True)
class _Before:
    """What was there: a file's text, a link's target, nothing, or a file that ours is mounted over.

    kind: one of _LINE, _LINK, _ABSENT, _MOUNT. data: the text, the target, nothing, the file that is mounted.
    """

    kind: bytes
    data: bytes = b""


@dataclasses.dataclass(slots=True)
class _Content:
    """The file that we write: what each tunnel asked for, the one that counts last; and what was before.

    No tunnel outlives the machine's start, though the file may.
    """

    before: _Before
    tunnels: dict[bytes, bytes] = dataclasses.field(default_factory=dict)
    is_there: bool = False

    def text(self) -> bytes:
        newest = next(reversed(self.tunnels.values()), b"")
        asked = [
            _TUNNEL + name + b" " + settings.replace(b"\n", b";") for name, settings in self.tunnels.items()
        ]
        head = [_BOOT + _boot(), *asked]
        return _MARK + b"".join(line + b"\n" for line in head) + newest + self._before_lines()

    def _before_lines(self) -> bytes:
        if self.before.kind != _LINE:
            return self.before.kind + self.before.data + b"\n"
        *lines, rest = self.before.data.split(b"\n")
        kept = b"".join(_LINE + line + b"\n" for line in lines)
        return kept + (_UNENDED_LINE + rest + b"\n" if rest else b"")

    @classmethod
    def parse(cls, text: bytes) -> _Content | None:
        """None when the file is not ours."""
        if not text.startswith(_MARK):
            return None
        content = cls(_Before(_LINE), is_there=True)
        is_of_this_boot = True
        kept = b""
        for line in text.split(b"\n"):
            if line.startswith(_BOOT):
                is_of_this_boot = line.removeprefix(_BOOT) == _boot()
            elif line.startswith(_TUNNEL):
                name, _, settings = line.removeprefix(_TUNNEL).partition(b" ")
                content.tunnels[name] = settings.replace(b";", b"\n")
            elif line.startswith(_LINE):
                kept += line.removeprefix(_LINE) + b"\n"
            elif line.startswith(_UNENDED_LINE):
                kept += line.removeprefix(_UNENDED_LINE)
            else:
                for kind in (_LINK, _ABSENT, _MOUNT):
                    if line.startswith(kind):
                        content.before = _Before(kind, line.removeprefix(kind))
        if content.before.kind == _LINE:
            content.before = _Before(_LINE, kept)
        if not is_of_this_boot:
            content.tunnels.clear()
        return content


def add(path: Path, interface: str, settings: str) -> None:
    """Let `settings`, lines of resolv.conf(5), count for as long as the interface is up. Raises PywgError."""
    with _locked(path), _sentences(path):
        content = _read(path)
        content.tunnels.pop(os.fsencode(interface), None)
        content.tunnels[os.fsencode(interface)] = os.fsencode(settings)
        try:
            _write(path, content)
        except OSError as error:
            if error.errno not in _UNREPLACEABLE:
                raise
            _mount_over(path, content)


def remove(path: Path, interface: str) -> None:
    """Let what counted before count again; nothing happens to a file that is not ours."""
    with _locked(path), _sentences(path):
        content = _read(path)
        content.tunnels.pop(os.fsencode(interface), None)
        if content.tunnels:
            _write(path, content)
        elif content.is_there:
            _put_back(path, content.before)


def how_to_remove(path: Path, interface: str) -> str:
    """The command that does by hand what `remove` would do, now or after `add`."""
    name = shlex.quote(str(path))
    content = _read(path)
    content.tunnels.pop(os.fsencode(interface), None)
    if content.tunnels:
        return how_to_write(path, os.fsdecode(next(reversed(content.tunnels.values()))))
    commands = {
        _LINK: f"ln -sfn {shlex.quote(os.fsdecode(content.before.data))} {name}",
        _ABSENT: f"rm {name}",
        _MOUNT: f"umount {name}",
    }
    return commands.get(content.before.kind, f"sed -i -n 's/^#| //p' {name}")


def how_to_write(path: Path, settings: str) -> str:
    """The command that does by hand what `add` does."""
    return f"printf '%s\\n' {shlex.join(settings.splitlines())} > {shlex.quote(str(path))}"


def _boot() -> bytes:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return b""


def _read(path: Path) -> _Content:
    """Ours as it is, or a new one over what is there."""
    is_link = path.is_symlink()
    try:
        text = path.read_bytes()
    except OSError:
        text = b""
        if not is_link:
            return _Content(_Before(_ABSENT))
    ours = _Content.parse(text)
    if is_link and (ours is None or ours.before.kind != _MOUNT):
        return _Content(_Before(_LINK, os.fsencode(path.readlink())))
    return ours or _Content(_Before(_LINE, text))


def _write(path: Path, content: _Content) -> None:
    if content.before.kind == _MOUNT:
        _written(Path(os.fsdecode(content.before.data)), content.text())
    elif path.is_symlink():
        _replaced(path, content.text())  # never into what it leads to
    else:
        _replaced_or_written(path, content.text())


def _put_back(path: Path, before: _Before) -> None:
    if before.kind == _LINE:
        _replaced_or_written(path, before.data)
    elif before.kind == _LINK:
        _replace(path, lambda temporary: temporary.symlink_to(os.fsdecode(before.data)))
    elif before.kind == _ABSENT:
        path.unlink()
    else:
        _system_call("umount2", os.fsencode(path), _MNT_DETACH)
        Path(os.fsdecode(before.data)).unlink(missing_ok=True)


def _replaced_or_written(path: Path, text: bytes) -> None:
    """Replace the file; where it cannot be replaced, as a mount point in a container, write into it."""
    try:
        _replaced(path, text)
    except OSError as error:
        if error.errno not in _UNREPLACEABLE:
            raise
        try:
            _written(path, text)
        except FileNotFoundError:
            raise error from None


def _written(path: Path, text: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_NOFOLLOW), "wb", buffering=0) as file:
        file.write(text)  # over what is there, so that nobody finds the file empty
        file.truncate(len(text))


def _replaced(path: Path, text: bytes) -> None:
    def write(temporary: Path) -> None:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            with contextlib.suppress(OSError):  # owner, mode and label of what was there, as far as allowed
                status = path.stat()
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
                shutil.copystat(path, temporary)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    _replace(path, write)


def _replace(path: Path, make: Callable[[Path], None]) -> None:
    temporary = path.with_name(f"{path.name}.pywg")
    temporary.unlink(missing_ok=True)
    try:
        make(temporary)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _mount_over(path: Path, content: _Content) -> None:
    """For a file that can be neither replaced nor written: mount ours over it, from the state's directory."""
    namespace = Path("/proc/self/ns/mnt").stat().st_ino
    source = state.directory() / f"resolv.conf-{namespace}"
    content.before = _Before(_MOUNT, os.fsencode(source))
    source.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    source.write_bytes(content.text())
    source.chmod(0o644)
    try:
        _system_call("mount", os.fsencode(source), os.fsencode(path), None, _MS_BIND, None)
    except BaseException:
        source.unlink()
        raise


def _system_call(name: str, *arguments: bytes | int | None) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """No two of us at once; the lock is on the directory, as the file is replaced."""
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise PywgError(f"{path.parent} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _sentences(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PywgError(
            f"{path} cannot be changed: {error.strerror}; without DNS in the file it is left alone"
        ) from None
