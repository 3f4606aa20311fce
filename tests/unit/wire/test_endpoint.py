"""Endpoints: their texts, the kernel's addresses, and the bytes that a cookie binds."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywg.errors import PywgError
from pywg.wire.endpoint import Endpoint, LocalAddress

PORTS = st.integers(0, 65535)
LOOPBACK = socket.if_nametoindex("lo") if hasattr(socket, "if_nametoindex") else 1


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("192.0.2.1:51820", Endpoint("192.0.2.1", 51820)),
        ("[2001:db8::1]:1", Endpoint("2001:db8::1", 1)),
        ("[2001:db8:0:0::1]:65535", Endpoint("2001:db8::1", 65535)),
        ("[fe80::1%7]:51820", Endpoint("fe80::1", 51820, 7)),
        ("[fe80::1%lo]:51820", Endpoint("fe80::1", 51820, LOOPBACK)),
    ],
)
def test_a_text_is_read(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2.1",
        ":51820",
        "192.0.2.1:",
        "192.0.2.1:65536",
        "192.0.2.1:-1",
        "192.0.2.1:٣",
        "192.0.2.256:1",
        "host.example:1",
        "[192.0.2.1]:1",
        "2001:db8::1:51820",
        "[2001:db8::1:51820",
        "[2001:db8::1]",
        "[fe80::1%no-such-interface]:1",
    ],
)
def test_another_text_is_a_mistake(text: str) -> None:
    with pytest.raises(PywgError):
        Endpoint.parse(text)


@given(st.ip_addresses(), PORTS)
def test_every_text_reads_back(address: object, port: int) -> None:
    endpoint = Endpoint(str(address).partition("%")[0], port)
    assert Endpoint.parse(str(endpoint)) == endpoint


def test_a_zone_is_shown_by_its_interface_s_name_or_else_its_number() -> None:
    assert str(Endpoint("fe80::1", 2, LOOPBACK)) == "[fe80::1%lo]:2"
    assert str(Endpoint("fe80::1", 2, 2**31 - 1)) == f"[fe80::1%{2**31 - 1}]:2"


@pytest.mark.parametrize("sockaddr", [("192.0.2.1", 5), ("2001:db8::1", 5, 0, 0), ("fe80::1", 5, 0, 3)])
def test_the_kernel_s_address_converts_both_ways(
    sockaddr: tuple[str, int] | tuple[str, int, int, int],
) -> None:
    assert Endpoint.from_sockaddr(sockaddr).sockaddr == sockaddr


def test_a_zone_in_the_kernel_s_host_is_dropped_and_its_index_kept() -> None:
    assert Endpoint.from_sockaddr(("fe80::1%lo", 5, 0, 3)) == Endpoint("fe80::1", 5, 3)


def test_a_cookie_binds_the_address_and_the_port() -> None:
    assert Endpoint("192.0.2.1", 0x1234).packed() == bytes([192, 0, 2, 1, 0x12, 0x34])
    assert Endpoint("::1", 0x1234).packed() == bytes(15) + bytes([1, 0x12, 0x34])


def test_the_local_address_is_remembered_but_does_not_distinguish() -> None:
    local = LocalAddress("192.0.2.9", 2)
    endpoint = Endpoint.from_sockaddr(("192.0.2.1", 5), local)
    assert endpoint.local == local
    assert endpoint == Endpoint("192.0.2.1", 5)
