"""`pywg` beside `wg`: the same command lines against the same daemons; outputs, states and exit codes agree.

Each command is run by `wg` on one host and by `pywg` on another, whose daemons are alike; what only shows is
run by both on one host. Where the two shall differ, a test of its own says how.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import pathlib
import shlex
import socket
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.system.commands import INTERFACE, Outcome, Shell, state, wg_version
from tests.system.conftest import missing
from tests.system.net import Lab, Machine
from tests.system.programs import PROGRAMS

pytestmark = pytest.mark.usefixtures("namespaces")

VERSION = wg_version()
HAS_INCREMENTAL = VERSION >= 20250521
SYNCS_REMOVED_KEYS = VERSION >= 20260223
TAKEN_PORT = 7777

PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
ALICE, BOB, CAROL = (
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
    "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=",
)
OWN = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
PSK = "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE="

FILES = {
    "private": PRIVATE + "\n",
    "psk": PSK,
    "spaced": PSK + " \n\t\r\n",
    "empty": "",
    "short": PSK[:-1],
    "two": PSK + "\n" + PSK + "\n",
    "not-canonical": PSK[:-2] + "F=\n",
    "binary": "\0" * 44,
}


@dataclasses.dataclass
class Twins:
    """Two hosts with a daemon each, of the same program: one for `wg`, one for `pywg`."""

    program: str
    ours: Shell
    theirs: Shell

    def both(self, *arguments: str, input: str = "") -> tuple[Outcome, Outcome]:
        """Run the same command with `wg` on its host and with `pywg` on the other."""
        environment = {"WG_ENDPOINT_RESOLUTION_RETRIES": "0"}
        theirs = self.theirs.run("wg", *arguments, input=input, **environment)
        ours = self.ours.run("pywg", *arguments, input=input, **environment)
        return ours, theirs

    def reset(self) -> None:
        for shell in (self.ours, self.theirs):
            assert shell.run("wg", "setconf", INTERFACE, "/dev/null").succeeded

    def write(self, name: str, text: str) -> str:
        for shell in (self.ours, self.theirs):
            shell.host.write(f"/run/{name}", text)
        return f"/run/{name}"

    def agree(self, *arguments: str, input: str = "") -> Outcome:
        """Run it with both: status, output and resulting state are the same."""
        ours, theirs = self.both(*arguments, input=input)
        told = f"{shlex.join(arguments)}\nwg: {theirs}\npywg: {ours}"
        assert ours.status == theirs.status, told
        assert ours.output == theirs.output, told
        assert state(self.ours) == state(self.theirs), told
        return ours


def make_twins(name: str, directory: pathlib.Path) -> Iterator[Twins]:
    if not VERSION:
        missing("wg is not installed: apt install wireguard-tools")
    program = PROGRAMS[name]
    if sentence := program.missing():
        missing(sentence)
    with Lab(directory) as lab:
        shells = []
        for role in ("wg", "pywg"):
            host = lab.host(role)
            program.bring_up(host, INTERFACE)
            host.run("sh", "-c", f"exec ncat -u -l -k {TAKEN_PORT} >/dev/null 2>&1 &")
            for file, text in FILES.items():
                host.write(f"/run/{file}", text)
            shell = Shell(host)
            lab.closers.append(shell.close)
            shells.append(shell)
        yield Twins(name, ours=shells[1], theirs=shells[0])


@pytest.fixture(scope="module", params=["wireguard-go", "pywgd"])
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    yield from make_twins(request.param, tmp_path_factory.mktemp("twins"))


@pytest.fixture(scope="module", params=["boringtun", "gotatun"])
def other_twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    yield from make_twins(request.param, tmp_path_factory.mktemp("twins"))


# --- Generated command lines. -----------------------------------------------------------------------------

ports = st.sampled_from(["0", "1000", "00080", "65535", "domain", "nosuch", "x", "-5", "", "1 0", "9" * 20])
ports |= st.just(str(TAKEN_PORT))
marks = st.sampled_from(["0x10", "16", "off", "OFF", "0X10", "0x", "0xg", "4294967295", "4294967296"])
marks |= st.sampled_from(["0xffffffff", "0x100000000", "-1", "010", "", " 1", "1 "])
intervals = st.sampled_from(["25", "0", "off", "Off", "65535", "65536", "-1", "", "1e3", "007", "9" * 20])
endpoint_words = st.sampled_from(
    ["192.0.2.1:51820", "[2001:db8::1]:7", "2001:db8::1:7", "[192.0.2.1]:5", "[::ffff:192.0.2.9]:5", ":5"]
) | st.sampled_from(
    ["192.0.2.1", "192.0.2.1:", "[::1", "[::1]", "[::1]5", "localhost:domain", "192.0.2.1:nosuch", "", "[]:5"]
)
endpoint_words |= st.sampled_from(["[fe80::1%lo]:5", "nosuch.invalid:5", "a b:5", "192.0.2.1:0", "::1"])
network_words = st.sampled_from(
    ["10.0.0.0/8", "10.0.0.1/8", "10.0.0.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "2001:db8::1/32"]
) | st.sampled_from(["10.0.0.0", "::1", "::ffff:10.0.0.0/104", "::10.0.0.1", "1:0:2:0:3:0:4:0/128"])
bad_network_words = st.sampled_from(
    [
        "",
        "10.0.0.0/33",
        "10.0.0.0/",
        "/8",
        "10.0.0/8",
        "10.0.0.0/08",
        "::/129",
        "x",
        "10.0.0.0/-1",
        "fe80::1%lo/64",
    ]
)
incremental_words = st.builds(str.__add__, st.sampled_from(["+", "-", "", "+-"]), network_words)
entries = (
    st.one_of(network_words, network_words, network_words, incremental_words)
    if HAS_INCREMENTAL
    else network_words
)
network_lists = st.lists(entries, max_size=5).map(",".join) | st.lists(
    entries | bad_network_words, max_size=3
).map(" , ".join)
key_files = (
    st.sampled_from([*FILES, "missing", "."]).map("/run/".__add__) | st.just("/dev/stdin") | st.just("")
)
public_keys = st.sampled_from([ALICE, BOB, CAROL, ALICE, BOB, CAROL, OWN, OWN[:-1], OWN.lower(), ""])

device_words = st.one_of(
    st.tuples(st.just("listen-port"), ports),
    st.tuples(st.just("fwmark"), marks),
    st.tuples(st.just("private-key"), key_files),
)
peer_words = st.one_of(
    st.tuples(st.just("preshared-key"), key_files),
    st.tuples(st.just("endpoint"), endpoint_words),
    st.tuples(st.just("persistent-keepalive"), intervals),
    st.tuples(st.just("allowed-ips"), network_lists),
    st.tuples(st.just("allowed-ips"), network_lists),
    st.just(("remove",)),
)
stray_words = st.one_of(
    device_words, st.sampled_from([("bogus",), ("--help",), ("-h",), ("peer",), ("",), ("set",)])
)
peers = st.tuples(
    st.tuples(st.just("peer"), public_keys),
    st.lists(peer_words, max_size=4),
    st.lists(stray_words, max_size=1),
).map(lambda parts: (parts[0], *parts[1], *(parts[2] if len(parts[1]) == 4 else ())))


def flat(parts: list[tuple[str, ...]]) -> list[str]:
    return [word for part in parts for word in part]


command_lines = st.tuples(st.lists(device_words, max_size=2), st.lists(peers, max_size=3)).map(
    lambda parts: flat([*parts[0], *(word for peer in parts[1] for word in peer)])
)

generated = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
    database=None,
)

FULL = [
    *("listen-port", "1000", "fwmark", "0x10", "private-key", "/run/private", "peer", ALICE),
    *("preshared-key", "/run/psk", "endpoint", "192.0.2.1:5", "persistent-keepalive", "25"),
    *("allowed-ips", "10.0.0.0/8,::/0", "peer", BOB, "allowed-ips", "10.1.0.0/16"),
]


@generated
@given(st.lists(command_lines, min_size=1, max_size=3))
@example([FULL, ["peer", BOB, "allowed-ips", "10.0.0.0/8"], ["peer", ALICE, "remove"]])
@example([FULL, ["peer", ALICE, "allowed-ips", "", "preshared-key", "/run/empty"]])
@example([["private-key", "/run/private", "peer", OWN, "allowed-ips", "::/0"]])
@example([FULL, ["private-key", "/run/empty", "fwmark", "off"]])
@example([["listen-port", str(TAKEN_PORT), "fwmark", "1"]])
def test_set_does_what_wg_set_does(twins: Twins, lines: list[list[str]]) -> None:
    twins.reset()
    for words in lines:
        outcome = twins.agree("set", INTERFACE, *words, input=FILES["psk"])
        assert outcome.succeeded or outcome.errors


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["peer"],
        ["peer", ALICE, "listen-port", "5"],
        ["endpoint", "192.0.2.1:5"],
        ["remove"],
        ["Peer", ALICE],
        ["listen-port", "5", "listen-port", "6"],
        ["peer", ALICE, "peer", ALICE, "remove"],
        ["peer", ALICE, "allowed-ips", "10.0.0.0/8", "allowed-ips", "::/0"],
        ["peer", ALICE, "allowed-ips", "10.0.0.0/8", "allowed-ips", ""],
        ["peer", ALICE, "remove", "endpoint", "nonsense"],
        ["private-key", "/dev/stdin"],
        ["--", "fwmark", "1"],
        ["fwmark", "1", "--"],
        ["--fwmark", "1"],
    ],
)
def test_the_grammar_of_set_is_that_of_wg(twins: Twins, words: list[str]) -> None:
    twins.reset()
    twins.agree("set", INTERFACE, *FULL)
    twins.agree("set", INTERFACE, *words, input=FILES["private"])


# --- Generated files. -------------------------------------------------------------------------------------


@st.composite
def files(draw: st.DrawFn) -> str:
    """A configuration file with perhaps a mistake in it."""

    def line(key: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        spelled = st.sampled_from([f"{key} = ", f"{key}=", f"  {key.lower()}\t=", f"{key.upper()} = "])
        return st.builds(lambda before, value, after: before + value + after, spelled, values, comments)

    comments = st.sampled_from(["", " ", "# comment", " #x", "\r"])
    keys = st.sampled_from([PRIVATE, PSK, PSK[:9] + " " + PSK[9:], PSK, PRIVATE, PSK[:-1]])
    interface_lines = st.one_of(
        line("ListenPort", ports.filter(lambda port: port not in ("", str(TAKEN_PORT)))),
        line("FwMark", marks),
        line("PrivateKey", keys),
    )
    peer_lines = st.one_of(
        line("PresharedKey", keys),
        line("Endpoint", endpoint_words),
        line("PersistentKeepalive", intervals),
        line("AllowedIPs", network_lists),
        line("AllowedIPs", network_lists),
    )
    oddities = st.sampled_from(
        ["", "#", "junk", "[Peer", "Address = 10.0.0.1/8", "PublicKey = x", "[ Interface ]"]
    )
    lines: list[str] = []
    if draw(st.booleans()):
        lines += ["[Interface]", *draw(st.lists(interface_lines, max_size=2))]
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from([ALICE, BOB, CAROL]))
        lines += [draw(st.sampled_from(["[Peer]", "[peer]", " [ PEER ] "])), f"PublicKey = {key}"]
        lines += draw(st.lists(peer_lines, max_size=4))
    if draw(st.integers(0, 5)) == 0:
        lines.insert(draw(st.integers(0, len(lines))), draw(oddities))
    return "\n".join(lines) + draw(st.sampled_from(["\n", ""]))


FULL_FILE = f"""[Interface]
ListenPort = 1000
FwMark = 0x10
PrivateKey = {PRIVATE}

