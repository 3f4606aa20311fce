"""The lab itself: hosts reach each other, are apart from everything else, and leave nothing behind."""

from __future__ import annotations

import pathlib
import time

import pytest

from tests.system.net import CommandError, Lab, eventually, make_router

pytestmark = pytest.mark.usefixtures("namespaces")


def test_two_joined_hosts_reach_each_other_over_both_families(lab: Lab) -> None:
    left, right = lab.host("left"), lab.host("right")
    lab.join(left, right, ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"])
    for address in ("192.0.2.2", "2001:db8::2"):
        assert "1 received" in left.run("ping", "-c1", "-W2", address)


def test_every_host_has_its_own_run_directory(lab: Lab) -> None:
    left, right = lab.host("left"), lab.host("right")
    left.write("/run/wireguard/note", "left's")
    assert left.run("cat", "/run/wireguard/note") == "left's"
    with pytest.raises(CommandError, match="No such file"):
        right.run("cat", "/run/wireguard/note")


def test_closing_the_lab_ends_also_what_left_its_session(tmp_path: pathlib.Path) -> None:
    with Lab(tmp_path) as lab:
        host = lab.host("left")
        pid = int(host.run("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"))
        assert pathlib.Path(f"/proc/{pid}").exists()
    eventually("the process is gone", lambda: not pathlib.Path(f"/proc/{pid}/exe").exists())


def test_a_router_hides_the_inner_address_and_forgets_it_after_two_idle_seconds(lab: Lab) -> None:
    inner, router, outer = lab.host("inner"), lab.host("router"), lab.host("outer")
    lab.join(inner, router, ["10.0.0.2/24"], ["10.0.0.1/24"])
    exit_link = lab.join(router, outer, ["192.0.2.1/24"], ["192.0.2.2/24"])
    inner.run("ip", "route", "add", "default", "via", "10.0.0.1")
    make_router(router, nat_out=exit_link.left_interface)
    listener = outer.start("python3", "-u", "-c", _LISTEN_AND_ANSWER)
    eventually("the listener listens", lambda: "ready" in listener.output())
    answers = inner.start("python3", "-u", "-c", _ASK)
    said = listener.wait()
    assert "from 192.0.2.1" in said
    assert answers.wait() == "at once\n"


_LISTEN_AND_ANSWER = """
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("192.0.2.2", 7))
print("ready")
_, source = s.recvfrom(99)
print("from", source[0])
s.sendto(b"at once", source)
time.sleep(3.5)
s.sendto(b"late", source)
"""

_ASK = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"?", ("192.0.2.2", 7))
s.settimeout(5)
try:
    while True:
        print(s.recv(99).decode())
except TimeoutError:
    pass
"""


def test_a_failing_command_says_what_it_printed(lab: Lab) -> None:
    host = lab.host("left")
    with pytest.raises(CommandError, match=r"left: sh -c .* ended with 3:\nwhy"):
        host.run("sh", "-c", "echo why; exit 3")
    before = time.monotonic()
    with pytest.raises(CommandError, match="still ran"):
        host.run("sleep", "20", timeout=0.2)
    assert time.monotonic() - before < 5
