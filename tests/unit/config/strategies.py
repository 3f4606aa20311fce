"""Generated models and texts for the tests of configuration files."""

from __future__ import annotations

import dataclasses
import ipaddress
import string

from hypothesis import strategies as st

from pywg.config.model import (
    AllowedIP,
    Config,
    EndpointName,
    Interface,
    KeyFile,
    KeyVariable,
    Operation,
    Peer,
)
from pywg.config.positions import Located, Position
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wire.network import Network

NOWHERE = Position("generated")


def located(values):
    return values.map(lambda value: Located(value, NOWHERE))


def optional(values):
    return st.none() | located(values)


raw_keys = st.binary(min_size=2, max_size=2).map(lambda seed: seed * 16)
networks = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: Network.of(pair[0].packed, pair[1]))
interface_addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(ipaddress.IPv4Interface),
    st.tuples(st.ip_addresses(v=6), st.integers(0, 128)).map(ipaddress.IPv6Interface),
)
names = st.text("abcxyz-019", max_size=6).map("a{}".format)
hosts = st.ip_addresses().map(str) | names | names.map("{}.example".format)
ports = st.integers(0, 65535).map(str) | st.sampled_from(["wireguard", "http-alt"])
endpoints = st.builds(EndpointName, hosts, ports)
hooks = st.lists(
    located(st.text(string.printable[:95], max_size=12).map("x{}".format).map(str.strip)), max_size=2
)
tables = st.sampled_from(["auto", "off", "main", "my_table"]) | st.integers(0, 0xFFFFFFFF)

variables = st.sampled_from(["KEY", "CREDENTIALS_DIRECTORY", "_a1"])
paths = st.lists(st.sampled_from(["keys/", "a b", "${KEY}", "$_a1", "/", "é", "$$", "="]), min_size=1)
key_sources = located(paths.map("".join).map("x{}.x".format).map(KeyFile) | variables.map(KeyVariable))
"""Where keys may be that are not in the file."""

peer_names = st.text(string.printable[:95] + "éß字", max_size=20).map("n{}".format).map(str.strip)

interfaces = st.builds(
    Interface,
    listen_port=optional(st.integers(0, 65535)),
    fwmark=optional(st.integers(0, 0xFFFFFFFF)),
    addresses=st.lists(located(interface_addresses), max_size=3),
    dns_servers=st.lists(located(st.ip_addresses()), max_size=2),
    dns_search=st.lists(located(names), max_size=2),
    mtu=optional(st.integers(68, 65535)),
    table=optional(tables),
    pre_up=hooks,
    post_up=hooks,
    pre_down=hooks,
    post_down=hooks,
    save_config=optional(st.booleans()),
)


def with_key(interface, key, source):
    """A key is in the file, or elsewhere, or there is none."""
    return dataclasses.replace(interface, private_key=None if source else key, private_key_source=source)


interfaces = st.builds(with_key, interfaces, optional(raw_keys.map(PrivateKey)), st.none() | key_sources)


@st.composite
def _peers(draw, operations):
    entries = draw(st.lists(located(st.builds(AllowedIP, networks, st.sampled_from(operations))), max_size=5))
    incremental = any(entry.value.operation is not Operation.SET for entry in entries)
    source = draw(st.none() | key_sources)
    endpoint = draw(optional(endpoints))
    return Peer(
        draw(located(raw_keys.map(PublicKey))),
        None if source else draw(optional(raw_keys.map(PresharedKey))),
        endpoint,
        draw(optional(st.integers(0, 65535))),
        entries,
        not incremental or draw(st.booleans()),
        draw(optional(peer_names)),
        source,
        draw(st.lists(located(endpoints), max_size=2)) if endpoint else [],
        draw(st.lists(located(networks), max_size=3)),
    )


configs = st.builds(Config, interfaces, st.lists(_peers(list(Operation)), max_size=3))
"""Any model that a wg-quick file can say."""

plain_configs = st.builds(Config, interfaces, st.lists(_peers([Operation.SET]), max_size=3))
"""The same without incremental allowed IPs."""

_WORDS = """[Interface] [Peer] [peer PrivateKey PublicKey PresharedKey AllowedIPs Address Endpoint PostUp DNS
MTU Table SaveConfig FwMark ListenPort PersistentKeepalive
#pywg PrivateKeyFile DisallowedIPs PresharedKeyFile Name ${KEY} $
# , / + - [ ] : 0x off true 10.0.0.1 ::1 32 65536"""
_SPACES = ["=", " = ", "\n", "\n", " ", "\t", "\r", "\0", "\ufeff", "\u212a", "\udc80", "é", "A" * 43 + "="]
_fragments = st.sampled_from([*_WORDS.split(), *_SPACES])
texts = st.lists(_fragments | st.text(max_size=4), max_size=40).map("".join)
"""Texts that look like configuration files now and then, and are right now and then."""
