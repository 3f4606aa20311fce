"""The sliding window of RFC 6479: a ring of 8192 bits, of which 8128 can be used."""

from libc.stdint cimport uint64_t

cdef enum:
    RING_WORDS = 128
    WINDOW = 8128

cdef struct Replay:
    uint64_t top
    uint64_t ring[RING_WORDS]


cdef inline bint replay_accept(Replay *r, uint64_t counter) noexcept nogil:
    """Take a counter whose message was authenticated; false when it was taken before or is too far behind."""
    cdef uint64_t word = counter >> 6
    cdef uint64_t bit = (<uint64_t>1) << (counter & 63)
    cdef uint64_t steps, i
    if counter > r.top:
        steps = word - (r.top >> 6)
        if steps > RING_WORDS:
            steps = RING_WORDS
        for i in range(steps):
            r.ring[(word - i) & (RING_WORDS - 1)] = 0
        r.top = counter
    elif r.top - counter > WINDOW:
        return False
    if r.ring[word & (RING_WORDS - 1)] & bit:
        return False
    r.ring[word & (RING_WORDS - 1)] |= bit
    return True
