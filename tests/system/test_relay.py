"""The relay that stands for a long or bad wire, between two hosts."""

from __future__ import annotations

import json
import re
import signal
import sys

import pytest

from tests.system.net import TOOLS, Host, HostTask, Lab, eventually


@pytest.fixture
def hosts(lab: Lab) -> tuple[Host, Host, Host]:
    """Left, the host in the middle, and right."""
    left, middle, right = lab.host("left"), lab.host("middle"), lab.host("right")
    for host, network in ((left, 1), (right, 2)):
        lab.join(
            host,
            middle,
            [f"198.51.{network}.1/24", f"2001:db8:{network}::1/64"],
            [f"198.51.{network}.254/24", f"2001:db8:{network}::fe/64"],
        )
        host.run("ip", "route", "add", "default", "via", f"198.51.{network}.254")
        host.run("ip", "-6", "route", "add", "default", "via", f"2001:db8:{network}::fe")
    return left, middle, right


def start_relay(middle: Host, *settings: str) -> HostTask:
    relay = middle.start(sys.executable, TOOLS / "relay.py", "eth0", "eth1", *settings)
    eventually("the relay is ready", lambda: "ready" in relay.output())
    return relay


@pytest.mark.parametrize("address", ["198.51.2.1", "2001:db8:2::1"])
def test_a_round_trip_takes_twice_the_delay(hosts: tuple[Host, Host, Host], address: str) -> None:
    left, middle, _ = hosts
    start_relay(middle, "--delay", "20")
    said = left.run("ping", "-n", "-c", "5", "-i", "0.1", address)
    times = [float(time) for time in re.findall(r"time=([0-9.]+)", said)]
    assert len(times) == 5
    assert 40 <= min(times) < 60


def test_it_counts_what_it_did_to_the_packets(hosts: tuple[Host, Host, Host]) -> None:
    left, middle, _ = hosts
    relay = start_relay(middle, "--loss", "0.3", "--duplicate", "0.3", "--seed", "5")
    left.run("ping", "-q", "-n", "-c", "200", "-i", "0.002", "-W", "1", "198.51.2.1", check=False)
    relay.signal(signal.SIGTERM)
    counts = json.loads(relay.wait().splitlines()[-1])["left_to_right"]
    assert counts["taken"] == 200
    assert counts["lost"] == pytest.approx(60, rel=0.5)
    assert counts["written"] == counts["taken"] - counts["lost"] + counts["duplicated"]


def test_it_lets_through_no_more_than_the_rate(hosts: tuple[Host, Host, Host]) -> None:
    left, middle, right = hosts
    start_relay(middle, "--rate", "20")
    right.start("iperf3", "-s", "-1")
    eventually("iperf3 listens", lambda: ":5201" in right.run("ss", "-Hltn"))
    report = json.loads(left.run("iperf3", "-c", "198.51.2.1", "-t", "3", "-J"))
    assert 14e6 < report["end"]["sum_received"]["bits_per_second"] < 20e6
