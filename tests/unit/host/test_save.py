"""What of a running tunnel goes into its file, and what stays as the file has it."""

from __future__ import annotations

import ipaddress

import pytest

from pywg.config.files import Location, load_text
from pywg.config.model import Dialect
from pywg.config.parse import parse
from pywg.config.write import write
from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.host.save import as_running
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

KEY = "YAnz5TF+lXXJte14tji3zlMNftft3aw3kuL3aN2FY3k="
ONE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
TWO = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
PSK = "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8="


def saved(text: str, device: DeviceSnapshot, *addresses: str, mtu: int = 1420) -> list[str]:
    loaded = load_text(Location("wg0.conf", "wg0"), text, with_keys=False)
    written = parse(text, "wg0.conf", Dialect.WG_QUICK)
    interfaces = [ipaddress.ip_interface(one) for one in addresses]
    running = as_running(loaded.config, device, interfaces, mtu, written)
    return write(running).splitlines()


def device(*peers: PeerSnapshot) -> DeviceSnapshot:
    return DeviceSnapshot(PrivateKey.from_base64(KEY), 4000, 0, peers)


def peer(key: str = ONE, **values: object) -> PeerSnapshot:
    return PeerSnapshot(PublicKey.from_base64(key), **values)


def test_all_is_in_the_order_of_wg_quick_save():
    text = (
        "# mine\n[Interface]\nPostDown = b # 1\nPreUp = a\nPostUp = c; d\nPreDown = e\nSaveConfig = true\n"
        f"Table = 7\nMTU = 1300\nDNS = 10.0.0.1, corp.example\nAddress = 10.0.0.2\n"
        f"PrivateKey = {ONE}\nListenPort = 1\n"
    )
    one = peer(
        preshared_key=PresharedKey.from_base64(PSK),
        endpoint=Endpoint("2001:db8::1", 51820),
        persistent_keepalive_interval=25,
        allowed_ips=[Network.parse("10.0.0.0/8"), Network.parse("fd00::/8")],
    )
    running = DeviceSnapshot(PrivateKey.from_base64(KEY), 4000, 0x1234, [one, peer(TWO)])
    assert saved(text, running, "10.0.0.3/24", "10.0.0.2/32", "fd00::1/64", mtu=1310) == [
        "[Interface]",
        "Address = 10.0.0.2/32",
        "Address = 10.0.0.3/24",
        "Address = fd00::1/64",
        "DNS = 10.0.0.1",
        "DNS = corp.example",
        "MTU = 1310",
        "Table = 7",
        "SaveConfig = true",
        "PreUp = a",
        "PostUp = c; d",
        "PreDown = e",
        "PostDown = b # 1",
        "ListenPort = 4000",
        "FwMark = 0x1234",
        f"PrivateKey = {KEY}",
        "",
        "[Peer]",
        f"PublicKey = {ONE}",
        f"PresharedKey = {PSK}",
        "AllowedIPs = 10.0.0.0/8, fd00::/8",
        "Endpoint = [2001:db8::1]:51820",
        "PersistentKeepalive = 25",
        "",
        "[Peer]",
        f"PublicKey = {TWO}",
    ]


def test_a_file_without_an_mtu_gets_none():
    assert not any(line.startswith("MTU") for line in saved("[Interface]\n", device()))


def test_link_local_addresses_are_saved_when_the_file_has_them():
    lines = saved("[Interface]\nAddress = fe80::1/64\n", device(), "fe80::1/64", "fe80::d5:1/64")
    assert [line for line in lines if line.startswith("Address")] == ["Address = fe80::1/64"]


def test_an_address_that_was_taken_away_is_not_saved():
    assert "Address = 10.0.0.2/32" not in saved("[Interface]\nAddress = 10.0.0.2\n", device())


def test_peers_keep_their_names_and_a_removed_one_goes():
    text = f"[Peer]\n# Name = laptop\nPublicKey = {ONE}\n[Peer]\n# Name = phone\nPublicKey = {TWO}\n"
    lines = saved(text, device(peer(TWO)))
    assert "# Name = phone" in lines
    assert "# Name = laptop" not in lines


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        (Endpoint("192.0.2.9", 51820), "vpn.example:51820"),
        (None, "vpn.example:51820"),
        (Endpoint("192.0.2.9", 51821), "192.0.2.9:51821"),
    ],
)
def test_an_endpoint_by_name_keeps_it_while_the_port_is_the_same(running, expected):
    text = f"[Peer]\nPublicKey = {ONE}\nEndpoint = vpn.example:51820\n"
    assert f"Endpoint = {expected}" in saved(text, device(peer(endpoint=running)))


def test_an_endpoint_by_address_is_where_the_peer_is_now():
    text = f"[Peer]\nPublicKey = {ONE}\nEndpoint = 192.0.2.1:51820\n"
    lines = saved(text, device(peer(endpoint=Endpoint("192.0.2.9", 51820))))
    assert "Endpoint = 192.0.2.9:51820" in lines


def test_keys_kept_elsewhere_stay_there_while_they_are_the_same(tmp_path):
    (tmp_path / "private").write_text(KEY)
    (tmp_path / "shared").write_text(PSK)
    for name in ("private", "shared"):
        (tmp_path / name).chmod(0o600)
    text = (
        f"[Interface]\n#pywg PrivateKeyFile = {tmp_path}/private\n"
        f"[Peer]\nPublicKey = {ONE}\n#pywg PresharedKeyFile = {tmp_path}/shared\n"
    )
    loaded = load_text(Location(str(tmp_path / "wg0.conf"), "wg0"), text)
    same = peer(preshared_key=PresharedKey.from_base64(PSK))
    written = write(as_running(loaded.config, device(same), [], 1420))
    assert f"#pywg PrivateKeyFile = {tmp_path}/private\n" in written
    assert f"#pywg PresharedKeyFile = {tmp_path}/shared\n" in written
    assert KEY not in written
    assert PSK not in written
    other = DeviceSnapshot(
        PrivateKey.from_base64(ONE), 4000, 0, [peer(preshared_key=PresharedKey.from_base64(TWO))]
    )
    written = write(as_running(loaded.config, other, [], 1420))
    assert f"PrivateKey = {ONE}\n" in written
    assert f"PresharedKey = {TWO}\n" in written
    assert "File" not in written


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ("0.0.0.0/1", ["AllowedIPs = 0.0.0.0/0", "#pywg DisallowedIPs = 128.0.0.0/1"]),
        ("0.0.0.0/2", ["AllowedIPs = 0.0.0.0/2"]),
    ],
)
def test_disallowed_ips_stay_while_they_leave_what_runs(running, expected):
    text = (
        f"[Interface]\n[Peer]\nPublicKey = {ONE}\nAllowedIPs = 0.0.0.0/0\n"
        "#pywg DisallowedIPs = 128.0.0.0/1\nEndpoint = 192.0.2.1:1\n#pywg Endpoint = 192.0.2.2:1\n"
    )
    now = peer(allowed_ips=[Network.parse(running)], endpoint=Endpoint("192.0.2.2", 1))
    lines = saved(text, device(now))
    assert [line for line in lines if "IPs" in line] == expected
