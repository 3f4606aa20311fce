"""What is printed, without a daemon: times, sizes, order, and what is left out."""

from __future__ import annotations

import json

import pytest

from pywg.cli import wgformat
from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.noise.keys import PresharedKey, PrivateKey, PublicKey
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

NOW = 1_800_000_000
SECOND = 1_000_000_000
ALICE, BOB, CAROL = (PublicKey(letter * 32) for letter in (b"a", b"b", b"c"))
PRIVATE = PrivateKey(b"\x08" + b"k" * 31)


def plain(text: str) -> str:
    return wgformat.without_colours(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, ""),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (3601, "1 hour, 1 second"),
        (90061, "1 day, 1 hour, 1 minute, 1 second"),
        (2 * 365 * 86400 + 120, "2 years, 2 minutes"),
    ],
)
def test_durations_leave_out_what_is_zero(seconds: int, text: str) -> None:
    assert plain(wgformat.duration_text(seconds)) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1024**2 - 1, "1024.00 KiB"),
        (1024**2, "1.00 MiB"),
        (1024**3, "1.00 GiB"),
        (1536 * 1024**3, "1.50 TiB"),
        (2**64 - 1, "16777216.00 TiB"),
    ],
)
def test_sizes_have_two_digits_behind_the_point(count: int, text: str) -> None:
    assert plain(wgformat.bytes_text(count)) == text


def test_handshakes_are_told_by_their_age() -> None:
    assert wgformat.ago_text(NOW, NOW) == "Now"
    assert plain(wgformat.ago_text(NOW - 61, NOW)) == "1 minute, 1 second ago"
    assert "clock wound backward" in wgformat.ago_text(NOW + 1, NOW)


def test_addresses_are_written_as_inet_ntop_writes_them() -> None:
    assert wgformat.endpoint_text(Endpoint("::ffff:a00:1", 5)) == "[::ffff:10.0.0.1]:5"
    assert wgformat.endpoint_text(Endpoint("fe80::1", 5, 1)) == "[fe80::1%lo]:5"
    assert wgformat.endpoint_text(None) == "(none)"


def device() -> DeviceSnapshot:
    return DeviceSnapshot(
        PRIVATE,
        51820,
        16,
        [
            PeerSnapshot(ALICE),
            PeerSnapshot(
                BOB,
                PresharedKey(b"p" * 32),
                Endpoint("192.0.2.1", 5),
                (NOW - 5) * SECOND + 7,
                1024,
                2048,
                25,
                [Network.parse("10.0.0.0/8"), Network.parse("::/0")],
            ),
            PeerSnapshot(CAROL, last_handshake_ns=(NOW - 1) * SECOND),
        ],
    )


def test_people_see_the_latest_handshake_first_and_no_keys() -> None:
    assert plain(wgformat.pretty("wg0", device(), NOW, hide_keys=True)) == (
        f"interface: wg0\n"
        f"  public key: {PRIVATE.public_key}\n"
        "  private key: (hidden)\n"
        "  listening port: 51820\n"
        "  fwmark: 0x10\n"
        f"\npeer: {CAROL}\n"
        "  allowed ips: (none)\n"
        "  latest handshake: 1 second ago\n"
        f"\npeer: {BOB}\n"
        "  preshared key: (hidden)\n"
        "  endpoint: 192.0.2.1:5\n"
        "  allowed ips: 10.0.0.0/8, ::/0\n"
        "  latest handshake: 5 seconds ago\n"
        "  transfer: 1.00 KiB received, 2.00 KiB sent\n"
        "  persistent keepalive: every 25 seconds\n"
        f"\npeer: {ALICE}\n"
        "  allowed ips: (none)\n"
    )


def test_keys_are_shown_only_when_asked_for() -> None:
    text = wgformat.pretty("wg0", device(), NOW, hide_keys=False)
    assert PRIVATE.base64 in text
    assert PresharedKey(b"p" * 32).base64 in text


def test_a_device_without_anything_is_one_line() -> None:
    assert plain(wgformat.pretty("wg0", DeviceSnapshot(), NOW, hide_keys=True)) == "interface: wg0\n"
    assert wgformat.showconf(DeviceSnapshot()) == "[Interface]\n\n"
    assert list(wgformat.dump(DeviceSnapshot())) == [("(none)", "(none)", "0", "off")]


def test_every_peer_has_a_row_in_every_field_of_peers() -> None:
    of_the_device = ("public-key", "private-key", "listen-port", "fwmark")
    for field, rows in wgformat.FIELDS.items():
        expected = 1 if field in of_the_device else 4 if field == "dump" else 3
        assert len(list(rows(device()))) == expected


def test_json_is_json_and_hides_keys() -> None:
    text = json.dumps(wgformat.json_value([("wg0", device())], hide_keys=True))
    assert PRIVATE.base64 not in text
    assert PresharedKey(b"p" * 32).base64 not in text
    (interface,) = json.loads(text)["interfaces"]
    assert [peer["latest_handshake"] for peer in interface["peers"]] == [NOW - 1, NOW - 5, None]
    empty = wgformat.json_value([("wg1", DeviceSnapshot())], hide_keys=False)["interfaces"][0]
    assert empty == {
        "name": "wg1",
        "public_key": None,
        "has_private_key": False,
        "listen_port": None,
        "fwmark": None,
        "peers": [],
        "findings": [],
    }
