"""The one setting of the kernel that a default route needs: the check of source addresses goes by marks."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path("/proc/sys/net/ipv4/conf")
_STRICT = 1


def src_valid_mark() -> int:
    """net.ipv4.conf.all.src_valid_mark; 0 when it cannot be read."""
    return _read(_FOLDER / "all/src_valid_mark")


def set_src_valid_mark(value: int) -> None:
    """Set it. Raises OSError: /proc/sys is read-only in many containers."""
    (_FOLDER / "all/src_valid_mark").write_text(f"{value}\n", encoding="ascii")


def strict_interfaces() -> list[str]:
    """The interfaces on which packets are dropped whose answer would leave by another one."""
    everywhere = _read(_FOLDER / "all/rp_filter")
    try:
        names = sorted(folder.name for folder in _FOLDER.iterdir())
    except OSError:
        return []
    return [
        name
        for name in names
        if name not in ("all", "default", "lo")
        and max(everywhere, _read(_FOLDER / name / "rp_filter")) == _STRICT
    ]


def _read(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