[Peer]
PublicKey = {ALICE}
PresharedKey = {PSK}
Endpoint = 192.0.2.1:5
PersistentKeepalive = 25
AllowedIPs = 10.0.0.0/8, ::/0

[Peer]
PublicKey = {BOB}
AllowedIPs = 10.1.0.0/16
"""
ALICE_ALONE = f"[Peer]\nPublicKey = {ALICE}\nPresharedKey = {PSK}\nPersistentKeepalive = 25\n"


@pytest.mark.parametrize("command", ["setconf", "addconf"])
@generated
@given(text=files())
@example("")
@example(FULL_FILE)
@example(ALICE_ALONE)
@example(ALICE_ALONE + "AllowedIPs = ::/0\n" + ALICE_ALONE)
def test_files_are_applied_as_wg_applies_them(twins: Twins, command: str, text: str) -> None:
    twins.reset()
    twins.agree("set", INTERFACE, *FULL)
    path = twins.write("config", text)
    outcome = twins.agree(command, INTERFACE, path)
    assert outcome.succeeded or outcome.errors


def keeps_what_old_versions_forget(text: str) -> bool:
    """Whether a `wg` before 20260223 syncs this file as newer ones do: every peer gives both values."""
    sections = text.lower().split("public")[1:]
    return all("preshared" in section and "persistent" in section for section in sections)


@generated
@given(files())
@example("")
@example(FULL_FILE)
@example(ALICE_ALONE)
@example(FULL_FILE.replace("PersistentKeepalive = 25\n", "").replace(f"PresharedKey = {PSK}\n", ""))
def test_syncconf_does_what_wg_syncconf_does(twins: Twins, text: str) -> None:
    twins.reset()
    twins.agree("set", INTERFACE, *FULL)
    path = twins.write("config", text)
    ours, theirs = twins.both("syncconf", INTERFACE, path)
    told = f"{text}\nwg: {theirs}\npywg: {ours}"
    assert (ours.status, ours.output) == (theirs.status, theirs.output), told
    if SYNCS_REMOVED_KEYS or keeps_what_old_versions_forget(text):
        assert state(twins.ours) == state(twins.theirs), told


def test_syncconf_takes_away_a_preshared_key_and_a_keepalive_that_the_file_does_not_have(
    twins: Twins,
) -> None:
    twins.reset()
    twins.agree("set", INTERFACE, *FULL)
    path = twins.write("config", f"[Peer]\nPublicKey = {ALICE}\n")
    assert twins.ours.run("pywg", "syncconf", INTERFACE, path).succeeded
    assert state(twins.ours)[1:] == [f"{ALICE} (none) 192.0.2.1:5 (none) off"]


@pytest.mark.parametrize("command", ["setconf", "addconf", "syncconf"])
def test_files_come_from_standard_input_too(twins: Twins, command: str) -> None:
    twins.reset()
    assert twins.agree(command, INTERFACE, "/dev/stdin", input=FULL_FILE).succeeded


@pytest.mark.parametrize("command", ["setconf", "addconf", "syncconf"])
@pytest.mark.parametrize("words", [[], [INTERFACE], [INTERFACE, "/run/missing"], ["a", "b", "c"]])
def test_files_that_cannot_be_read_change_nothing(twins: Twins, command: str, words: list[str]) -> None:
    twins.reset()
    assert not twins.agree(command, *words).succeeded


# --- What is shown. ---------------------------------------------------------------------------------------


def blocks(text: str) -> list[str]:
    """Peers, which wireguard-go lists in another order each time, apart from each other and sorted."""
    return sorted(text.rstrip("\n").split("\n\n"))


def rows(text: str) -> list[str]:
    return sorted(text.splitlines())


FIELDS = (
    *("public-key", "private-key", "listen-port", "fwmark", "peers", "preshared-keys", "endpoints"),
    *("allowed-ips", "latest-handshakes", "transfer", "persistent-keepalive", "dump"),
)


def shown(twins: Twins, *arguments: str, **environment: str) -> tuple[Outcome, Outcome]:
    """What both show of the same daemon."""
    return (
        twins.ours.run("pywg", *arguments, **environment),
        twins.ours.run("wg", *arguments, **environment),
    )


@generated
@given(st.lists(command_lines, min_size=1, max_size=2))
@example([FULL])
def test_show_and_showconf_print_what_wg_prints(twins: Twins, lines: list[list[str]]) -> None:
    twins.reset()
    for words in lines:
        twins.ours.run("wg", "set", INTERFACE, *words, input=FILES["psk"], WG_ENDPOINT_RESOLUTION_RETRIES="0")
    for arguments in (["show"], ["show", INTERFACE], ["showconf", INTERFACE], ["show", INTERFACE, "dump"]):
        ours, theirs = shown(twins, *arguments)
        if twins.program == "wireguard-go":
            arranged = rows if "dump" in arguments else blocks
            assert arranged(ours.output) == arranged(theirs.output)
        else:
            assert ours == theirs


@pytest.mark.parametrize("which", [INTERFACE, "all"])
@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_printed_as_wg_prints_it(twins: Twins, which: str, field: str) -> None:
    if (which, field) == ("all", "endpoints") and VERSION < 20250521:
        pytest.skip("this wg names the interface only once")
    for words in ([], FULL):
        twins.reset()
        twins.ours.run("wg", "set", INTERFACE, *(words or ["fwmark", "0"]))
        ours, theirs = shown(twins, "show", which, field)
        assert rows(ours.output) == rows(theirs.output)
        assert ours.status == theirs.status == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"WG_HIDE_KEYS": "never"},
        {"WG_HIDE_KEYS": "always"},
        {"WG_HIDE_KEYS": ""},
        {"WG_COLOR_MODE": "always"},
        {"WG_COLOR_MODE": "never"},
        {"WG_COLOR_MODE": "auto"},
        {"WG_COLOR_MODE": "always", "WG_HIDE_KEYS": "never", "NO_COLOR": "1"},
    ],
    ids=str,
)
def test_hidden_keys_and_colours_follow_the_environment(twins: Twins, environment: dict[str, str]) -> None:
    twins.reset()
    twins.ours.run("wg", "set", INTERFACE, *FULL[: FULL.index(BOB) - 1])
    ours, theirs = shown(twins, "show", **environment)
    assert ours == theirs


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_colours_unless_it_wants_none(twins: Twins, no_color: bool) -> None:
    twins.reset()
    twins.ours.run("wg", "set", INTERFACE, *FULL[: FULL.index(BOB) - 1])
    if no_color:
        environment = {"NO_COLOR": "1", "WG_COLOR_MODE": "auto"}
        outcome = on_terminal(twins.ours, "pywg show", **environment)
        assert "\x1b" not in outcome.output
        assert "interface: wg0" in outcome.output
    else:
        # Only where standard error is a terminal too is there more than `wg` tells.
        ours = on_terminal(twins.ours, "pywg show 2>/dev/null")
        theirs = on_terminal(twins.ours, "wg show")
        assert "\x1b[32m" in theirs.output
        assert ours.output == theirs.output


def on_terminal(shell: Shell, line: str, **environment: str) -> Outcome:
    venv = pathlib.Path(__file__).resolve().parents[2] / ".venv" / "bin"
    line = line.replace("pywg", str(venv / "pywg")) if (venv / "pywg").exists() else line
    return shell.run("script", "-qec", line, "/dev/null", **environment)


@pytest.mark.parametrize(
    "words",
    [
        ["nosuch"],
        ["nosuch", "dump"],
        [INTERFACE, "bogus"],
        ["all", "bogus"],
        [INTERFACE, ""],
        [""],
        ["../wg0"],
        ["interfaces"],
        ["interfaces", "dump"],
        ["all", "dump", "dump"],
        [INTERFACE, "a", "b"],
        ["--bogus"],
        ["x" * 300],
    ],
)
def test_odd_words_behind_show_end_as_with_wg(twins: Twins, words: list[str]) -> None:
    ours, theirs = shown(twins, "show", *words)
    assert (ours.status, ours.output) == (theirs.status, theirs.output)
    assert bool(ours.errors) == bool(theirs.errors)


@pytest.mark.parametrize("words", [[], ["nosuch"], [INTERFACE, "x"], ["a/b"]])
def test_odd_words_behind_showconf_end_as_with_wg(twins: Twins, words: list[str]) -> None:
    ours, theirs = shown(twins, "showconf", *words)
    assert (ours.status, ours.output) == (theirs.status, theirs.output)
    assert bool(ours.errors) == bool(theirs.errors)


def test_a_stale_socket_is_not_shown_and_removed(twins: Twins) -> None:
    stale = twins.ours.host.path("/run/wireguard/stale.sock")
    for program in ("wg", "pywg"):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(stale))
            listener.listen()
        assert twins.ours.run(program, "show", "interfaces").output == f"{INTERFACE}\n"
        assert not stale.exists()
    assert not any(twins.ours.run(program, "show", "stale").succeeded for program in ("wg", "pywg"))


def test_json_says_what_dump_says(twins: Twins) -> None:
    twins.reset()
    twins.ours.run("wg", "set", INTERFACE, *FULL)
    for arguments in (["show", "--json"], ["show", INTERFACE, "--json"], ["show", "--json", "all"]):
        value = json.loads(twins.ours.run("pywg", *arguments).output)
        (device,) = value["interfaces"]
        device["peers"].sort(key=lambda peer: peer["public_key"] != ALICE)
        assert value["version"] == 1
        findings = [finding["code"] for finding in device.pop("findings")]
        assert findings in ([], ["interface-down"])  # wireguard-go counts nothing; neither is up here
        assert device == {
            "name": INTERFACE,
            "public_key": OWN,
            "has_private_key": True,
            "listen_port": 1000,
            "fwmark": 16,
            "peers": [
                {
                    "public_key": ALICE,
                    "name": None,
                    "has_preshared_key": True,
                    "endpoint": "192.0.2.1:5",
                    "allowed_ips": ["10.0.0.0/8", "::/0"],
                    "latest_handshake": None,
                    "rx_bytes": 0,
                    "tx_bytes": device["peers"][0]["tx_bytes"],
                    "persistent_keepalive": 25,
                },
                {
                    "public_key": BOB,
                    "name": None,
                    "has_preshared_key": False,
                    "endpoint": None,
                    "allowed_ips": ["10.1.0.0/16"],
                    "latest_handshake": None,
                    "rx_bytes": 0,
                    "tx_bytes": 0,
                    "persistent_keepalive": None,
                },
            ],
        }
    with_keys = json.loads(twins.ours.run("pywg", "show", "--json", WG_HIDE_KEYS="never").output)
    assert with_keys["interfaces"][0]["private_key"] == PRIVATE
    assert PSK in [peer.get("preshared_key") for peer in with_keys["interfaces"][0]["peers"]]
    assert not twins.ours.run("pywg", "show", INTERFACE, "dump", "--json").succeeded


# --- Keys. ------------------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32))
@generated
def test_pubkey_makes_the_key_that_wg_makes(twins: Twins, raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    ours, theirs = shown_with_input(twins, "pubkey", text + "\n")
    assert ours == theirs


def shown_with_input(twins: Twins, command: str, text: str) -> tuple[Outcome, Outcome]:
    return tuple(twins.ours.run(program, command, input=text) for program in ("pywg", "wg"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        PSK[:-1],
        PSK,
        PSK + "\n\t \n",
        PSK + "x",
        PSK + "\n\n" + PSK,
        PSK[:-2] + "F=",
        "é" * 44,
        " " + PSK,
    ],
)
def test_pubkey_takes_what_wg_takes(twins: Twins, text: str) -> None:
    ours, theirs = shown_with_input(twins, "pubkey", text)
    assert (ours.status, ours.output) == (theirs.status, theirs.output)
    assert bool(ours.errors) == bool(theirs.errors)


@pytest.mark.parametrize("command", ["genkey", "genpsk", "pubkey"])
def test_key_commands_take_no_words(twins: Twins, command: str) -> None:
    for program in ("wg", "pywg"):
        outcome = twins.ours.run(program, command, "word", input=PSK)
        assert (outcome.status, outcome.output) == (1, "")
        assert outcome.errors.startswith("Usage: ")


@pytest.mark.parametrize("command", ["genkey", "genpsk"])
def test_generated_keys_are_keys(twins: Twins, command: str) -> None:
    keys = [twins.ours.run("pywg", command).output for _ in range(20)]
    assert len(set(keys)) == 20
    for key in keys:
        assert twins.ours.run("wg", "pubkey", input=key).succeeded


def test_writing_a_key_where_others_may_read_it_is_warned_of(twins: Twins) -> None:
    for umask, warned in (("000", True), ("077", False)):
        for program in ("wg", "pywg"):
            line = f"umask {umask}; rm -f /run/key; {program_path(program)} genkey >/run/key"
            outcome = twins.ours.run("sh", "-c", line)
            assert outcome.succeeded
            assert bool(outcome.errors) is warned


def program_path(program: str) -> str:
    path = pathlib.Path(__file__).resolve().parents[2] / ".venv" / "bin" / program
    return str(path) if path.exists() else program


# --- Where we differ from wg, on purpose. -----------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["listen-port", "70000"],
        ["listen-port", " 80"],
        ["listen-port", "+80"],
        ["peer", ALICE, "endpoint", "192.0.2.1:70000"],
    ],
)
def test_a_port_that_is_none_is_refused_where_wg_takes_some_other_port(
    twins: Twins, words: list[str]
) -> None:
    twins.reset()
    ours, theirs = twins.both("set", INTERFACE, *words)
    assert theirs.succeeded
    assert not ours.succeeded
    assert "is not a port number" in ours.errors or "neither a port number" in ours.errors


def test_a_directory_is_refused_where_wg_takes_it_for_an_empty_file(twins: Twins) -> None:
    twins.reset()
    twins.agree("set", INTERFACE, *FULL)
    ours, theirs = twins.both("setconf", INTERFACE, "/run")
    assert (ours.succeeded, theirs.succeeded) == (False, True)
    assert len(state(twins.ours)) == 3


@pytest.mark.skipif(HAS_INCREMENTAL, reason="this wg knows them too")
def test_incremental_allowed_ips_work_where_an_older_wg_does_not_know_them(twins: Twins) -> None:
    twins.reset()
    twins.agree("set", INTERFACE, *FULL)
    ours, theirs = twins.both("set", INTERFACE, "peer", ALICE, "allowed-ips", "+10.9.0.0/16,-::/0")
    assert (ours.succeeded, theirs.succeeded) == (True, False)
    output = twins.ours.run("wg", "show", INTERFACE, "allowed-ips").output
    assert f"{ALICE}\t10.0.0.0/8 10.9.0.0/16\n" in output


@pytest.mark.parametrize(
    "command", ["show", "set", "setconf", "addconf", "syncconf", "showconf", "genkey", "pubkey"]
)
def test_help_is_printed_on_standard_output_and_is_no_failure(twins: Twins, command: str) -> None:
    outcome = twins.ours.run("pywg", command, "--help")
    assert outcome.succeeded
    assert outcome.output.startswith(f"Usage: pywg {command}")


@pytest.mark.parametrize("command", ["set", "setconf", "showconf", "show"])
def test_secrets_do_not_appear_in_errors(twins: Twins, command: str) -> None:
    twins.write("secret", f"[Interface]\nPrivateKey={PRIVATE}x\nPrivateKey {PRIVATE}\n{PRIVATE}\n")
    words = (
        ["private-key", PRIVATE]
        if command == "set"
        else ["/run/secret"]
        if command == "setconf"
        else [PRIVATE]
    )
    outcome = twins.ours.run("pywg", command, INTERFACE, *words)
    assert not outcome.succeeded
    if command == "setconf":
        assert PRIVATE[:20] not in outcome.errors


# --- The other daemons. -----------------------------------------------------------------------------------


def test_other_daemons_are_driven_as_wg_drives_them(other_twins: Twins) -> None:
    twins = other_twins
    quiet = FULL.index("persistent-keepalive")
    twins.agree("set", INTERFACE, *FULL[:quiet], *FULL[quiet + 2 :])
    twins.agree(
        "set", INTERFACE, "peer", CAROL, "endpoint", "[2001:db8::1]:7", "allowed-ips", "2001:db8::/32"
    )
    twins.agree("set", INTERFACE, "peer", BOB, "remove")
    for arguments in (["show"], ["showconf", INTERFACE], ["show", "all", "dump"]):
        ours, theirs = shown(twins, *arguments)
        arranged = rows if "dump" in arguments else blocks
        assert arranged(ours.output) == arranged(theirs.output)
    assert json.loads(twins.ours.run("pywg", "show", "--json").output)["interfaces"][0]["name"] == INTERFACE
    # boringtun hangs after any change of a peer that exists, also when wg asks for it.
    if twins.program != "boringtun":
        twins.agree("addconf", INTERFACE, "/dev/stdin", input=ALICE_ALONE)
        twins.agree("syncconf", INTERFACE, "/dev/stdin", input=FULL_FILE)
    twins.agree("setconf", INTERFACE, "/dev/stdin", input=FULL_FILE)


# --- The kernel. ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A guest whose kernel has WireGuard, with two interfaces: wg0 for `wg`, wg1 for `pywg`."""
    program = PROGRAMS["kernel"]
    if sentence := program.missing():
        missing(sentence)
    with Lab(tmp_path_factory.mktemp("kernel")) as lab:
        guest = program.machine(lab, lab.host("kernel"))
        for interface in ("wg0", "wg1"):
            program.bring_up(guest, interface)
        for file in ("private", "psk", "empty"):
            guest.write(f"/run/{file}", FILES[file])
        yield guest


