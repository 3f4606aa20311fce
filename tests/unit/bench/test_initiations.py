"""Handshakes prepared for the load on a hub are true ones."""

import pytest

from bench import initiations
from bench.initiations import Sender
from pywg.errors import BadPacket
from pywg.noise.cookie import NO_MAC, check_mac1, mac1_key
from pywg.noise.handshake import open_initiation_untrusted
from pywg.noise.keys import PresharedKey, PrivateKey
from pywg.noise.primitives import dh
from pywg.wire.messages import Initiation, parse_untrusted

HUB = initiations.hub_key()


def opened(peer, number):
    message = parse_untrusted(Sender.of(peer).message(number) + NO_MAC)
    assert isinstance(message, Initiation)
    return message, open_initiation_untrusted(HUB, message.ephemeral, message.static, message.timestamp)


def test_the_hub_learns_from_a_prepared_message_who_sent_it():
    message, received = opened(3, 11)
    assert received.initiator == initiations.peer_key(3).public_key
    assert message.sender == 11


def test_a_prepared_message_carries_mac1():
    assert check_mac1(mac1_key(HUB.public_key), Sender.of(3).message(11) + NO_MAC)


def test_a_later_message_of_a_peer_has_a_later_timestamp():
    secret = dh(bytes(HUB), bytes(initiations.peer_key(3).public_key))
    times = [opened(3, number)[1].read_timestamp_untrusted(secret) for number in (3, 11, 19)]
    assert times == sorted(set(times))


def test_a_response_is_checked_with_the_message_made_again():
    _, received = opened(3, 11)
    received.read_timestamp_untrusted(dh(bytes(HUB), bytes(received.initiator)))
    ephemeral, nothing, _ = received.respond(PresharedKey.ZERO, PrivateKey(bytes(range(32))))
    Sender.of(3).check_response_untrusted(11, ephemeral, nothing)
    with pytest.raises(BadPacket):
        Sender.of(3).check_response_untrusted(19, ephemeral, nothing)


def test_messages_are_prepared_in_the_order_of_their_numbers(tmp_path):
    file = tmp_path / "messages"
    initiations.prepare(file, peers=2, count=5)
    data = file.read_bytes()
    assert data == b"".join(Sender.of(number % 2).message(number) for number in range(5))


def test_the_hubs_configuration_has_every_peer_with_an_address_of_its_own():
    text = initiations.configuration(300, 51820)
    assert text.count("[Peer]") == 300
    assert len({line for line in text.splitlines() if line.startswith("AllowedIPs")}) == 300
    assert f"PublicKey = {initiations.peer_key(299).public_key.base64}\n" in text
