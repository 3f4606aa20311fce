"""What counts alone tell, of hosts on a virtual clock on which the faults are made; and the log of it."""

from __future__ import annotations

import logging

import pytest

from pywg.noise.keys import PresharedKey, PrivateKey
from pywg.observe.counted import from_statistics
from pywg.observe.findings import Finding, Severity, settle
from pywg.observe.findingslog import EVERY, LASTS, FindingsLog
from pywg.observe.statistics import to_json
from tests.spec.world import WALL_EPOCH_NS, Host, World


def found(host: Host, *, suspicious: bool = False) -> list[Finding]:
    """As metrics and `show` ask, or as the log does: both find the same."""
    statistics = host.engine.suspicious() if suspicious else host.engine.statistics()
    return settle(from_statistics(to_json(statistics, "", 0.0), host.wall_clock() / 1e9))


def codes(host: Host) -> list[tuple[str, str]]:
    settled = found(host)
    assert found(host, suspicious=True) == settled
    return [(finding.code, finding.weight.value) for finding in settled]


def test_nothing_is_found_where_all_is_well() -> None:
    world = World(seed=1)
    alice, bob = world.pair()
    alice.send(bob)
    world.run(1.0)
    assert codes(alice) == codes(bob) == []


def test_a_peer_that_does_not_answer_and_one_that_did_once() -> None:
    world = World(seed=2)
    alice, bob = world.pair()
    bob.engine.set_private_key(None)
    alice.send(bob)
    world.run(3.0)
    assert codes(alice) == [("handshake-unanswered", "error")]
    bob.engine.set_private_key(bob.private_key)
    world.run(10.0)
    assert codes(alice) == []
    bob.engine.set_private_key(None)
    world.run(200.0)
    alice.send(bob)
    world.run(3.0)
    assert codes(alice) == [("handshake-unanswered", "warning")]


def test_another_preshared_key_explains_the_silence() -> None:
    world = World(seed=3)
    alice, bob = world.pair()
    (peer,) = alice.device.peers()
    alice.engine.set_preshared_key(peer, PresharedKey(bytes(range(32))))
    alice.send(bob)
    world.run(3.0)
    assert codes(alice) == [("preshared-key-differs", "error")]


def test_a_clock_that_was_set_back_before_a_restart_is_refused_and_noticed_at_both_ends() -> None:
    world = World(seed=4)
    alice, bob = world.pair()
    alice.send(bob)
    world.run(1.0)
    world.run(200.0)  # or bob had a session still
    alice.wall_offset_ns = -3600 * 10**9
    alice.bind.close()
    alice.boot()
    alice.add_peer(bob)
    alice.send(bob)
    world.run(3.0)
    assert codes(bob) == [("clock-went-back", "error")]
    assert codes(alice) == [("handshake-unanswered", "error")]
    bob.send(alice)
    world.run(3.0)
    assert codes(alice) == [("clock-behind", "warning")]
    assert "3600 s ahead" in found(alice)[0].seen


def test_messages_for_another_key_are_no_error_by_themselves() -> None:
    world = World(seed=5)
    alice, bob = world.pair()
    bob.engine.set_private_key(PrivateKey.generate(bob.randbytes))
    bob.engine.commit()
    alice.send(bob)
    world.run(3.0)
    assert codes(bob) == [("other-key-for-us", "note")]
    assert codes(alice) == [("handshake-unanswered", "error")]
    bob.send(alice)
    world.run(3.0)
    assert ("other-key-for-us", "warning") in codes(bob)


def test_a_peer_that_has_another_key_and_a_stranger() -> None:
    world = World(seed=6)
    alice, bob = world.pair()
    bob.engine.set_private_key(PrivateKey.generate(bob.randbytes))
    bob.engine.commit()
    alice.send(bob)
    bob.send(alice)
    world.run(3.0)
    assert codes(alice) == [("peer-has-another-key", "error")]
    alice.engine.remove_peer(alice.peer(bob))
    assert codes(alice) == [("stranger", "warning")]
    world.run(200.0)
    assert codes(alice) == []


