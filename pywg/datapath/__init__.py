"""All packet I/O: bursts between the tunnel device and the sockets, sealed and opened.

Which of the two data paths carries them is decided here: the compiled one where it was built and finds a
cipher library, else the portable one. PYWG_DATAPATH=portable or =compiled insists on one; PYWG_CIPHER on the
cipher library of the compiled one.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pywg.errors import PywgError
from pywg.tun.base import TunOffload

if TYPE_CHECKING:
    from pywg.datapath.base import DataPath
    from pywg.device.events import Probes
    from pywg.tun.base import Tun

VARIABLE = "PYWG_DATAPATH"
CIPHER_VARIABLE = "PYWG_CIPHER"


def open_datapath(tun: Tun) -> DataPath:
    """The data path for this tunnel device.

    Raises PywgError when PYWG_DATAPATH or PYWG_CIPHER asks for what is not here.
    """
    if tun.fileno() >= 0 and _reason_against_compiled() is None:
        from pywg.datapath.compiled import CompiledDataPath

        return CompiledDataPath(tun, _cipher())
    from pywg.datapath.portable import PortableDataPath

    return PortableDataPath(tun)


def load() -> None:
    """Import what `open_datapath` needs: whoever a daemon becomes may not be able to read it later.

    Raises PywgError where `open_datapath` would.
    """
    if _reason_against_compiled() is not None:
        import_module("pywg.datapath.portable")


def probes() -> Probes | None:
    """What fires the probes of the control plane; None without the compiled data path, which has them."""
    if _reason_against_compiled() is not None:
        return None
    from pywg.datapath.compiled import Probes

    return Probes()


def wanted_offload() -> TunOffload:
    """What a tunnel device is best opened with, told without importing a data path.

    Super-packets spare the compiled one most of its work; in Python their checksums cost more than they save.
    """
    compiled = (
        sys.platform.startswith("linux")
        and os.environ.get(VARIABLE) != "portable"
        and find_spec("pywg.datapath.compiled") is not None
    )
    return TunOffload(vnet_hdr=compiled, tso=compiled, uso=compiled)


def check_choice() -> None:
    """Raise PywgError where `open_datapath` would; imports a data path only if one is insisted on."""
    if os.environ.get(VARIABLE, "") not in ("", "auto") or _cipher() is not None:
        _reason_against_compiled()


def describe() -> str:
    """Which data path `open_datapath` takes for a device of the system, and with which cipher library.

    Raises PywgError when PYWG_DATAPATH or PYWG_CIPHER asks for what is not here.
    """
    reason = _reason_against_compiled()
    if reason is None:
        from pywg.datapath.compiled import cipher_library

        return f"compiled data path, {cipher_library(_cipher())}"
    from cryptography import __version__

    return f"portable data path ({reason}), cryptography {__version__}"


def _cipher() -> str | None:
    """The cipher library that the user insists on."""
    return os.environ.get(CIPHER_VARIABLE) or None


def _reason_against_compiled() -> str | None:
    """Why the portable data path is taken; None: the compiled one is."""
    choice = os.environ.get(VARIABLE) or "auto"
    if choice not in ("auto", "portable", "compiled"):
        raise PywgError(f"{VARIABLE}={choice} is not 'auto', 'portable' or 'compiled'")
    if choice == "portable":
        return f"{VARIABLE}=portable"
    if not sys.platform.startswith("linux"):  # nor does it know the frames of other systems' devices
        if choice == "compiled":
            raise PywgError(f"{VARIABLE}=compiled, but there is none for {sys.platform}")
        return f"there is no compiled one for {sys.platform}"
    try:
        from pywg.datapath.compiled import available, ciphers
    except ModuleNotFoundError:
        reason: str | None = "the compiled one is not built"
    except ImportError as error:  # built for another system
        reason = f"the compiled one cannot be loaded: {error}"
    else:
        reason = available()
        if reason is None and _cipher() not in (None, *ciphers()):
            raise PywgError(f"{CIPHER_VARIABLE}={_cipher()} was not found; here are: {', '.join(ciphers())}")
    if reason is not None and choice == "compiled":
        raise PywgError(f"{VARIABLE}=compiled, but {reason}")
    return reason
