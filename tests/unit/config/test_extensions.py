"""Comments that pywg reads: peers' names, keys from elsewhere, further endpoints, networks left out."""

from __future__ import annotations

import base64
import ipaddress
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pywg.config.files import load
from pywg.config.model import Config, Dialect, EndpointName, KeyFile, KeyVariable, merge_peers
from pywg.config.parse import NAME_LIMIT, parse
from pywg.config.positions import ConfigError, Position
from pywg.config.settle import settle_allowed_ips, settle_keys
from pywg.config.write import write
from pywg.noise.keys import PresharedKey, PrivateKey

PRIVATE = base64.b64encode(bytes(range(32))).decode()
PUBLIC = base64.b64encode(bytes(range(32, 64))).decode()
PEER = f"[Peer]\nPublicKey = {PUBLIC}\n"


def quick(text: str) -> Config:
    return parse(text, "wg0.conf", Dialect.WG_QUICK)


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        quick(text)
    return str(caught.value).split("\n")


def warnings(text: str) -> list[str]:
    return [str(warning) for warning in quick(text).warnings]


# --- Names. -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("# Name = alice", "alice"),
        ("#name=alice", "alice"),
        ("# friendly_name = Alice's laptop", "Alice's laptop"),
        ("#friendly_name=a#b", "a#b"),
        ("  # Friendly Name : alice \r", "alice"),
        ("### Name: älice", "älice"),
        ("# Name = a\tb\x1b[1m", "a\\tb\\x1b[1m"),
        ("# Name = " + "x" * 1000, "x" * NAME_LIMIT),
    ],
)
def test_a_comment_names_a_peer(line, name):
    for text in (PEER + line, f"[Peer]\n{line}\nPublicKey = {PUBLIC}"):
        assert quick(text).peers[0].name.value == name


@pytest.mark.parametrize(
    "line", ["# Name", "# Name =", "# My name = alice", "# Hostname = alice", "# the Name = x", "Name", "# x"]
)
def test_other_comments_name_nobody(line):
    text = line if line.startswith("#") else f"#{line}"
    assert quick(PEER + text).peers[0].name is None


def test_a_name_is_where_it_stands_and_only_in_a_peer():
    config = quick(f"# Name = file\n[Interface]\n# Name = me\n{PEER}\n # Name = bob\n")
    assert config.peers[0].name.position == Position("wg0.conf", 7, 11)


def test_a_second_name_is_warned_of_since_it_was_probably_meant_for_the_next_peer():
    config = quick(f"{PEER}# Name = alice\n# Name = bob\n")
    assert config.peers[0].name.value == "alice"
    assert [str(warning) for warning in config.warnings] == [
        "wg0.conf:4:10: the peer is called 'alice' in line 3 already; this name is not used, and a name "
        "stands behind its [Peer]"
    ]


# --- The marker. ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["##pywg Endpoint = a:1", "# #pywg Endpoint = a:1", "#pywgEndpoint = a:1", "; #", "#pywg-x Y = 1"]
)
def test_what_does_not_begin_with_the_marker_is_a_comment(line):
    text = f"{PEER}Endpoint = b:1\n{line.replace(';', '#')}"
    config = quick(text)
    assert config.peers[0].more_endpoints == []
    assert config.extensions == []
    assert config.warnings == []


def test_a_blank_before_the_marker_s_name_is_warned_of_when_a_setting_follows():
    assert warnings(f"{PEER} # pywg disallowedips = ::/0\n# pywg is what = reads this\n") == [
        "wg0.conf:3:2: this is only a comment; pywg reads '#pywg disallowedips = ...', without the blank"
    ]


