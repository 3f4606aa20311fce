"""The events of several interfaces in one stream, with the names that people gave to peers."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from pywg.errors import PywgError, printable
from pywg.host.peernames import peer_names
from pywg.observe.findings import short_key
from pywg.uapi.client import Client, has_daemon, list_interfaces
from pywg.uapi.error import UapiError

Event = dict[str, Any]
"""As `docs/reference/statistics.md` says, with `interface` and `name` (of the peer, or null) in addition."""


class EventStream:
    """Follows daemons from threads of its own; `close` is not needed at the end of a program.

    interfaces: which; all that pywgd runs when there are none given. Raises PywgError when there is none.
    """

    def __init__(self, interfaces: Sequence[str] = ()) -> None:
        self._queue: queue.SimpleQueue[Event | PywgError] = queue.SimpleQueue()
        self._left = 0
        chosen = list(interfaces) or list_interfaces()
        if not chosen:
            raise PywgError("no daemon runs here; `pywg up` starts one")
        for interface in chosen:
            if not has_daemon(interface):
                raise PywgError(
                    f"{interface} has no daemon here whose events could be told; `pywg show interfaces` "
                    f"lists the interfaces"
                )
            self._left += 1
            threading.Thread(target=self._follow, args=(interface,), daemon=True).start()

    def __iter__(self) -> Iterator[Event]:
        """Events as they come, until the last daemon has ended. Raises PywgError for one that is not ours."""
        while self._left:
            event = self._queue.get()
            if isinstance(event, PywgError):
                raise event
            if event["kind"] == "ended":
                self._left -= 1
            yield event

    def waiting(self) -> list[Event]:
        """Those that have come since the last call; errors are left out."""
        events = []
        while not self._queue.empty():
            event = self._queue.get()
            if not isinstance(event, PywgError):
                events.append(event)
        return events

    def _follow(self, interface: str) -> None:
        names = {str(key): name for key, name in peer_names(interface).items()}
        try:
            with Client.open(interface) as client:
                for event in client.events():
                    name = event.get("name") or names.get(event.get("peer") or "")
                    self._queue.put({"interface": interface, **event, "name": name})
        except UapiError as error:
            self._queue.put(PywgError(f"{interface}: {error}"))
            return
        text = "the daemon has ended"
        self._queue.put({"interface": interface, "kind": "ended", "time": time.time(), "text": text})


def in_words(event: Event, *, brief: bool = False) -> str:
    """`20:15:03 wg0 peer alice (q0uv…A4k=, 192.0.2.1:51820): received the response, the session is up`.

    brief: without key and endpoint where there is a name, and without the endpoint in any case.
    """
    at = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    return printable(f"{at} {event['interface']} {_subject(event, brief)}{event.get('text', event['kind'])}")


def _subject(event: Event, brief: bool) -> str:
    """Whom it is about, with a colon and a space; empty when it is the device."""
    if not event.get("peer"):
        return ""
    name, key = event.get("name"), short_key(event["peer"])
    if brief:
        return f"{name or key}: "
    known = [key, *([event["endpoint"]] if event.get("endpoint") else [])]
    return f"peer {name} ({', '.join(known)}): " if name else f"peer {' at '.join(known)}: "
