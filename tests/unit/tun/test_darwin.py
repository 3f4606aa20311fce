"""macOS's tunnel devices, on a simulated kernel."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from pathlib import Path

import pytest

from pywg.errors import PywgError
from pywg.tun.base import TunGoneError, TunOffload, TunState
from pywg.tun.darwin import DarwinTun
from tests.darwin import INET, INET6, Kernel
from tests.engines import running_pair
from tests.spec.world import payload_of, udp_packet

FOUR = udp_packet("10.0.0.1", "10.0.0.2", b"four")
SIX = udp_packet("fd00::1", "fd00::2", b"six")


@pytest.fixture
def kernel():
    kernel = Kernel()
    yield kernel
    kernel.close()


@pytest.fixture
def tun(kernel):
    tun = DarwinTun.create("utun4", 1420, kernel)
    yield tun
    tun.close()


def test_an_interface_has_the_number_and_the_mtu_that_were_asked_for(tun, kernel):
    assert tun.name == "utun4"
    assert kernel.mtus == {"utun4": 1420}
    assert tun.offload == TunOffload()
    assert tun.state() == TunState(1420, up=False)


def test_without_a_number_it_is_the_first_free(kernel):
    tuns = [DarwinTun.create("utun", 1420, kernel) for _ in range(2)]
    assert [tun.name for tun in tuns] == ["utun0", "utun1"]
    for tun in tuns:
        tun.close()


@pytest.mark.parametrize("name", ["wg0", "utunx", "utun-1", "utun1 ", "utun1234567890"])
def test_other_names_are_refused(name, kernel):
    with pytest.raises(PywgError, match="it must be 'utun' or 'utun4'"):
        DarwinTun.create(name, 1420, kernel)
    assert not kernel.mtus


def test_a_number_that_is_taken_is_told(tun, kernel):
    with pytest.raises(PywgError, match="utun4 exists already"):
        DarwinTun.create("utun4", 1420, kernel)


def test_without_root_it_says_so():
    with pytest.raises(PywgError, match="run it as root, with sudo"):
        DarwinTun.create("utun", 1420, Kernel(root=False))


def test_an_mtu_that_the_system_refuses_leaves_nothing_open(kernel):
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(PywgError, match="the MTU of utun0 cannot be set to 100"):
        DarwinTun.create("utun", 100, kernel)
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2  # the simulated kernel's own


def test_packets_come_and_go_with_their_family_before_them(tun, kernel):
    host = kernel.hosts["utun4"]
    assert tun.read() is None
    host.send(INET + FOUR)
    host.send(INET6 + SIX)
    assert [tun.read(), tun.read(), tun.read()] == [FOUR, SIX, None]
    tun.write([memoryview(FOUR)])
    tun.write((SIX[:40], bytearray(SIX[40:])))
    assert [host.recv(65536), host.recv(65536)] == [INET + FOUR, INET6 + SIX]


@pytest.mark.parametrize("frame", [[], [b""], [b"\x50 is no IP version"]])
def test_what_is_no_ip_packet_is_not_written(frame, tun):
    with pytest.raises(OSError, match="neither IPv4 nor IPv6"):
        tun.write(frame)


def test_changes_are_told_and_read(tun, kernel):
    tun.state()
    assert not select.select([tun.changes_fileno()], [], [], 0)[0]
    kernel.bring("utun4", up=True)
    tun.set_mtu(1280)
    assert select.select([tun.changes_fileno()], [], [], 0)[0]
    assert tun.state() == TunState(1280, up=True)
    assert not select.select([tun.changes_fileno()], [], [], 0)[0]


def test_a_removed_interface_is_told(tun, kernel):
    kernel.destroy("utun4")
    with pytest.raises(TunGoneError, match="utun4 was removed"):
        tun.state()


def test_after_closing_there_is_no_descriptor(tun):
    tun.close()
    tun.close()
    assert (tun.fileno(), tun.changes_fileno()) == (-1, -1)
    with pytest.raises(TunGoneError):
        tun.read()


def test_an_inherited_descriptor_that_is_no_utun_is_refused_and_closed(kernel):
    stranger, other = socket.socketpair()
    fd = stranger.detach()
    with other, pytest.raises(PywgError, match=f"descriptor {fd} is no utun interface"):
        DarwinTun.from_fd(fd, system=kernel)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_two_engines_carry_packets_between_two_utun_interfaces(kernel):
    """Real handshakes and packets over the loopback; only the kernel's ends of the interfaces are ours."""

    async def story():
        loop = asyncio.get_running_loop()
        tuns = [DarwinTun.create("utun", 1420, kernel) for _ in range(2)]
        async with running_pair(tuns) as pair:
            for tun in tuns:
                kernel.bring(tun.name, up=True)
            pair.introduce()
            hosts = [kernel.hosts[tun.name] for tun in tuns]
            for number in range(20):
                for at in (0, 1):
                    payload = b"packet %d" % number
                    hosts[at].send(INET + udp_packet(f"10.0.0.{1 + at}", f"10.0.0.{2 - at}", payload))
                    arrived = await loop.run_in_executor(None, hosts[1 - at].recv, 65536)
                    assert arrived[:4] == INET
                    assert payload_of(arrived[4:]) == payload
            kernel.destroy("utun1")
            with pytest.raises(TunGoneError):
                await pair.tasks[1]

    asyncio.run(story())