def test_wg_s_own_files_have_no_extensions():
    for line in ("#pywg Endpoint = a:1", "#pywg nonsense", "# Name = alice"):
        peer = parse(PEER + line, "x.conf", Dialect.WG).peers[0]
        assert (peer.name, peer.more_endpoints) == (None, [])


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[Interface]\n#pywg", "2:1: this is not '#pywg Key = value'"),
        ("[Interface]\n #pywg " + PRIVATE, "2:2: this is not '#pywg Key = value'"),
        (
            "#pywg PrivateKeyFile = a\n",
            "1:1: 'PrivateKeyFile' stands before any [Interface] or [Peer] section",
        ),
        (
            "[Interface]\n#pywg PrivatKeyFile = a",
            "2:1: unknown key 'PrivatKeyFile' behind '#pywg'; did you mean 'PrivateKeyFile'?",
        ),
        ("[Interface]\n#pywg xyz = a", "2:1: unknown key 'xyz' behind '#pywg'"),
        ("[Interface]\n#pywg DNS = ::", "2:1: 'DNS' is an ordinary key; write it without '#pywg'"),
        ("[Interface]\n#pywg Endpoint = a:1", "2:1: '#pywg Endpoint' belongs in a section [Peer]"),
        (PEER + "#pywg PrivateKeyFile = a", "3:1: '#pywg PrivateKeyFile' belongs in a section [Interface]"),
        ("[Interface]\n#pywg PrivateKeyFile = # no", "2:1: PrivateKeyFile: has no value"),
        (
            "[Interface]\nPrivateKeyFile = a",
            "2:1: 'PrivateKeyFile' is a key of pywg's own; write the line as '#pywg PrivateKeyFile = ...'",
        ),
        (
            "[Interface]\nPrivateKey = ${KEY}",
            "2:14: PrivateKey: is no key; one from the environment is written "
            "'#pywg PrivateKey = ${VARIABLE}'",
        ),
        (
            f"[Interface]\n#pywg PrivateKeyFile = {PRIVATE}",
            "2:24: PrivateKeyFile: this is a key; the path of a file with the key in it is wanted",
        ),
        (
            f"[Interface]\n#pywg PrivateKey = {PRIVATE}",
            "2:20: PrivateKey: behind '#pywg' is the name of an environment variable with the key in it: "
            "${NAME}",
        ),
        (
            "[Interface]\n#pywg PrivateKeyFile = a$/b",
            "2:24: PrivateKeyFile: a '$' stands before the name of an environment variable; '$$' is the "
            "character",
        ),
        (
            f"[Interface]\n#pywg PrivateKeyFile = a\nPrivateKey = {PRIVATE}",
            "2:24: PrivateKeyFile: there is a PrivateKey in line 3 too; keep one of the two",
        ),
        (
            f"{PEER}PresharedKey = {PRIVATE}\n#pywg PresharedKey = $A",
            "4:22: PresharedKey: there is a PresharedKey in line 3 too; keep one of the two",
        ),
        (
            "[Interface]\n#pywg PrivateKeyFile = a\n#pywg PrivateKey = $A",
            "3:20: PrivateKey: line 2 says already where the key is",
        ),
        (PEER + "#pywg Endpoint = a:1", "3:18: Endpoint: the peer's first one is written without '#pywg'"),
        (
            PEER + "Endpoint = a:1\n#pywg Endpoint = b",
            "4:18: Endpoint: 'b' has no port; write it as host:51820 or [2001:db8::1]:51820",
        ),
        (
            PEER + "#pywg DisallowedIPs = 10.0.0.0/8, 10.0.0.0/33",
            "3:35: DisallowedIPs: '10.0.0.0/33' has a prefix longer than 32",
        ),
        (
            PEER + "#pywg DisallowedIPs = -::/0",
            "3:23: DisallowedIPs: '-::/0' begins with a sign, which means nothing here",
        ),
    ],
)
def test_mistakes_are_told_with_their_place(text, mistake):
    assert mistakes(text) == [f"wg0.conf:{mistake}"]


def test_settings_behind_the_marker_are_read_and_listed():
    config = quick(
        f"[Interface]\n#PYWG privatekeyfile = wg0 key # comment\n{PEER}Endpoint = a:1\n"
        "#pywg Endpoint=[::1]:2\n\t#pywg Endpoint = b:3\r\n"
        "AllowedIPs = ::/0\n#pywg DisallowedIPs = fe80::/10 ff00::/8,fc00::1/7\n"
        "#pywg PresharedKey = $PSK\n"
    )
    peer = config.peers[0]
    assert config.interface.private_key_source.value == KeyFile("wg0 key")
    assert peer.preshared_key_source.value == KeyVariable("PSK")
    assert [endpoint.value for endpoint in peer.more_endpoints] == [
        EndpointName("::1", "2"),
        EndpointName("b", "3"),
    ]
    assert [str(entry.value) for entry in peer.disallowed_ips] == ["fe80::/10", "ff00::/8", "fc00::/7"]
    assert [f"{entry.position.line} {entry.value}" for entry in config.extensions] == [
        "2 PrivateKeyFile",
        "6 Endpoint",
        "7 Endpoint",
        "9 DisallowedIPs",
        "10 PresharedKey",
    ]
    assert [str(warning) for warning in config.warnings] == [
        "wg0.conf:9:42: DisallowedIPs: 'fc00::1/7' has host bits set; fc00::/7 is used"
    ]


def test_merged_peers_keep_what_the_later_section_does_not_say():
    one = f"{PEER}# Name = one\nEndpoint = a:1\n#pywg Endpoint = b:1\n#pywg PresharedKey = $A\n"
    merged = merge_peers(quick(one + PEER + "# Name = two\n").peers)[0]
    assert (merged.name.value, str(merged.more_endpoints[0].value)) == ("two", "b:1")
    assert merged.preshared_key_source.value == KeyVariable("A")
    merged = merge_peers(quick(f"{one}{PEER}Endpoint = c:1\nPresharedKey = {PRIVATE}\n").peers)[0]
    assert merged.more_endpoints == []
    assert merged.preshared_key_source is None


