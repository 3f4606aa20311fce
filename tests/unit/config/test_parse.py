"""The grammar of configuration files: what is read, where it stood, and how mistakes are told."""

from __future__ import annotations

import base64

import pytest

from pywg.config.model import AllowedIP, Dialect, EndpointName, Operation
from pywg.config.parse import parse
from pywg.config.positions import ConfigError, Position
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wire.network import Network

PRIVATE = base64.b64encode(bytes(range(32))).decode()
PUBLIC = base64.b64encode(bytes(range(32, 64))).decode()
OTHER = base64.b64encode(bytes(range(64, 96))).decode()
SHARED = base64.b64encode(bytes(range(96, 128))).decode()


def quick(text: str):
    return parse(text, "wg0.conf", Dialect.WG_QUICK)


def mistakes(text: str, dialect: Dialect = Dialect.WG_QUICK) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "wg0.conf", dialect)
    return str(caught.value).split("\n")


def test_a_whole_file_is_read():
    config = quick(
        f"""[Interface]
PrivateKey = {PRIVATE}
ListenPort = 51820
FwMark = 0xca6c
Address = 10.0.0.1/24, fd00::1/64
Address = 192.0.2.7
DNS = 10.0.0.53, example.org fd00::53
MTU = 1380
Table = 1234
PreUp = echo one
PreUp = echo two
PostUp = echo %i # not a comment
PreDown = a
PostDown = b
SaveConfig = true

[Peer]
PublicKey = {PUBLIC}
PresharedKey = {SHARED}
Endpoint = vpn.example.org:51820
AllowedIPs = 10.0.0.0/24, 10.1.0.0/16
AllowedIPs = ::/0
PersistentKeepalive = 25

[Peer]
PublicKey = {OTHER}
"""
    )
    interface = config.interface
    assert interface.private_key.value == PrivateKey.from_base64(PRIVATE)
    assert interface.listen_port.value == 51820
    assert interface.fwmark.value == 0xCA6C
    assert [str(a.value) for a in interface.addresses] == ["10.0.0.1/24", "fd00::1/64", "192.0.2.7/32"]
    assert [str(s.value) for s in interface.dns_servers] == ["10.0.0.53", "fd00::53"]
    assert [d.value for d in interface.dns_search] == ["example.org"]
    assert interface.mtu.value == 1380
    assert interface.table.value == 1234
    assert [h.value for h in interface.pre_up] == ["echo one", "echo two"]
    assert [h.value for h in interface.post_up] == ["echo %i # not a comment"]
    assert [h.value for h in interface.pre_down] == ["a"]
    assert [h.value for h in interface.post_down] == ["b"]
    assert interface.save_config.value is True
    first, second = config.peers
    assert first.public_key.value == PublicKey.from_base64(PUBLIC)
    assert first.preshared_key.value == PresharedKey.from_base64(SHARED)
    assert first.endpoint.value == EndpointName("vpn.example.org", "51820")
    assert [str(a.value) for a in first.allowed_ips] == ["10.0.0.0/24", "10.1.0.0/16", "::/0"]
    assert first.persistent_keepalive.value == 25
    assert second.public_key.value == PublicKey.from_base64(OTHER)
    assert second.endpoint is None
    assert second.preshared_key is None
    assert config.warnings == []


def test_every_value_knows_its_line_and_column():
    config = quick(
        f"[Interface]\n  Address =  10.0.0.1/24,\tfd00::1\nPostUp\t=\tx\n"
        f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs = 10.0.0.0/8 ,  1 0.1.0.0/16\n"
    )
    first, second = config.interface.addresses
    assert first.position == Position("wg0.conf", 2, 14)
    assert second.position == Position("wg0.conf", 2, 27)
    assert config.interface.post_up[0].position == Position("wg0.conf", 3, 10)
    assert config.peers[0].public_key.position == Position("wg0.conf", 5, 11)
    assert [entry.position.column for entry in config.peers[0].allowed_ips] == [14, 28]
    assert str(config.peers[0].allowed_ips[1].position) == "wg0.conf:6:28"


def test_case_and_white_space_do_not_count_in_what_wg_reads():
    config = quick(
        f" [ INTERFACE ] \r\nlisten port = 5 1 8 2 0\r\n[pEER]\nPUBLIC KEY={PUBLIC[:20]} {PUBLIC[20:]}\n"
        "EndPoint = [ 2001:db8::1 ] : 51820\n"
    )
    assert config.interface.listen_port.value == 51820
    assert config.peers[0].public_key.value == PublicKey.from_base64(PUBLIC)
    assert config.peers[0].endpoint.value == EndpointName("2001:db8::1", "51820")