def in_guest(guest: Machine, *arguments: str) -> str:
    """Run our `pywg`; the guest sees the files of the outside."""
    return guest.run(program_path("pywg"), *arguments)


def kernel_state(guest: Machine, interface: str) -> list[str]:
    return guest.run("wg", "show", interface, "dump").splitlines()


KERNEL_WORDS: dict[str, list[str]] = {
    "everything": FULL,
    "a link-local endpoint": ["peer", CAROL, "endpoint", "[fe80::1%lo]:7", "allowed-ips", "2001:db8::/32"],
    "a network moves": ["peer", BOB, "allowed-ips", "10.0.0.0/8,10.3.0.1/32"],
    "no networks": ["peer", BOB, "allowed-ips", ""],
    "a key goes": ["peer", ALICE, "preshared-key", "/run/empty", "persistent-keepalive", "off"],
    "a peer goes": ["peer", CAROL, "remove"],
    "our own key": ["peer", OWN, "allowed-ips", "0.0.0.0/0"],
    "nothing of the device": ["fwmark", "0", "private-key", "/run/empty", "listen-port", "1001"],
}


def test_the_kernel_is_driven_as_wg_drives_it(kernel: Machine) -> None:
    for what, words in KERNEL_WORDS.items():
        kernel.run("wg", "set", "wg0", *words)
        in_guest(kernel, "set", "wg1", *words)
        assert kernel_state(kernel, "wg1") == kernel_state(kernel, "wg0"), what
    for command in ("setconf", "addconf", "syncconf"):
        kernel.write("/run/config", FULL_FILE if command != "syncconf" else FULL_FILE.replace("1000", "1002"))
        kernel.run("wg", command, "wg0", "/run/config")
        in_guest(kernel, command, "wg1", "/run/config")
        assert kernel_state(kernel, "wg1") == kernel_state(kernel, "wg0"), command


