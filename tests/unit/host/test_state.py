"""What `up` keeps: as it was written, for its owner alone, for this namespace and this boot."""

from __future__ import annotations

import json
import os

import pytest

from pywg.config.model import Dialect
from pywg.config.parse import parse
from pywg.host import state
from pywg.host.routing import Rule
from pywg.host.state import State

ONE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
TEXT = (
    f"[Interface]\nPrivateKey = {ONE}\nPreDown = one %i\n"
    "PostDown = two\nPostDown = three\nSaveConfig = true\n"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PYWG_STATE_DIR", str(tmp_path / "states"))
    return tmp_path / "states"


def made():
    return State.begin(
        "wg0", "/etc/wireguard/wg0.conf", "userspace", parse(TEXT, "wg0.conf", Dialect.WG_QUICK)
    )


def test_what_was_written_is_read_again(folder):
    kept = made()
    kept.index, kept.finished, kept.table = 7, True, 51820
    kept.rules = [Rule(4, 32765, 51820, True, 51820), Rule(6, 1, 2, goto=3)]
    kept.firewall, kept.dns = ["nftables/4"], {"way": "file"}
    state.write(kept)
    assert state.read("wg0") == kept
    assert [str(hook.position) for hook in state.read("wg0").post_down] == ["wg0.conf:4:12", "wg0.conf:5:12"]
    assert state.read_all() == [kept]
    state.remove("wg0")
    assert state.read("wg0") is None
    state.remove("wg0")


def test_it_has_no_key_and_only_its_owner_reads_it(folder):
    state.write(made())
    (file,) = folder.glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert ONE not in file.read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99},
        {"boot": "another"},
        {"rules": [{}]},
        {"post_down": 3},
        {"post_down": [[3, "wg0.conf", 1, 1]]},
        {"interface": ["wg0"]},
        {"index": "7"},
        {"names": [1]},
    ],
)
def test_what_is_not_understood_does_not_count(folder, change):
    state.write(made())
    (file,) = folder.glob("*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert state.read("wg0") is None
    assert state.read_all() == []


def test_another_network_namespace_has_states_of_its_own(folder, monkeypatch):
    state.write(made())
    monkeypatch.setattr(state, "_namespace", lambda: 1)
    assert state.read("wg0") is None
    assert state.read_all() == []


def test_a_tunnel_runs_while_its_very_interface_is_there():
    kept = made()
    assert not kept.is_running
    kept.interface, kept.index = "lo", state.index_of("lo")
    assert kept.is_running
    kept.index += 1
    assert not kept.is_running


def test_an_up_owns_it_while_its_process_lives():
    kept = made()
    assert kept.is_owned
    kept.finished = True
    assert not kept.is_owned
    kept.finished, kept.owner = False, f"{os.getpid()}/1"
    assert not kept.is_owned, "another process had that number"


def test_a_process_is_known_by_when_it_started_too():
    identity = state.process_identity(os.getpid())
    assert state.is_alive(identity)
    assert not state.is_alive(identity + "0")
    assert not state.is_alive("")


def test_what_was_never_written_is_removed_from_any_folder(monkeypatch):
    monkeypatch.setenv("PYWG_STATE_DIR", "/proc/self")  # where nothing can be removed
    state.remove("wg0")


def test_a_file_that_leads_too_deep_or_names_no_process_is_nobodys(folder):
    state.write(made())
    (file,) = folder.glob("*.json")
    values = json.loads(file.read_text()) | {"owner": "x/1"}
    file.write_text(json.dumps(values))
    assert not state.read("wg0").is_owned
    file.write_text("[" * 100_000)
    assert state.read("wg0") is None
