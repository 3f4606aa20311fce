"""Puts a diagnosis together: what an argument means, which checks are made of it, and when.

Files and the host are looked at while the handshakes are watched; pings come last, as they need sessions.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pywg.config import files
from pywg.config.model import Config
from pywg.config.positions import ConfigError
from pywg.errors import PywgError
from pywg.host import control, state
from pywg.observe import checks, checks_files, checks_handshake, checks_host, checks_traffic
from pywg.observe.checks import Subject
from pywg.observe.findings import Finding, settle
from pywg.observe.watching import SECONDS, watch


def subjects(
    argument: str | None, other: str | None = None, ping: Sequence[str] = (), patience: float = SECONDS
) -> list[Subject]:
    """What to look at: an interface with its file, a file with its interface, or all that run or were to run.

    other: the path of the other end's file. ping: addresses in the tunnel. patience: seconds that
    handshakes are waited for. Raises PywgError when the argument
    means nothing, or there is nothing.
    """
    for text in ping:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise PywgError(f"--ping takes an address in the tunnel, not '{text}'") from None
    running = control.list_interfaces()
    if argument is None:
        names = list(dict.fromkeys([*running, *(known.interface for known in state.read_all())]))
        if not names:
            raise PywgError("there is no WireGuard interface here; `pywg up FILE` brings one up")
    else:
        names = [argument]
    if other is not None and len(names) > 1:
        raise PywgError(f"--other is about one tunnel; name it: {', '.join(names)}")
    found = [_subject(name, running, ping) for name in names]
    for subject in found:
        subject.patience = patience
    if other is not None:
        found[0].other, found[0].other_path = _load(other, found[0].interface), other
    return found


def diagnose(subject: Subject) -> list[Finding]:
    """All findings, the worst and likeliest first."""
    with ThreadPoolExecutor(2) as threads:
        watching = threads.submit(checks.run, [handshakes_under_watch], subject)
        of_host = checks_host.CHECKS_FROM_ELSEWHERE if subject.is_elsewhere else checks_host.CHECKS
        found = checks.run([*checks_files.CHECKS, *of_host], subject)
        found += watching.result()
    found += checks.run(checks_handshake.CHECKS, subject)
    if subject.device is not None and not subject.is_elsewhere:
        found += checks.run(checks_traffic.CHECKS, subject)
    return settle(found)


def handshakes_under_watch(subject: Subject) -> list[Finding]:
    """No check: what others look at is gathered."""
    watch(subject, subject.patience)
    return []


def _subject(argument: str, running: Sequence[str], ping: Sequence[str]) -> Subject:
    is_name = files.is_interface_name(argument)
    known = state.read(argument) if is_name else None
    path: str | None
    if is_name and (argument in running or known is not None):
        interface = argument
        default = str(files.CONFIG_DIRECTORY / f"{argument}.conf")
        path = known.path if known is not None else default if _exists(default) else None
        subject = Subject(interface, path, state=known, ping=tuple(ping))
    else:
        location = files.locate(argument)
        known = state.read(location.interface)
        subject = Subject(
            location.interface, location.path, given_file=not is_name, state=known, ping=tuple(ping)
        )
    if subject.path is not None and _exists(subject.path):
        try:
            subject.config = files.load(_as_path(subject.path)).config
        except ConfigError as error:
            subject.mistakes = tuple(str(error).splitlines())
    if subject.interface in running:
        try:
            subject.device = control.get(subject.interface)
        except PywgError as error:
            subject.unreadable = str(error)
    subject.names = dict(subject.state.names) if subject.state is not None else {}
    subject.names.update(state.named_peers(subject.config) if subject.config is not None else {})
    return subject


def _exists(path: str) -> bool:
    """False too for what may not be looked at."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def _as_path(path: str) -> str:
    """`files.load` takes a bare name for one in /etc/wireguard."""
    return path if "/" in path else f"./{path}"


def _load(path: str, interface: str) -> Config:
    """The other end's file, whatever it is called. Raises PywgError."""
    return files.load_text(files.Location(path, interface), files.read_text(path)).config
