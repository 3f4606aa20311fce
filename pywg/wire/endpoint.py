"""Where a peer is reached: an address and a port, and the local address that datagrams to it leave from."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
from typing import NamedTuple

from pywg.errors import PywgError


class LocalAddress(NamedTuple):
    """The local address and interface on which a peer's last datagram arrived; replies leave from there."""

    host: str
    interface: int


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """A UDP address. Two endpoints are equal when the peer's side is; `local` is only remembered.

    host: numeric IPv4 or IPv6 address in its canonical text, without zone or brackets.
    scope_id: interface index of a link-local IPv6 address, else 0.
    """

    host: str
    port: int
    scope_id: int = 0
    local: LocalAddress | None = dataclasses.field(default=None, compare=False)

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def sockaddr(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """The form that `socket.sendmsg` takes and `recvmsg` gives."""
        if ":" in self.host:
            return (self.host, self.port, 0, self.scope_id)
        return (self.host, self.port)

    @classmethod
    def from_sockaddr(
        cls, address: tuple[str, int] | tuple[str, int, int, int], local: LocalAddress | None = None
    ) -> Endpoint:
        """Build from what `recvmsg` gave; a zone in the host (`fe80::1%eth0`) is dropped, its index kept."""
        if len(address) == 4:
            return cls(address[0].partition("%")[0], address[1], address[3], local)
        return cls(address[0], address[1], 0, local)

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Parse the numeric forms `192.0.2.1:51820`, `[2001:db8::1]:51820` and `[fe80::1%eth0]:51820`.

        Raises PywgError with a sentence when `text` is none of them.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not host or (":" in host and not bracketed):
            raise PywgError(f"'{text}' is not an endpoint; write 192.0.2.1:51820 or [2001:db8::1]:51820")
        if not (port.isascii() and port.isdigit() and len(port) < 20) or int(port) > 65535:
            raise PywgError(f"'{port}' is not a port number from 0 to 65535")
        host, _, zone = host[1:-1].partition("%") if bracketed else (host, "", "")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise PywgError(f"'{host}' is not a numeric IPv4 or IPv6 address") from None
        if (address.version == 6) is not bracketed:
            raise PywgError(f"'{text}' is not an endpoint; brackets go around IPv6 addresses, and only there")
        scope_id = 0
        if zone:
            try:
                scope_id = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
            except (OSError, ValueError):
                raise PywgError(f"there is no interface '{zone}' here") from None
            if scope_id >= 1 << 31:
                raise PywgError(f"'{zone}' is not the index of an interface")
        return cls(str(address), int(port), scope_id)

    def source(self) -> bytes:
        """Who floods are counted by: the address, of IPv6 its /64, as whoever has one address has those."""
        packed = self.packed()
        return packed[:4] if len(packed) == 6 else packed[:8]

    def packed(self) -> bytes:
        """The bytes that a cookie binds: the address (4 or 16) and the port (2, network order)."""
        return socket.inet_pton(self.family, self.host) + self.port.to_bytes(2, "big")

    def __str__(self) -> str:
        if ":" not in self.host:
            return f"{self.host}:{self.port}"
        zone = ""
        if self.scope_id:
            try:
                zone = f"%{socket.if_indextoname(self.scope_id)}"
            except OSError:
                zone = f"%{self.scope_id}"
        return f"[{self.host}{zone}]:{self.port}"
