"""The life of a session: three places for keypairs, and who moves where (WireGuard paper, section 6.3).

- `current` is the one we send with. `previous` still receives what was under way when the key changed.
- An initiator's new keypair is `current` at once: the response has shown that the other side has it.
- A responder's new keypair is `next`, and only receives, until the first message under it has arrived and
  so shown that the initiator has it too; then it becomes `current`.

Every move may push keypairs out; those are returned, to be retired in the data plane.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(slots=True, eq=False)
class Keypair:
    """What the control plane remembers of a session; the keys themselves are the data plane's."""

    local_index: int
    initiator: bool
    born: float
    expires: float
    exhausted: bool = False

    def may_send(self, now: float) -> bool:
        """Whether time and counter still allow sending."""
        return now < self.expires and not self.exhausted


class Keypairs:
    """One peer's keypairs."""

    __slots__ = ("current", "next", "previous")

    def __init__(self) -> None:
        self.previous: Keypair | None = None
        self.current: Keypair | None = None
        self.next: Keypair | None = None

    def add(self, new: Keypair) -> list[Keypair]:
        """Take in the keypair of a handshake that just ended; returns those that are pushed out."""
        if not new.initiator:
            out = [self.next, self.previous]
            self.next, self.previous = new, None
        elif self.next is not None:
            out = [self.previous, self.current]
            self.previous, self.current, self.next = self.next, new, None
        else:
            out = [self.previous]
            self.previous, self.current = self.current, new
        return [keypair for keypair in out if keypair is not None]

    def confirm(self, keypair: Keypair) -> list[Keypair] | None:
        """The first message under `keypair` arrived. None: it was confirmed before; else those pushed out."""
        if keypair is not self.next:
            return None
        out = [self.previous] if self.previous is not None else []
        self.previous, self.current, self.next = self.current, self.next, None
        return out

    def clear(self) -> list[Keypair]:
        """Forget all; returns them."""
        out = [keypair for keypair in (self.previous, self.current, self.next) if keypair is not None]
        self.previous = self.current = self.next = None
        return out
