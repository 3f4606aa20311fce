"""What is decided about name servers before anything is touched; tests/system/test_dns.py sets them."""

from __future__ import annotations

import json
import pathlib
import socket

import pytest

from pywg.errors import PywgError
from pywg.host.dns import (
    FileDns,
    ResolvconfDns,
    ResolvedDns,
    recall_dns,
    resolv_conf_text,
    resolvconf_prefix,
    resolved_runs_here,
)

SERVERS, SEARCH = ["10.0.0.1", "fd00::1"], ["corp.example", "lan"]


def test_the_text_has_a_line_for_each_server_and_one_for_all_domains():
    assert resolv_conf_text(SERVERS, SEARCH) == (
        "nameserver 10.0.0.1\nnameserver fd00::1\nsearch corp.example lan\n"
    )
    assert resolv_conf_text(["10.0.0.1"], []) == "nameserver 10.0.0.1\n"


@pytest.mark.parametrize(
    "change",
    [
        ResolvedDns("wg0", SERVERS, SEARCH),
        ResolvconfDns("tun.wg0", SERVERS, SEARCH),
        FileDns("wg0", SERVERS, SEARCH, pathlib.Path("/nowhere/resolv.conf")),
    ],
)
def test_a_recorded_change_is_recalled_as_it_was(change):
    recalled = recall_dns(json.loads(json.dumps(change.record())))
    assert type(recalled) is type(change)
    assert recalled.record() == change.record()
    assert recalled.shown == change.shown
    assert recalled.undo_shown == change.undo_shown


@pytest.mark.parametrize("record", [{}, {"way": "telepathy", "name": "wg0", "servers": [], "search": []}])
def test_a_record_that_is_none_is_told(record):
    with pytest.raises(PywgError, match="cannot be read"):
        recall_dns(record)


def test_the_commands_are_shown_as_one_would_type_them():
    resolved, resolvconf = ResolvedDns("wg0", SERVERS, SEARCH), ResolvconfDns("tun.wg0", SERVERS, SEARCH)
    assert resolved.shown == (
        "resolvectl dns wg0 10.0.0.1 fd00::1; resolvectl domain wg0 corp.example lan '~.'"
    )
    assert resolved.undo_shown == "resolvectl revert wg0"
    assert resolvconf.shown == (
        "printf '%s\\n' 'nameserver 10.0.0.1' 'nameserver fd00::1' 'search corp.example lan'"
        " | resolvconf -a tun.wg0 -m 0 -x"
    )
    assert resolvconf.undo_shown == "resolvconf -d tun.wg0 -f"


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("# comment\nlo.inet*\nlo\ntun*\ntap*\n", "tun."),
        ("  tap-x*  \ntun*\n", "tap-x."),
        ("lo.!(pppconfig)\n@(br|eth)*([^.]).inet\n*\n", ""),
        ("", ""),
    ],
)
def test_debian_s_order_of_interfaces_gives_the_prefix(tmp_path, text, prefix):
    (tmp_path / "interface-order").write_text(text)
    assert resolvconf_prefix(tmp_path / "interface-order") == prefix


def test_without_an_order_there_is_no_prefix(tmp_path):
    assert resolvconf_prefix(tmp_path / "interface-order") == ""


def test_resolved_is_there_when_its_socket_is_listened_on_in_this_network(tmp_path, monkeypatch):
    path = tmp_path / "socket"
    monkeypatch.setenv("PATH", str(tmp_path))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        (tmp_path / "resolvectl").touch(0o755)
        assert not resolved_runs_here(path)
        listener.listen()
        assert resolved_runs_here(path)
        (tmp_path / "resolvectl").unlink()
        assert not resolved_runs_here(path)