def test_the_kernel_is_shown_as_wg_shows_it(kernel: Machine) -> None:
    kernel.run("wg", "set", "wg0", *FULL)
    for arguments in (
        ["show"],
        ["show", "interfaces"],
        ["show", "wg0"],
        ["show", "all", "dump"],
        ["show", "wg1", "dump"],
        ["showconf", "wg0"],
    ):
        assert in_guest(kernel, *arguments) == kernel.run("wg", *arguments)
    assert "there is no such WireGuard interface" in kernel.run(
        program_path("pywg"), "show", "nosuch", check=False
    )
    assert "there is no such WireGuard interface" in kernel.run(
        program_path("pywg"), "show", "lo", check=False
    )


MANY_NETWORKS_AND_PEERS = f"""
import base64
networks = ", ".join(f"10.{{number >> 8}}.{{number & 255}}.0/24" for number in range(1500))
with open("/run/config", "w") as file:
    print("[Peer]", "PublicKey = {ALICE}", "AllowedIPs = " + networks, sep=chr(10), file=file)
    for number in range(1, 120):
        key = base64.b64encode(number.to_bytes(32, "little")).decode()
        print("[Peer]", f"PublicKey = {{key}}", f"AllowedIPs = 11.0.0.{{number}}/32", sep=chr(10), file=file)
"""


def test_the_kernel_takes_and_gives_more_than_one_message_holds(kernel: Machine) -> None:
    # Written there, since the guest's console is slow.
    kernel.run(sys.executable, "-c", f"exec({MANY_NETWORKS_AND_PEERS!r})")
    kernel.run("wg", "setconf", "wg0", "/run/config")
    in_guest(kernel, "setconf", "wg1", "/run/config")
    expected = kernel_state(kernel, "wg0")
    assert kernel_state(kernel, "wg1")[1:] == expected[1:]
    assert in_guest(kernel, "show", "wg1", "dump").splitlines()[1:] == expected[1:]
    assert expected[1].count("/24") == 1500
    assert len(expected) == 121