def test_wg_quick_s_own_keys_have_no_white_space_inside():
    assert mistakes("[Interface]\nPost Up = x\n") == [
        "wg0.conf:2:1: unknown key 'Post Up'; did you mean 'PostUp'?"
    ]


def test_a_comment_begins_anywhere_but_in_a_hook():
    config = quick("[Interface] # here\nMTU = 1400#there\n#PostUp = no\npostup = echo '#1' # all of it \n")
    assert config.interface.mtu.value == 1400
    assert [hook.value for hook in config.interface.post_up] == ["echo '#1' # all of it"]


def test_sections_may_come_again_and_in_any_order():
    config = quick(f"[Peer]\nPublicKey={PUBLIC}\n[Interface]\nMTU=1300\n[Interface]\nMTU=1400\nTable=off\n")
    assert config.interface.mtu.value == 1400
    assert config.interface.table.value == "off"


def test_of_single_values_the_last_stands():
    config = quick(
        "[Interface]\nListenPort=1\nListenPort=2\nMTU=1300\nMTU=\nTable=5\nTable=\nSaveConfig=true\nSaveConfig=FALSE\n"
    )
    assert config.interface.listen_port.value == 2
    assert config.interface.mtu is None
    assert config.interface.table is None
    assert config.interface.save_config.value is False


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", 0),
        ("OFF", 0),
        ("0", 0),
        ("010", 10),
        ("0x10", 16),
        ("4294967295", 0xFFFFFFFF),
        ("0x00000000000000001", 1),
    ],
)
def test_a_mark_is_off_decimal_or_hexadecimal(text, value):
    assert quick(f"[Interface]\nFwMark = {text}\n").interface.fwmark.value == value


@pytest.mark.parametrize("text", ["-1", "4294967296", "0x100000000", "0X10", "0x", "1_0", "x", "9" * 5000])
def test_a_wrong_mark_is_told(text):
    (line,) = mistakes(f"[Interface]\nFwMark = {text}\n")
    assert line.startswith("wg0.conf:2:10: FwMark: '")
    assert "is not 'off', a number up to 4294967295, or 0x" in line
    assert len(line) < 200


def test_a_listen_port_may_be_a_service():
    assert quick("[Interface]\nListenPort = domain\n").interface.listen_port.value == 53
    assert mistakes("[Interface]\nListenPort = nosuchservice\n") == [
        "wg0.conf:2:14: ListenPort: 'nosuchservice' is neither a port number nor a UDP service known here"
    ]


@pytest.mark.parametrize("text", ["65536", "-1", "+5", "1.5", "٣"])
def test_a_wrong_port_is_told(text):
    assert mistakes(f"[Interface]\nListenPort = {text}\n") == [
        f"wg0.conf:2:14: ListenPort: '{text}' is not a port number from 0 to 65535"
    ]


@pytest.mark.parametrize(
    ("text", "value"), [("auto", "auto"), ("OFF", "off"), ("0x10", 16), ("main", "main")]
)
def test_a_table_is_auto_off_a_number_or_a_name(text, value):
    assert quick(f"[Interface]\nTable = {text}\n").interface.table.value == value


@pytest.mark.parametrize(("text", "value"), [("off", 0), ("Off", 0), ("0", 0), ("65535", 65535)])
def test_keepalive_is_off_or_seconds(text, value):
    peer = quick(f"[Peer]\nPublicKey={PUBLIC}\nPersistentKeepalive = {text}\n").peers[0]
    assert peer.persistent_keepalive.value == value


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1:51820", "192.0.2.1", "51820"),
        ("[2001:db8::1]:51820", "2001:db8::1", "51820"),
        ("2001:db8::1:51820", "2001:db8::1", "51820"),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", "1"),
        ("vpn.example.org:wireguard-1", "vpn.example.org", "wireguard-1"),
        ("[192.0.2.1]:0", "192.0.2.1", "0"),
    ],
)
def test_an_endpoint_keeps_its_host_and_its_port_as_text(text, host, port):
    peer = quick(f"[Peer]\nPublicKey={PUBLIC}\nEndpoint = {text}\n").peers[0]
    assert peer.endpoint.value == EndpointName(host, port)


