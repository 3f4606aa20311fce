"""Which file a name means, and what is said of files that are not fit to be read."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from pywg.config import files
from pywg.config.files import Location, load, locate, permission_warning, read_text, write_text
from pywg.config.positions import ConfigError
from pywg.errors import PywgError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory that only its owner may enter, beside an empty /etc/wireguard."""
    etc = tmp_path / "etc"
    etc.mkdir(mode=0o700)
    work = tmp_path / "work"
    work.mkdir(mode=0o700)
    monkeypatch.setattr(files, "CONFIG_DIRECTORY", etc)
    monkeypatch.chdir(work)
    return work


def message(function, *arguments) -> str:
    with pytest.raises(PywgError) as caught:
        function(*arguments)
    return str(caught.value)


def test_a_bare_name_means_the_file_in_etc_wireguard(here):
    path = files.CONFIG_DIRECTORY / "wg0.conf"
    path.touch()
    assert locate("wg0") == Location(str(path), "wg0")


def test_a_path_means_that_file(here):
    (here / "wg-home.conf").touch()
    assert locate("./wg-home.conf") == Location("./wg-home.conf", "wg-home")
    assert locate(f"{here}/wg-home.conf") == Location(f"{here}/wg-home.conf", "wg-home")


def test_a_file_name_without_a_slash_means_the_file_here(here):
    (here / "wg0.conf").touch()
    assert locate("wg0.conf") == Location("wg0.conf", "wg0")


def test_a_file_name_without_a_slash_means_the_one_in_etc_if_wg_quick_would_find_it(here):
    (here / "wg0.conf").touch()
    path = files.CONFIG_DIRECTORY / "wg0.conf.conf"
    path.touch()
    assert locate("wg0.conf") == Location(str(path), "wg0.conf")


def test_a_missing_file_is_told_with_what_to_do(here):
    etc = files.CONFIG_DIRECTORY
    expected = f"`{etc}/wg0.conf' does not exist; for a file elsewhere give a path with a '/' in it"
    assert message(locate, "wg0") == expected
    assert message(locate, "") == "an empty word names no file and no interface"
    assert message(locate, "./wg0.conf") == "`./wg0.conf' does not exist"
    assert message(locate, "wg0.conf") == "`wg0.conf' does not exist"


def test_instead_of_a_missing_file_the_one_that_was_meant_is_named(here):
    (here / "wg0.conf").touch()
    assert message(locate, "wg0") == f"`{files.CONFIG_DIRECTORY}/wg0.conf' does not exist; `./wg0.conf' does"
    assert message(locate, "./wg0") == "`./wg0' does not exist; `./wg0.conf' does"


@pytest.mark.parametrize(
    "name", ["wg0.txt", "sixteen-letters-.conf", "wg 0.conf", "wg0é.conf", ".conf", "...conf"]
)
def test_the_file_s_name_must_be_an_interface_s(here, name):
    (here / name).touch()
    assert "the file's name must be the interface's name" in message(locate, f"./{name}")


def test_a_symlink_s_own_name_counts(here):
    (here / "long-name-of-a-site.conf").touch()
    (here / "wg0.conf").symlink_to("long-name-of-a-site.conf")
    assert locate("./wg0.conf").interface == "wg0"


def test_load_gives_the_model_and_its_warnings(here):
    path = here / "wg0.conf"
    path.write_text(
        "[Interface]\nMTU = 1400\n[Peer]\nPublicKey=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
        "AllowedIPs = 10.0.0.1/8\n"
    )
    path.chmod(0o600)
    loaded = load("wg0.conf")
    assert loaded.location.interface == "wg0"
    assert loaded.config.interface.mtu.value == 1400
    assert loaded.warnings == [
        "Warning: wg0.conf:5:14: AllowedIPs: '10.0.0.1/8' has host bits set; 10.0.0.0/8 is used"
    ]


def test_a_file_that_everybody_may_read_gets_a_warning(here):
    path = here / "wg0.conf"
    path.write_text("[Interface]\n")
    path.chmod(0o604)
    assert permission_warning(str(path)) is None, "nobody else gets into the directory"
    here.chmod(0o705)
    expected = f"Warning: `{path}' is world accessible; close it with: chmod 600 {path}"
    assert permission_warning(str(path)) == expected
    assert load(str(path)).warnings == [expected]
    path.chmod(0o640)
    assert permission_warning(str(path)) is None
    assert permission_warning(str(here / "none")) is None


def test_a_command_that_is_told_can_be_pasted(here):
    folder = here / "my tunnels"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "wg0.conf").touch()
    (folder / "wg0.conf").chmod(0o644)
    told = permission_warning("my tunnels/wg0.conf")
    assert told.endswith("close it with: chmod 600 'my tunnels/wg0.conf'")


def test_an_empty_file_is_told(here):
    (here / "wg0.conf").touch()
    assert message(load, "wg0.conf") == "wg0.conf: the file is empty"


