"""What /proc tells: CPU time and memory of a process, listening ports, time stolen from the machine."""

from __future__ import annotations

import os
import pathlib
import time

TICK = 1 / os.sysconf("SC_CLK_TCK")
LISTEN = "0A"


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, those that ended included."""
    return parse_cpu_seconds(pathlib.Path(f"/proc/{pid}/stat").read_text())


def parse_cpu_seconds(stat: str) -> float:
    """The same, of the text of /proc/PID/stat. The program's name, in brackets, may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def cpu_nanoseconds(pid: int) -> int:
    """The same as `cpu_seconds`, by the process's own clock: exact, where ticks are hundredths of a second.

    Raises OSError when there is no such process.
    """
    return time.clock_gettime_ns(~pid << 3 | 2)  # as clock_getcpuclockid(3) makes the number of that clock


def rss_mb(pid: int) -> float:
    """Memory of a process that is present now, in units of 10^6 bytes."""
    return parse_rss_mb(pathlib.Path(f"/proc/{pid}/status").read_text())


def parse_rss_mb(status: str) -> float:
    """The same, of the text of /proc/PID/status."""
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0  # it has ended


def listens(pid: int, port: int) -> bool:
    """Whether a TCP port is listened on in the network namespace of a process."""
    return any(
        port in parse_listening(pathlib.Path(f"/proc/{pid}/net/{table}").read_text())
        for table in ("tcp", "tcp6")
    )


def parse_listening(table: str) -> set[int]:
    """The ports that are listened on, from the text of /proc/net/tcp or tcp6."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTEN}


def stolen_and_all() -> tuple[int, int]:
    """Ticks that the hypervisor gave to others, and ticks of all kinds, since the start of the machine."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[7], sum(fields)
