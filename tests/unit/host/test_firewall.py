"""The firewall's rules as a person would type them, and as they go to nftables."""

from __future__ import annotations

import ipaddress

import pytest

from pywg.host import nft
from pywg.host.firewall import Firewall, Installed, Kind

ADDRESS = ipaddress.ip_address("10.0.0.1")


def test_nftables_commands_are_those_of_a_table_of_its_own():
    firewall = Firewall("wg0", 4, [ADDRESS], 51820)
    assert firewall.commands(Kind.NFTABLES)[4:] == [
        'nft \'add rule ip wg-quick-wg0 preraw iifname != "wg0" ip daddr 10.0.0.1 '
        "fib saddr type != local drop'",
        "nft add rule ip wg-quick-wg0 postmangle meta l4proto udp meta mark 51820 ct mark set mark",
        "nft add rule ip wg-quick-wg0 premangle meta l4proto udp meta mark set ct mark",
    ]
    assert firewall.undo_commands(Kind.NFTABLES) == ["nft delete table ip wg-quick-wg0"]


def test_iptables_commands_are_undone_by_the_same_with_d():
    firewall = Firewall("wg0", 6, [ipaddress.ip_address("fd00::1")], 7)
    comment = '-m comment --comment "wg-quick(8) rule for wg0"'
    assert firewall.commands(Kind.IPTABLES) == [
        f"ip6tables -t raw -I PREROUTING ! -i wg0 -d fd00::1 -m addrtype ! --src-type LOCAL "
        f"-j DROP {comment}",
        f"ip6tables -t mangle -I POSTROUTING -m mark --mark 7 -p udp -j CONNMARK --save-mark {comment}",
        f"ip6tables -t mangle -I PREROUTING -p udp -j CONNMARK --restore-mark {comment}",
    ]
    assert [line.replace(" -D ", " -I ") for line in firewall.undo_commands(Kind.IPTABLES)] == (
        firewall.commands(Kind.IPTABLES)
    )


@pytest.mark.parametrize("kind", list(Kind))
def test_a_name_stands_for_what_was_installed(kind):
    installed = Installed("wg0", 6, kind)
    assert Installed.from_name("wg0", installed.name) == installed


def test_an_expression_has_the_bytes_of_the_kernel_s_header():
    load, compare = nft.marked(0x01020304)
    assert load == bytes.fromhex(
        "0900 0100 6d657461 00 000000"  # NFTA_EXPR_NAME: meta
        "1400 0280 0800 0100 00000001 0800 0200 00000003"  # register 1, NFT_META_MARK
    )
    assert compare == bytes.fromhex(
        "0800 0100 636d7000"  # cmp
        "2000 0280 0800 0100 00000001 0800 0200 00000000"  # register 1 is equal to
        "0c00 0380 0800 0100 04030201"  # this, in the host's order
    )