def test_a_directory_is_told(here):
    (here / "wg0.conf").mkdir()
    assert message(load, "./wg0.conf") == "./wg0.conf: is a directory, not a configuration file"


def test_a_binary_file_is_told(here):
    (here / "wg0.conf").write_bytes(b"\x7fELF\n\0\0\0")
    assert message(read_text, "wg0.conf") == "wg0.conf: is a binary file: there is a zero byte in line 2"


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_told(here, codec):
    (here / "wg0.conf").write_bytes("\ufeff[Interface]\n".encode(codec))
    assert message(read_text, "wg0.conf") == "wg0.conf: is UTF-16 text; save it as UTF-8"


def test_noise_is_a_list_of_mistakes(here):
    (here / "wg0.conf").write_bytes(bytes(range(1, 256)) * 20)
    assert message(load, "wg0.conf").startswith("wg0.conf:")


def test_a_file_that_went_away_is_told(here):
    assert message(read_text, "wg0.conf") == "wg0.conf: does not exist"


def test_a_path_that_cannot_be_one_is_told(here):
    assert message(read_text, "wg0\0.conf").endswith("cannot be read: embedded null byte")
    assert "cannot be read: File name too long" in message(read_text, "x" * 300)


def test_a_file_of_100_mb_is_refused_in_bounded_memory(here):
    with (here / "wg0.conf").open("wb") as file:
        file.write(b"[Interface]\n")
        file.truncate(100 * 1024 * 1024)
    tracemalloc.start()
    try:
        text = message(read_text, "wg0.conf")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert text == "wg0.conf: is larger than 16 MiB; this is no configuration file"
    assert peak < 3 * files.SIZE_LIMIT


def test_a_device_without_an_end_is_refused():
    assert (
        message(read_text, "/dev/zero") == "/dev/zero: is larger than 16 MiB; this is no configuration file"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user; run as root")
def test_an_unreadable_file_is_told():
    program = (
        "import os, sys, tempfile\n"
        "from pywg.config.files import read_text\n"
        "from pywg.config.positions import ConfigError\n"
        "file = tempfile.NamedTemporaryFile()\n"
        "os.setuid(65534)\n"
        "try:\n    read_text(file.name)\n"
        "except ConfigError as error:\n    print(str(error).removeprefix(file.name))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == ": may not be read by this user; try again as root\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user; run as root")
def test_a_folder_that_may_not_be_looked_into_is_told(tmp_path):
    program = (
        "import os, pathlib, sys\n"
        "from pywg.config import files\n"
        "from pywg.errors import PywgError\n"
        "files.CONFIG_DIRECTORY = pathlib.Path(sys.argv[1])\n"
        "os.setuid(65534)\n"
        "for name in ('wg0', 'wg0.conf'):\n"
        "    try:\n        files.locate(name)\n"
        "    except PywgError as error:\n        print(error)\n"
    )
    closed = tmp_path / "wireguard"
    closed.mkdir(0o700)
    command = [sys.executable, "-c", program, str(closed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
    assert done.stdout.splitlines() == [
        f"`{closed}/wg0.conf' may not be looked for by this user; try again as root",
        "`wg0.conf' does not exist",
    ]


def test_bytes_that_are_not_utf_8_survive_in_a_hook(here):
    path = here / "wg0.conf"
    path.write_bytes(b"[Interface]\nPostUp = echo \xff # \xe9\n")
    hook = load("wg0.conf").config.interface.post_up[0].value
    assert os.fsencode(hook) == b"echo \xff # \xe9"
    write_text(str(path), f"[Interface]\nPostUp = {hook}\n")
    assert path.read_bytes() == b"[Interface]\nPostUp = echo \xff # \xe9\n"


def test_a_file_is_written_for_its_owner_only(here):
    path = here / "wg0.conf"
    path.write_text("old")
    path.chmod(0o644)
    write_text(str(path), "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in here.iterdir()] == ["wg0.conf"]


def test_a_file_that_cannot_be_written_is_told_and_nothing_stays(here):
    assert (
        message(write_text, "none/wg0.conf", "x")
        == "none/wg0.conf: cannot be written: No such file or directory"
    )
    Path("wg0.conf").mkdir()
    assert message(write_text, "wg0.conf", "x") == "wg0.conf: cannot be written: Is a directory"
    assert [entry.name for entry in here.iterdir()] == ["wg0.conf"]


def test_a_config_error_keeps_its_mistakes(here):
    (here / "wg0.conf").write_text("x\ny\n")
    with pytest.raises(ConfigError) as caught:
        load("wg0.conf")
    assert [mistake.position.line for mistake in caught.value.mistakes] == [1, 2]


def test_what_is_no_ordinary_file_is_not_replaced(here):
    os.mkfifo("wg0.conf")
    said = message(write_text, "wg0.conf", "new")
    assert said == "wg0.conf: cannot be written: it is there already, and is no ordinary file"
    assert Path("wg0.conf").is_fifo()
    assert [entry.name for entry in here.iterdir()] == ["wg0.conf"]