# --- Keys from elsewhere. ---------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)

    def write(text: str, **files: str) -> str:
        for name, content in {"wg0.conf": text, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
            path.chmod(0o600)
        return str(tmp_path / "wg0.conf")

    return write


def load_mistake(path: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    message = str(caught.value).removeprefix(f"{path}:")
    assert "AAEC" not in message
    return message


def test_keys_come_from_files_beside_the_file(place, tmp_path):
    path = place(
        f"[Interface]\n#pywg PrivateKeyFile = own.key\n{PEER}#pywg PresharedKeyFile = {tmp_path}/psk\n",
        **{"own.key": f" {PRIVATE}\r\n", "psk": PUBLIC},
    )
    os.chdir("/")
    loaded = load(path)
    assert loaded.config.interface.private_key.value == PrivateKey.from_base64(PRIVATE)
    assert loaded.config.interface.private_key.position.line == 2
    assert loaded.config.peers[0].preshared_key.value == PresharedKey.from_base64(PUBLIC)
    assert loaded.warnings == []


def test_paths_are_relative_to_the_file_itself_not_to_a_link_to_it(place, tmp_path):
    path = place("[Interface]\n#pywg PrivateKeyFile = own.key\n", **{"own.key": PRIVATE})
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "wg1.conf").symlink_to(path)
    assert load(str(tmp_path / "links" / "wg1.conf")).config.interface.private_key is not None


def test_the_environment_is_put_into_paths(place, tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    monkeypatch.setenv("SITE", "one")
    path = place(
        "[Interface]\n#pywg PrivateKeyFile = $CREDENTIALS_DIRECTORY/${SITE}$$.key\n",
        **{"credentials/one$.key": PRIVATE},
    )
    assert load(path).config.interface.private_key is not None


def test_keys_come_from_the_environment(place, monkeypatch):
    monkeypatch.setenv("WG_KEY", PRIVATE + "\n")
    path = place(f"[Interface]\n#pywg PrivateKey = ${{WG_KEY}}\n{PEER}#pywg PresharedKey = $WG_KEY\n")
    config = load(path).config
    assert config.interface.private_key.value == PrivateKey.from_base64(PRIVATE)
    assert config.peers[0].preshared_key.value == PresharedKey.from_base64(PRIVATE)


def test_key_files_that_everybody_may_read_are_warned_of(place, tmp_path):
    path = place("[Interface]\n#pywg PrivateKeyFile = own.key\n", **{"own.key": PRIVATE})
    tmp_path.chmod(0o755)
    (tmp_path / "own.key").chmod(0o644)
    key = tmp_path / "own.key"
    assert load(path).warnings == [f"Warning: `{key}' is world accessible; close it with: chmod 600 {key}"]


def test_keys_may_be_left_where_they_are(place):
    path = place("[Interface]\n#pywg PrivateKeyFile = nowhere\n")
    assert load(path, with_keys=False).config.interface.private_key is None


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "the file is empty"),
        (" \n", "the file is empty"),
        (PRIVATE[:-1], "the file holds something else than one key, which is 44 characters of base64"),
        (
            f"{PRIVATE}\n{PRIVATE}\n",
            "the file holds something else than one key, which is 44 characters of base64",
        ),
        (
            f"PrivateKey = {PRIVATE}",
            "the file holds something else than one key, which is 44 characters of base64",
        ),
    ],
)
def test_what_is_wrong_with_a_key_file_is_told_without_its_content(place, content, what):
    path = place("[Interface]\n#pywg PrivateKeyFile = k\n", k=content)
    assert load_mistake(path) == f"2:24: PrivateKeyFile: {what}"


