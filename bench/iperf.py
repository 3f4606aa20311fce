"""iperf3: one transfer over a rig, and what of its report counts: what arrived, in the receiver's words."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from bench.rig import MeasureError, Rig

PORT = 5201
GRACE = 20.0  # seconds beyond its length that a transfer may take


@dataclasses.dataclass(frozen=True, slots=True)
class Transfer:
    """What arrived in so many seconds; packets and share lost are UDP's. CPU seconds are the daemons'."""

    bytes: int
    seconds: float
    packets: int
    lost: float
    cpu_sender: float
    cpu_receiver: float

    @property
    def gigabits(self) -> float:
        """Gbit/s."""
        return self.bytes * 8 / self.seconds / 1e9

    @property
    def kpps(self) -> float:
        """Thousand packets per second."""
        return self.packets / self.seconds / 1e3

    @property
    def gib(self) -> float:
        return self.bytes / 2**30


def run(rig: Rig, seconds: float, *options: str, reverse: bool = False, omit: float = 0) -> Transfer:
    """One transfer from left to right, or back.

    options: iperf3's own. omit: seconds at its start that do not count. Raises MeasureError.
    """
    command = ["iperf3", "-c", rig.target, "-J", "-t", f"{seconds:g}", *options]
    if reverse:
        command.append("-R")
    if omit:
        command += ["-O", f"{omit:g}"]
    with rig.serve(PORT, "iperf3", "-s", "-1", "-J") as server:
        with rig.cpu() as used:
            said = rig.left.run(*command, timeout=seconds + omit + GRACE, check=False)
        theirs = said if reverse else server.wait(10, check=False)
    error = parse(said).get("error")
    if error:
        raise MeasureError(f"iperf3: {error}")
    size, taken, packets, lost = received(parse(theirs))
    ends = (used.right, used.left) if reverse else (used.left, used.right)
    return Transfer(size, taken, packets, lost, *ends)


def parse(text: str) -> dict[str, Any]:
    """iperf3's JSON, before or after which it may print warnings. Raises MeasureError."""
    start, end = text.find("{"), text.rfind("}")
    try:
        report = json.loads(text[start : end + 1])
    except ValueError:
        raise MeasureError(f"iperf3 said: {text.strip()[-300:]}") from None
    assert isinstance(report, dict)
    return report


def received(report: dict[str, Any]) -> tuple[int, float, int, float]:
    """Bytes, seconds, packets and the share lost, of the receiver's report. Raises MeasureError."""
    total = report.get("end", {}).get("sum_received")
    if not total or not total["seconds"]:
        raise MeasureError(f"iperf3: {report.get('error', 'nothing was received')}")
    sent, lost = int(total.get("packets", 0)), int(total.get("lost_packets", 0))
    return int(total["bytes"]), float(total["seconds"]), sent - lost, lost / sent if sent else 0.0
