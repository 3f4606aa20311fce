"""What a tunnel on macOS has changed that outlives its interface, and how that is taken back.

One JSON file for each tunnel, in /var/run/pywg, readable by its owner alone; never a key. `up` writes it
before it changes something, the route monitor keeps it; `down`, the monitor or the next `up` clean up by it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

from pywg.config.files import write_text
from pywg.errors import PywgError
from pywg.host import networksetup
from pywg.host.command import run, shown
from pywg.host.darwin import DarwinNetwork, EndpointRoutes, delete_endpoint_command
from pywg.host.networksetup import Resolver
from pywg.uapi.path import SOCKET_DIRECTORY

MONITOR_MODULE = "pywg.host.darwin_monitor"

_DIRECTORY = "/var/run/pywg"


@dataclasses.dataclass(slots=True)
class Tunnel:
    """A tunnel that is up, or was.

    name: the file's. interface: the utun that it has. routes: direct ones to its endpoints. resolver: the
    tunnel's name servers, None when it sets none; saved: what the services had. monitor: its process.
    """

    name: str
    interface: str
    routes: EndpointRoutes
    resolver: Resolver | None = None
    saved: dict[str, Resolver] = dataclasses.field(default_factory=dict)
    monitor: int = 0

    @classmethod
    def read(cls, name: str) -> Tunnel | None:
        """What was kept of a tunnel; None when there is nothing, or nothing that can be understood."""
        try:
            values = json.loads(_file(name).read_text(encoding="utf-8"))
            routes = values["routes"]
            gateways = {int(version): gateway for version, gateway in routes["gateways"].items()}
            return cls(
                name,
                values["interface"],
                EndpointRoutes(routes["versions"], routes["hosts"], gateways),
                None if values["resolver"] is None else Resolver(*values["resolver"]),
                {service: Resolver(*resolver) for service, resolver in values["saved"].items()},
                values["monitor"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def write(self) -> None:
        """Keep it. Raises PywgError."""
        file = _file(self.name)
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise PywgError(f"{file.parent}: {error.strerror}") from None
        write_text(str(file), json.dumps(dataclasses.asdict(self), indent=1))

    def forget(self) -> None:
        """Remove what was kept."""
        _file(self.name).unlink(missing_ok=True)

    def set_resolver(self) -> None:
        """Give the tunnel's name servers to all services, after noting what they had. Raises PywgError."""
        if self.resolver is None:
            return
        if networksetup.save(self.saved):
            self.write()
        networksetup.apply(self.resolver, self.saved)

    def renew_routes(self, hosts: list[str]) -> None:
        """Route the endpoints by the gateways of now. Raises PywgError."""
        if self.routes.versions and self.routes.renew(hosts, DarwinNetwork().gateways()):
            self.write()

    def clean(self, say: Callable[[str], None]) -> bool:
        """Take back all that outlives the interface, and forget it; returns whether nothing is left.

        Each step is shown; one that fails is told, and the others go on.
        """
        for host in self.routes.hosts:
            say(f"[#] {shown(delete_endpoint_command(host))}")
        self.routes.remove()
        clean = True
        if self.saved:
            say("[#] networksetup -setdnsservers SERVICE as it was")
            try:
                networksetup.restore(self.saved)
            except PywgError as error:
                clean = False
                say(f"pywg: this could not be undone: {error}")
        if clean:
            self.forget()
        return clean

    @property
    def monitor_runs(self) -> bool:
        """Whether the route monitor still runs: a process of its number and its name."""
        if not self.monitor:
            return False
        return MONITOR_MODULE in run(["ps", "-o", "command=", "-p", str(self.monitor)], check=False)


def name_file(name: str) -> Path:
    """Where the daemon writes the name of its interface; wg-quick's place, so that each finds the other's."""
    return SOCKET_DIRECTORY / f"{name}.name"


def real_interface(name: str) -> str | None:
    """The utun that a tunnel's name stands for now; None when it is not up."""
    with contextlib.suppress(OSError):
        return name_file(name).read_text(encoding="ascii", errors="replace").strip() or None
    return None


def _file(name: str) -> Path:
    return Path(os.environ.get("PYWG_STATE_DIR") or _DIRECTORY) / f"{name}.json"
