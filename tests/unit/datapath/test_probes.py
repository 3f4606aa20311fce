"""The probes in the compiled module: their notes, and that nothing is made ready while nobody is attached.

That tracers see them is shown by tests/system/test_probes.py.
"""

from __future__ import annotations

import os
import pathlib
import platform
import re
import sys
from collections.abc import Iterator

import pytest

from pywg.device.peer import Peer
from pywg.device.session import PeerId
from pywg.errors import DropReason
from pywg.noise.keys import PublicKey
from pywg.tun.base import TunOffload
from tests import twins
from tests.documents import ROOT
from tests.probes import attach, attached, probes_of

compiled = pytest.importorskip("pywg.datapath.compiled", reason="build it with: pip install .")
pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64") or sys.maxsize < 2**32,
    reason="no probes for this processor",
)
MODULE = pathlib.Path(compiled.__file__)


class Watched(Peer):
    """A peer that tells how often its name was read."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        super().__init__(PeerId(1), PublicKey(bytes(range(32))))
        self.asked = 0

    @property
    def short_key(self) -> str:
        self.asked += 1
        return super().short_key


@pytest.fixture(name="wanted")
def _wanted() -> Iterator[None]:
    """Somebody is attached to all probes; where no breakpoint is, they do nothing more than get ready."""
    for probe in probes_of(MODULE):
        attach(os.getpid(), MODULE, probe, 1)
    yield
    for probe in probes_of(MODULE):
        attach(os.getpid(), MODULE, probe, -1)


def tell_everything(peer: Peer) -> None:
    probes = compiled.Probes()
    probes.handshake_begin(peer, True)
    probes.session_install(peer, 0xFFFFFFFF, True)
    probes.handshake_end(peer, True)
    probes.session_retire(peer, 1)
    probes.handshake_give_up(peer)
    probes.drop(DropReason.UNDER_LOAD, 2**40, False)


def test_the_reference_lists_the_probes_with_as_many_arguments_as_they_have() -> None:
    text = (ROOT / "docs/reference/probes.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (`[^|]*`) \|", text, re.MULTILINE)
    has = {probe.name: len(probe.arguments) for probe in probes_of(MODULE)}
    assert {name: cell.count("`") // 2 for name, cell in rows} == has
    assert {probe.provider for probe in probes_of(MODULE)} == {"pywg"}


def test_each_argument_is_described() -> None:
    text = (ROOT / "docs/reference/probes.md").read_text()
    used = {
        word
        for cell in re.findall(r"^\| `\w+` \| (`[^|]*`) \|", text, re.M)
        for word in re.findall(r"\w+", cell)
    }
    assert set(re.findall(r"^\| `(\w+)` \| [^`]", text, re.M)) == used


def test_while_nobody_is_attached_nothing_is_made_ready() -> None:
    if any(attached(os.getpid(), MODULE, probe) for probe in probes_of(MODULE)):
        pytest.skip("somebody traces all processes that have the module")
    peer = Watched()
    tell_everything(peer)
    assert peer.asked == 0


def test_whoever_is_attached_is_told_of_the_peer(wanted: None) -> None:
    peer = Watched()
    peer.name = "Zoë"
    tell_everything(peer)
    assert peer.asked == 5


def test_packets_pass_while_somebody_is_attached(wanted: None) -> None:
    rig = twins.Rig(compiled.CompiledDataPath, TunOffload())
    twins.set_up(rig)
    rig.tun.deliver(b"no packet")
    while rig.path.step(0.0):
        pass
    assert rig.path.drain(0.0).drops == {DropReason.NOT_AN_IP_PACKET: 1}
    rig.close()
