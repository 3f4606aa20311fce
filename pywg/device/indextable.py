"""The indices by which peers name our handshakes and sessions in the messages they send us.

An index is 32 random bits, unused at the moment, so that one who does not see our traffic cannot guess it
(WireGuard paper, section 5.4.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Owner = TypeVar("Owner")


class IndexTable(Generic[Owner]):
    """Maps local indices to their owners."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._owners: dict[int, Owner] = {}

    def allocate(self, owner: Owner) -> int:
        """Give `owner` a new unpredictable index."""
        while True:
            index = int.from_bytes(self._random(4), "little")
            if index not in self._owners:
                self._owners[index] = owner
                return index

    def hand_over(self, index: int, owner: Owner) -> None:
        """Give an index that is in use to another owner: a handshake's to the keypair that came of it."""
        self._owners[index] = owner

    def get(self, index: int) -> Owner | None:
        """The owner of an index; None when nobody has it."""
        return self._owners.get(index)

    def release(self, index: int) -> None:
        """Free an index; harmless when it is free."""
        self._owners.pop(index, None)

    def __len__(self) -> int:
        return len(self._owners)
