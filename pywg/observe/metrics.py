"""Metrics of every WireGuard interface here, for Prometheus: read anew for each scrape, nothing in between.

What every implementation knows has the names of MindFlavor's exporter, so that its dashboards work; what only
pywgd counts begins with `pywg_`. The daemon itself does not know of Prometheus: a process of its own asks it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pywg import __version__
from pywg.device.snapshot import PeerSnapshot
from pywg.errors import PywgError
from pywg.host import control
from pywg.host.peernames import peer_names
from pywg.observe.counted import from_statistics
from pywg.observe.findings import settle

_PEER = ["interface", "public_key", "allowed_ips", "friendly_name"]
_OURS = ["interface", "public_key", "friendly_name"]


class WireGuardCollector(Collector):
    """Gives the metrics of these interfaces, or of all there are at the time when none are named."""

    def __init__(self, interfaces: Sequence[str] = ()) -> None:
        self._interfaces = tuple(interfaces)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the moment."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """One scrape. An interface that does not answer has `pywg_up` 0 and nothing else."""
        families = _Families()
        for interface in self._interfaces or control.list_interfaces():
            _collect(interface, families)
        yield from families.all()

    def failing(self) -> list[str]:
        """A sentence for each interface that does not answer, or is not up as far as that can be told."""
        sentences = []
        try:
            interfaces = self._interfaces or tuple(control.list_interfaces())
        except PywgError as error:
            return [str(error)]
        if not interfaces:
            return ["there is no WireGuard interface here"]
        for interface in interfaces:
            try:
                control.get(interface)
                if (statistics := control.statistics(interface)) is not None and not statistics["is_up"]:
                    sentences.append(f"{interface} is down; `ip link set {interface} up` brings it up")
            except PywgError as error:
                sentences.append(str(error))
        return sentences


def _collect(interface: str, families: _Families) -> None:
    try:
        device = control.get(interface)
        statistics = control.statistics(interface)
    except PywgError:
        families.up.add_metric([interface], 0)
        return
    families.up.add_metric([interface], 1)
    names = {str(key): name for key, name in peer_names(interface).items()}
    for peer in device.peers:
        families.add_peer(interface, peer, names.get(str(peer.public_key), ""))
    if statistics is not None:
        families.add_statistics(interface, statistics, names)


class _Families:
    """The metrics of one scrape, filled interface by interface."""

    def __init__(self) -> None:
        def counter(name: str, text: str, labels: list[str]) -> CounterMetricFamily:
            return CounterMetricFamily(name, text, labels=labels)

        def gauge(name: str, text: str, labels: list[str]) -> GaugeMetricFamily:
            return GaugeMetricFamily(name, text, labels=labels)

        self.up = gauge("pywg_up", "Whether the interface answers", ["interface"])
        self.sent = counter("wireguard_sent_bytes_total", "Bytes sent to the peer", _PEER)
        self.received = counter("wireguard_received_bytes_total", "Bytes received from the peer", _PEER)
        self.handshake = gauge(
            "wireguard_latest_handshake_seconds", "Unix time of the last handshake; 0: never", _PEER
        )
        self.delay = gauge(
            "wireguard_latest_handshake_delay_seconds", "Seconds since the last handshake", _PEER
        )

        self.info = gauge(
            "pywg_info", "Versions, and what carries packets", ["interface", "version", "datapath"]
        )
        self.uptime = gauge("pywg_uptime_seconds", "Seconds since the daemon started", ["interface"])
        self.device_up = gauge("pywg_device_up", "Whether the interface is up", ["interface"])
        self.drops = counter(
            "pywg_drops_total", "Datagrams and packets that went no further", ["interface", "reason"]
        )
        self.queue = gauge("pywg_handshake_queue_length", "Handshake messages that wait", ["interface"])
        self.load = gauge("pywg_under_load", "Whether handshakes need a cookie", ["interface"])
        self.lag = gauge(
            "pywg_event_loop_lag_seconds",
            "The longest that something due waited since the last scrape",
            ["interface"],
        )
        self.burst_packets = HistogramMetricFamily(
            "pywg_burst_packets", "Packets in a burst", labels=["interface", "direction"]
        )
        self.burst_seconds = HistogramMetricFamily(
            "pywg_burst_seconds", "Time for a burst", labels=["interface", "direction"]
        )
        self.packets = counter(
            "pywg_peer_packets_total", "Packets carried, and keepalives", [*_OURS, "direction"]
        )
        self.handshakes = counter("pywg_handshakes_total", "Handshakes by outcome", [*_OURS, "outcome"])
        self.refused = counter(
            "pywg_handshakes_refused_total",
            "Handshake messages of a peer that failed a check",
            [*_OURS, "reason"],
        )
        self.round_trip = gauge(
            "pywg_handshake_round_trip_seconds", "Time that the last answer to an initiation took", _OURS
        )
        self.session_age = gauge("pywg_session_age_seconds", "Age of the current session", _OURS)
        self.waiting = gauge(
            "pywg_handshake_waiting_seconds", "Time since the first initiation that is unanswered", _OURS
        )
        self.staged = gauge("pywg_staged_packets", "Packets that wait for a session", _OURS)
        self.cookie = gauge("pywg_has_cookie", "Whether the peer asked for a cookie and gave us one", _OURS)

        self.findings = gauge(
            "pywg_finding", "1 for what `pywg doctor` finds in counts alone", [*_OURS, "code", "severity"]
        )

    def all(self) -> list[Metric]:
        """Those with anything in them."""
        return [family for family in vars(self).values() if family.samples]

    def add_peer(self, interface: str, peer: PeerSnapshot, name: str) -> None:
        """What every implementation knows."""
        labels = [interface, str(peer.public_key), ",".join(map(str, peer.allowed_ips)), name]
        seconds = peer.last_handshake_ns / 1e9
        self.sent.add_metric(labels, peer.tx_bytes)
        self.received.add_metric(labels, peer.rx_bytes)
        self.handshake.add_metric(labels, int(seconds))
        if seconds:
            self.delay.add_metric(labels, max(0.0, round(time.time() - seconds, 3)))

    def add_statistics(self, interface: str, said: dict[str, Any], names: dict[str, str]) -> None:
        """What pywgd counts."""
        self.info.add_metric([interface, __version__, said["datapath"]], 1)
        self.uptime.add_metric([interface], said["uptime"])
        self.device_up.add_metric([interface], said["is_up"])
        for reason, count in said["drops"].items():
            self.drops.add_metric([interface, reason], count)
        self.queue.add_metric([interface], said["handshake_queue"])
        self.load.add_metric([interface], said["under_load"])
        self.lag.add_metric([interface], said["loop_lag"])
        for direction, bursts in said["bursts"].items():
            labels = [interface, direction]
            by_packets = _buckets(bursts["by_packets"], 1)
            self.burst_packets.add_metric(labels, by_packets, bursts["packets"])
            by_seconds = _buckets(bursts["by_microseconds"], 1e-6)
            self.burst_seconds.add_metric(labels, by_seconds, bursts["seconds"])
        for peer in said["peers"]:
            self._add_counts([interface, peer["public_key"], names.get(peer["public_key"], "")], peer)

        for finding in settle(from_statistics(said)):
            labels = [interface, finding.peer or "", names.get(finding.peer or "", "")]
            self.findings.add_metric([*labels, finding.code, finding.weight.value], 1)

    def _add_counts(self, labels: list[str], peer: dict[str, Any]) -> None:
        self.packets.add_metric([*labels, "received"], peer["rx_packets"])
        self.packets.add_metric([*labels, "sent"], peer["tx_packets"])
        for outcome in ("initiations_sent", "initiations_received", "completed", "gave_up"):
            self.handshakes.add_metric([*labels, outcome], peer["handshakes"][outcome])
        for reason, count in peer["handshakes"]["refused"].items():
            self.refused.add_metric([*labels, reason], count)
        for family, key in (
            (self.round_trip, "handshake_round_trip"),
            (self.session_age, "session_age"),
            (self.waiting, "waiting_since"),
        ):
            with contextlib.suppress(TypeError):  # null: there is none
                family.add_metric(labels, float(peer[key]))
        self.staged.add_metric(labels, peer["staged"])
        self.cookie.add_metric(labels, peer["has_cookie"])


def _buckets(counts: list[int], unit: float) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus has them: whole values below 2**i are at most 2**i - 1."""
    buckets: list[tuple[str, float]] = []
    total = 0
    for exponent, count in enumerate(counts):
        total += count
        last = exponent == len(counts) - 1
        limit = "+Inf" if last else f"{((1 << exponent) - 1 if unit == 1 else 1 << exponent) * unit:g}"
        buckets.append((limit, total))
    return buckets
