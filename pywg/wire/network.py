"""A network, which is what allowed IPs are: an address and the length of its prefix.

A device may have a hundred thousand of them, and objects of `ipaddress` are large, and slow to make and to
hash. The text is that of inet_pton and inet_ntop, as with `wg`. Single addresses, also those that an
interface has with a prefix length, are of `ipaddress`.
"""

from __future__ import annotations

import socket
from typing import Final

_LENGTHS: Final = {str(length): length for length in range(129)}
_LENGTH_BYTES: Final = tuple(bytes((length,)) for length in range(129))


class Network(bytes):
    """Immutable; equal, hashed and ordered by address, then length. Make it by `of` or `parse`.

    It is one string of bytes: the packed address (4 or 16 bytes, network order, no bit set behind the prefix)
    and a byte with the length. That is half the memory of a tuple, and the compiled data path reads it
    as it is.
    """

    __slots__ = ()

    @classmethod
    def of(cls, address: bytes, prefixlen: int) -> Network:
        """The network of that length around a packed address (4 or 16 bytes). Raises ValueError."""
        bits = len(address) * 8
        if bits not in (32, 128) or not 0 <= prefixlen <= bits:
            raise ValueError(f"no address of {bits} bits has a prefix of {prefixlen}")
        if host_bits := bits - prefixlen:
            number = int.from_bytes(address, "big") >> host_bits << host_bits
            address = number.to_bytes(len(address), "big")
        return cls(address + _LENGTH_BYTES[prefixlen])

    @classmethod
    def parse(cls, text: str) -> Network:
        """From `192.0.2.0/24` or `2001:db8::/32`; bits behind the prefix are dropped.

        Raises ValueError for anything else: an address alone, a mask, leading zeros, a zone.
        """
        address, _, length = text.rpartition("/")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            return cls.of(socket.inet_pton(family, address), _LENGTHS[length])
        except (OSError, ValueError, KeyError):
            raise ValueError("not an address with a prefix length") from None

    @property
    def address(self) -> bytes:
        """The first address, packed: 4 or 16 bytes."""
        return self[:-1]

    @property
    def prefixlen(self) -> int:
        """How many bits all addresses of the network have in common."""
        return self[-1]

    @property
    def max_prefixlen(self) -> int:
        """The bits of an address: 32 or 128."""
        return len(self) * 8 - 8

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if len(self) == 5 else 6

    @property
    def is_one_address(self) -> bool:
        """Whether it is a host's: a /32 or /128."""
        return self.prefixlen == self.max_prefixlen

    def covers(self, address: bytes) -> bool:
        """Whether a packed address (4 or 16 bytes) is in it."""
        return len(address) == len(self) - 1 and Network.of(address, self.prefixlen) == self

    def __str__(self) -> str:
        family = socket.AF_INET if len(self) == 5 else socket.AF_INET6
        return f"{socket.inet_ntop(family, self[:-1])}/{self[-1]}"

    def __repr__(self) -> str:
        return f"Network({str(self)!r})"
