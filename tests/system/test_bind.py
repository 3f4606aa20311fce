"""Real sockets on links that are narrow, full, or lose their address; in hosts of their own.

Each program runs inside a host: this very file, with the program's name and arguments.
"""

from __future__ import annotations

import os
import pathlib
import select
import socket
import sys
import time

import pytest

from pywg.bind.udp import UdpBind
from pywg.wire.endpoint import Endpoint, LocalAddress
from tests.system.net import Host, HostTask, Lab, eventually, make_router

pytestmark = pytest.mark.usefixtures("namespaces")

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = {"PYTHONPATH": str(ROOT)}
PORT = 51820


def datagrams(count: int, size: int) -> list[bytes]:
    return [number.to_bytes(4, "big") * (size // 4) for number in range(count)]


# --- Programs. --------------------------------------------------------------------------------------------


def send(host: str, count: str, size: str, local: str = "") -> None:
    """Send so many datagrams of that size, 64 at a time, waiting whenever the socket has no room."""
    bind = UdpBind.open(PORT)
    endpoint = Endpoint(host, PORT, local=LocalAddress(local, 0) if local else None)
    rest = datagrams(int(count), int(size))
    poll = select.poll()
    for fd in bind.filenos():
        poll.register(fd, select.POLLOUT)
        with socket.socket(fileno=os.dup(fd)) as sock:  # small, so that little is needed to fill it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 << 10)
    waits = 0
    while rest:
        burst = rest[:64]
        taken = bind.send(burst, endpoint, 0)
        if taken < len(burst):
            waits += 1
            assert poll.poll(10_000), "no room for ten seconds"
        del rest[:taken]
    print("waits", waits, "swallowed", sum(bind.errors.values()))


def receive(count: str, size: str, seconds: str) -> None:
    """Receive datagrams until all have come; say from where, and whether they came whole and in order."""
    bind = UdpBind.open(PORT)
    print("ready", flush=True)
    got: list[bytes] = []
    sources: set[str] = set()
    deadline = time.monotonic() + float(seconds)
    poll = select.poll()
    for fd in bind.filenos():
        poll.register(fd, select.POLLIN)
    while len(got) < int(count) and time.monotonic() < deadline:
        poll.poll(100)
        while (received := bind.receive()) is not None:
            data, step = received.data, received.segment_size
            got += [bytes(data[at : at + step]) for at in range(0, len(data), step)]
            sources.add(received.endpoint.host)
    whole = set(got) <= set(datagrams(int(count), int(size)))
    print(
        len(got),
        "whole" if whole else "damaged",
        "in order" if got == sorted(got) else "mixed",
        *sorted(sources),
    )


# --- Tests. -----------------------------------------------------------------------------------------------


def start_receiver(host: Host, count: int, size: int, seconds: float = 10) -> HostTask:
    task = host.start(sys.executable, __file__, "receive", str(count), str(size), str(seconds), env=HERE)
    eventually("the receiver listens", lambda: "ready" in task.output() or task.poll() is not None)
    return task


def run_sender(host: Host, to: str, count: int, size: int, local: str = "") -> str:
    return host.run(
        sys.executable, __file__, "send", to, str(count), str(size), *([local] if local else []), env=HERE
    )


ADDRESSES = (["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"])
FAMILIES = pytest.mark.parametrize(
    ("source", "target"), [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")]
)


@FAMILIES
def test_datagrams_larger_than_the_link_arrive_in_fragments(lab: Lab, source: str, target: str) -> None:
    left, right = lab.host("left"), lab.host("right")
    lab.join(left, right, *ADDRESSES, mtu=1300)
    receiver = start_receiver(right, 256, 1452)
    assert "swallowed 0" in run_sender(left, target, 256, 1452)
    assert receiver.wait().splitlines()[-1] == f"256 whole in order {source}"


def test_ipv4_datagrams_larger_than_a_link_further_on_arrive_at_once(lab: Lab) -> None:
    left, router, right = lab.host("left"), lab.host("router"), lab.host("right")
    lab.join(left, router, ["192.0.2.1/24"], ["192.0.2.254/24"])
    lab.join(router, right, ["198.51.100.254/24"], ["198.51.100.2/24"], mtu=1300)
    make_router(router)
    # Not even the news of the smaller MTU gets through: only fragments made on the way help.
    router.run("iptables", "-A", "OUTPUT", "-p", "icmp", "-j", "DROP")
    left.run("ip", "route", "add", "default", "via", "192.0.2.254")
    right.run("ip", "route", "add", "default", "via", "198.51.100.254")
    receiver = start_receiver(right, 256, 1452)
    run_sender(left, "198.51.100.2", 256, 1452)
    assert receiver.wait().splitlines()[-1] == "256 whole in order 192.0.2.1"


def test_ipv6_datagrams_larger_than_a_link_further_on_arrive_once_the_path_is_known(lab: Lab) -> None:
    left, router, right = lab.host("left"), lab.host("router"), lab.host("right")
    lab.join(left, router, ["2001:db8:1::1/64"], ["2001:db8:1::ff/64"])
    lab.join(router, right, ["2001:db8:2::ff/64"], ["2001:db8:2::2/64"], mtu=1300)
    make_router(router)
    left.run("ip", "route", "add", "default", "via", "2001:db8:1::ff")
    right.run("ip", "route", "add", "default", "via", "2001:db8:2::ff")
    run_sender(left, "2001:db8:2::2", 1, 1452)
    eventually("the path MTU is known", lambda: "mtu 1300" in left.run("ip", "route", "get", "2001:db8:2::2"))
    receiver = start_receiver(right, 256, 1452)
    run_sender(left, "2001:db8:2::2", 256, 1452)
    assert receiver.wait().splitlines()[-1] == "256 whole in order 2001:db8:1::1"


@FAMILIES
def test_a_full_socket_stops_the_burst_and_nothing_is_lost(lab: Lab, source: str, target: str) -> None:
    left, right = lab.host("left"), lab.host("right")
    link = lab.join(left, right, *ADDRESSES)
    rate = ["tbf", "rate", "100mbit", "burst", "64kb", "limit", "64mb"]
    left.run("tc", "qdisc", "add", "dev", link.left_interface, "root", *rate)
    receiver = start_receiver(right, 2000, 1452)
    waits = int(run_sender(left, target, 2000, 1452).split()[1])
    assert waits > 0
    # Not "in order": the shaper lets go of packets on either CPU, and the wire's ends have a queue for each.
    assert receiver.wait().splitlines()[-1].startswith("2000 whole")


@FAMILIES
def test_a_local_address_that_was_taken_away_is_replaced(lab: Lab, source: str, target: str) -> None:
    left, right = lab.host("left"), lab.host("right")
    lab.join(left, right, *ADDRESSES)
    receiver = start_receiver(right, 64, 1000)
    run_sender(left, target, 64, 1000, "2001:db8::99" if ":" in source else "192.0.2.99")
    assert receiver.wait().splitlines()[-1] == f"64 whole in order {source}"


def test_no_route_is_an_error_of_the_first_datagram(lab: Lab) -> None:
    told = lab.host("alone").run(
        sys.executable, __file__, "send", "192.0.2.2", "3", "100", env=HERE, check=False
    )
    assert told.splitlines()[-1] == "OSError: [Errno 101] Network is unreachable"


if __name__ == "__main__":
    {"send": send, "receive": receive}[sys.argv[1]](*sys.argv[2:])
