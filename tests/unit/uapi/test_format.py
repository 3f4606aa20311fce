"""Text to values and back: what is written is read again, and any text gives a value or a UapiError."""

from __future__ import annotations

import errno
import ipaddress
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.uapi import format as uapi
from pywg.uapi.error import UapiError
from pywg.uapi.format import AllowedIpChange, DeviceChange, PeerChange
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

KEY = bytes(range(32))
PUBLIC = PublicKey(KEY)

networks = st.one_of(
    st.builds(
        lambda address, length: Network.of(address.packed, length),
        st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address),
        st.integers(0, 32),
    ),
    st.builds(
        lambda address, length: Network.of(address.packed, length),
        st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address),
        st.integers(0, 128),
    ),
)
endpoints = st.builds(
    Endpoint,
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str),
    st.integers(0, 65535),
)
keys = st.binary(min_size=32, max_size=32)
snapshots = st.builds(
    DeviceSnapshot,
    st.none() | keys.filter(any).map(PrivateKey),
    st.integers(0, 65535),
    st.integers(0, 2**32 - 1),
    st.lists(
        st.builds(
            PeerSnapshot,
            keys.map(PublicKey),
            keys.map(PresharedKey),
            st.none() | endpoints,
            st.integers(0, 2**62),
            st.integers(0, 2**64 - 1),
            st.integers(0, 2**64 - 1),
            st.integers(0, 65535),
            st.lists(networks, max_size=4),
        ),
        max_size=4,
    ),
)


@given(snapshots)
def test_what_get_writes_is_read_again(snapshot: DeviceSnapshot) -> None:
    lines = "\n".join([*uapi.format_get(snapshot), "errno=0"]).split("\n")
    assert uapi.parse_get(lines) == snapshot


def test_get_lists_keys_in_the_order_of_wireguard_go() -> None:
    peer = PeerSnapshot(
        PUBLIC,
        PresharedKey(KEY),
        Endpoint("192.0.2.1", 51820),
        1_700_000_000_000_000_005,
        7,
        8,
        25,
        [Network.parse("10.0.0.0/8")],
    )
    lines = "\n".join(uapi.format_get(DeviceSnapshot(PrivateKey(KEY), 51820, 16, [peer]))).split("\n")
    assert lines == [
        f"private_key={KEY.hex()}",
        "listen_port=51820",
        "fwmark=16",
        f"public_key={KEY.hex()}",
        f"preshared_key={KEY.hex()}",
        "protocol_version=1",
        "endpoint=192.0.2.1:51820",
        "last_handshake_time_sec=1700000000",
        "last_handshake_time_nsec=5",
        "tx_bytes=8",
        "rx_bytes=7",
        "persistent_keepalive_interval=25",
        "allowed_ip=10.0.0.0/8",
    ]


def test_get_leaves_out_what_a_device_does_not_have() -> None:
    assert list(uapi.format_get(DeviceSnapshot())) == []


def test_unknown_keys_of_a_newer_daemon_are_passed_over() -> None:
    lines = ["own_public_key=x", f"public_key={KEY.hex()}", "protocol_version=9", "colour=blue", "errno=0"]
    assert uapi.parse_get(lines).peers == [PeerSnapshot(PUBLIC, allowed_ips=[])]


def test_an_endpoint_in_an_unknown_zone_keeps_its_address() -> None:
    lines = [f"public_key={KEY.hex()}", "endpoint=[fe80::1%no-such-zone]:5", "errno=0"]
    assert uapi.parse_get(lines).peers[0].endpoint == Endpoint("fe80::1", 5)


@pytest.mark.parametrize(
    ("status", "number"), [("-22", errno.EINVAL), ("22", errno.EINVAL), ("-55", uapi.UNKNOWN_ERROR)]
)
def test_both_signs_of_errno_are_understood(status: str, number: int) -> None:
    for answer in (uapi.parse_get, uapi.parse_status):
        with pytest.raises(UapiError) as caught:
            answer([f"errno={status}"])
        assert caught.value.errno == number


@pytest.mark.parametrize("answer", [uapi.parse_get, uapi.parse_status])
def test_an_answer_without_errno_is_no_answer(answer: object) -> None:
    with pytest.raises(UapiError, match="before its errno"):
        answer([])  # type: ignore[operator]


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=80)))
def test_any_answer_is_read_or_refused(lines: list[str]) -> None:
    with suppress(UapiError):
        uapi.parse_get(lines)