def test_a_peer_that_lost_all_its_allowed_ips_to_another() -> None:
    world = World(seed=7)
    alice, bob = world.pair()
    carol = world.host("carol", "192.0.2.3", ["10.0.0.3"])
    alice.add_peer(carol, allowed=bob.addresses[:1])
    assert codes(alice) == []
    alice.engine.add_allowed_ips(alice.peer(carol), alice.device.allowed_ips(alice.peer(bob)))
    assert codes(alice) == [("allowed-ips-twice", "error")]
    assert found(alice)[0].peer == str(bob.public_key)
    alice.engine.remove_peer(alice.peer(carol))
    assert codes(alice) == []


def test_a_last_handshake_in_the_future_and_a_device_that_is_down() -> None:
    world = World(seed=8)
    alice, bob = world.pair()
    alice.send(bob)
    world.run(1.0)
    said = to_json(alice.engine.statistics(), "", 0.0)
    assert [f.code for f in from_statistics(said, WALL_EPOCH_NS / 1e9 - 3600)] == ["clock-behind"]
    assert [f.code for f in from_statistics(said | {"is_up": False})] == ["interface-down"]


# --- The log. ---------------------------------------------------------------------------------------------


class Lines:
    def __init__(self) -> None:
        self.said: list[tuple[int, str]] = []
        self.log = FindingsLog("wg0", lambda level, _, text: self.said.append((level, text)))
        self.now = 0.0

    def look(self, *found: Finding) -> list[tuple[int, str]]:
        """What is said at one more look."""
        self.now += EVERY
        self.said.clear()
        self.log.look(found, self.now)
        return list(self.said)


KEY = "q0uvAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA4k="[:44]
SILENT = Finding("handshake-unanswered", "", (), KEY, "alice")


def test_a_finding_is_told_once_when_it_has_lasted_and_once_when_it_is_over() -> None:
    lines = Lines()
    said = [lines.look(SILENT) for _ in range(20)]
    [begun] = [each for each in said if each]
    assert said.index(begun) == LASTS // EVERY
    summary = SILENT.kind.summary
    who = f"peer alice ({KEY[:4]}…{KEY[39:43]}): "
    text = f"{who}{summary}; `pywg doctor wg0` tells more [handshake-unanswered]"
    assert begun == [(logging.ERROR, text)]
    said = [lines.look() for _ in range(20)]
    [over] = [each for each in said if each]
    assert over == [(logging.ERROR, f"{who}no longer: {summary} [handshake-unanswered]")]


def test_what_comes_and_goes_is_never_told() -> None:
    lines = Lines()
    for _ in range(20):
        assert lines.look(SILENT) + lines.look() + lines.look() == []


def test_what_is_missing_at_one_look_is_not_over() -> None:
    lines = Lines()
    said = [lines.look(*((SILENT,) if number % 2 else ())) for number in range(20)]
    assert len([each for each in said if each]) == 1


def test_how_long_it_has_lasted_counts_from_when_it_began() -> None:
    lines = Lines()
    old = Finding("handshake-unanswered", "", (), KEY, "alice", lasted=LASTS)
    assert lines.look(old)
    assert not lines.look(old)


@pytest.mark.parametrize(
    ("severity", "level"),
    [(Severity.ERROR, logging.ERROR), (Severity.WARNING, logging.WARNING), (Severity.NOTE, logging.INFO)],
)
def test_the_level_is_the_severity(severity: Severity, level: int) -> None:
    lines = Lines()
    told = Finding("other-key-for-us", "", lasted=LASTS, severity=severity)
    assert [each for each, _ in lines.look(told)] == [level]


def test_the_device_itself_tells_when_it_goes_down() -> None:
    lines = Lines()
    assert not any(lines.look(Finding("interface-down", "")) for _ in range(20))


def test_of_very_many_peers_only_suspects_are_looked_at() -> None:
    world = World(seed=9)
    alice, _ = world.pair()
    for _ in range(100):
        alice.engine.add_peer(PrivateKey.generate(alice.randbytes).public_key)
    assert alice.engine.suspicious().peers == []
    assert len(alice.engine.statistics().peers) == 101
