"""Windows' tunnel devices: real calls by ctypes, into a stand-in for Wintun."""

from __future__ import annotations

import asyncio
import errno
import select
import selectors
import threading

import pytest

from pywg.errors import PywgError
from pywg.tun import wintun
from pywg.tun.base import TunGoneError, TunOffload, TunState
from pywg.tun.windows import WindowsTun
from tests import windows
from tests.engines import running_pair
from tests.spec.world import payload_of, udp_packet

PACKET = udp_packet("10.0.0.1", "10.0.0.2", b"hello")


@pytest.fixture
def tun():
    tun = WindowsTun.create("wg0", 1420, windows.load())
    yield tun
    tun.close()


def readable(fd: int, timeout: float = 10) -> bool:
    return bool(select.select([fd], [], [], timeout)[0])


def drained(tun: WindowsTun) -> None:
    """Read until nothing waits and the waiting thread has nothing more to tell."""
    while readable(tun.fileno(), 0.05):
        while tun.read() is not None:
            pass


def test_an_adapter_is_up_with_the_mtu_that_was_told(tun):
    assert (tun.name, tun.offload, tun.state()) == ("wg0", TunOffload(), TunState(1420, up=True))
    assert windows.adapter_exists("wg0")


def test_closing_leaves_no_adapter_no_handle_and_no_thread():
    threads, handles = threading.active_count(), windows.open_handles()
    tun = WindowsTun.create("wg1", 1420, windows.load())
    assert (threading.active_count(), windows.open_handles()) == (threads + 1, handles + 1)
    tun.close()
    tun.close()
    assert (threading.active_count(), windows.open_handles()) == (threads, handles)
    assert not windows.adapter_exists("wg1")
    assert (tun.fileno(), tun.changes_fileno()) == (-1, -1)
    for use in (tun.read, tun.state, lambda: tun.write([PACKET])):
        with pytest.raises(TunGoneError, match="the adapter wg1 was removed"):
            use()


def test_packets_come_and_go_whole(tun):
    host = windows.Host("wg0")
    for size in (1, 1420, 65535):
        host.send(b"x" * size)
        tun.write([memoryview(b"y" * (size - 1)), b"z"])
        assert host.recv() == b"y" * (size - 1) + b"z"
    assert [len(tun.read() or b"") for _ in range(4)] == [1, 1420, 65535, 0]


def test_a_packet_makes_the_descriptor_readable_until_all_were_read(tun):
    drained(tun)
    windows.Host("wg0").send(PACKET)
    assert readable(tun.fileno())
    assert tun.read() == PACKET
    assert tun.read() is None
    assert not readable(tun.fileno(), 0)


def test_none_is_missed_whenever_they_come(tun):
    host = windows.Host("wg0")
    number = 3000
    sender = threading.Thread(target=lambda: [host.send(b"%d" % n) for n in range(number)])
    sender.start()
    got = []
    while len(got) < number:
        assert readable(tun.fileno()), f"after {len(got)} packets nothing more is told"
        while (packet := tun.read()) is not None:
            got.append(int(packet))
    sender.join()
    assert got == list(range(number))


def test_a_full_ring_refuses_and_goes_on(tun):
    for _ in range(wintun.RING_CAPACITY // 65535):
        tun.write([bytes(65535)])
    with pytest.raises(OSError, match="the ring is full") as refused:
        tun.write([bytes(65535)])
    assert refused.value.errno == errno.ENOBUFS
    windows.Host("wg0").recv()
    tun.write([bytes(65535)])


@pytest.mark.parametrize("frame", [[], [b""], [bytes(65536)]])
def test_what_is_no_packet_is_not_written(frame, tun):
    with pytest.raises(OSError, match="1 to 65535 bytes"):
        tun.write(frame)


def test_a_new_mtu_is_told(tun):
    assert not readable(tun.changes_fileno(), 0)
    tun.set_mtu(1280)
    assert readable(tun.changes_fileno(), 0)
    assert tun.state() == TunState(1280, up=True)
    assert not readable(tun.changes_fileno(), 0)


def test_an_adapter_that_goes_away_is_told(tun):
    drained(tun)
    windows.Host("wg0").remove()
    assert readable(tun.fileno())
    with pytest.raises(TunGoneError):
        tun.read()
    with pytest.raises(TunGoneError):
        tun.write([PACKET])


def test_who_is_no_administrator_is_told_so():
    windows.set_administrator(False)
    try:
        with pytest.raises(PywgError, match="the adapter wg0 may not be made; run it as administrator"):
            WindowsTun.create("wg0", 1420, windows.load())
    finally:
        windows.set_administrator(True)


def test_a_session_that_cannot_be_opened_leaves_no_adapter(monkeypatch):
    monkeypatch.setattr(wintun, "RING_CAPACITY", 12345)
    with pytest.raises(PywgError, match="the adapter wg0 cannot be used: Windows' error 87"):
        WindowsTun.create("wg0", 1420, windows.load())
    assert not windows.adapter_exists("wg0")


@pytest.mark.parametrize("name", ["", "a/b", "x" * 128, "a\nb"])
def test_a_name_that_no_adapter_can_have_is_refused(name):
    with pytest.raises(PywgError, match="is no name for an adapter"):
        WindowsTun.create(name, 1420, windows.load())


def test_the_library_is_looked_for_where_it_was_named(monkeypatch, tmp_path):
    monkeypatch.delenv(wintun.DLL_VARIABLE, raising=False)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python.exe"))
    with pytest.raises(PywgError, match=r"wintun\.dll is missing\. Get it with: pip install pytun-pmd3"):
        wintun.find_dll()
    (tmp_path / "wintun.dll").touch()
    assert wintun.find_dll() == str(tmp_path / "wintun.dll")
    monkeypatch.setenv(wintun.DLL_VARIABLE, "/elsewhere/wintun.dll")
    assert wintun.find_dll() == "/elsewhere/wintun.dll"
    with pytest.raises(PywgError, match=r"Wintun cannot be loaded from /elsewhere/wintun\.dll"):
        wintun.Wintun.load()


def test_the_library_is_found_in_the_package_that_brings_it(monkeypatch, tmp_path):
    """Laid out as pytun-pmd3 3.0.3 is."""
    monkeypatch.delenv(wintun.DLL_VARIABLE, raising=False)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python.exe"))
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    dll = tmp_path / "pytun_pmd3" / "wintun" / "bin" / "amd64" / "wintun.dll"
    dll.parent.mkdir(parents=True)
    dll.touch()
    (tmp_path / "pytun_pmd3" / "__init__.py").write_text("raise AssertionError('it is not imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert wintun.find_dll() == str(dll)


def test_two_engines_carry_packets_between_two_adapters(monkeypatch):
    """With `select` alone, in the data path and in the event loop, as on Windows."""
    monkeypatch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)

    async def story():
        loop = asyncio.get_running_loop()
        tuns = [WindowsTun.create(f"tun{at}", 1420, windows.load()) for at in (0, 1)]
        hosts = [windows.Host(tun.name) for tun in tuns]
        async with running_pair(tuns) as pair:
            pair.introduce()
            for number in range(20):
                for at in (0, 1):
                    hosts[at].send(udp_packet(f"10.0.0.{1 + at}", f"10.0.0.{2 - at}", b"packet %d" % number))
                    arrived = await loop.run_in_executor(None, hosts[1 - at].recv)
                    assert payload_of(arrived) == b"packet %d" % number
            hosts[1].remove()
            with pytest.raises(TunGoneError):
                await asyncio.wait_for(pair.tasks[1], 10)

    asyncio.run(story())
