"""What the doctor concludes from what it saw on the wire, where hosts seldom do it in that order."""

from __future__ import annotations

from typing import Any

import pytest

from pywg.device.snapshot import DeviceSnapshot, PeerSnapshot
from pywg.noise.keys import PublicKey
from pywg.observe.checks import Subject, Watched
from pywg.observe.checks_handshake import datagrams_on_the_wire
from pywg.wire.endpoint import Endpoint

BOB = PublicKey(bytes(range(32)))
THERE = Endpoint("192.0.2.2", 51820)
INITIATION = 1


def said(*, session_age: float | None) -> dict[str, Any]:
    handshakes = {"initiations_received": 1, "initiations_sent": 0, "refused": {}}
    peer = {"public_key": BOB.base64, "endpoint": str(THERE), "session_age": session_age}
    return {"drops": {}, "peers": [{**peer, "handshakes": handshakes}]}


@pytest.mark.parametrize(("session_age", "codes"), [(0.2, []), (None, ["dropped-on-arrival"])])
def test_an_initiation_that_came_just_before_the_counts_is_not_lost(session_age, codes):
    device = DeviceSnapshot(listen_port=51820, peers=[PeerSnapshot(BOB, endpoint=THERE)])
    now = said(session_age=session_age)
    watched = Watched(before=now, after=now, left=[], arrived=[(INITIATION, THERE.host)], device=device)
    subject = Subject("wg0", device=device, watched=watched)
    assert [finding.code for finding in datagrams_on_the_wire(subject)] == codes
