"""The exporter beside a real tunnel, read with the parsers of Prometheus' own client library."""

from __future__ import annotations

import json
import pathlib
import signal
import sys
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.system.cases import ping
from tests.system.net import HostTask, Lab, eventually
from tests.system.programs import PROGRAMS, Program
from tests.system.tunnel import WG, Tunnel, make_tunnel

PYWG = str(pathlib.Path(sys.executable).with_name("pywg"))
Samples = dict[str, list[tuple[dict[str, str], float]]]


@pytest.fixture
def tunnel(lab: Lab, ours: Program) -> Tunnel:
    """Pings have gone through it."""
    made = make_tunnel(lab, ours, PROGRAMS["wireguard-go"])
    made.configure(initiator=made.left)
    ping(made.left, made.right)
    return made


@pytest.fixture
def exporter(tunnel: Tunnel) -> Iterator[HostTask]:
    task = tunnel.left.machine.host.start(PYWG, "metrics", "--listen", "127.0.0.1:9586")
    eventually("the exporter listens", lambda: "9586/metrics" in task.output())
    yield task
    task.signal(signal.SIGTERM)
    task.wait()


def fetched(tunnel: Tunnel, path: str, accept: str = "text/plain", check: bool = True) -> str:
    options = ("--fail",) if check else ("--write-out", "\n%{http_code}")
    url = f"http://127.0.0.1:9586{path}"
    return tunnel.left.machine.run("curl", "-s", *options, "-H", f"Accept: {accept}", url)


def samples_of(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_prometheus_reads_what_the_tunnel_carried(tunnel: Tunnel, exporter: HostTask) -> None:
    samples = samples_of(fetched(tunnel, "/metrics"))
    labels, sent = samples["wireguard_sent_bytes_total"][0]
    shown = tunnel.left.wg("show", WG, "transfer").split()
    assert labels["interface"] == WG
    assert labels["public_key"] == shown[0] == tunnel.right.key.public
    assert labels["allowed_ips"] == f"{tunnel.right.inner[0]}/32,{tunnel.right.inner[1]}/128"
    assert sent == float(shown[2]) > 0
    assert samples["wireguard_latest_handshake_seconds"][0][1] == tunnel.left.latest_handshake()
    assert 0 <= samples["wireguard_latest_handshake_delay_seconds"][0][1] < 60
    completed = {labels["outcome"]: value for labels, value in samples["pywg_handshakes_total"]}
    assert completed["initiations_sent"] >= completed["completed"] == 1
    bursts = {labels["direction"]: value for labels, value in samples["pywg_burst_packets_count"]}
    assert bursts["out"] >= 1
    assert bursts["in"] >= 1
    assert samples["pywg_device_up"][0][1] == 1


def test_openmetrics_is_given_to_whoever_asks_for_it(tunnel: Tunnel, exporter: HostTask) -> None:
    text = fetched(tunnel, "/metrics", "application/openmetrics-text; version=1.0.0")
    names = {family.name for family in openmetrics.text_string_to_metric_families(text)}
    assert {"wireguard_sent_bytes", "pywg_handshakes", "pywg_burst_seconds"} <= names


def test_health_and_readiness(tunnel: Tunnel, exporter: HostTask) -> None:
    assert json.loads(fetched(tunnel, "/healthz"))["status"] == "running"
    assert json.loads(fetched(tunnel, "/readyz"))["status"] == "ready"
    tunnel.left.machine.run("ip", "link", "set", WG, "down")
    answer, status = fetched(tunnel, "/readyz", check=False).rsplit("\n", 1)
    assert status == "503"
    assert json.loads(answer)["reasons"] == [f"{WG} is down; `ip link set {WG} up` brings it up"]


def test_an_interface_that_has_gone_is_not_up(tunnel: Tunnel) -> None:
    machine = tunnel.left.machine
    said = samples_of(machine.run(PYWG, "metrics", "--once", WG, "wg9"))
    up = {labels["interface"]: value for labels, value in said["pywg_up"]}
    assert up == {WG: 1, "wg9": 0}


def test_other_daemons_have_what_they_know(tunnel: Tunnel) -> None:
    samples = samples_of(tunnel.right.machine.run(PYWG, "metrics", "--once"))
    assert samples["wireguard_received_bytes_total"][0][1] > 0
    assert not [name for name in samples if name.startswith("pywg_") and name != "pywg_up"]


def test_a_port_that_is_taken_is_told(tunnel: Tunnel, exporter: HostTask) -> None:
    said = tunnel.left.machine.run(PYWG, "metrics", check=False)
    assert "127.0.0.1:9586 cannot be listened on: Address already in use" in said


def test_what_counts_alone_tell_is_in_json_too(tunnel: Tunnel) -> None:
    machine = tunnel.left.machine

    def codes() -> list[str]:
        (interface,) = json.loads(machine.run(PYWG, "show", WG, "--json"))["interfaces"]
        return [finding["code"] for finding in interface["findings"]]

    assert codes() == []
    machine.run("ip", "link", "set", WG, "down")
    assert codes() == ["interface-down"]
