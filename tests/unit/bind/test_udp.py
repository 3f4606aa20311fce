"""Real sockets on the loopback interface."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pywg.bind import udp
from pywg.bind.udp import UdpBind
from pywg.errors import PywgError
from pywg.wire.endpoint import Endpoint, LocalAddress

HOSTS = ["127.0.0.1", "::1"]


@pytest.fixture(scope="module", params=[True, False], ids=["offload", "plain"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[UdpBind, UdpBind]]:
    left = UdpBind.open(gso=request.param, gro=request.param)
    right = UdpBind.open(gso=request.param, gro=request.param)
    yield left, right
    left.close()
    right.close()


@pytest.fixture
def bind() -> Iterator[UdpBind]:
    made = UdpBind.open()
    yield made
    made.close()


def received(bind: UdpBind) -> list[bytes]:
    """All datagrams that wait, one by one."""
    datagrams = []
    while (got := bind.receive()) is not None:
        size = got.segment_size
        assert (size == 0) == (len(got.data) == 0)
        datagrams += (
            [bytes(got.data[at : at + size]) for at in range(0, len(got.data), size)] if size else [b""]
        )
    return datagrams


def option(bind: UdpBind, level: int, name: int) -> list[int]:
    values = []
    for fd in bind.filenos():
        with socket.socket(fileno=os.dup(fd)) as sock:
            values.append(sock.getsockopt(level, name))
    return values


@pytest.mark.parametrize("host", HOSTS)
@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.one_of(st.sampled_from([0, 32, 148, 1452]), st.integers(0, 9000)), max_size=100))
def test_datagrams_of_any_sizes_arrive_whole_and_in_order(
    pair: tuple[UdpBind, UdpBind], host: str, sizes: list[int]
) -> None:
    left, right = pair
    datagrams = [bytes([number]) * size for number, size in enumerate(sizes)]
    assert left.send(datagrams, Endpoint(host, right.port), 0) == len(datagrams)
    assert received(right) == datagrams


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("size", [1, 1023, 1024, 1452, 1500, 32753, 32754, 40000])
def test_runs_of_equal_sizes_arrive_whatever_fits_into_one_send(
    pair: tuple[UdpBind, UdpBind], host: str, size: int
) -> None:
    left, right = pair
    datagrams = [bytes([number]) * size for number in range(70)] + [b"end"]
    left.send(datagrams, Endpoint(host, right.port), 0)
    assert received(right) == datagrams


@pytest.mark.parametrize("host", HOSTS)
def test_equal_sizes_travel_together_where_the_kernel_can(host: str, bind: UdpBind) -> None:
    if not (bind.offload.gso and bind.offload.gro):
        pytest.skip("this kernel has no UDP_SEGMENT or no UDP_GRO")
    bind.send([b"x" * 1000] * 40 + [b"y"], Endpoint(host, bind.port), 0)
    got = bind.receive()
    assert got is not None
    assert (len(got.data), got.segment_size) == (40001, 1000)
    assert bind.receive() is None


@pytest.mark.parametrize(("host", "longest"), [("127.0.0.1", 65507), ("::1", 65527)])
def test_the_longest_datagram_passes_and_a_longer_one_is_refused(
    host: str, longest: int, bind: UdpBind
) -> None:
    endpoint = Endpoint(host, bind.port)
    assert bind.send([bytes(longest)], endpoint, 0) == 1
    assert [len(datagram) for datagram in received(bind)] == [longest]
    with pytest.raises(OSError, match="too long"):
        bind.send([bytes(longest + 1)], endpoint, 0)


def test_what_went_before_a_refused_datagram_counts_as_sent(bind: UdpBind) -> None:
    assert bind.send([b"a", b"b", bytes(70000), b"c"], Endpoint("127.0.0.1", bind.port), 0) == 2
    assert received(bind) == [b"a", b"b"]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("tos", [0, 0x88, 0x03, 0xFF])
def test_the_outer_tos_byte_is_sent_and_received(pair: tuple[UdpBind, UdpBind], host: str, tos: int) -> None:
    left, right = pair
    left.send([b"a", b"b"], Endpoint(host, right.port), tos)
    got = right.receive()
    assert got is not None
    assert got.tos == tos
    received(right)


@pytest.mark.parametrize("host", HOSTS)
def test_the_source_is_the_endpoint_to_answer_to(pair: tuple[UdpBind, UdpBind], host: str) -> None:
    left, right = pair
    left.send([b"question"], Endpoint(host, right.port), 0)
    got = right.receive()
    assert got is not None
    assert got.endpoint == Endpoint(host, left.port)
    assert got.endpoint.local is not None
    assert got.endpoint.local.host == host
    right.send([b"answer"], got.endpoint, 0)
    assert received(left) == [b"answer"]


def test_an_answer_leaves_from_the_address_that_was_asked(pair: tuple[UdpBind, UdpBind]) -> None:
    left, right = pair
    left.send([b"question"], Endpoint("127.0.0.77", right.port), 0)
    asked = right.receive()
    assert asked is not None
    right.send([b"answer"], asked.endpoint, 0)
    answer = left.receive()
    assert answer is not None
    assert answer.endpoint == Endpoint("127.0.0.77", right.port)


@pytest.mark.parametrize(("host", "gone"), [("127.0.0.1", "192.0.2.99"), ("::1", "2001:db8::99")])
@pytest.mark.parametrize("count", [1, 40])
def test_a_local_address_that_is_no_longer_ours_is_let_go(
    pair: tuple[UdpBind, UdpBind], host: str, gone: str, count: int
) -> None:
    left, right = pair
    endpoint = Endpoint(host, right.port, local=LocalAddress(gone, 7))
    assert left.send([b"data"] * count, endpoint, 0) == count
    assert received(right) == [b"data"] * count


def test_one_source_is_one_endpoint_object(pair: tuple[UdpBind, UdpBind]) -> None:
    left, right = pair
    seen = set()
    for _ in range(5):
        left.send([b"x"], Endpoint("127.0.0.1", right.port), 0)
        got = right.receive()
        assert got is not None
        seen.add(id(got.endpoint))
    assert len(seen) == 1


def test_endpoints_that_are_kept_are_bounded(bind: UdpBind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "_CACHED_ENDPOINTS", 2)
    for _ in range(5):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("127.0.0.1", bind.port))
            assert bind.receive() is not None
    assert len(bind._endpoints) <= 2


def test_a_flood_on_one_family_does_not_silence_the_other() -> None:
    bind = UdpBind.open(gso=False, gro=False)
    bind.send([b"flood"] * 200, Endpoint("127.0.0.1", bind.port), 0)
    bind.send([b"flood"] * 200, Endpoint("::1", bind.port), 0)
    hosts = []
    for _ in range(100):
        got = bind.receive()
        assert got is not None
        hosts.append(got.endpoint.host)
    bind.close()
    assert 30 < hosts.count("::1") < 70


def test_both_families_share_the_port(bind: UdpBind) -> None:
    ports = set()
    for fd in bind.filenos():
        with socket.socket(fileno=os.dup(fd)) as sock:
            ports.add((sock.family, sock.getsockname()[1]))
    assert ports == {(socket.AF_INET, bind.port), (socket.AF_INET6, bind.port)}


def test_a_taken_port_is_told_with_the_command_that_finds_its_owner(bind: UdpBind) -> None:
    with pytest.raises(
        PywgError, match=rf"^UDP port {bind.port} is in use by another program; 'ss .*:{bind.port}'"
    ):
        UdpBind.open(bind.port)


def test_a_port_taken_in_one_family_only_is_taken_and_the_other_family_is_let_go() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::", 0))
        port = other.getsockname()[1]
        with pytest.raises(PywgError, match="is in use"):
            UdpBind.open(port)
    UdpBind.open(port).close()


def test_no_port_number_is_told() -> None:
    with pytest.raises(PywgError, match="65536 is not a port number"):
        UdpBind.open(65536)


@pytest.mark.parametrize("missing", [socket.AF_INET, socket.AF_INET6])
def test_a_host_without_one_family_works_with_the_other(
    missing: socket.AddressFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Socket(socket.socket):  # a kernel booted with ipv6.disable=1 answers like this
        def __init__(self, family: int = -1, *rest: int, **named: int) -> None:
            if family == missing:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *rest, **named)

    monkeypatch.setattr(socket, "socket", Socket)
    bind = UdpBind.open()
    here, there = HOSTS if missing == socket.AF_INET6 else HOSTS[::-1]
    assert bind.send([b"x"], Endpoint(here, bind.port), 0) == 1
    assert received(bind) == [b"x"]
    with pytest.raises(OSError, match="AF_INET") as caught:
        bind.send([b"x"], Endpoint(there, bind.port), 0)
    assert caught.value.errno == errno.EAFNOSUPPORT
    bind.close()


def test_an_unreachable_destination_raises() -> None:
    bind = UdpBind.open()
    with pytest.raises(OSError, match=r".") as caught:
        bind.send([b"x", b"x"], Endpoint("255.255.255.255", 9), 0)
    assert caught.value.errno in {errno.EACCES, errno.ENETUNREACH}
    bind.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may exceed the system's limit")
def test_socket_buffers_are_7_mib(bind: UdpBind) -> None:
    for name in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        assert option(bind, socket.SOL_SOCKET, name) == [2 * 7 * 1024 * 1024] * 2  # the kernel doubles it


@pytest.mark.skipif(os.geteuid() != 0, reason="a mark needs CAP_NET_ADMIN")
def test_a_mark_is_set_and_removed() -> None:
    bind = UdpBind.open(mark=0xCA6C)
    assert option(bind, socket.SOL_SOCKET, socket.SO_MARK) == [0xCA6C] * 2
    bind.set_mark(0xFFFFFFFF)
    assert option(bind, socket.SOL_SOCKET, socket.SO_MARK) == [-1] * 2
    bind.set_mark(0)
    assert option(bind, socket.SOL_SOCKET, socket.SO_MARK) == [0] * 2
    bind.close()


def test_nothing_waits_on_a_closed_bind_and_closing_twice_is_harmless() -> None:
    bind = UdpBind.open()
    bind.close()
    bind.close()
    assert bind.filenos() == []
    assert bind.receive() is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 17, 41]), st.sampled_from([1, 8, 13, 50, 67, 104]), st.binary(max_size=24)
        )
    )
)
def test_no_control_message_breaks_receiving(
    pair: tuple[UdpBind, UdpBind], control: list[tuple[int, int, bytes]]
) -> None:
    got = pair[0]._received(100, control, ("192.0.2.1", 5))
    assert 1 <= got.segment_size <= 100
    assert got.endpoint == Endpoint("192.0.2.1", 5)
    assert 0 <= got.tos <= 255


def test_a_link_local_source_keeps_its_interface(bind: UdpBind) -> None:
    info = socket.inet_pton(socket.AF_INET6, "fe80::2") + struct.pack("=I", 3)
    got = bind._received(1, [(41, 50, info)], ("fe80::1%eth0", 5, 0, 3))
    assert got.endpoint == Endpoint("fe80::1", 5, 3)
    assert got.endpoint.local == LocalAddress("fe80::2", 3)


@pytest.mark.parametrize("host", HOSTS)
def test_without_control_messages_datagrams_and_addresses_pass_all_the_same(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(udp, "_HAS_CONTROL", False)  # as Python is on Windows
    left, right = UdpBind.open(gso=False, gro=False), UdpBind.open(gso=False, gro=False)
    assert left.receive() is None
    assert left.send([b"one", b"", b"three"], Endpoint(host, right.port), 0x88) == 3
    got = right.receive()
    assert got is not None
    assert (bytes(got.data), got.endpoint, got.endpoint.local) == (b"one", Endpoint(host, left.port), None)
    assert received(right) == [b"", b"three"]
    left.close()
    right.close()
    assert right.receive() is None
