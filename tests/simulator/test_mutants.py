"""Each invariant can fail: a device or a data path that was broken on purpose is found out.

What is broken here is one rule each; the world around it is the usual one.
"""

from __future__ import annotations

import dataclasses
import math

import pytest

from pywg.datapath import portable
from pywg.datapath.replay import ReplayWindow
from pywg.device import device as device_module
from pywg.device.device import Device
from pywg.device.indextable import IndexTable
from pywg.device.session import PeerId, Session
from pywg.device.timers import Timer, TimerQueue
from pywg.noise.cookie import CookieChecker
from tests.simulator.flood import MANY_SOURCES, ONE_SOURCE, Flood, FloodedSimulation
from tests.simulator.invariants import Violation
from tests.simulator.machine import Machine, SimulatedDataPath
from tests.simulator.simulation import DAY, HOUR, MINUTE, Plan, Simulation

SEEDS = range(3)


def found_out(match: str, *, datapath: type[SimulatedDataPath] = SimulatedDataPath, **rates: float) -> None:
    """Some run of a few finds it, and nothing else."""
    rates = {"talk": 10 * MINUTE, "seconds": DAY / 4} | rates
    plan = dataclasses.replace(Plan(peers=4), datapath=datapath, **rates)
    for seed in SEEDS:
        try:
            Simulation(plan, seed).play()
        except Violation as violation:
            found = str(violation)
            break
    else:
        found = f"nothing in the runs with seeds {SEEDS}"
    assert match in found


def test_an_unbroken_one_passes_where_the_broken_ones_are_found_out():
    for seed in SEEDS:
        Simulation(Plan(peers=4, talk=10 * MINUTE, seconds=DAY / 4), seed).play()


def test_without_a_replay_window_packets_are_delivered_twice(monkeypatch):
    monkeypatch.setattr(ReplayWindow, "accept", lambda self, counter: True)
    found_out("delivered twice")


class Opening(SimulatedDataPath):
    """Takes any inner source from whoever has a session."""

    def _open_untrusted(self, datagram, received, now):
        class Anybody:
            def lookup(self, address: bytes) -> PeerId:
                return session.peer

        live = self._live.get(int.from_bytes(datagram[4:8], "little"))
        if live is None:
            return super()._open_untrusted(datagram, received, now)
        session, real = live.session, self._allowed_ips
        self._allowed_ips = Anybody()
        try:
            return super()._open_untrusted(datagram, received, now)
        finally:
            self._allowed_ips = real


def test_without_the_check_of_sources_forged_ones_are_delivered():
    found_out("outside the allowed IPs", datapath=Opening)


class Misrouting(SimulatedDataPath):
    """Sends every eighth packet to another peer."""

    routed = 0

    def _route(self, packet: bytes) -> PeerId | None:
        peer = super()._route(packet)
        self.routed += 1
        others = [other for other in self._current if other != peer]
        return others[0] if others and peer in self._current and self.routed % 8 == 0 else peer


def test_packets_sent_to_another_peer_are_found():
    found_out("delivered to the wrong peer", datapath=Misrouting)


class Altering(SimulatedDataPath):
    """Flips a bit after the tag was verified."""

    def _open_untrusted(self, datagram, received, now):
        packet = super()._open_untrusted(datagram, received, now)
        if packet:
            packet[-1] ^= 1
        return packet


def test_packets_that_were_altered_are_found():
    found_out("was altered", datapath=Altering)


class Recounting(SimulatedDataPath):
    """Begins to count anew with every keepalive."""

    def send(self, peer, packets, now):
        if not packets and peer in self._current:
            self._current[peer].send_counter = 0
        super().send(peer, packets, now)


def test_a_counter_that_begins_anew_is_found():
    found_out("under one key again", datapath=Recounting)


class Reinstalling(SimulatedDataPath):
    """Gives the keys of one session to the next with the same peer."""

    def install(self, session: Session) -> None:
        if any(live.session.peer == session.peer for live in self._live.values()):
            last = list(self._live.values())[-1].session
            session = dataclasses.replace(session, send_key=last.send_key)
        super().install(session)


def test_a_key_of_two_sessions_is_found():
    found_out("a key that was used before", datapath=Reinstalling)


class Immortal(SimulatedDataPath):
    """Sessions do not expire."""

    def install(self, session: Session) -> None:
        super().install(dataclasses.replace(session, expires=math.inf))


def test_sessions_that_do_not_expire_are_found():
    found_out("with a key 18", datapath=Immortal)


def test_counters_past_the_limit_are_found(monkeypatch):
    monkeypatch.setattr(device_module, "REJECT_AFTER_MESSAGES", 3)
    monkeypatch.setattr(SimulatedDataPath, "_seal_and_send", _seal_without_limit)
    found_out("past the limit of 3")


