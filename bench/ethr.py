"""ethr: one test over a rig, and its printed figures read.

Its client prints what it sent, not what arrived, so all rates are the server's.
"""

from __future__ import annotations

import re
import statistics
import time

from bench.programs import ETHR
from bench.rig import MeasureError, Rig

PORT = 8888
GRACE = 20.0
SETTLE = 2.0  # the server prints once per second; by then the last one is out

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_TIMES = {"ns": 1e-3, "us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6}
_ROW = re.compile(r"^\[\s*(?P<source>[0-9a-f.:]+)\]\s+(?P<protocol>TCP|UDP)\s+(?P<rest>.*)$")
_LATENCY = ("avg", "min", "p50", "p90", "p95", "p99", "p999", "p9999", "max")


def run(rig: Rig, seconds: int, *options: str) -> tuple[str, str]:
    """One test; returns what server and client printed."""
    with rig.serve(PORT, ETHR, "-s", "-no") as server:
        client = rig.left.run(
            ETHR, "-c", rig.target, "-no", "-d", f"{seconds}s", *options, timeout=seconds + GRACE, check=False
        )
        time.sleep(SETTLE)
        said = server.output()
    if "Error" in client or "Fatal" in client:
        raise MeasureError(f"ethr: {client.strip().splitlines()[-1]}")
    return said, client


def number(text: str) -> float:
    """'3.4G', '515K', '0' or '--' (none)."""
    if text == "--":
        return 0.0
    match = re.fullmatch(r"([0-9.]+)([KMGT]?)", text)
    if match is None:
        raise MeasureError(f"ethr printed {text!r} where a number was expected")
    return float(match[1]) * _UNITS[match[2]]


def microseconds(text: str) -> float:
    """'172.688us' or '2.934ms'."""
    match = re.fullmatch(r"([0-9.]+)(ns|us|µs|ms|s)", text)
    if match is None:
        raise MeasureError(f"ethr printed {text!r} where a time was expected")
    return float(match[1]) * _TIMES[match[2]]


def server_rows(text: str, protocol: str) -> list[tuple[float, float, float]]:
    """Bits, connections and packets of each second, as the server counted them."""
    rows = []
    for line in text.splitlines():
        match = _ROW.match(line.strip())
        if match and match["protocol"] == protocol:
            bits, connections, packets, *_ = match["rest"].split()
            rows.append((number(bits), number(connections), number(packets)))
    return rows


def totals(text: str, protocol: str, seconds: float) -> tuple[float, float, float]:
    """Bits, connections and packets per second of the whole test. Raises MeasureError when there are none."""
    rows = server_rows(text, protocol)
    if not rows:
        raise MeasureError(f"ethr's server counted nothing: {text.strip()[-300:]}")
    bits, connections, packets = (sum(column) / seconds for column in zip(*rows, strict=True))
    return bits, connections, packets


def latencies(text: str) -> dict[str, float]:
    """Microseconds by name (avg, p50, p99, ...), the medians of the client's lines. Raises MeasureError."""
    lines = [line.split() for line in text.splitlines()]
    rows = [line for line in lines if len(line) == len(_LATENCY) and line[0][0].isdigit()]
    if not rows:
        raise MeasureError(f"ethr's client printed no latency: {text.strip()[-300:]}")
    columns = zip(*([microseconds(field) for field in row] for row in rows), strict=True)
    return dict(zip(_LATENCY, map(statistics.median, columns), strict=True))
