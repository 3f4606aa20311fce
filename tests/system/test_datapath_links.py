"""Each data path on links that are narrow, full, or lose their address; in hosts of their own.

Programs run inside a host: this very file, with the program's name and arguments. The tunnel device is a
pair of sockets, so that only the network is real.
"""

from __future__ import annotations

import pathlib
import select
import socket
import sys
import time

import pytest

from pywg import clock
from pywg.bind.udp import UdpBind
from pywg.datapath import open_datapath
from pywg.datapath.base import DataPath
from pywg.device.session import PeerId
from pywg.errors import DropReason
from pywg.tun.base import TunOffload
from pywg.wire.endpoint import Endpoint, LocalAddress
from pywg.wire.network import Network
from tests import twins
from tests.system.net import Host, HostTask, Lab, eventually

pytestmark = pytest.mark.usefixtures("namespaces")

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORT = 51820
SEGMENT = 1380  # of payload: with headers, the tunnel's MTU of 1420


# --- Programs. --------------------------------------------------------------------------------------------


def wait_and_step(path: DataPath) -> None:
    """Let it work for a hundredth of a second, or until there is something to drain."""
    if not path.step(clock.now()):
        select.select([path.fileno()], [], [], 0.01)


def send(host: str, segments: str, local: str = "") -> None:
    """Send super-packets of 40 segments until so many segments have left; say what was dropped."""
    tun = twins.SocketTun(TunOffload(vnet_hdr=True, tso=True, uso=True), 1420, room=1 << 18)
    bind = UdpBind.open(PORT)
    for fd in bind.filenos():
        with socket.socket(fileno=socket.dup(fd)) as sock:  # small, so that little is needed to fill it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 << 10)
    path = open_datapath(tun)
    now = clock.now()
    path.install(twins.session(1, 11, expires=now + 100))
    path.add_routes(PeerId(1), [Network.parse("10.1.0.0/16")])
    path.set_endpoint(PeerId(1), Endpoint(host, PORT, local=LocalAddress(local, 0) if local else None))
    path.set_bind(bind)
    path.start()
    whole = twins.packet(twins.OURS[4], "10.1.0.1", bytes(SEGMENT * 40), protocol=6)
    frame = twins.super_packet(whole, SEGMENT)
    left = int(segments) // 40
    sent = waits = 0
    drops: dict[DropReason, int] = {}
    deadline = time.monotonic() + 20
    while sent < int(segments) and time.monotonic() < deadline:
        try:
            while left:
                tun.deliver(frame)
                left -= 1
        except BlockingIOError:  # the tunnel device is not read
            waits += 1
        wait_and_step(path)
        report = path.drain(clock.now())
        sent += sum(activity.sent_packets for activity in report.activity)
        for reason, count in report.drops.items():
            drops[reason] = drops.get(reason, 0) + count
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:  # what was sealed leaves when there is room
        wait_and_step(path)
    path.close()
    print("sent", sent, "waits", waits, "drops", *(f"{reason.value}={n}" for reason, n in drops.items()))


def receive(count: str, seconds: str) -> None:
    """Receive data messages until so many counters have come; say from where, and whether each was right."""
    bind = UdpBind.open(PORT)
    print("ready", flush=True)
    counters: set[int] = set()
    sources: set[str] = set()
    damaged = 0
    deadline = time.monotonic() + float(seconds)
    while len(counters) < int(count) and time.monotonic() < deadline:
        select.select(list(bind.filenos()), [], [], 0.1)
        while (received := bind.receive()) is not None:
            data, step = received.data, received.segment_size
            sources.add(received.endpoint.host)
            for at in range(0, len(data), step):
                opened = twins.open_message(11, bytes(data[at : at + step]))
                if opened is None or opened[0] in counters:
                    damaged += 1
                else:
                    counters.add(opened[0])
    print(len(counters), "damaged or twice", damaged, "from", *sorted(sources))


# --- Tests. -----------------------------------------------------------------------------------------------

ADDRESSES = (["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"])
FAMILIES = pytest.mark.parametrize(
    ("source", "target"), [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")]
)
PATHS = pytest.mark.parametrize("choice", ["portable", "compiled"])


def environment(choice: str) -> dict[str, str]:
    if choice == "compiled":
        pytest.importorskip("pywg.datapath.compiled", reason="build it with: pip install .")
    return {"PYTHONPATH": str(ROOT), "PYWG_DATAPATH": choice}


def start_receiver(host: Host, count: int) -> HostTask:
    task = host.start(sys.executable, __file__, "receive", str(count), "20", env={"PYTHONPATH": str(ROOT)})
    eventually("the receiver listens", lambda: "ready" in task.output() or task.poll() is not None)
    return task


def run_sender(host: Host, choice: str, to: str, segments: int, local: str = "") -> str:
    arguments = [to, str(segments), *([local] if local else [])]
    return host.run(sys.executable, __file__, "send", *arguments, env=environment(choice)).splitlines()[-1]


@PATHS
@FAMILIES
def test_a_link_narrower_than_the_segments_gets_them_one_by_one(
    lab: Lab, choice: str, source: str, target: str
) -> None:
    left, right = lab.host("left"), lab.host("right")
    lab.join(left, right, *ADDRESSES, mtu=1300)
    receiver = start_receiver(right, 800)
    assert run_sender(left, choice, target, 800).endswith("drops")
    assert receiver.wait().splitlines()[-1] == f"800 damaged or twice 0 from {source}"


@PATHS
@FAMILIES
def test_a_full_socket_holds_the_tunnel_back_and_nothing_is_lost(
    lab: Lab, choice: str, source: str, target: str
) -> None:
    left, right = lab.host("left"), lab.host("right")
    link = lab.join(left, right, *ADDRESSES)
    rate = ["tbf", "rate", "100mbit", "burst", "128kb", "limit", "64mb"]
    left.run("tc", "qdisc", "add", "dev", link.left_interface, "root", *rate)
    receiver = start_receiver(right, 4000)
    told = run_sender(left, choice, target, 4000).split()
    assert told[:2] == ["sent", "4000"]
    assert int(told[3]) > 0
    assert told[4:] == ["drops"]
    assert receiver.wait().splitlines()[-1] == f"4000 damaged or twice 0 from {source}"


@PATHS
@FAMILIES
def test_a_local_address_that_was_taken_away_is_replaced(
    lab: Lab, choice: str, source: str, target: str
) -> None:
    left, right = lab.host("left"), lab.host("right")
    lab.join(left, right, *ADDRESSES)
    receiver = start_receiver(right, 400)
    gone = "2001:db8::99" if ":" in source else "192.0.2.99"
    assert run_sender(left, choice, target, 400, gone).endswith("drops")
    assert receiver.wait().splitlines()[-1] == f"400 damaged or twice 0 from {source}"


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(*sys.argv[2:])
    else:
        receive(*sys.argv[2:])
