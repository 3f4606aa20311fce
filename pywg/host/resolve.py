"""Endpoints from names to addresses, with the patience that `wg` has while a name server is not there yet."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from pywg.config.model import EndpointName
from pywg.config.positions import ConfigError, Located, Mistake, quote
from pywg.errors import PywgError
from pywg.wire.endpoint import Endpoint

RETRIES = 15
"""How often a name is asked for again, when WG_ENDPOINT_RESOLUTION_RETRIES does not say."""

FIRST_WAIT, WAIT_FACTOR, LONGEST_WAIT = 1.0, 1.2, 20.0
"""Seconds between two tries: the first wait, how it grows, and where it stops growing."""

# Windows has no EAI_NODATA.
_PERMANENT = {
    getattr(socket, name, socket.EAI_NONAME)
    for name in ("EAI_NONAME", "EAI_FAIL", "EAI_NODATA", "EAI_SERVICE")
}

Lookup = Callable[..., list[Any]]


def retries_allowed() -> float:
    """WG_ENDPOINT_RESOLUTION_RETRIES as `wg` reads it: a number, or `infinity`. Raises PywgError."""
    text = os.environ.get("WG_ENDPOINT_RESOLUTION_RETRIES", str(RETRIES))
    if text == "infinity":
        return float("inf")
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise PywgError(f"WG_ENDPOINT_RESOLUTION_RETRIES is {quote(text)}, not a number or 'infinity'")
    return int(text)


def resolve_endpoint(
    name: EndpointName,
    say: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    lookup: Lookup = socket.getaddrinfo,
) -> Endpoint:
    """The first address that the system has for a name. Failures that may pass are tried again after a while.

    say: prints one line for each such failure. Raises PywgError, whose sentence names the endpoint.
    """
    retries, wait = retries_allowed(), FIRST_WAIT
    while True:
        try:
            found = lookup(name.host, name.port, socket.AF_UNSPEC, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
            break
        except UnicodeError:
            raise PywgError(f"{quote(str(name))} cannot be resolved: this is no host name") from None
        except OSError as error:
            reason = error.strerror or str(error)
            permanent = isinstance(error, socket.gaierror) and error.errno in _PERMANENT
            if permanent or retries <= 0:
                raise PywgError(f"{quote(str(name))} cannot be resolved: {reason}") from None
        retries -= 1
        say(f"{reason}: {quote(str(name))}. Trying again in {wait:.2f} seconds...")
        sleep(wait)
        wait = min(LONGEST_WAIT, wait * WAIT_FACTOR)
    if endpoints := _endpoints(found):
        return endpoints[0]
    raise PywgError(f"{quote(str(name))} has neither an IPv4 nor an IPv6 address")


def addresses_of(name: EndpointName, *, lookup: Lookup = socket.getaddrinfo) -> list[Endpoint]:
    """All addresses that the system has for a name, in its order, each once; asked for once.

    Raises PywgError, whose sentence names the endpoint.
    """
    try:
        found = lookup(name.host, name.port, socket.AF_UNSPEC, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
    except (OSError, UnicodeError) as error:
        raise PywgError(f"{quote(str(name))} cannot be resolved: {error}") from None
    return _endpoints(found)


def _endpoints(found: list[Any]) -> list[Endpoint]:
    """What getaddrinfo gave, without families that WireGuard does not speak."""
    return list(
        dict.fromkeys(
            Endpoint.from_sockaddr(address)
            for family, _, _, _, address in found
            if family in (socket.AF_INET, socket.AF_INET6)
        )
    )


def resolve_all(
    names: Iterable[Located[EndpointName]],
    say: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    lookup: Lookup = socket.getaddrinfo,
) -> dict[EndpointName, Endpoint]:
    """Resolve all endpoints of a file, each name once. Raises ConfigError with every one that failed."""
    endpoints: dict[EndpointName, Endpoint] = {}
    mistakes: dict[EndpointName, Mistake] = {}
    for name in names:
        if name.value in endpoints or name.value in mistakes:
            continue
        try:
            endpoints[name.value] = resolve_endpoint(name.value, say, sleep=sleep, lookup=lookup)
        except PywgError as error:
            mistakes[name.value] = Mistake(name.position, f"Endpoint: {error}")
    if mistakes:
        raise ConfigError(list(mistakes.values()))
    return endpoints
