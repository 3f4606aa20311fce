"""Which module brings tunnels up and down on this system; it is imported when that is asked for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Asked at run time, so that a checker of types for one system reads the branches of all.
_PLATFORM: str = sys.platform


def has_own_ways() -> bool:
    """Whether this is a system with other ways than Linux's: `bring_up` and `take_down` here are for it."""
    return _PLATFORM in ("darwin", "win32")


def bring_up(argument: str, say: Callable[[str], None]) -> None:
    """Bring up the tunnel of a file or a name on macOS or Windows; `say` prints a line. Raises PywgError."""
    if _PLATFORM == "win32":
        from pywg.host import windows_tunnel  # noqa: PLC0415

        windows_tunnel.bring_up(argument, say)
    else:
        from pywg.host import darwin_tunnel  # noqa: PLC0415

        darwin_tunnel.bring_up(argument, say)


def take_down(argument: str, say: Callable[[str], None]) -> None:
    """Take down what `bring_up` brought up. Raises PywgError."""
    if _PLATFORM == "win32":
        from pywg.host import windows_tunnel  # noqa: PLC0415

        windows_tunnel.take_down(argument, say)
    else:
        from pywg.host import darwin_tunnel  # noqa: PLC0415

        darwin_tunnel.take_down(argument, say)
