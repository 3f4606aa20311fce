"""The request that a file stands for."""

from __future__ import annotations

from pywg.config.change import device_change
from pywg.config.model import Config, Dialect, EndpointName
from pywg.config.parse import parse
from pywg.uapi.format import format_set
from pywg.wire.endpoint import Endpoint

ONE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
ONE_HEX = bytes(range(32)).hex()


def test_a_file_becomes_the_lines_that_wg_would_send():
    config = parse(
        f"[Interface]\nPrivateKey={ONE}\nListenPort=5\nFwMark=0x10\n[Peer]\nPublicKey={ONE}\nPresharedKey={ONE}\n"
        "Endpoint=a.example:7\nPersistentKeepalive=off\nAllowedIPs=10.0.0.1/8,::/0\n"
        f"[Peer]\nPublicKey={ONE}\nAllowedIPs=+10.1.0.0/16,-::/0\n",
        "wg0.conf",
        Dialect.WG,
    )
    endpoints = {EndpointName("a.example", "7"): Endpoint("192.0.2.1", 7)}
    assert list(format_set(device_change(config, endpoints))) == [
        f"private_key={ONE_HEX}",
        "listen_port=5",
        "fwmark=16",
        f"public_key={ONE_HEX}",
        f"preshared_key={ONE_HEX}",
        "endpoint=192.0.2.1:7",
        "persistent_keepalive_interval=0",
        "replace_allowed_ips=true",
        "allowed_ip=10.0.0.0/8",
        "allowed_ip=::/0",
        f"public_key={ONE_HEX}",
        "allowed_ip=10.1.0.0/16",
        "allowed_ip=-::/0",
    ]


def test_what_a_file_does_not_say_is_left_alone():
    assert list(format_set(device_change(Config(), {}))) == []
