"""`pywg top` in a real terminal (tmux) and `pywg events` beside a real tunnel."""

from __future__ import annotations

import json
import pathlib
import shutil
import signal
import sys

import pytest

from tests.system.cases import ping
from tests.system.conftest import missing
from tests.system.net import Lab, eventually
from tests.system.programs import Program
from tests.system.tunnel import WG, Tunnel, make_tunnel

PYWG = str(pathlib.Path(sys.executable).with_name("pywg"))


@pytest.fixture
def tunnel(lab: Lab, ours: Program) -> Tunnel:
    return make_tunnel(lab, ours, ours)


def test_events_tell_a_handshake_in_words_and_as_json(tunnel: Tunnel) -> None:
    host = tunnel.left.machine.host
    words, as_json = host.start(PYWG, "events", WG), host.start(PYWG, "events", "--json")
    eventually("the stream runs", lambda: '"watching"' in as_json.output())
    tunnel.configure(initiator=tunnel.left)
    ping(tunnel.left, tunnel.right)
    eventually("the session is told", lambda: "the session is up" in words.output())
    events = [json.loads(line) for line in as_json.output().splitlines()]
    kinds = [event["kind"] for event in events]
    assert kinds.index("initiation-sent") < kinds.index("response-received")
    assert events[kinds.index("response-received")]["peer"] == tunnel.right.key.public
    assert f" {WG} peer {tunnel.right.key.public[:4]}…" in words.output()
    tunnel.left.stop()
    eventually("both end with the daemon", lambda: words.poll() == as_json.poll() == 0)


def test_events_end_quietly_when_interrupted(tunnel: Tunnel) -> None:
    task = tunnel.left.machine.host.start(PYWG, "events", "--json")
    eventually("the stream runs", lambda: "watching" in task.output())
    task.signal(signal.SIGINT)
    eventually("it ends", lambda: task.poll() is not None)
    assert "Traceback" not in task.output()


def test_events_of_other_daemons_are_refused_in_a_sentence(lab: Lab) -> None:
    host = lab.host("alone")
    assert "no daemon runs here" in host.run(PYWG, "events", check=False)
    assert "wg7 has no daemon here" in host.run(PYWG, "events", "wg7", check=False)


def test_top_shows_peers_rates_and_events_and_obeys_keys(tunnel: Tunnel) -> None:
    if shutil.which("tmux") is None:
        missing("tmux is not installed")
    host = tunnel.left.machine.host
    tunnel.configure(initiator=tunnel.left)

    def tmux(*arguments: str) -> str:
        return host.run("tmux", "-S", "/run/tmux", *arguments)

    tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", f"{PYWG} top --interval 0.2 {WG}")
    try:
        eventually("the picture is there", lambda: "q quit" in tmux("capture-pane", "-p"))
        ping(tunnel.left, tunnel.right)
        eventually("the handshake is told", lambda: "the session is up" in tmux("capture-pane", "-p"))
        picture = tmux("capture-pane", "-p")
        assert tunnel.right.outer[0] in picture
        assert "port 51820" in picture
        tmux("send-keys", "s")
        eventually("the key is obeyed", lambda: "s sort: rate" in tmux("capture-pane", "-p"))
        tmux("send-keys", "/nobody")
        eventually(
            "the filter is", lambda: tunnel.right.outer[0] + ":" not in table(tmux("capture-pane", "-p"))
        )
        tmux("send-keys", "Escape")
        eventually("and is taken back", lambda: tunnel.right.outer[0] in table(tmux("capture-pane", "-p")))
        tmux("send-keys", "q")
        eventually("it leaves", lambda: "no server" in host.run("tmux", "-S", "/run/tmux", "ls", check=False))
    finally:
        host.run("tmux", "-S", "/run/tmux", "kill-server", check=False)


def table(picture: str) -> str:
    """The lines of peers, without those of events."""
    return picture.partition("\n\n")[0]


def test_top_without_a_terminal_says_what_works(tunnel: Tunnel) -> None:
    host = tunnel.left.machine.host
    assert "`pywg top --once` prints one picture" in host.run(PYWG, "top", check=False)
    once = host.run(PYWG, "top", "--once", "--interval", "0.1")
    assert f"{WG}  down" in once
    assert "\x1b" not in once