@given(
    st.sampled_from(["private_key", "listen_port", "fwmark", "public_key", "errno"])
    | st.sampled_from(["preshared_key", "endpoint", "allowed_ip", "rx_bytes", "last_handshake_time_sec"]),
    st.text(max_size=80) | st.integers().map(str) | st.just("9" * 5000),
)
def test_any_value_of_a_known_key_is_read_or_refused(key: str, value: str) -> None:
    with suppress(UapiError):
        uapi.parse_get([f"public_key={KEY.hex()}", f"{key}={value}", "errno=0"])


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.0",
        "10.0.0.0/33",
        "10.0.0.0/08",
        "10.0.0.0/",
        "10.0.0.0/-1",
        "10.0.0.0/+8",
        "10.0.0.0/255.0.0.0",
        "010.0.0.0/8",
        "10.0.0/8",
        "::/129",
        "fe80::1%eth0/64",
        "fe80::1%1/64",
        "/8",
        "",
        "10.0.0.0/8/8",
        " 10.0.0.0/8",
        "10.0.0.0/٨",
    ],
)
def test_a_network_is_an_address_and_a_canonical_length(text: str) -> None:
    with pytest.raises(UapiError) as caught:
        uapi.parse_network("allowed_ip", text)
    assert caught.value.errno == errno.EINVAL


def test_bits_behind_the_prefix_are_dropped() -> None:
    assert uapi.parse_network("allowed_ip", "10.1.2.3/8") == Network.parse("10.0.0.0/8")


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1_0", "0x1", "65536", "١", "9" * 5000])
def test_a_number_is_decimal_and_fits(text: str) -> None:
    with pytest.raises(UapiError):
        uapi.parse_unsigned("listen_port", text, 16)


def test_a_change_becomes_lines() -> None:
    change = DeviceChange(
        PrivateKey(bytes(32)),
        0,
        0,
        True,
        [
            PeerChange(PUBLIC, remove=True, preshared_key=PresharedKey(KEY)),
            PeerChange(
                PUBLIC,
                update_only=True,
                preshared_key=PresharedKey.ZERO,
                endpoint=Endpoint("2001:db8::1", 7),
                persistent_keepalive_interval=0,
                replace_allowed_ips=True,
                allowed_ips=[
                    AllowedIpChange(Network.parse("::/0")),
                    AllowedIpChange(Network.parse("10.0.0.0/8"), remove=True),
                ],
            ),
        ],
    )
    assert list(uapi.format_set(change)) == [
        "private_key=" + "0" * 64,
        "listen_port=0",
        "fwmark=0",
        "replace_peers=true",
        f"public_key={KEY.hex()}",
        "remove=true",
        f"public_key={KEY.hex()}",
        "update_only=true",
        "preshared_key=" + "0" * 64,
        "endpoint=[2001:db8::1]:7",
        "persistent_keepalive_interval=0",
        "replace_allowed_ips=true",
        "allowed_ip=::/0",
        "allowed_ip=-10.0.0.0/8",
    ]
    assert list(uapi.format_set(DeviceChange())) == []


def test_errors_do_not_show_keys() -> None:
    secret = "ab" * 31
    for lines in ([f"private_key={secret}"], [f"private_key{secret}"], [f"{secret}"]):
        with pytest.raises(UapiError) as caught:
            uapi.parse_get(lines)
        assert "abab" not in str(caught.value)


@pytest.mark.parametrize("value", ["\x1b[2J", "1\n2", "\u202e", "\0"])
@pytest.mark.parametrize("key", ["errno", "listen_port", "endpoint", "allowed_ip", "public_key"])
def test_errors_do_not_steer_a_terminal(key: str, value: str) -> None:
    lines = [f"{key}={value}", "errno=0"]
    with pytest.raises(UapiError) as caught:
        uapi.parse_get(lines if key == "listen_port" else [f"public_key={'01' * 32}", *lines])
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "[[::1]]:5",
        "1.2.3.4:" + "9" * 100,
        f"[fe80::1%{'9' * 40}]:5",
        "[fe80::1%²]:5",
        "[::1%]5",
        "1.2.3.4:٥",
        "9" * 5000,
    ],
)
def test_an_endpoint_that_no_socket_could_take_is_refused(text: str) -> None:
    with pytest.raises(UapiError) as caught:
        uapi.parse_endpoint("endpoint", text)
    assert caught.value.errno == errno.EINVAL
