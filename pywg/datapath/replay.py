"""The replay window: which counters of a session have arrived (RFC 6479; WireGuard paper, section 5.4.6).

A ring of 8192 bits in words of 64, so that moving the window forward clears whole words; one word is always
partly ahead of the greatest counter, which leaves 8128 counters behind it that are still taken.
"""

from __future__ import annotations

WORD_BITS = 64
WORDS = 8192 // WORD_BITS
WINDOW = (WORDS - 1) * WORD_BITS


class ReplayWindow:
    """Remembers counters; ask it only after the message's tag was verified."""

    __slots__ = ("_greatest", "_words")

    def __init__(self) -> None:
        self._greatest = 0
        self._words = [0] * WORDS

    def accept(self, counter: int) -> bool:
        """Whether this counter is new and not too old; from now on it is known."""
        word = counter // WORD_BITS
        if counter > self._greatest:
            current = self._greatest // WORD_BITS
            for ahead in range(current + 1, min(word, current + WORDS) + 1):
                self._words[ahead % WORDS] = 0
            self._greatest = counter
        elif self._greatest - counter > WINDOW:
            return False
        bit = 1 << (counter % WORD_BITS)
        place = word % WORDS
        if self._words[place] & bit:
            return False
        self._words[place] |= bit
        return True
