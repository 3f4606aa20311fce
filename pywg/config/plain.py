"""A file's text as `wg setconf` reads it: wg-quick's own lines left out, pywg's own resolved, others kept.

Without lines of pywg's own it is what `wg-quick strip` prints, comments and blank lines included.
"""

from __future__ import annotations

from collections.abc import Iterator

from pywg.config.model import Config, Dialect
from pywg.config.parse import is_only_wg_quick_s, parse

_BLANK = " \t\n\v\f\r"


def plain_text(text: str, settled: Config) -> str:
    """Leave only what `wg` knows in the text of a file that was loaded. It holds all keys.

    text: the file's, without mistakes. settled: its model, as `load_text` gives it.
    """
    as_written = parse(text, "", Dialect.WG_QUICK)
    keys = dict(_key_lines(settled))
    allowed = dict(_allowed_ips_lines(as_written, settled))
    dropped = {entry.position.line for entry in as_written.extensions if entry.value != "Endpoint"}
    lines: list[str] = []
    in_interface = False
    for number, line in enumerate(text.removeprefix("\ufeff").removesuffix("\n").split("\n"), 1):
        code = line.partition("#")[0].strip(_BLANK)
        if code.startswith("["):
            in_interface = "".join(code.split()).lower() == "[interface]"
        key, _, value = code.partition("=")
        is_dropped = (
            number in dropped
            or (in_interface and is_only_wg_quick_s(key.strip(_BLANK)))
            or ("".join(key.split()).lower() == "allowedips" and not value.strip(_BLANK))  # wg refuses it
        )
        if number in keys:
            lines.append(keys[number])
        elif number in allowed:
            lines += allowed[number]
        elif not is_dropped:
            lines.append(line.strip(" \t"))
    return "".join(f"{line}\n" for line in [*lines, ""])


def _key_lines(settled: Config) -> Iterator[tuple[int, str]]:
    """Where keys from elsewhere were asked for, and what stands there instead."""
    interface = settled.interface
    if interface.private_key_source is not None and interface.private_key is not None:
        yield interface.private_key_source.position.line, f"PrivateKey = {interface.private_key.value.base64}"
    for peer in settled.peers:
        if peer.preshared_key_source is not None and peer.preshared_key is not None:
            line = peer.preshared_key_source.position.line
            yield line, f"PresharedKey = {peer.preshared_key.value.base64}"


def _allowed_ips_lines(as_written: Config, settled: Config) -> Iterator[tuple[int, list[str]]]:
    """The lines of AllowedIPs of which something was taken away, and what stands there instead."""
    for before, after in zip(as_written.peers, settled.peers, strict=True):
        if not before.disallowed_ips:
            continue
        left: dict[int, list[str]] = {entry.position.line: [] for entry in before.allowed_ips}
        for entry in after.allowed_ips:
            left[entry.position.line].append(str(entry.value))
        for line, entries in left.items():
            yield line, [f"AllowedIPs = {', '.join(entries)}"] if entries else []