def _seal_without_limit(self, peer, packets, now, tap=None):
    live = self._current.get(peer)
    if live is not None:
        live.session = dataclasses.replace(live.session, message_limit=2**64)
    super(SimulatedDataPath, self)._seal_and_send(peer, packets, now, tap)


def test_keys_that_are_not_erased_are_found(monkeypatch):
    arm = TimerQueue.arm

    def all_but_one(self, peer, timer, deadline):
        if timer is not Timer.ZERO_KEY_MATERIAL:
            arm(self, peer, timer, deadline)

    monkeypatch.setattr(TimerQueue, "arm", all_but_one)
    found_out("after the last session began")


def test_an_ephemeral_key_that_is_kept_is_found(monkeypatch):
    def forget_the_index_alone(self, peer):
        if peer.handshake_index is not None:
            self._indices.release(peer.handshake_index)
            peer.handshake_index = None

    monkeypatch.setattr(Device, "_forget_initiation", forget_the_index_alone)
    found_out("keeps an ephemeral key", cut=HOUR)


def test_a_session_that_does_not_come_back_is_found(monkeypatch):
    retransmit = Device._retransmit_handshake

    def forget_where_it_is(self, peer, now):
        retransmit(self, peer, now)
        if peer.attempts_since is None:
            peer.endpoint = None

    monkeypatch.setattr(Device, "_retransmit_handshake", forget_where_it_is)
    found_out("could talk again", cut=HOUR)


def test_a_retry_that_comes_late_is_found(monkeypatch):
    jitter = Device._jitter
    monkeypatch.setattr(Device, "_jitter", lambda self: 5 * jitter(self))
    monkeypatch.setattr(Machine, "audit_initiation", lambda self, peer, at: None)
    monkeypatch.setattr(device_module, "REKEY_TIMEOUT", 7.0)
    found_out("could talk again", cut=HOUR)


def test_a_dead_session_that_nobody_notices_is_found(monkeypatch):
    arm = TimerQueue.arm

    def all_but_one(self, peer, timer, deadline):
        if timer is not Timer.NEW_HANDSHAKE:
            arm(self, peer, timer, deadline)

    monkeypatch.setattr(TimerQueue, "arm", all_but_one)
    found_out("could talk again", crash=HOUR, hub=HOUR)


def test_packets_staged_without_end_are_found(monkeypatch):
    monkeypatch.setattr(device_module, "STAGED_PACKETS", 1000)
    found_out("staged packets for one peer")


def test_indices_that_are_never_released_are_found(monkeypatch):
    monkeypatch.setattr(IndexTable, "release", lambda self, index: None)
    found_out("indices in use")


class Hoarding(SimulatedDataPath):
    """Retires nothing."""

    def retire(self, local_index: int) -> None:
        pass


def test_sessions_that_the_data_path_keeps_are_found():
    found_out("sessions", datapath=Hoarding)


def test_timers_that_pile_up_are_found(monkeypatch):
    arm = TimerQueue.arm

    def again(self, peer, timer, deadline):
        self._queued.pop((peer, timer), None)
        arm(self, peer, timer, deadline)

    monkeypatch.setattr(TimerQueue, "arm", again)
    found_out("timers", keepalive=HOUR, talk=MINUTE)


# --- Under floods. ------------------------------------------------------------------------------------------


def found_out_in(flood: Flood, match: str) -> None:
    """A flood finds it, and nothing else."""
    with pytest.raises(Violation, match=match):
        FloodedSimulation(flood, 1).play()


def test_without_a_share_for_each_source_one_keeps_all_others_out(monkeypatch):
    monkeypatch.setattr(device_module, "HANDSHAKE_SHARE", device_module.HANDSHAKE_QUEUE)
    monkeypatch.setattr(portable, "HANDUP_SHARE", portable.HANDUP_LIMIT)
    found_out_in(ONE_SOURCE, "could not connect")


def test_without_cookies_spoofed_sources_keep_all_others_out(monkeypatch):
    monkeypatch.setattr(Device, "_is_under_load", lambda self, now: False)
    found_out_in(MANY_SOURCES, "could not connect")


def test_a_cookie_that_is_not_looked_at_is_found(monkeypatch):
    monkeypatch.setattr(CookieChecker, "check_mac2", lambda self, message, source, now: True)
    found_out_in(MANY_SOURCES, "sources counted")


def test_an_answer_to_a_wrong_mac1_is_found(monkeypatch):
    monkeypatch.setattr(portable.cookie, "check_mac1", lambda key, message: True)
    found_out_in(MANY_SOURCES, "the hub answers wrong MAC1")


def test_a_replayed_initiation_that_is_taken_is_found(monkeypatch):
    monkeypatch.setattr(Device, "_refuse", lambda self, peer, reason, source, now: None)
    found_out_in(MANY_SOURCES, "a flooder got a message of type 2")
