"""Files that may hold keys: for their owner alone, and not where somebody else has set a trap.

In a folder that everybody may write to, anybody may have put a link, a second name of another file, or a file
or pipe of their own, under the name that we are about to write to; not every kernel is set to refuse these.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

_TRAP = "in a folder that everybody may write to: choose another folder"


def open_own(path: str, *, append: bool = False) -> int:
    """A descriptor to write to this file, which is emptied unless `append`, and made where there is none.

    An ordinary file has mode 600 then. Raises OSError, the words of which are for a person.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else 0)
    if sys.platform == "win32":  # a file has the rights of its folder there
        return os.open(path, flags | (0 if append else os.O_TRUNC), 0o600)
    shared = bool(os.stat(os.path.dirname(path) or ".").st_mode & stat.S_IWOTH)  # noqa: PTH116, PTH120
    try:
        descriptor = os.open(path, flags | (os.O_NOFOLLOW if shared else 0), 0o600)
    except OSError as error:
        if shared and error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, f"it is a link, {_TRAP}") from None
        raise
    try:
        status = os.fstat(descriptor)
        ordinary = stat.S_ISREG(status.st_mode)
        if shared and (status.st_uid != os.geteuid() or (ordinary and status.st_nlink > 1)):
            raise OSError(errno.EPERM, f"it is somebody else's, or has a second name, {_TRAP}")
        if ordinary:
            os.fchmod(descriptor, 0o600)
            if not append:
                os.ftruncate(descriptor, 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
