"""`pywg qr`: what is drawn is decoded again, by another library."""

from __future__ import annotations

import builtins
import contextlib
import os
import pty
import stat
import subprocess
import sys
import termios
from xml.etree import ElementTree

import pytest
import zxingcpp
from click.testing import CliRunner
from PIL import Image, ImageOps

from pywg.cli.pywg import main
from pywg.cli.qr import half_blocks
from pywg.noise.keys import PrivateKey

KEY = PrivateKey.generate(lambda count: bytes(range(count)))
PEER = f"[Peer]\nPublicKey = {KEY.public_key}\nAllowedIPs = 0.0.0.0/0\nEndpoint = [2001:db8::1]:51820\n"
TEXT = f"[Interface]\nAddress = 10.0.0.2/24\nDNS = 10.0.0.1\nPrivateKey = {KEY.base64}\n\n{PEER}"


@pytest.fixture
def run(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)

    def show(text: str, *options: str, **files: str):
        for name, content in {"wg0": text, **files}.items():
            (tmp_path / f"{name}.conf").write_text(content)
            (tmp_path / f"{name}.conf").chmod(0o600)
        return CliRunner().invoke(main, ["qr", "./wg0.conf", *options])

    return show


def decoded(picture: Image.Image) -> str:
    (found,) = zxingcpp.read_barcodes(picture, formats=zxingcpp.BarcodeFormat.QRCode)
    return found.bytes.decode()


def picture_of(lines: list[str]) -> Image.Image:
    """What a dark screen shows: characters are light, four pixels square to each half of one."""
    halves = {" ": (0, 0), "▀": (255, 0), "▄": (0, 255), "█": (255, 255)}
    rows = [bytes(halves[char][half] for char in line) for line in lines for half in (0, 1)]
    picture = Image.frombytes("L", (len(rows[0]), len(rows)), b"".join(rows))
    return picture.resize((picture.width * 4, picture.height * 4), Image.Resampling.NEAREST)


def test_what_the_terminal_shows_is_the_file(run):
    done = run(TEXT)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert decoded(picture_of(lines)) == TEXT
    assert (
        done.stderr == "Warning: this shows the private key of ./wg0.conf; let nobody take a picture of it\n"
    )


def test_a_picture_is_the_file_and_only_its_owner_s(run, tmp_path):
    assert run(TEXT, "-o", "wg0.PNG").exit_code == 0
    assert stat.S_IMODE((tmp_path / "wg0.PNG").stat().st_mode) == 0o600
    with Image.open(tmp_path / "wg0.PNG") as image:
        assert decoded(image.convert("L")) == TEXT


def test_a_drawing_is_svg_and_only_its_owner_s(run, tmp_path):
    assert run(TEXT, "-o", "wg0.svg").exit_code == 0
    assert stat.S_IMODE((tmp_path / "wg0.svg").stat().st_mode) == 0o600
    root = ElementTree.parse(tmp_path / "wg0.svg").getroot()
    assert root.tag.endswith("svg")
    assert len(root) > 0


def test_phones_get_what_they_know_with_keys_from_elsewhere(run, tmp_path):
    (tmp_path / "key").write_text(KEY.base64)
    (tmp_path / "key").chmod(0o600)
    done = run(
        "[Interface]\n#pywg PrivateKeyFile = key\nPostUp = x\nTable = off\nAddress = 10.0.0.2/24\n"
        f"DNS = 10.0.0.1\n{PEER}# Name = hub\n#pywg Endpoint = b:1\n"
    )
    assert decoded(picture_of(done.stdout.splitlines())) == TEXT
    assert done.stderr.startswith(
        "Warning: phones do not know it, so it is left out: Table, PostUp, further endpoints\n"
    )


def hub_of(*names: str) -> str:
    key = PrivateKey.generate(lambda count: b"h" * count)
    peers = "".join(
        f"[Peer]\n# Name = {name}\nPublicKey = {(KEY if name == 'alice' else key).public_key}\n"
        for name in names
    )
    return f"[Interface]\nPrivateKey = {key.base64}\n{peers}"


