"""How the daemon logs: a line for each event, to where its caller reads, to the journal or to syslog.

Lines of one kind are limited in number, so that nobody who sends us packets can fill a disk: after a burst a
few come each second, and the next one says how many were left out.
"""

from __future__ import annotations

import logging
import os
import sys
import syslog
import time
from collections.abc import Callable, Mapping

BURST, RATE = 200, 20.0
"""Lines of one kind at once, and per second after that."""

LEVELS = {
    "verbose": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "error": logging.ERROR,
    "silent": logging.CRITICAL + 1,
}
"""What LOG_LEVEL may say, and what it means here; `info` is ours."""

_PRIORITIES = {
    logging.DEBUG: syslog.LOG_DEBUG,
    logging.INFO: syslog.LOG_INFO,
    logging.WARNING: syslog.LOG_WARNING,
    logging.ERROR: syslog.LOG_ERR,
    logging.CRITICAL: syslog.LOG_CRIT,
}


def start(interface: str, environment: Mapping[str, str], *, to_syslog: bool) -> None:
    """Log from now on as LOG_LEVEL in the environment says.

    to_syslog: nobody reads standard error. There, a journal gets levels as it expects them, and no time.
    """
    handler: logging.Handler
    if to_syslog:
        handler = SyslogHandler(interface)
    else:
        handler = logging.StreamHandler()
        if _is_journal(environment.get("JOURNAL_STREAM", "")):
            handler.setFormatter(JournalFormatter(interface))
        else:
            form = f"%(levelname)s: ({interface}) %(asctime)s %(message)s"
            handler.setFormatter(logging.Formatter(form, "%Y/%m/%d %H:%M:%S"))
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(LEVELS.get(environment.get("LOG_LEVEL", ""), logging.ERROR))


class JournalFormatter(logging.Formatter):
    """`<6>wg0: text` for each line, as journald reads levels (sd-daemon(3))."""

    def __init__(self, interface: str) -> None:
        super().__init__()
        self._interface = interface

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines, each with its level."""
        prefix = f"<{_priority(record)}>{self._interface}: "
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class SyslogHandler(logging.Handler):
    """To the system's own log, as a daemon."""

    def __init__(self, interface: str) -> None:
        super().__init__()
        self._interface = interface
        syslog.openlog("pywgd", syslog.LOG_PID, syslog.LOG_DAEMON)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, a line at a time."""
        for line in self.format(record).splitlines():
            syslog.syslog(_priority(record), f"{self._interface}: {line}")


class RateLimit(logging.Filter):
    """Lets through BURST lines of one kind, then RATE per second.

    A kind is an event's, or the text without its values.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._kinds: dict[str, list[float]] = {}  # tokens, when, left out

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; it then says how many like it were not."""
        now = self._now()
        kind = self._kinds.setdefault(getattr(record, "kind", record.msg), [float(BURST), now, 0.0])
        tokens, when, left_out = kind
        tokens = min(float(BURST), tokens + (now - when) * RATE)
        if tokens < 1.0:
            kind[:] = tokens, now, left_out + 1
            return False
        kind[:] = tokens - 1.0, now, 0.0
        if left_out:
            text = record.getMessage()
            record.msg, record.args = f"{text} (and {left_out:.0f} lines like this one before)", ()
        return True


def _priority(record: logging.LogRecord) -> int:
    return _PRIORITIES.get(record.levelno, syslog.LOG_NOTICE)


def _is_journal(stream: str) -> bool:
    """Whether standard error is the journal whose device and inode systemd names in JOURNAL_STREAM."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"
