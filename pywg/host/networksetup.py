"""Name servers on macOS: they belong to its network services, and `networksetup` sets them.

Every service gets the tunnel's; what each had before is kept by the caller and given back by `restore`.
Experimental: never run on a Mac.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pywg.errors import PywgError
from pywg.host.command import run

_NONE = "Empty"


class Resolver(NamedTuple):
    """Addresses of name servers and search domains, as networksetup takes them: `Empty` for none."""

    servers: list[str]
    search: list[str]


def services() -> list[str]:
    """The names of all network services, also of those that are switched off."""
    lines = run(["networksetup", "-listallnetworkservices"]).splitlines()
    return [line.removeprefix("*") for line in lines[1:] if line]  # the first explains the asterisk


def resolver_of(service: str) -> Resolver:
    """What a service has now."""
    return Resolver(_ask("-getdnsservers", service), _ask("-getsearchdomains", service))


def _ask(option: str, service: str) -> list[str]:
    lines = run(["networksetup", option, service]).split("\n")
    values = [line for line in lines if line]
    return [_NONE] if not values or any(" " in value for value in values) else values  # a sentence: none


def save(saved: dict[str, Resolver]) -> bool:
    """Note what services have that are not in `saved` yet, and forget those that are gone.

    Returns whether something changed; that is to be kept before `apply`. Raises PywgError.
    """
    present = services()
    gone, new = saved.keys() - set(present), [service for service in present if service not in saved]
    for service in gone:
        del saved[service]
    for service in new:
        saved[service] = resolver_of(service)
    return bool(gone or new)


def apply(wanted: Resolver, saved: dict[str, Resolver]) -> None:
    """Give all services in `saved` the tunnel's, where they have something else. Raises PywgError."""
    wanted = Resolver(wanted.servers or [_NONE], wanted.search or [_NONE])
    for service in saved:
        if resolver_of(service) != wanted:
            _set(service, wanted)


def restore(saved: dict[str, Resolver]) -> None:
    """Give every service back what it had, but for those that are gone.

    Raises PywgError for the last that refused; the others have it.
    """
    failed: PywgError | None = None
    present = services() if saved else []
    for service, resolver in saved.items():
        try:
            if service in present:
                _set(service, resolver)
        except PywgError as error:
            failed = error
    if failed is not None:
        raise failed


def _set(service: str, resolver: Resolver) -> None:
    run(["networksetup", "-setdnsservers", service, *resolver.servers])
    run(["networksetup", "-setsearchdomains", service, *resolver.search])


def shown(servers: Sequence[str]) -> str:
    """The step as it is shown, for all services."""
    return f"networksetup -setdnsservers SERVICE {' '.join(servers) or _NONE}"