def test_an_endpoint_is_written_with_brackets_around_ipv6():
    assert str(EndpointName("2001:db8::1", "5")) == "[2001:db8::1]:5"
    assert str(EndpointName("example.org", "5")) == "example.org:5"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("192.0.2.1", "'192.0.2.1' has no port; write it as host:51820 or [2001:db8::1]:51820"),
        ("192.0.2.1:", "'192.0.2.1:' has no port; write it as host:51820 or [2001:db8::1]:51820"),
        ("[::1]51820", "'[::1]51820' has no port; write it as host:51820 or [2001:db8::1]:51820"),
        ("[::1]:", "'[::1]:' has no port; write it as host:51820 or [2001:db8::1]:51820"),
        ("[::1:5", "'[::1:5' has no ']' after the address"),
        (":51820", "'' is neither a host name nor an address"),
        ("https://example.org:5", "'https://example.org' is neither a host name nor an address"),
        ("example.org:65536", "'65536' is not a port number from 0 to 65535"),
        ("example.org:5/udp", "'5/udp' is not a port number from 0 to 65535"),
        ("example.org:?", "'?' is neither a port number nor the name of a service"),
    ],
)
def test_a_wrong_endpoint_is_told(text, sentence):
    assert mistakes(f"[Peer]\nPublicKey={PUBLIC}\nEndpoint = {text}\n") == [
        f"wg0.conf:3:12: Endpoint: {sentence}"
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10.0.0.0/33", "'10.0.0.0/33' has a prefix longer than 32"),
        ("::/129", "'::/129' has a prefix longer than 128"),
        ("::/1000000000000", "'::/1000000000000' has a prefix longer than 128"),
        ("10.0.0.0/", "'10.0.0.0/' has no prefix length after the '/'"),
        ("10.0.0.0/x", "'10.0.0.0/x' has no prefix length after the '/'"),
        ("10.0.0/8", "'10.0.0' is not an IPv4 address"),
        ("010.0.0.1", "'010.0.0.1' is not an IPv4 address"),
        ("example.org", "'example.org' is not an IPv4 address"),
        ("2001:db8:::/32", "'2001:db8:::' is not an IPv6 address"),
        ("fe80::1%eth0", "'fe80::1%eth0' is not an IPv6 address"),
        ("", "an entry of the list is empty"),
        ("+", "an entry of the list is empty"),
        ("--10.0.0.0/8", "'-10.0.0.0' is not an IPv4 address"),
        ("10.0.0.\udc80", "'10.0.0.\\udc80' is not an IPv4 address"),
        ("10.0.0.1\u00a0", "'10.0.0.1\\xa0' is not an IPv4 address"),
    ],
)
def test_a_wrong_allowed_ip_is_told(text, sentence):
    assert mistakes(f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs = 10.0.0.0/8,{text},::/0\n") == [
        f"wg0.conf:3:25: AllowedIPs: {sentence}"
    ]


