"""`pywg qr`: a configuration file as a QR code, on the terminal or as a picture."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pywg.config.files import Loaded, load, write_bytes
from pywg.config.phone import for_phone
from pywg.config.positions import quote
from pywg.config.write import write
from pywg.errors import PywgError

if TYPE_CHECKING:
    import segno

LARGEST = 2953
"""Bytes that the largest QR code holds, with the least redundancy (ISO/IEC 18004)."""

BORDER_ON_TERMINAL, BORDER, PIXELS = 2, 4, 8
"""Light modules around the code; the standard wants 4, readers are content with 2. Pixels of a side."""

_BLOCKS = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
_BLACK_ON_WHITE, _RESET = "\x1b[38;5;16;48;5;231m", "\x1b[0m"


@click.command("qr")
@click.argument("config", metavar="CONFIG|NAME")
@click.option("--peer", metavar="NAME", help="The file of this peer, which `pywg new` wrote beside CONFIG.")
@click.option("-o", "--output", metavar="FILE", help="Write a picture, FILE.png or FILE.svg, instead.")
def command(config: str, peer: str | None, output: str | None) -> None:
    """Show a configuration file as a QR code, which the WireGuard app of a phone reads.

    It holds the private key: whoever takes a picture of it can pass for that peer. Keys from other files are
    put in; hooks and other settings that phones do not know are left out.
    """
    loaded = load(config)
    if peer is not None:
        loaded = _file_of_peer(loaded, peer)
    for warning in loaded.warnings:
        click.echo(warning, err=True)
    kept, left_out = for_phone(loaded.config)
    path = loaded.location.path
    if kept.interface.private_key is None:
        raise PywgError(f"{path}: there is no private key in it; a phone cannot use it")
    kind = Path(output).suffix.lower() if output else ""
    if output and kind not in (".png", ".svg"):
        raise click.UsageError(f"{output}: pictures are .png or .svg")
    code = _encode(path, write(kept))
    if left_out:
        click.echo(f"Warning: phones do not know it, so it is left out: {', '.join(left_out)}", err=True)
    click.echo(f"Warning: this shows the private key of {path}; let nobody take a picture of it", err=True)
    if output:
        stream = io.BytesIO()
        code.save(stream, kind=kind[1:], scale=PIXELS, border=BORDER)
        write_bytes(output, stream.getvalue())
    else:
        _print(code)


def _file_of_peer(hub: Loaded, name: str) -> Loaded:
    """The file beside the hub's whose private key belongs to the peer of this name."""
    path = hub.location.path
    found = [peer for peer in hub.config.peers if peer.name is not None and peer.name.value == name]
    if len({peer.public_key.value for peer in found}) != 1:
        names = ", ".join(peer.name.value for peer in hub.config.peers if peer.name is not None)
        what = "is the name of several peers" if found else "is no peer's name"
        raise PywgError(f"{path}: {quote(name)} {what} here; there are: {names or 'no names'}")
    beside = Path(path).parent / f"{name}.conf"
    if "/" in name or not beside.exists():
        raise PywgError(
            f"{path}: {quote(str(beside))} does not exist; the private key of a peer is only in its own file"
        )
    loaded = load(str(beside) if "/" in str(beside) else f"./{beside}")
    key = loaded.config.interface.private_key
    if key is None or key.value.public_key != found[0].public_key.value:
        raise PywgError(f"{beside} is not the file of the peer {quote(name)}: its key is another one")
    return loaded


def _encode(path: str, text: str) -> segno.QRCode:
    try:
        import segno  # an extra
    except ModuleNotFoundError:
        raise PywgError(f"QR codes need the package segno: {sys.executable} -m pip install segno") from None
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > LARGEST:
        raise PywgError(f"{path}: {len(data)} bytes are too many for a QR code, which holds {LARGEST}")
    return segno.make_qr(data, error="l", mode="byte", boost_error=False)


def _print(code: segno.QRCode) -> None:
    rows = [[bool(module) for module in row] for row in code.matrix_iter(border=BORDER_ON_TERMINAL)]
    if sys.stdout.isatty() and shutil.get_terminal_size().columns < len(rows):
        raise PywgError(
            f"the QR code is {len(rows)} columns wide; make the window wider, or write a picture: -o FILE.png"
        )
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in half_blocks(rows, inverted=not colours):
        click.echo(f"{_BLACK_ON_WHITE}{line}{_RESET}" if colours else line, color=True)


def half_blocks(rows: Sequence[Sequence[bool]], *, inverted: bool) -> Iterator[str]:
    """Two rows of modules for each line of text. inverted: drawn are the light modules, for dark screens."""
    padded = [*rows, [inverted] * len(rows[0])] if len(rows) % 2 else rows
    for upper, lower in zip(padded[::2], padded[1::2], strict=True):
        yield "".join(
            _BLOCKS[above != inverted, below != inverted] for above, below in zip(upper, lower, strict=True)
        )