def test_every_key_that_is_missing_is_told(place, tmp_path, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("SECRET", PRIVATE)
    peers = "".join(
        f"{PEER}#pywg PresharedKey{line}\n"
        for line in ("File = psk", "File = .", "File = big", "File = ${SECRET}", " = ${EMPTY}")
    )
    path = place(f"[Interface]\n#pywg PrivateKeyFile = $CREDENTIALS_DIRECTORY/k\n{peers}", big="x" * 5000)
    lines = load_mistake(path).replace(f"{path}:", "").splitlines()
    assert lines == [
        "2:24: PrivateKeyFile: the environment variable CREDENTIALS_DIRECTORY is not set; systemd sets it "
        "for services with LoadCredential=",
        f"5:26: PresharedKeyFile: '{tmp_path}/psk' does not exist",
        f"8:26: PresharedKeyFile: '{tmp_path}' is a directory, not a file with a key in it",
        f"11:26: PresharedKeyFile: '{tmp_path}/big' is larger than 4096 bytes; this is no key",
        "14:26: PresharedKeyFile: '${SECRET}' does not exist",
        "17:22: PresharedKey: the environment variable EMPTY is empty",
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["$", "{", "}", "K", "_", "/", "$K", "${K}", "$$", "..", "\0", "é"])).map(
        "".join
    ),
    st.sampled_from(["", "x", PRIVATE, "\0", "a" * 5000]),
)
def test_any_path_and_any_environment_give_a_key_or_a_config_error_without_it(tmp_path_factory, path, value):
    try:
        config = quick(f"[Interface]\n#pywg PrivateKeyFile = {path}\n[Interface]\n")
        settle_keys(config, tmp_path_factory.getbasetemp(), {"K": value})
    except ConfigError as error:
        found = error.mistakes
    else:
        found = ()
    assert PRIVATE[:20] not in "".join(map(str, found))
    assert all(str(mistake).isprintable() for mistake in found)


# --- Networks left out. -----------------------------------------------------------------------------------


def settled(text: str) -> Config:
    config = quick(text)
    settle_allowed_ips(config)
    return config


def test_disallowed_ips_are_taken_out_of_the_peer_s_allowed_ips_only():
    config = settled(
        f"{PEER}#pywg DisallowedIPs = 10.128.0.0/9\nAllowedIPs = 192.0.2.0/24, 10.0.0.0/8\n"
        f"{PEER.replace('[Peer]', '[Peer] #')}AllowedIPs = 10.0.0.0/8\n"
    )
    assert [str(entry.value) for entry in config.peers[0].allowed_ips] == ["192.0.2.0/24", "10.0.0.0/9"]
    assert [entry.position for entry in config.peers[0].allowed_ips] == [
        Position("wg0.conf", 4, 14),
        Position("wg0.conf", 4, 28),
    ]
    assert [str(entry.value) for entry in config.peers[1].allowed_ips] == ["10.0.0.0/8"]


def test_an_entry_that_takes_nothing_away_is_warned_of():
    config = settled(f"{PEER}AllowedIPs = 10.0.0.0/8\n#pywg DisallowedIPs = 10.0.0.0/9, 11.0.0.1\n")
    assert [str(warning) for warning in config.warnings] == [
        "wg0.conf:4:35: DisallowedIPs: 11.0.0.1/32 takes nothing away; no AllowedIPs of the peer meet it"
    ]


def test_incremental_entries_stay_incremental():
    config = settled(f"{PEER}AllowedIPs = +10.0.0.0/8, -10.0.0.0/9\n#pywg DisallowedIPs = 10.0.0.0/10\n")
    assert [str(entry.value) for entry in config.peers[0].allowed_ips] == [
        "+10.64.0.0/10",
        "+10.128.0.0/9",
        "-10.0.0.0/9",
    ]
    assert config.peers[0].replace_allowed_ips is False


def test_a_file_that_would_become_far_too_large_is_refused():
    holes = ", ".join(str(ipaddress.IPv6Address(number << 64)) for number in range(1, 2000))
    with pytest.raises(ConfigError, match=r"wg0.conf:4:23: DisallowedIPs: leaves more than 100000 networks"):
        settled(f"{PEER}AllowedIPs = ::/0\n#pywg DisallowedIPs = {holes}\n")


def test_a_loaded_file_s_allowed_ips_are_final(place):
    path = place(f"[Interface]\n{PEER}AllowedIPs = 0.0.0.0/0\n#pywg DisallowedIPs = 128.0.0.0/1\n")
    assert [str(entry.value) for entry in load(path).config.peers[0].allowed_ips] == ["0.0.0.0/1"]


# --- Written back. ----------------------------------------------------------------------------------------


def test_a_key_that_is_elsewhere_is_not_written_into_the_file(place):
    path = place("[Interface]\n#pywg PrivateKeyFile = own.key\n", **{"own.key": PRIVATE})
    text = write(load(path).config)
    assert text == "[Interface]\n#pywg PrivateKeyFile = own.key\n"


def test_a_peer_that_lost_its_endpoint_is_written_with_the_next_one():
    config = quick(f"{PEER}Endpoint = a:1\n#pywg Endpoint = b:2\n#pywg Endpoint = c:3\n")
    config.peers[0].endpoint = None
    peer = quick(write(config)).peers[0]
    assert str(peer.endpoint.value) == "b:2"
    assert [str(endpoint.value) for endpoint in peer.more_endpoints] == ["c:3"]