def test_allowed_ips_lose_their_host_bits_with_a_warning():
    config = quick(f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs = 10.1.2.3/8, 192.0.2.7, 2001:db8::1/32\n")
    assert [str(entry.value) for entry in config.peers[0].allowed_ips] == [
        "10.0.0.0/8",
        "192.0.2.7/32",
        "2001:db8::/32",
    ]
    assert [str(warning) for warning in config.warnings] == [
        "wg0.conf:3:14: AllowedIPs: '10.1.2.3/8' has host bits set; 10.0.0.0/8 is used",
        "wg0.conf:3:37: AllowedIPs: '2001:db8::1/32' has host bits set; 2001:db8::/32 is used",
    ]


@pytest.mark.parametrize(
    ("lines", "replace"),
    [
        ("", True),
        ("AllowedIPs = 10.0.0.0/8\n", True),
        ("AllowedIPs = +10.0.0.0/8\n", False),
        ("AllowedIPs = 10.0.0.0/8, -10.1.0.0/16, 10.2.0.0/16\n", False),
        ("AllowedIPs = +10.0.0.0/8\nAllowedIPs = 10.1.0.0/16\n", True),
        ("AllowedIPs = 10.0.0.0/8\nAllowedIPs = +10.1.0.0/16\n", False),
    ],
)
def test_an_incremental_entry_stops_the_list_from_replacing_until_the_next_line(lines, replace):
    assert quick(f"[Peer]\nPublicKey={PUBLIC}\n{lines}").peers[0].replace_allowed_ips is replace


def test_incremental_entries_are_marked():
    peer = quick(f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs = + 10.0.0.0/8, -::/0\n").peers[0]
    assert [entry.value for entry in peer.allowed_ips] == [
        AllowedIP(Network.parse("10.0.0.0/8"), Operation.ADD),
        AllowedIP(Network.parse("::/0"), Operation.REMOVE),
    ]


def test_an_empty_allowed_ips_is_taken_in_a_wg_quick_file_with_a_warning():
    text = f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs =\n"
    config = quick(text)
    assert config.peers[0].allowed_ips == []
    assert [str(warning) for warning in config.warnings] == [
        "wg0.conf:3:13: AllowedIPs: is empty, which wg does not accept; leave the line out instead"
    ]
    assert mistakes(text, Dialect.WG) == ["wg0.conf:3:1: AllowedIPs: has no value"]


def test_a_network_that_moves_to_another_peer_is_warned_of():
    config = quick(
        f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs=10.0.0.0/8,-10.1.0.0/16\n"
        f"[Peer]\nPublicKey={OTHER}\nAllowedIPs=10.1.0.0/16, 10.0.0.0/8\n"
    )
    assert [str(warning) for warning in config.warnings] == [
        "wg0.conf:6:25: AllowedIPs: 10.0.0.0/8 moves here from the peer in line 3"
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10.0.0.1", "10.0.0.1/32"),
        ("10.0.0.1/0", "10.0.0.1/0"),
        ("10.0.0.1/255.255.255.0", "10.0.0.1/24"),
        ("fd00::1", "fd00::1/128"),
        ("fd00::1/64", "fd00::1/64"),
    ],
)
def test_an_address_takes_a_prefix_length_a_mask_or_neither(text, value):
    assert str(quick(f"[Interface]\nAddress = {text}\n").interface.addresses[0].value) == value


@pytest.mark.parametrize("mask", ["255.0.255.0", "0.0.0.255", "999.0.0.0"])
def test_a_mask_with_holes_is_told(mask):
    assert mistakes(f"[Interface]\nAddress = 10.0.0.1/{mask}\n") == [
        f"wg0.conf:2:11: Address: '10.0.0.1/{mask}' has a mask that is not a row of ones followed by zeros"
    ]


def test_an_ipv6_address_with_a_dotted_mask_is_told():
    (line,) = mistakes("[Interface]\nAddress = fd00::1/255.255.0.0\n")
    assert line.endswith("has no prefix length after the '/'")


def test_address_takes_empty_entries_and_any_separator():
    config = quick("[Interface]\nAddress = , 10.0.0.1 10.0.0.2,,\t10.0.0.3,\nAddress =\nDNS=\nPostUp =\n")
    assert len(config.interface.addresses) == 3
    assert config.interface.post_up == []


def test_all_mistakes_of_a_file_come_at_once_in_its_order():
    assert mistakes(
        f"""; comment
[Interface]
PrivateKey = {PRIVATE[:-2]}
ListenPort =
Adress = 10.0.0.1/24
AllowedIPs = ::/0
DNS = 10.0.0.300 ex!ample
MTU = 67
Table = ?
SaveConfig = yes
[Pear]
Endpoint = x
PersistentKeepalive = 65536
[Sierra]
Foo = bar
[Peer]
publickey = {PRIVATE[:-2]}==
quux = 1
ListenPort = 5
"""
    ) == [
        "wg0.conf:1:1: this is neither '[Section]' nor 'Key = value'; a comment begins with '#'",
        "wg0.conf:3:14: PrivateKey: is 42 characters long; a key is 44 characters of base64",
        "wg0.conf:4:1: ListenPort: has no value",
        "wg0.conf:5:1: unknown key 'Adress'; did you mean 'Address'?",
        "wg0.conf:6:1: 'AllowedIPs' belongs in a section [Peer]",
        "wg0.conf:7:7: DNS: '10.0.0.300' is not an IPv4 address",
        "wg0.conf:7:18: DNS: 'ex!ample' is neither an address nor a domain",
        "wg0.conf:8:7: MTU: '67' is not a number of bytes from 68 to 65535",
        "wg0.conf:9:9: Table: '?' is not 'auto', 'off', a number up to 4294967295, or a table's name",
        "wg0.conf:10:14: SaveConfig: 'yes' is neither 'true' nor 'false'",
        "wg0.conf:11:1: unknown section '[Pear]'; did you mean '[Peer]'?",
        "wg0.conf:11:1: [Peer]: has no PublicKey",
        "wg0.conf:12:12: Endpoint: 'x' has no port; write it as host:51820 or [2001:db8::1]:51820",
        "wg0.conf:13:23: PersistentKeepalive: '65536' is not 'off' or a number of seconds from 0 to 65535",
        "wg0.conf:14:1: unknown section '[Sierra]'; there are [Interface] and [Peer]",
        "wg0.conf:17:13: PublicKey: is not a key: 43 characters of base64 and a '=' that stand for 32 bytes",
        "wg0.conf:18:1: unknown key 'quux'",
        "wg0.conf:19:1: 'ListenPort' belongs in a section [Interface]",
    ]


def test_a_key_before_any_section_is_told():
    assert mistakes(f"MTU = 1400\n{PRIVATE}\n") == [
        "wg0.conf:1:1: 'MTU' stands before any [Interface] or [Peer] section",
        "wg0.conf:2:1: this line stands before any [Interface] or [Peer] section",
    ]


def test_a_misspelled_key_gets_a_question():
    assert mistakes(f"[Peer]\nPublicKey={PUBLIC}\nAlowedIPs = ::/0\n") == [
        "wg0.conf:3:1: unknown key 'AlowedIPs'; did you mean 'AllowedIPs'?"
    ]


def test_wg_does_not_know_wg_quick_s_keys():
    assert mistakes("[Interface]\nAddress = 10.0.0.1\nMTUU = 1\n", Dialect.WG) == [
        "wg0.conf:2:1: 'Address' is a key of wg-quick's files; `pywg strip` leaves out what wg does not know",
        "wg0.conf:3:1: unknown key 'MTUU'",
    ]


def test_an_empty_file_is_valid_for_wg_only():
    assert parse("", "wg0.conf", Dialect.WG).peers == []
    assert mistakes(" \n\t\n") == ["wg0.conf: the file is empty"]


@pytest.mark.parametrize(
    "line",
    [
        "PrivateKey = {0}x",
        "PrivateKey {0}",
        "{0}",
        "PrivateKey{0}",
        "PrivateKy = {0}",
        "ListenPort = {0}",
        "Address = {0}",
        "[{0}]",
        "PrivateKey = {1}",
    ],
)
@pytest.mark.parametrize("section", ["", "[Interface]\n", f"[Peer]\nPublicKey={PUBLIC}\n"])
def test_a_private_key_never_gets_into_a_message(section, line):
    message = "\n".join(mistakes(section + line.format(PRIVATE, PRIVATE[:-5])))
    assert PRIVATE[:12] not in message
    assert PRIVATE[20:32] not in message


def test_a_hundred_mistakes_are_told_and_the_rest_is_counted():
    lines = mistakes("[Interface]\n" + "Foo = bar\n" * 150)
    assert len(lines) == 101
    assert lines[-1] == "wg0.conf: and 50 more mistakes"


@pytest.mark.parametrize(
    "bomb", ["Foo = bar\n" * 1_000_000, f"[Peer]\nPublicKey={PUBLIC}\nAllowedIPs=" + "," * 16_000_000]
)
def test_a_file_that_is_nothing_but_mistakes_is_not_read_to_its_end(bomb):
    with pytest.raises(ConfigError) as caught:
        parse("[Interface]\n" + bomb, "wg0.conf", Dialect.WG_QUICK)
    assert caught.value.more == 10_000


def test_a_quoted_value_is_short_also_where_it_does_not_print():
    (line,) = mistakes("[Interface]\nMTU = " + "\U0010ffff" * 100)
    assert line.isprintable()
    assert len(line) < 200


def test_warnings_are_bounded():
    config = quick(f"[Peer]\nPublicKey={PUBLIC}\n" + "AllowedIPs = 10.0.0.1/8\n" * 150)
    assert len(config.warnings) == 100


def test_a_byte_order_mark_is_skipped_with_a_warning():
    config = quick("\ufeff[Interface]\nMTU=1400\n")
    assert config.interface.mtu.value == 1400
    assert "byte order mark" in str(config.warnings[0])


def test_a_letter_that_only_looks_like_one_is_not_taken_for_it():
    assert mistakes("[Interface]\nPrivate\u212aey = x\n") == [
        "wg0.conf:2:1: this line is not 'Key = value' with a key that is known here"
    ]


def test_a_key_does_not_show_in_the_model_s_repr():
    config = quick(
        f"[Interface]\nPrivateKey = {PRIVATE}\n[Peer]\nPublicKey={PUBLIC}\nPresharedKey={SHARED}\n"
    )
    assert PRIVATE not in repr(config)
    assert SHARED not in repr(config)


def test_a_list_without_end_is_not_read_to_its_end():
    (told,) = mistakes("[Interface]\nDNS = " + "a," * 1_000_000 + "\n")
    assert told == "wg0.conf:2:20007: DNS: has more than 10000 entries"
