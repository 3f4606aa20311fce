"""The contract of a system's network: what `up` asks and changes, whatever the system.

`LinuxNetwork` keeps it by netlink and can more; `DarwinNetwork` and `WindowsNetwork` keep it by commands.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from pywg.config.model import InterfaceAddress
from pywg.wire.endpoint import Endpoint
from pywg.wire.network import Network

HALVES = {4: ("0.0.0.0/1", "128.0.0.0/1"), 6: ("::/1", "8000::/1")}
"""A default route in two parts, each more specific than the system's own, which stays; by IP version."""


class SystemNetwork(Protocol):
    """The network of the system that we are on; a context manager."""

    def __enter__(self) -> Self:
        """Ready to use."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of what it holds."""

    def add_address(self, interface: str, address: InterfaceAddress) -> None:
        """Give the interface an address. Raises PywgError."""

    def set_mtu_and_up(self, interface: str, mtu: int) -> None:
        """Set the MTU in bytes, and the interface up. Raises PywgError."""

    def path_mtu(self, endpoint: Endpoint) -> int | None:
        """The MTU of the way to an endpoint in bytes; None when there is no way, or nobody tells."""

    def default_mtu(self) -> int | None:
        """The MTU of the IPv4 default route in bytes; None when there is none."""

    def add_route(self, interface: str, network: Network) -> None:
        """Route a network through the interface. Raises PywgError."""


if TYPE_CHECKING:  # the checker of types compares them with the contract
    from pywg.host.darwin import DarwinNetwork
    from pywg.host.linux import LinuxNetwork
    from pywg.host.windows import WindowsNetwork

    _KEEP_IT: tuple[type[SystemNetwork], ...] = (LinuxNetwork, DarwinNetwork, WindowsNetwork)
