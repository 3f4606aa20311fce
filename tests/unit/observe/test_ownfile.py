from __future__ import annotations

import os
import pathlib

import pytest

from pywg.observe.ownfile import open_own

NOBODY = 65534


def write(path: pathlib.Path, text: bytes, *, append: bool = False) -> None:
    with os.fdopen(open_own(os.fspath(path), append=append), "wb") as file:
        file.write(text)


@pytest.fixture
def shared(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder like /tmp."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


@pytest.mark.parametrize(("append", "text"), [(False, b"new"), (True, b"old and new")])
def test_a_file_that_others_could_read_is_its_owners_alone(
    shared: pathlib.Path, append: bool, text: bytes
) -> None:
    path = shared / "file"
    path.write_bytes(b"old and ")
    path.chmod(0o644)
    write(path, b"new", append=append)
    assert path.read_bytes() == text
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_file_is_its_owners_alone(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = os.umask(0)
    try:
        write(pathlib.Path("file"), b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("append", [False, True])
def test_where_everybody_may_write_no_link_is_followed(
    tmp_path: pathlib.Path, shared: pathlib.Path, append: bool
) -> None:
    (tmp_path / "passwd").write_bytes(b"root")
    (shared / "link").symlink_to(tmp_path / "passwd")
    (shared / "dangling").symlink_to(tmp_path / "new")
    (shared / "second").hardlink_to(tmp_path / "passwd")
    for name, said in (("link", "it is a link"), ("dangling", "it is a link"), ("second", "a second name")):
        with pytest.raises(OSError, match=said):
            write(shared / name, b"gone", append=append)
    assert (tmp_path / "passwd").read_bytes() == b"root"
    assert not (tmp_path / "new").exists()


def test_elsewhere_links_are_followed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
@pytest.mark.parametrize("make", [pathlib.Path.touch, os.mkfifo])
def test_where_everybody_may_write_what_is_somebody_elses_is_not_used(shared, make) -> None:
    path = shared / "file"
    make(path)
    os.chown(path, NOBODY, -1)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OSError, match="somebody else's"):
            write(path, b"secret")
        assert os.read(reader, 9) == b""
    finally:
        os.close(reader)


def test_a_pipe_is_written_to(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write(tmp_path / "pipe", b"new")
        assert os.read(reader, 9) == b"new"
    finally:
        os.close(reader)
