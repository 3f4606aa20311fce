"""Allowed IPs by longest prefix: one binary trie with compressed paths for each family.

An address is two 64-bit numbers, most significant bits first; IPv4 fills the upper half of the first. A node
with an owner is a network; one without only joins two others. Whoever changes a trie has both directions' locks.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free

cdef struct Node:
    uint64_t high
    uint64_t low
    void *owner
    Node *child[2]
    int length


cdef inline int node_bit(uint64_t high, uint64_t low, int index) noexcept nogil:
    if index < 64:
        return (high >> (63 - index)) & 1
    return (low >> (127 - index)) & 1


cdef inline int node_common(uint64_t high, uint64_t low, uint64_t other_high, uint64_t other_low) noexcept nogil:
    """How many leading bits are the same, 0 to 128."""
    cdef uint64_t difference = high ^ other_high
    cdef int n = 0
    if difference == 0:
        n = 64
        difference = low ^ other_low
        if difference == 0:
            return 128
    return n + __builtin_clzll(difference)


cdef extern from *:
    int __builtin_clzll(unsigned long long) nogil


cdef inline bint node_covers(const Node *node, uint64_t high, uint64_t low) noexcept nogil:
    if node.length == 0:
        return True
    if node.length <= 64:
        return (high ^ node.high) >> (64 - node.length) == 0
    return high == node.high and (low ^ node.low) >> (128 - node.length) == 0


cdef inline void *trie_lookup(const Node *node, uint64_t high, uint64_t low, int bits) noexcept nogil:
    """The owner of the longest prefix that covers the address, or NULL."""
    cdef void *best = NULL
    while node != NULL and node_covers(node, high, low):
        if node.owner != NULL:
            best = node.owner
        if node.length >= bits:
            break
        node = node.child[node_bit(high, low, node.length)]
    return best


cdef inline Node *trie_find(Node *node, uint64_t high, uint64_t low, int length) noexcept nogil:
    while node != NULL and node.length <= length and node_covers(node, high, low):
        if node.length == length:
            return node
        node = node.child[node_bit(high, low, node.length)]
    return NULL


cdef inline Node *node_new(uint64_t high, uint64_t low, int length, void *owner) noexcept nogil:
    cdef Node *node = <Node *>calloc(1, sizeof(Node))
    if node != NULL:
        node.high = high
        node.low = low
        node.length = length
        node.owner = owner
    return node


cdef inline int trie_insert(
    Node **root, uint64_t high, uint64_t low, int length, void *owner, void **before
) noexcept nogil:
    """Make `owner` the network's owner and tell the one before; host bits are zero. 0: memory is short."""
    cdef Node **place = root
    cdef Node *node
    cdef Node *leaf
    cdef Node *joint
    cdef int common
    before[0] = NULL
    while True:
        node = place[0]
        if node == NULL:
            place[0] = node_new(high, low, length, owner)
            return place[0] != NULL
        common = node_common(high, low, node.high, node.low)
        if common > length:
            common = length
        if common > node.length:
            common = node.length
        if common == node.length:
            if node.length == length:
                before[0] = node.owner
                node.owner = owner
                return 1
            place = &node.child[node_bit(high, low, node.length)]
            continue
        leaf = node_new(high, low, length, owner)
        if leaf == NULL:
            return 0
        if common == length:
            leaf.child[node_bit(node.high, node.low, length)] = node
            place[0] = leaf
            return 1
        joint = node_new(high, low, common, NULL)
        if joint == NULL:
            free(leaf)
            return 0
        if common < 64:
            joint.low = 0
            joint.high = 0 if common == 0 else high >> (64 - common) << (64 - common)
        elif common < 128:
            joint.low = 0 if common == 64 else low >> (128 - common) << (128 - common)
        joint.child[node_bit(high, low, common)] = leaf
        joint.child[node_bit(node.high, node.low, common)] = node
        place[0] = joint
        return 1


cdef inline int trie_remove(Node **root, uint64_t high, uint64_t low, int length, void *owner) noexcept nogil:
    """Take the network from `owner`; 0 when it belongs to another or to none."""
    cdef Node **place = root
    cdef Node **parent = NULL
    cdef Node *node
    cdef Node *only
    while True:
        node = place[0]
        if node == NULL or node.length > length or not node_covers(node, high, low):
            return 0
        if node.length == length:
            break
        parent = place
        place = &node.child[node_bit(high, low, node.length)]
    if node.owner != owner:
        return 0
    node.owner = NULL
    if node.child[0] != NULL and node.child[1] != NULL:
        return 1
    only = node.child[0] if node.child[0] != NULL else node.child[1]
    place[0] = only
    free(node)
    if only == NULL and parent != NULL:  # a joint with one branch left joins nothing
        node = parent[0]
        if node.owner == NULL and (node.child[0] == NULL or node.child[1] == NULL):
            parent[0] = node.child[0] if node.child[0] != NULL else node.child[1]
            free(node)
    return 1


cdef inline void trie_free(Node *node) noexcept nogil:
    if node != NULL:
        trie_free(node.child[0])
        trie_free(node.child[1])
        free(node)
