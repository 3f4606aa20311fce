"""`pywg capture`: what an interface carries, inside and outside, into a file for Wireshark."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import struct
import sys
import time
from typing import BinaryIO

import click

from pywg.errors import PywgError
from pywg.observe.ownfile import open_own
from pywg.uapi.client import Client, has_daemon
from pywg.uapi.error import UapiError

_PACKET, _STATISTICS = 6, 5
_LONGEST = 1 << 20


@click.command("capture")
@click.argument("interface", metavar="INTERFACE")
@click.option("-w", "--write", "path", required=True, metavar="FILE", help="Where to; -: standard output.")
@click.option("--inner", "what", flag_value="inner", help="Inner packets only.")
@click.option("--outer", "what", flag_value="outer", help="Outer datagrams only.")
@click.option(
    "-s", "--snaplen", type=click.IntRange(1, 65535), default=65535, metavar="BYTES", help="Of each packet."
)
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="Leave after so many packets.")
@click.option(
    "--seconds", type=click.FloatRange(0.1, min_open=False), metavar="S", help="Leave after so long."
)
@click.option("--secrets", is_flag=True, help="Add what decrypts the datagrams; see below.")
def command(  # noqa: PLR0917  click hands them over
    interface: str,
    path: str,
    what: str | None,
    snaplen: int,
    count: int | None,
    seconds: float | None,
    secrets: bool,
) -> None:
    """Capture what an interface of pywgd carries as pcapng, until interrupted.

    Packets that go no further have the reason as a comment. With --secrets Wireshark can open the datagrams
    of sessions that begin from now on; whoever has the file then has the private key of this interface.
    """
    if not has_daemon(interface):
        raise PywgError(
            f"{interface} has no daemon here; `pywg show interfaces` lists the interfaces, and tcpdump "
            f"captures on those of the kernel"
        )
    if secrets:
        click.echo(
            f"Warning: {path} will hold the private key of {interface}; keep it for yourself", err=True
        )
    request = [f"what={what or 'both'}", f"snaplen={snaplen}", f"name={interface}"]
    request += ["secrets=true"] if secrets else []
    try:
        with Client.open(interface) as client, client.stream("capture=1", *request) as stream:
            blocks = Blocks(stream)
            section = blocks.next()  # before the file is touched: the daemon may refuse
            with _open(path) as file:
                click.echo(f"pywg: capturing on {interface}", err=True)
                captured, lost = _copy(section, blocks, file, count, seconds)
    except UapiError as error:
        if error.errno == errno.EBUSY:
            raise PywgError(f"{interface}: another capture of it runs; there is one at a time") from None
        raise PywgError(f"{interface}: {error}") from None
    lost_text = f", {lost} lost for want of room" if lost else ""
    click.echo(f"pywg: {captured} packets captured{lost_text}", err=True)


class Blocks:
    """The blocks of a pcapng stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def fileno(self) -> int:
        """To wait for."""
        return self._stream.fileno()

    def say_enough(self) -> None:
        """Have the daemon send what has passed until now, and end."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.fileno())) as connection:
            connection.shutdown(socket.SHUT_WR)

    def next(self) -> bytes:
        """The next one; empty at the end. Raises UapiError when the daemon says no."""
        head = self._stream.read(8)
        if len(head) < 8:
            Client.explain_end(head)
            return b""
        if head.startswith(b"errno="):
            Client.explain_end(head + self._stream.readline())
            return b""
        _, length = struct.unpack("<II", head)
        if not 12 <= length <= _LONGEST:
            raise PywgError("the daemon's answer is no capture")
        rest = self._stream.read(length - 8)
        return head + rest if len(rest) == length - 8 else b""


def _open(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    if path == "-":
        if sys.stdout.isatty():
            raise PywgError("a capture is no text: write it into a file, or pipe it into `wireshark -k -i -`")
        return contextlib.nullcontext(sys.stdout.buffer)
    try:
        descriptor = open_own(path)
    except OSError as error:
        raise PywgError(f"{path} cannot be written: {error.strerror}") from None
    return os.fdopen(descriptor, "wb")


def _copy(
    block: bytes, blocks: Blocks, file: BinaryIO, count: int | None, seconds: float | None
) -> tuple[int, int]:
    """Copy blocks until it is enough; how many packets there were, and how many were lost."""
    captured = lost = 0
    until = None if seconds is None else time.monotonic() + seconds
    before = signal.signal(signal.SIGINT, lambda *_: blocks.say_enough())
    try:
        while block:
            file.write(block)
            file.flush()
            kind = int.from_bytes(block[:4], "little")
            captured += kind == _PACKET
            lost += int.from_bytes(block[24:32], "little") if kind == _STATISTICS else 0
            if captured == count:
                break
            if until is not None and not _comes(blocks, until):
                blocks.say_enough()
                until = None
            block = blocks.next()
    except BrokenPipeError:
        pass  # whoever read has enough
    finally:
        signal.signal(signal.SIGINT, before)
    return captured, lost


def _comes(blocks: Blocks, until: float) -> bool:
    """Whether anything more comes before the time is over."""
    import select

    left = until - time.monotonic()
    return left > 0 and bool(select.select([blocks], [], [], left)[0])