def test_a_peer_s_file_is_the_one_beside_with_the_peer_s_key(run):
    done = run(hub_of("alice", "bob"), "--peer", "alice", alice=TEXT)
    assert decoded(picture_of(done.stdout.splitlines())) == TEXT


@pytest.mark.parametrize(
    ("names", "peer", "files", "told"),
    [
        (["alice"], "bob", {}, "./wg0.conf: 'bob' is no peer's name here; there are: alice"),
        ([], "bob", {}, "./wg0.conf: 'bob' is no peer's name here; there are: no names"),
        (
            ["alice"],
            "alice",
            {},
            "./wg0.conf: 'alice.conf' does not exist; the private key of a peer is only in",
        ),
        (["bob"], "bob", {"bob": TEXT}, "bob.conf is not the file of the peer 'bob': its key is another one"),
    ],
)
def test_a_peer_without_a_file_is_told(run, names, peer, files, told):
    done = run(hub_of(*names), "--peer", peer, **files)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"pywg: {told}")


def test_what_cannot_be_shown_is_told(run):
    assert "there is no private key in it" in run("[Interface]\n").stderr
    large = TEXT + "".join(f"AllowedIPs = 10.{number}.0.0/16\n" for number in range(200))
    assert "bytes are too many for a QR code, which holds 2953" in run(large).stderr
    assert run(TEXT, "-o", "x.gif").exit_code == 2


def test_without_the_library_the_command_that_installs_it_is_told(run, monkeypatch):
    find = builtins.__import__

    def without(name, *arguments, **options):
        if name == "segno":
            raise ModuleNotFoundError(name)
        return find(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    done = run(TEXT)
    assert done.stderr == f"pywg: QR codes need the package segno: {sys.executable} -m pip install segno\n"
    assert (done.exit_code, done.stdout) == (1, "")


def on_terminal(columns: int, directory, **environment: str) -> tuple[int, str]:
    """The status of `pywg qr` on a terminal so wide, and what the terminal got."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, columns))
    variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-c", "from pywg.cli.pywg import main; main()", "qr", directory / "wg0.conf"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**variables, "TERM": "xterm", "LC_ALL": "C.UTF-8", **environment},
    ) as process:
        os.close(theirs)
        with os.fdopen(ours, "rb", 0) as terminal:
            printed = b""
            with contextlib.suppress(OSError):  # the terminal is gone when its last program has ended
                while piece := terminal.read(65536):
                    printed += piece
    return process.returncode, printed.decode()


def test_a_terminal_gets_black_on_white_unless_it_wants_no_colours(run, tmp_path):
    run(TEXT)
    status, printed = on_terminal(80, tmp_path)
    lines = [line for line in printed.splitlines() if line.startswith("\x1b[38;5;16;48;5;231m")]
    drawn = [line.removeprefix("\x1b[38;5;16;48;5;231m").removesuffix("\x1b[0m") for line in lines]
    assert status == 0
    assert decoded(ImageOps.invert(picture_of(drawn))) == TEXT
    status, printed = on_terminal(80, tmp_path, NO_COLOR="1")
    assert status == 0
    assert "\x1b" not in printed
    assert decoded(picture_of([line for line in printed.splitlines() if "█" in line])) == TEXT


def test_a_terminal_that_is_too_narrow_is_told(run, tmp_path):
    run(TEXT)
    status, printed = on_terminal(40, tmp_path)
    assert status == 1
    assert "columns wide; make the window wider, or write a picture: -o FILE.png" in printed
    assert "█" not in printed


def test_dark_modules_are_drawn_unless_the_screen_is_dark():
    rows = [[True, False], [False, False], [True, True]]
    assert list(half_blocks(rows, inverted=False)) == ["▀ ", "▀▀"]
    assert list(half_blocks(rows, inverted=True)) == ["▄█", "  "]
