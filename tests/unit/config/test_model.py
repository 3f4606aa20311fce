"""What several [Peer] sections amount to, and what is left of a file for wg."""

from __future__ import annotations

from pywg.config.model import Config, Dialect, merge_peers, strip
from pywg.config.parse import parse
from pywg.config.positions import Position

ONE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
TWO = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="


def merged(text: str) -> dict[str, list[str]]:
    config = parse(text, "wg0.conf", Dialect.WG_QUICK)
    return {
        peer.public_key.value.base64: [str(entry.value) for entry in peer.allowed_ips]
        for peer in merge_peers(config.peers)
    }


def peer(key: str, *lines: str) -> str:
    return "\n".join(["[Peer]", f"PublicKey = {key}", *lines, ""])


def test_a_later_section_s_values_stand_and_others_stay():
    config = parse(
        peer(ONE, "Endpoint = a:1", "PersistentKeepalive = 5")
        + peer(ONE, "Endpoint = b:2", f"PresharedKey = {TWO}"),
        "wg0.conf",
        Dialect.WG,
    )
    (only,) = merge_peers(config.peers)
    assert str(only.endpoint.value) == "b:2"
    assert only.persistent_keepalive.value == 5
    assert only.preshared_key.value.base64 == TWO


def test_a_later_section_s_allowed_ips_replace_the_earlier_ones():
    assert merged(peer(ONE, "AllowedIPs = 10.0.0.0/8") + peer(ONE, "AllowedIPs = ::/0")) == {ONE: ["::/0"]}


def test_a_later_section_without_allowed_ips_takes_them_away():
    assert merged(peer(ONE, "AllowedIPs = 10.0.0.0/8") + peer(ONE)) == {ONE: []}


def test_incremental_entries_change_the_earlier_ones():
    text = peer(ONE, "AllowedIPs = 10.0.0.0/8, ::/0") + peer(
        ONE, "AllowedIPs = +10.1.0.0/16, -::/0, -10.9.0.0/16"
    )
    assert merged(text) == {ONE: ["10.0.0.0/8", "10.1.0.0/16"]}


def test_a_network_belongs_to_the_peer_that_was_given_it_last():
    text = peer(ONE, "AllowedIPs = 10.0.0.0/8, ::/0") + peer(TWO, "AllowedIPs = 10.0.0.0/8")
    assert merged(text) == {ONE: ["::/0"], TWO: ["10.0.0.0/8"]}
    assert merged(text + peer(ONE, "AllowedIPs = 10.0.0.0/8")) == {ONE: ["10.0.0.0/8"], TWO: []}


def test_a_peer_cannot_take_away_what_belongs_to_another():
    text = peer(ONE, "AllowedIPs = 10.0.0.0/8") + peer(TWO, "AllowedIPs = -10.0.0.0/8")
    assert merged(text) == {ONE: ["10.0.0.0/8"], TWO: []}


def test_merged_allowed_ips_know_where_they_stand():
    config = parse(peer(ONE, "AllowedIPs = ::/0"), "wg0.conf", Dialect.WG)
    (only,) = merge_peers(config.peers)
    assert only.allowed_ips[0].position == Position("wg0.conf", 3, 14)


def test_strip_keeps_what_wg_reads():
    text = f"[Interface]\nPrivateKey={ONE}\nListenPort=5\nFwMark=6\n"
    config = parse(
        text + "Address=10.0.0.1\nMTU=1400\nPostUp=x\nDNS=::1\nTable=off\nSaveConfig=true\n" + peer(TWO),
        "wg0.conf",
        Dialect.WG_QUICK,
    )
    assert strip(config) == parse(text + peer(TWO), "wg0.conf", Dialect.WG)
    assert strip(Config()) == Config()
