"""/etc/resolv.conf while tunnels come and go in any order: real files, in a folder of the test."""

from __future__ import annotations

import itertools
import os
import pathlib
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywg.errors import PywgError
from pywg.host.resolvfile import add, how_to_remove, how_to_write, remove

BEFORE = b"# by hand\nnameserver 192.0.2.53\noptions edns0\n"


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    file = tmp_path / "resolv.conf"
    file.write_bytes(BEFORE)
    return file


def effective(path: pathlib.Path) -> list[str]:
    """The lines that a resolver reads."""
    return [line for line in path.read_text().splitlines() if not re.match("[#;]", line)]


def test_a_tunnel_s_servers_are_the_only_ones_until_it_goes(path):
    add(path, "wg0", "nameserver 10.0.0.1\nnameserver fd00::1\nsearch corp.example lan\n")
    assert effective(path) == ["nameserver 10.0.0.1", "nameserver fd00::1", "search corp.example lan"]
    remove(path, "wg0")
    assert path.read_bytes() == BEFORE
    assert [entry.name for entry in path.parent.iterdir()] == ["resolv.conf"]


@pytest.mark.parametrize("order", list(itertools.permutations(["wg0", "wg1", "wg2"])))
def test_tunnels_go_in_any_order_and_the_newest_that_is_left_counts(path, order):
    for number in range(3):
        add(path, f"wg{number}", f"nameserver 10.0.0.{number}\n")
    up = ["wg0", "wg1", "wg2"]
    for name in order:
        assert effective(path) == [f"nameserver 10.0.0.{up[-1][-1]}"]
        remove(path, name)
        up.remove(name)
    assert path.read_bytes() == BEFORE


@given(
    before=st.binary(max_size=60).filter(lambda data: b"\0" not in data),
    downs=st.lists(st.sampled_from(["wg0", "wg1"])),
)
def test_whatever_was_there_is_there_again_to_the_byte(tmp_path_factory, before, downs):
    path = tmp_path_factory.mktemp("etc") / "resolv.conf"
    path.write_bytes(before)
    add(path, "wg0", "nameserver 10.0.0.1\n")
    add(path, "wg1", "nameserver 10.0.0.2\nsearch a\n")
    for name in [*downs, "wg0", "wg1", "wg1"]:
        remove(path, name)
    assert path.read_bytes() == before


def test_a_line_that_looks_like_ours_is_no_more_than_text(path):
    before = b"#boot x\n#+ wg7 nameserver 1.1.1.1\n#link /nowhere\n#absent\n#| x\n"
    path.write_bytes(before)
    add(path, "wg0", "nameserver 10.0.0.1\n")
    remove(path, "wg7")
    assert effective(path) == ["nameserver 10.0.0.1"]
    remove(path, "wg0")
    assert path.read_bytes() == before


def test_a_link_is_replaced_and_put_back_and_its_target_never_written(path):
    target = path.with_name("stub")
    path.rename(target)
    path.symlink_to("stub")
    add(path, "wg0", "nameserver 10.0.0.1\n")
    assert not path.is_symlink()
    assert target.read_bytes() == BEFORE
    target.write_bytes(b"nameserver 192.0.2.54\n")
    assert how_to_remove(path, "wg0") == f"ln -sfn stub {path}"
    remove(path, "wg0")
    assert path.readlink() == pathlib.Path("stub")
    assert effective(path) == ["nameserver 192.0.2.54"]


def test_a_link_that_leads_nowhere_is_put_back_too(path):
    path.unlink()
    path.symlink_to("/nowhere/resolv.conf")
    add(path, "wg0", "nameserver 10.0.0.1\n")
    assert effective(path) == ["nameserver 10.0.0.1"]
    remove(path, "wg0")
    assert path.readlink() == pathlib.Path("/nowhere/resolv.conf")


def test_a_file_that_was_not_there_is_gone_afterwards(path):
    path.unlink()
    add(path, "wg0", "nameserver 10.0.0.1\n")
    assert effective(path) == ["nameserver 10.0.0.1"]
    assert path.stat().st_mode & 0o777 == 0o644
    remove(path, "wg0")
    assert not path.exists()


def test_mode_and_owner_stay(path):
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 0, 7)
    before = path.stat()
    for change in (lambda: add(path, "wg0", "nameserver 10.0.0.1\n"), lambda: remove(path, "wg0")):
        change()
        after = path.stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_what_somebody_else_has_written_since_stays(path):
    add(path, "wg0", "nameserver 10.0.0.1\n")
    path.write_bytes(b"nameserver 198.51.100.1\n")
    remove(path, "wg0")
    assert path.read_bytes() == b"nameserver 198.51.100.1\n"


def test_the_same_tunnel_once_more_replaces_what_it_asked_for(path):
    add(path, "wg0", "nameserver 10.0.0.1\n")
    add(path, "wg1", "nameserver 10.0.0.2\n")
    add(path, "wg0", "nameserver 10.0.0.3\n")
    assert effective(path) == ["nameserver 10.0.0.3"]
    remove(path, "wg0")
    assert effective(path) == ["nameserver 10.0.0.2"]
    remove(path, "wg1")
    assert path.read_bytes() == BEFORE


@pytest.mark.parametrize("again", ["wg0", "wg1", None])
def test_tunnels_from_before_the_machine_s_start_are_forgotten(path, again):
    add(path, "wg0", "nameserver 10.0.0.1\n")
    path.write_text(re.sub("(?m)^#boot .*", "#boot 00000000-0000-0000-0000-000000000000", path.read_text()))
    if again is None:
        remove(path, "wg0")
        assert path.read_bytes() == BEFORE
        return
    add(path, again, "nameserver 10.0.0.2\n")
    assert effective(path) == ["nameserver 10.0.0.2"]
    remove(path, again)
    assert path.read_bytes() == BEFORE


def test_a_temporary_file_that_a_killed_program_left_is_no_obstacle(path):
    path.with_name("resolv.conf.pywg").write_text("half")
    add(path, "wg0", "nameserver 10.0.0.1\n")
    remove(path, "wg0")
    assert [entry.name for entry in path.parent.iterdir()] == ["resolv.conf"]


def test_a_folder_that_is_missing_is_told(path):
    with pytest.raises(PywgError, match=r"nowhere cannot be opened: No such file or directory"):
        add(path.parent / "nowhere" / "resolv.conf", "wg0", "nameserver 10.0.0.1\n")


def typed(command: str) -> None:
    subprocess.run(["sh", "-ec", command], check=True)


def test_the_shown_commands_do_the_same_by_hand(path):
    settings = "nameserver 10.0.0.1\nsearch corp.example lan\n"
    typed(how_to_write(path, settings))
    assert path.read_text() == settings
    path.write_bytes(BEFORE)
    add(path, "wg0", settings)
    add(path, "wg1", "nameserver 10.0.0.2\n")
    by_hand = path.with_name("by-hand")
    by_hand.write_bytes(path.read_bytes())
    typed(how_to_remove(by_hand, "wg1"))
    remove(path, "wg1")
    assert effective(by_hand) == effective(path)
    by_hand.write_bytes(path.read_bytes())
    typed(how_to_remove(by_hand, "wg0"))
    assert by_hand.read_bytes() == BEFORE
    path.unlink()
    add(path, "wg0", settings)
    typed(how_to_remove(path, "wg0"))
    assert not path.exists()
