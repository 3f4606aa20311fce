"""Checks of files, which need no network; how a check that fails is told; and the report without names."""

from __future__ import annotations

import json
import pathlib

import pytest

from pywg.config.files import Location, load_text
from pywg.errors import PywgError
from pywg.noise.keys import PresharedKey, PrivateKey
from pywg.observe import checks, checks_files
from pywg.observe.bundle import Pseudonyms, write_bundle
from pywg.observe.checks import Subject
from pywg.observe.findings import Finding, settle


def key(number: int) -> PrivateKey:
    return PrivateKey.generate(lambda count: bytes([number]) * count)


def psk(number: int) -> str:
    return PresharedKey.generate(lambda count: bytes([number]) * count).base64


ALICE, BOB, CAROL = key(1), key(2), key(3)


def file(
    own: PrivateKey,
    peer: PrivateKey,
    address: str,
    allowed: str,
    *,
    endpoint: str = "",
    psk: str = "",
    port: int = 51820,
) -> str:
    lines = ["[Interface]", f"PrivateKey = {own.base64}", f"Address = {address}", f"ListenPort = {port}"]
    lines += ["[Peer]", f"PublicKey = {peer.public_key.base64}", f"AllowedIPs = {allowed}"]
    lines += [f"Endpoint = {endpoint}"] if endpoint else []
    lines += [f"PresharedKey = {psk}"] if psk else []
    return "\n".join(lines) + "\n"


def both(ours: str, theirs: str) -> Subject:
    return Subject(
        "wg0",
        "alice.conf",
        load_text(Location("alice.conf", "alice"), ours).config,
        other=load_text(Location("bob.conf", "bob"), theirs).config,
        other_path="bob.conf",
    )


def found(subject: Subject) -> list[str]:
    return [finding.code for finding in settle(checks.run(checks_files.CHECKS, subject))]


GOOD = file(ALICE, BOB, "10.0.0.1/24", "10.0.0.2/32", endpoint="192.0.2.2:51820")
GOOD_THERE = file(BOB, ALICE, "10.0.0.2/24", "10.0.0.1/32")


def test_two_files_that_match_have_no_findings():
    assert found(both(GOOD, GOOD_THERE)) == []


@pytest.mark.parametrize(
    ("theirs", "codes"),
    [
        (file(CAROL, ALICE, "10.0.0.2/24", "10.0.0.1/32"), ["other-is-unknown"]),
        (file(BOB, CAROL, "10.0.0.2/24", "10.0.0.1/32"), ["other-does-not-know-us"]),
        (file(ALICE, BOB, "10.0.0.2/24", "10.0.0.1/32"), ["same-key"]),
        (file(BOB, ALICE, "10.0.0.2/24", "10.0.0.1/32", psk=psk(5)), ["preshared-key-differs"]),
        (file(BOB, ALICE, "10.0.0.2/24", "10.0.0.1/32", port=51821), ["port-differs"]),
        (file(BOB, ALICE, "10.0.0.3/24", "10.0.0.1/32"), ["address-not-allowed"]),
        (file(BOB, ALICE, "10.0.0.2/24", "10.0.0.9/32"), ["address-not-allowed"]),
        (file(BOB, ALICE, "10.0.0.1/24", "10.0.0.1/32"), ["address-not-allowed", "same-address"]),
        (file(BOB, BOB, "10.0.0.2/24", "10.0.0.1/32"), ["other-does-not-know-us"]),
    ],
)
def test_what_does_not_match_is_told_exactly(theirs: str, codes: list[str]):
    assert found(both(GOOD, theirs)) == codes


def test_two_different_preshared_keys_are_told_and_not_shown():
    subject = both(GOOD + f"PresharedKey = {psk(4)}\n", GOOD_THERE + f"PresharedKey = {psk(5)}\n")
    [finding] = settle(checks.run(checks_files.CHECKS, subject))
    assert finding.code == "preshared-key-differs"
    assert psk(4) not in str(finding.to_json())


def test_neither_file_with_an_endpoint_is_told():
    ours = file(ALICE, BOB, "10.0.0.1/24", "10.0.0.2/32")
    assert found(both(ours, GOOD_THERE)) == ["no-endpoint"]


def test_one_network_for_two_peers_is_told():
    text = GOOD + f"[Peer]\nPublicKey = {CAROL.public_key.base64}\nAllowedIPs = 10.0.0.2/32\n"
    subject = Subject("wg0", "alice.conf", load_text(Location("alice.conf", "alice"), text).config)
    assert found(subject) == ["allowed-ips-twice"]


def test_our_own_key_as_a_peer_is_told():
    text = file(ALICE, ALICE, "10.0.0.1/24", "10.0.0.2/32")
    assert found(Subject("wg0", "a.conf", load_text(Location("a.conf", "a"), text).config)) == [
        "own-key-as-peer"
    ]


def test_a_check_that_fails_is_a_finding_and_the_others_go_on():
    def breaks(_: Subject) -> list[Finding]:
        raise ZeroDivisionError

    def refuses(_: Subject) -> list[Finding]:
        raise PywgError("`ping` is not installed")

    def finds(subject: Subject) -> list[Finding]:
        return [subject.finding("interface-down", "It is down.")]

    said = settle(checks.run([breaks, refuses, finds], Subject("wg0")))
    assert [finding.code for finding in said] == ["interface-down", "check-failed", "check-failed"]
    assert "'refuses' could not be made: `ping` is not installed." in " ".join(
        finding.seen for finding in said
    )


def test_the_same_thing_has_the_same_pseudonym():
    give = Pseudonyms(["alice", "vpn.example.org"])
    public = ALICE.public_key.base64
    text = give.text(
        f"alice {public} at 192.168.1.5:51820, [2001:db8::7]:1, {public[:8]}…, vpn.example.org, 8.8.8.8"
    )
    assert text == "name-2 key-1 at private-ipv4-1:51820, [private-ipv6-1]:1, key-1, name-1, public-ipv4-1"
    assert (
        give.text("192.168.1.5/32 0.0.0.0/0 ::/0 14:05:33 1.2")
        == "private-ipv4-1/32 0.0.0.0/0 ::/0 14:05:33 1.2"
    )


def test_a_report_has_no_key_name_or_address(tmp_path: pathlib.Path):
    text = GOOD.replace("[Peer]", "[Peer]\n# Name = bobs laptop") + f"PresharedKey = {psk(4)}\n"
    subject = both(text, GOOD_THERE)
    subject.names = {BOB.public_key.base64: "bobs laptop"}
    path = tmp_path / "report.json"
    write_bundle(str(path), [(subject, settle(checks.run(checks_files.CHECKS, subject)))])
    said = path.read_text()
    secret = [k.base64 for k in (ALICE, BOB, ALICE.public_key, BOB.public_key)]
    assert not [text for text in (*secret, psk(4), "bobs laptop", "192.0.2.2", "10.0.0.") if text in said]
    [tunnel] = json.loads(said)["tunnels"]
    assert tunnel["findings"][0]["code"] == "preshared-key-differs"
    assert tunnel["file"]["peers"][0]["public_key"] == tunnel["findings"][0]["peer"]
    assert path.stat().st_mode & 0o077 == 0
