"""Reads the static probes of a module as tools do: their notes, and who is attached to a running process."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import struct


@dataclasses.dataclass(frozen=True, slots=True)
class Probe:
    """One probe. arguments: as the assembler was told. semaphore: its address, as the file was linked."""

    provider: str
    name: str
    arguments: list[str]
    semaphore: int


def probes_of(module: pathlib.Path) -> list[Probe]:
    """What the notes in an ELF file of 64 bits, least byte first, say."""
    found = []
    data = module.read_bytes()
    # Sizes of the owner's name and of the content, type 3, the name; then three addresses, three texts.
    for match in re.finditer(rb"\x08\0\0\0(....)\x03\0\0\0stapsdt\0", data, re.DOTALL):
        (size,) = struct.unpack("<I", match[1])
        content = data[match.end() : match.end() + size]
        _, _, semaphore = struct.unpack_from("<QQQ", content)
        provider, name, arguments = content[24:].decode().split("\0")[:3]
        found.append(Probe(provider, name, arguments.split(), semaphore))
    return found


def attached(pid: int, module: pathlib.Path, probe: Probe) -> int:
    """How many are attached to a probe in this process."""
    with pathlib.Path(f"/proc/{pid}/mem").open("rb") as memory:
        memory.seek(_base(pid, module) + probe.semaphore)
        return int(struct.unpack("<H", memory.read(2))[0])


def attach(pid: int, module: pathlib.Path, probe: Probe, change: int) -> None:
    """Say that one more is attached (1), or one less (-1): as tools do where the kernel does not."""
    count = attached(pid, module, probe) + change
    with pathlib.Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        memory.seek(_base(pid, module) + probe.semaphore)
        memory.write(struct.pack("<H", count))


def _base(pid: int, module: pathlib.Path) -> int:
    """Where the process has the file's first byte."""
    lines = pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
    return min(int(line.split("-")[0], 16) for line in lines if line.endswith(str(module)))
