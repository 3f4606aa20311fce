"""What a daemon gives up when it has made its device and its socket, and how its keys stay out of files.

Linux only. What the system refuses is no reason to stop: it is said in the log.
The calls are few and their constants are part of the kernel's interface, so no library stands between: those
for Python have had no release for years.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pwd
import resource
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from pywg.errors import PywgError

USER_VARIABLE = "PYWG_USER"

CAP_NET_BIND_SERVICE = 10
"""UDP ports below 1024."""
CAP_NET_ADMIN = 12
"""Marks, large socket buffers, and the device's settings, also after it moved to another namespace."""
KEPT = (CAP_NET_BIND_SERVICE, CAP_NET_ADMIN)

_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4

_log = logging.getLogger(__name__)


def keep_secrets_in_memory() -> None:
    """No core dumps of this process, nobody but root looks into it, and its memory is not swapped out."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _try("prctl(PR_SET_DUMPABLE)", _prctl, _PR_SET_DUMPABLE, 0)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError) as error:
        _log.info("memory may be swapped out: its limit cannot be raised: %s", error)
        return  # with a limit, locking would make allocations fail later
    _try("mlockall", _lock, _MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)


def account_of(environment: Mapping[str, str]) -> pwd.struct_passwd | None:
    """The user that PYWG_USER names; None: stay who we are. Raises PywgError when there is no such user."""
    user = environment.get(USER_VARIABLE, "")
    if not user:
        return None
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise PywgError(
            f"{USER_VARIABLE}={user}: there is no such user; `useradd --system {user}` adds one"
        ) from None


def share_folder(folder: Path, account: pwd.struct_passwd) -> None:
    """Let the user's group remove its socket from this folder. Raises PywgError."""
    try:
        os.chown(folder, -1, account.pw_gid)
        folder.chmod(0o770)
    except OSError as error:
        raise PywgError(
            f"{USER_VARIABLE}: {folder} cannot be given to {account.pw_name}'s group: {error.strerror}"
        ) from None


def drop(account: pwd.struct_passwd | None = None) -> None:
    """Keep the capabilities in KEPT, as far as they are there, and become that user if one is given.

    For a process with one thread; threads inherit it. Raises PywgError when the user cannot be become.
    """
    had = _permitted()
    kept = [capability for capability in KEPT if had >> capability & 1]
    _try("prctl(PR_SET_NO_NEW_PRIVS)", _prctl, _PR_SET_NO_NEW_PRIVS, 1)
    _try("prctl(PR_CAP_AMBIENT)", _prctl, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):
        if capability not in KEPT and _libc().prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) == 1:
            with contextlib.suppress(OSError):  # without CAP_SETPCAP; then exec is no way either
                _prctl(_PR_CAPBSET_DROP, capability)
    if account is not None:
        _prctl(_PR_SET_KEEPCAPS, 1)
        try:
            os.setgroups([])
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        except OSError as error:
            raise PywgError(
                f"{USER_VARIABLE}={account.pw_name}: cannot be become: {error.strerror}; start as root"
            ) from None
    _try("capset", _set_capabilities, sum(1 << capability for capability in kept))
    _prctl(_PR_SET_DUMPABLE, 0)  # a change of user may have set it


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _prctl(option: int, value: int) -> None:
    _check(_libc().prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def _try(what: str, call: Callable[..., None], *arguments: int) -> None:
    try:
        call(*arguments)
    except OSError as error:
        _log.info("%s is not allowed here: %s", what, error.strerror)


def _lock(flags: int) -> None:
    _check(_libc().mlockall(flags))


def _permitted() -> int:
    """The permitted capabilities of this thread, a bit for each."""
    header = struct.pack("@Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    _check(_libc().capget(header, data))
    _, low, _, _, high, _ = struct.unpack("@6I", data.raw)
    return int(low | high << 32)


def _set_capabilities(kept: int) -> None:
    """Make these the effective and the permitted ones, and let nothing be inherited."""
    header = struct.pack("@Ii", _CAPABILITY_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    _check(_libc().capset(header, struct.pack("@6I", low, low, 0, high, high, 0)))
