# cython: language_level=3, cdivision=True, wraparound=False, initializedcheck=False
"""The data plane compiled, for Linux: the contract of `base.py`, without the interpreter lock.

Two threads, one for each direction. Outgoing reads down: tunnel device, split, route, seal, send; incoming:
receive, dispatch, open, replay window, endpoint, source check, join, tunnel device. Each direction works on a burst
while it holds its own lock; whatever both read (sessions, peers, routes) is changed only by one who holds both, in
small steps, so that a command of Python's waits for a burst at the most, and traffic for a few microseconds.
What one direction finds for Python (reports, counts) lies in memory of its own until `drain` fetches it.

While packets come one at a time, the incoming thread carries both directions, and the other one sleeps: a request
and its answer then meet a thread that ran a moment ago, on a processor that need not be woken. The first burst, or
packets that leave no time to sleep, part them.

No packet is copied between system calls: segments are made in the frame that was read and sealed from there into the
buffer that is sent; datagrams are opened in the buffer that they arrived in, and written from there.

With more processors, several workers can seal for one peer in order, because a datagram's place, its counter and its
size are known before it is sealed: this thread would hand out (packet, counter, place in the sealed buffer), and send
when all have been filled. Likewise incoming, where windows and joining come after opening, in order of arrival.
That is left out as long as there are no processors to show what it gains.
"""

import os
import socket
import threading

from pywg.datapath.base import BURST as _BURST, BURST_BUCKETS as _BURST_BUCKETS, HANDUP_LIMIT as _HANDUP_LIMIT, HANDUP_SHARE as _HANDUP_SHARE, Bursts
from pywg.datapath.tap import Tapped
from pywg.device.constants import HANDSHAKE_TOS as _HANDSHAKE_TOS
from pywg.device.session import Activity, Report
from pywg.errors import DropReason, PywgError, remedy
from pywg.noise.primitives import xaead_seal_address
from pywg.tun.base import TunGoneError
from pywg.wire.endpoint import Endpoint, LocalAddress

from libc.errno cimport (
    EADDRNOTAVAIL, EAGAIN, EBADF, EHOSTUNREACH, EINTR, EINVAL, EIO, EMSGSIZE, ENETUNREACH, ENODEV, ENOMEM,
    ENXIO, errno as c_errno,
)
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from pywg.datapath.compiled_offload cimport *
from pywg.datapath.compiled_replay cimport Replay, replay_accept
from pywg.datapath.compiled_routes cimport Node, trie_free, trie_insert, trie_lookup, trie_remove

cdef extern from "packet.h" nogil:
    uint32_t load32le(const uint8_t *p)
    uint64_t load64le(const uint8_t *p)
    void store32le(uint8_t *p, uint32_t v)
    void store64le(uint8_t *p, uint64_t v)
    int atomic_get(const int *p)
    void atomic_set(int *p, int v)
    int atomic_swap(int *p, int v)
    int atomic_add(int *p, int v)
    void atomic_set_pointer(void **p, void *v)
    void *atomic_take_pointer(void **p)
    double atomic_get_time(const double *p)
    void atomic_set_time(double *p, double v)
    void spin_lock(int *p)
    void spin_unlock(int *p)
    double clock_now()
    int64_t clock_wall()

cdef extern from "aead.h" nogil:
    enum:
        AEAD_TAG
    ctypedef enum aead_backend "enum aead_backend":
        AEAD_NONE
        AEAD_OPENSSL
        AEAD_BORINGSSL
        AEAD_IPSEC_MB
    ctypedef struct aead_key "struct aead_key":
        pass
    ctypedef struct aead_worker "struct aead_worker":
        pass
    unsigned aead_load()
    aead_backend aead_fastest(unsigned found)
    const char *aead_name(aead_backend backend)
    aead_key *aead_key_new(aead_backend backend, const uint8_t *key, int sealing)
    void aead_key_free(aead_key *k)
    int aead_worker_init(aead_worker *w, aead_backend backend)
    void aead_worker_free(aead_worker *w)
    int aead_seal(aead_worker *w, const aead_key *k, uint64_t counter, const uint8_t *src, size_t n, uint8_t *out)
    int aead_open(aead_worker *w, const aead_key *k, uint64_t counter, uint8_t *data, size_t n)
    void *mac_new(const uint8_t *key, size_t n)
    void mac_free(void *ctx)
    int mac_right(void *ctx, const uint8_t *data, size_t n, const uint8_t *mac)

cdef extern from "udp.h" nogil:
    enum:
        UDP_BATCH
        UDP_RECEIVE
        UDP_LARGEST
        UDP_SEGMENTS
        UDP_SUPER
        AF_INET
        AF_INET6
    ctypedef struct udp_address "struct udp_address":
        uint16_t family
        uint16_t port
        uint32_t scope
        uint8_t host[16]
    ctypedef struct udp_local "struct udp_local":
        uint16_t family
        uint32_t interface
        uint8_t host[16]
    ctypedef struct udp_out "struct udp_out":
        pass
    ctypedef struct udp_in "struct udp_in":
        pass
    ctypedef struct udp_received "struct udp_received":
        uint8_t *data
        size_t length
        size_t segment
        int tos
        udp_address source "from"
        udp_local local
    void udp_fill(udp_out *out, int i, uint8_t *data, size_t length, size_t segment, const udp_address *to,
                  const udp_local *source, uint8_t tos)
    int udp_send(udp_out *out, int fd, int first, int n)
    int udp_receive(udp_in *into, int fd, uint8_t *buffers, int n)
    int udp_parse(udp_in *into, int i, udp_received *r)
    int udp_family(int fd)
    int udp_is_filling(int fd)

cdef extern from "cookie.h" nogil:
    enum:
        COOKIE
        COOKIE_NONCE
        COOKIE_REPLY
    ctypedef struct cookie_maker "struct cookie_maker":
        pass
    cookie_maker *cookie_maker_new(const uint8_t *secret, const uint8_t *key, size_t seal)
    void cookie_maker_free(cookie_maker *m)
    int cookie_of(cookie_maker *m, const udp_address *source, uint8_t *cookie)
    int mac2_is_set(const uint8_t *message, size_t n)
    int cookie_brought(cookie_maker *m, const uint8_t *cookie, const uint8_t *message, size_t n)
    int cookie_reply(
        cookie_maker *m, const uint8_t *cookie, const uint8_t *message, size_t n, const uint8_t *nonce, uint8_t *reply
    )
    int random_fill(uint8_t *out, size_t n)

cdef extern from "probe.h" nogil:  # each is to be fired only if it is wanted
    bint probe_handshake_begin_wanted()
    bint probe_handshake_end_wanted()
    bint probe_handshake_give_up_wanted()
    bint probe_session_install_wanted()
    bint probe_session_retire_wanted()
    bint probe_drop_wanted()
    bint probe_burst_begin_wanted()
    bint probe_burst_end_wanted()
    void probe_handshake_begin(const char *peer, const char *name, uint64_t initiator)
    void probe_handshake_end(const char *peer, const char *name, uint64_t initiator, uint64_t nanoseconds)
    void probe_handshake_give_up(const char *peer, const char *name)
    void probe_session_install(const char *peer, const char *name, uint64_t index, uint64_t initiator)
    void probe_session_retire(const char *peer, const char *name, uint64_t index)
    void probe_drop(const char *reason, const char *direction, uint64_t count)
    void probe_burst_begin(const char *direction)
    void probe_burst_end(const char *direction, uint64_t packets, uint64_t size, uint64_t nanoseconds)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_destroy(pthread_mutex_t *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<poll.h>" nogil:
    enum: POLLIN, POLLOUT
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *, unsigned long, int)

cdef extern from "<sys/eventfd.h>" nogil:
    enum: EFD_NONBLOCK, EFD_CLOEXEC
    int eventfd(unsigned, int)

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int, void *, size_t)
    ssize_t write(int, const void *, size_t)
    int close(int)
    int usleep(unsigned)

cdef extern from "<sys/uio.h>" nogil:
    ssize_t writev(int, const iovec *, int)

cdef extern from "<errno.h>" nogil:
    enum: EBADFD

cdef enum:
    BURST = 64  # frames in one burst, as in base.py
    BURST_BYTES = 256 * 1024
    HANDUP_LIMIT = 1024  # as in base.py
    HANDUP_SHARE = 256
    HANDSHAKE_TOS = 0x88  # as in device/constants.py
    SOURCES = 1024  # counts of control messages: sources with the same hash share one
    NO_ROUTE_LIMIT = 16
    FRAME_BYTES = 65536 + VNET
    SLACK = 64  # after a frame: its last segment's padding
    SEALED_BYTES = 256 * 1024
    FLUSH_BYTES = 64 * 1024  # sealed bytes that are worth a system call
    DATA_HEADER = 16
    DATA_OVERHEAD = 32
    FLOWS = 16  # that are joined at the same time
    ROUTES_AT_ONCE = 256  # changed under one hold of the locks
    REFUSAL_LASTS = 1024  # super-packets not tried, until one is again
    BUCKETS = 64  # of the session table, to begin with
    LIGHT_FRAMES = 4  # a burst of no more, and of
    LIGHT_BYTES = 4096  # no more, is light
    LIGHT_BURSTS = 64  # in a row: one thread will do
    HURRIED_BURSTS = 16  # in a row without a sleep: it does no longer
    QUICK_ANSWERS = 4  # in a row: the next one is waited for awake
    REPLIES = 64  # cookie replies that go with one system call
    ANSWER_COSTS = 8  # while a socket's buffer fills, one message in so many is answered with a cookie, at most
    ANSWERS_SAVED = 64
    ASKED_BITS = 1 << 23  # sources that asked for a cookie while there was no time to answer
    PAUSE = 1000  # microseconds after a call that failed for no reason of the network's

cdef enum:  # in the order of _REASONS
    DROP_EMPTY
    DROP_TRUNCATED
    DROP_OVERSIZED
    DROP_UNKNOWN_TYPE
    DROP_RESERVED_BITS
    DROP_BAD_MAC1
    DROP_BAD_TAG
    DROP_UNKNOWN_INDEX
    DROP_NO_PRIVATE_KEY
    DROP_QUEUE_FULL
    DROP_UNDER_LOAD
    DROP_EXPIRED_SESSION
    DROP_REPLAYED
    DROP_NOT_AN_IP_PACKET
    DROP_SOURCE_NOT_ALLOWED
    DROP_ECN
    DROP_BAD_OFFLOAD
    DROP_NO_ROUTE
    DROP_NO_ENDPOINT
    DROP_STAGED_OVERFLOW
    DROP_SEND_FAILED
    DROP_TUN_WRITE_FAILED
    DROP_DEVICE_DOWN
    DROP_COUNT
    NO_ROUTE_TOLD  # dropped too, and handed up in the place of being counted

_REASONS = (
    DropReason.EMPTY,
    DropReason.TRUNCATED,
    DropReason.OVERSIZED,
    DropReason.UNKNOWN_TYPE,
    DropReason.RESERVED_BITS,
    DropReason.BAD_MAC1,
    DropReason.BAD_TAG,
    DropReason.UNKNOWN_INDEX,
    DropReason.NO_PRIVATE_KEY,
    DropReason.QUEUE_FULL,
    DropReason.UNDER_LOAD,
    DropReason.EXPIRED_SESSION,
    DropReason.REPLAYED,
    DropReason.NOT_AN_IP_PACKET,
    DropReason.SOURCE_NOT_ALLOWED,
    DropReason.ECN,
    DropReason.BAD_OFFLOAD,
    DropReason.NO_ROUTE,
    DropReason.NO_ENDPOINT,
    DropReason.STAGED_OVERFLOW,
    DropReason.SEND_FAILED,
    DropReason.TUN_WRITE_FAILED,
    DropReason.DEVICE_DOWN,
)
assert len(_REASONS) == DROP_COUNT

cdef const char *reason_names[DROP_COUNT]
_REASON_NAMES = tuple(reason.value.encode() for reason in _REASONS)  # keeps them
cdef int _reason
for _reason in range(DROP_COUNT):
    reason_names[_reason] = <bytes>_REASON_NAMES[_reason]
assert BURST == _BURST
assert HANDUP_LIMIT == _HANDUP_LIMIT
assert HANDUP_SHARE == _HANDUP_SHARE
assert HANDSHAKE_TOS == _HANDSHAKE_TOS

cdef enum:
    BURST_BUCKETS = 16  # as in base.py
    TAP_ROOM = 8 * 1024 * 1024  # bytes that wait for whoever captures, in each direction

assert BURST_BUCKETS == _BURST_BUCKETS
assert REPLIES <= UDP_BATCH

cdef double NEVER = -1e300
cdef double ASKED_LASTS = 6.0  # seconds, and once more: longer than until the next try
cdef double WINK = 5e-6  # seconds; a shorter wait was no sleep
cdef double AWAKE = 200e-6  # seconds; a wait that is longer is slept through
cdef double QUICK = 500e-6  # seconds; an answer that came no later, to one who may have had to be woken, was quick

# --- What the directions work with. -----------------------------------------------------------------------

cdef struct Sent:  # of one session since the last drain; the outgoing direction's
    uint64_t size
    uint64_t packets
    double any
    double data
    bint rekey_limit_reached
    bint exhausted

cdef struct Arrived:  # likewise, the incoming direction's
    uint64_t size
    uint64_t packets
    double any
    double data
    bint first_use

cdef struct Record:  # both, for Python
    uint32_t local_index
    int64_t peer
    Sent sent
    Arrived arrived
    double unanswered_since
    double unacknowledged_since

cdef struct Session:
    uint32_t local_index
    uint32_t remote_index
    Peer *peer
    double born
    double expires
    bint may_send  # from the start; a responder's may when it was heard from
    uint64_t message_limit
    uint64_t rekey_limit
    Session *next_in_bucket
    double unanswered_since  # both directions write these two
    double unacknowledged_since
    # the outgoing direction's
    aead_key *sealer
    uint64_t counter
    bint rekey_limit_told
    bint exhausted_told
    bint has_sent
    Sent sent
    Session *next_sent
    # the incoming direction's
    aead_key *opener
    bint heard_from
    bint has_arrived
    Arrived arrived
    Session *next_arrived
    Replay window

cdef struct Peer:
    int64_t id
    Peer *previous
    Peer *next
    Session *current  # the one it sends with
    Session *confirmed  # heard from for the first time: the incoming direction gives it, the outgoing takes it
    uint64_t references  # sessions, networks, and its endpoint
    # the incoming direction's to change, under the lock; the outgoing direction reads it under the lock
    int endpoint_lock
    bint has_endpoint
    udp_address endpoint
    udp_local local
    bint has_moved
    Peer *next_moved
    # the outgoing direction's
    udp_local refused_local  # it is no address of ours any more
    udp_address refused_host  # to this host, super-packets of such segments were refused
    size_t refused_size
    int refusal_left

cdef struct Target:  # a peer, and where it was when asked
    Peer *peer
    udp_address to
    udp_local source

cdef struct Super:  # sealed datagrams of one size, the last perhaps shorter: one message of sendmmsg
    Peer *peer
    udp_address to
    udp_local source
    size_t offset
    size_t length
    size_t segment
    int count
    bint closed
    uint8_t tos

cdef struct Handup:  # a packet or message for Python
    int64_t peer
    uint8_t *data
    size_t length
    udp_address source
    udp_local local

cdef struct Queue:
    Handup *items
    int count
    int room
    int limit

cdef struct Lookup:  # the last one, remembered
    int version  # 0: none
    uint64_t high
    uint64_t low
    Peer *peer

cdef struct Burst:  # all of one direction since the start, as in base.py
    uint64_t count
    uint64_t packets
    double seconds
    uint64_t by_packets[BURST_BUCKETS]
    uint64_t by_microseconds[BURST_BUCKETS]

cdef struct Copy:  # one packet or datagram, before as many of its bytes as were wanted
    int64_t at
    uint32_t length
    uint32_t kept
    int reason
    bint inner
    bint sent  # by the direction that receives
    udp_address address
    udp_local local

cdef struct Reply:  # with a cookie
    udp_address to
    udp_local source
    uint8_t message[64]

cdef struct Tap:  # what was copied of one direction
    uint8_t *data
    size_t used
    uint64_t lost

cdef struct Plane:
    int tun_fd
    bint vnet
    bint uso
    int fds[2]  # IPv4's and IPv6's socket, or -1
    bint gso
    size_t mtu
    aead_backend backend
    bint tap_inner
    bint tap_outer
    size_t snaplen
    Node *routes4
    Node *routes6
    Peer *peers
    Session **buckets
    uint32_t bucket_mask
    uint32_t session_count
    Record *retired
    int retired_count
    # between the threads
    int event_fd
    int signalled  # event_fd is readable
    int quiet  # the last drain reported no activity
    int stopping
    int waiting  # commands that want the locks
    int gone  # the tunnel device was removed
    int together  # the incoming thread carries both directions
    int light  # outgoing bursts in a row, each light and after a sleep, while both threads work
    # the outgoing direction's
    pthread_mutex_t out_lock
    int out_wake
    size_t out_bytes  # of the last burst
    aead_worker out_worker
    uint8_t *frame
    uint8_t *sealed
    size_t sealed_used
    Super *supers
    int super_first  # those before it were sent
    int super_count
    udp_out *out
    int blocked_fd  # -1: none
    bint tun_drained
    bint out_failed  # the last burst ended with an error: of the tunnel device, and of a socket
    bint in_failed
    Lookup route
    Session *sent
    Queue no_session
    Queue no_route
    uint64_t out_drops[DROP_COUNT]
    uint64_t out_packets
    Burst out_bursts
    Tap out_tap
    int64_t out_at  # when the last flush began: an answer may be faster than its end
    # the incoming direction's
    pthread_mutex_t in_lock
    int in_wake
    size_t in_bytes  # of the last burst
    aead_worker in_worker
    uint8_t *received
    udp_in *into
    Flow *flows
    int flow_count
    Lookup source
    Session *arrived
    Peer *moved
    Queue control
    uint16_t control_of[SOURCES + 1]  # the last: of cookie replies, see wire/messages.py
    uint32_t hash_key
    void *mac1
    cookie_maker *cookies
    double cookies_until  # handshake messages need one
    Reply *replies  # that wait for the end of the burst
    int reply_count
    uint8_t *nonces
    int nonce_count  # that are left
    bint filling  # the socket's buffer, at the last burst
    int answers_saved  # in messages that were not answered
    uint8_t *asked[2]  # bits by source: lately, and before
    double asked_since
    udp_out *reply_out
    uint64_t in_drops[DROP_COUNT]
    uint64_t in_packets
    Burst in_bursts
    Tap in_tap


cdef inline Session *session_find(const Plane *p, uint32_t index) noexcept nogil:
    cdef Session *s = p.buckets[index & p.bucket_mask]
    while s != NULL and s.local_index != index:
        s = s.next_in_bucket
    return s


cdef inline Peer *owner_of(Plane *p, Lookup *last, const uint8_t *address, int version) noexcept nogil:
    """The peer that an inner address (4 or 16 bytes) belongs to, or NULL."""
    cdef uint64_t high, low = 0
    if version == 4:
        high = <uint64_t>load32(address) << 32
    else:
        high = load64(address)
        low = load64(address + 8)
    if version != last.version or high != last.high or low != last.low:
        last.version = version
        last.high = high
        last.low = low
        if version == 4:
            last.peer = <Peer *>trie_lookup(p.routes4, high, low, 32)
        else:
            last.peer = <Peer *>trie_lookup(p.routes6, high, low, 128)
    return last.peer


cdef inline void signal(Plane *p) noexcept nogil:
    """Make `fileno` readable."""
    cdef uint64_t one = 1
    if not atomic_swap(&p.signalled, 1):
        write(p.event_fd, &one, sizeof(one))


cdef inline void signal_activity(Plane *p) noexcept nogil:
    if atomic_get(&p.quiet) and atomic_swap(&p.quiet, 0):
        signal(p)


cdef void tun_is_gone(Plane *p) noexcept nogil:
    atomic_set(&p.gone, 1)
    signal(p)


cdef bint queue_add(
    Plane *p, Queue *q, int64_t peer, const uint8_t *data, size_t n, const udp_address *source, const udp_local *local
) noexcept nogil:
    """Hand up a copy; false when the queue is full."""
    cdef Handup *items
    cdef Handup *item
    cdef int room
    if q.count >= q.limit:
        return False
    if q.count == q.room:
        room = q.room * 2 if q.room else 16
        items = <Handup *>realloc(q.items, room * sizeof(Handup))
        if items == NULL:
            return False
        q.items = items
        q.room = room
    item = &q.items[q.count]
    memset(item, 0, sizeof(Handup))
    item.data = <uint8_t *>malloc(n)
    if item.data == NULL:
        return False
    memcpy(item.data, data, n)
    item.length = n
    item.peer = peer
    if source != NULL:
        item.source = source[0]
        item.local = local[0]
    q.count += 1
    signal(p)
    return True


cdef inline void drop(uint64_t *drops, const char *direction, int reason, uint64_t count) noexcept nogil:
    drops[reason] += count
    if probe_drop_wanted():
        probe_drop(reason_names[reason], direction, count)


cdef inline void drop_out(Plane *p, int reason, uint64_t count) noexcept nogil:
    drop(p.out_drops, "out", reason, count)


cdef inline void drop_in(Plane *p, int reason, uint64_t count) noexcept nogil:
    drop(p.in_drops, "in", reason, count)


cdef inline int bucket_of(uint64_t value) noexcept nogil:
    cdef int bucket = 0
    while value and bucket < BURST_BUCKETS - 1:
        value >>= 1
        bucket += 1
    return bucket


cdef void burst_add(Burst *b, uint64_t packets, double seconds) noexcept nogil:
    b.count += 1
    b.packets += packets
    b.seconds += seconds
    b.by_packets[bucket_of(packets)] += 1
    b.by_microseconds[bucket_of(<uint64_t>(seconds * 1e6))] += 1


cdef Copy *copy_of(
    const Plane *p, Tap *tap, bint inner, const uint8_t *data, size_t n,
    const udp_address *address, const udp_local *local, int reason
) noexcept nogil:
    """Keep a copy for whoever captures; NULL when there is no room."""
    cdef size_t kept = n if n < p.snaplen else p.snaplen
    cdef size_t size = (sizeof(Copy) + kept + 7) & ~<size_t>7
    cdef Copy *copy
    if tap.used + size > TAP_ROOM:
        tap.lost += 1
        return NULL
    copy = <Copy *>(tap.data + tap.used)
    tap.used += size
    memset(copy, 0, sizeof(Copy))
    copy.at = clock_wall()
    copy.length = <uint32_t>n
    copy.kept = <uint32_t>kept
    copy.inner = inner
    copy.reason = reason
    if address != NULL:
        copy.address = address[0]
        copy.local = local[0]
    memcpy(<uint8_t *>copy + sizeof(Copy), data, kept)
    return copy


cdef void queue_clear(Queue *q) noexcept nogil:
    cdef int i
    for i in range(q.count):
        free(q.items[i].data)
    free(q.items)
    queue_reset(q)


cdef void queue_reset(Queue *q) noexcept nogil:
    """Empty it without freeing: its items belong to somebody else now."""
    q.items = NULL
    q.count = 0
    q.room = 0


# --- Outgoing. --------------------------------------------------------------------------------------------


cdef inline bint is_down(const Plane *p) noexcept nogil:
    return p.fds[0] < 0 and p.fds[1] < 0


cdef inline int fd_of(const Plane *p, const udp_address *a) noexcept nogil:
    return p.fds[1] if a.family == AF_INET6 else p.fds[0]


cdef inline bint same_address(const udp_address *a, const udp_address *b) noexcept nogil:
    return memcmp(a, b, sizeof(udp_address)) == 0


cdef inline bint same_local(const udp_local *a, const udp_local *b) noexcept nogil:
    return memcmp(a, b, sizeof(udp_local)) == 0


cdef inline bint target_of(Peer *peer, Target *t) noexcept nogil:
    cdef bint known
    t.peer = peer
    spin_lock(&peer.endpoint_lock)
    known = peer.has_endpoint
    t.to = peer.endpoint
    t.source = peer.local
    spin_unlock(&peer.endpoint_lock)
    if t.source.family and same_local(&t.source, &peer.refused_local):
        memset(&t.source, 0, sizeof(udp_local))
    return known


cdef inline bint goes_singly(const Plane *p, const Super *s) noexcept nogil:
    """Whether the kernel does not take these datagrams as one message, or did not lately."""
    if s.count == 1:
        return False
    if not p.gso:
        return True
    return (
        s.peer != NULL
        and s.peer.refusal_left > 0
        and s.segment >= s.peer.refused_size
        and memcmp(s.peer.refused_host.host, s.to.host, sizeof(s.to.host)) == 0
    )


cdef inline bint is_local_error(int code) noexcept nogil:
    return (
        code == EINVAL or code == EADDRNOTAVAIL or code == ENETUNREACH
        or code == EHOSTUNREACH or code == ENODEV or code == ENXIO
    )


cdef void forget_local(Super *s) noexcept nogil:
    """The address that we answered from is ours no longer."""
    if s.peer != NULL:
        s.peer.refused_local = s.source
        s.peer.refusal_left = 0
    memset(&s.source, 0, sizeof(udp_local))


cdef void tap_sent(Plane *p, const Super *s, int count, int reason) noexcept nogil:
    """The first so many datagrams of a super-packet were sent, or dropped for that reason."""
    cdef size_t at = s.offset, left = s.length, size
    cdef Copy *copy
    while count > 0 and left > 0:
        size = s.segment if s.segment < left else left
        copy = copy_of(p, &p.out_tap, False, p.sealed + at, size, &s.to, &s.source, reason)
        if copy != NULL:
            copy.at = p.out_at
        at += size
        left -= size
        count -= 1


cdef inline void sent_or_dropped(Plane *p, const Super *s, int count, int reason) noexcept nogil:
    """What became of the first datagrams of a super-packet; reason: -1 when they were sent."""
    if reason >= 0:
        drop_out(p, reason, count)
    if p.tap_outer:
        tap_sent(p, s, count, reason)


cdef bint send_singly(Plane *p, Super *s, int fd) noexcept nogil:
    """Send a super-packet's datagrams one by one; false when the socket would block: the rest is kept."""
    cdef int n, sent
    cdef size_t size, at
    while s.count > 0:
        n = 0
        at = s.offset
        while n < s.count and n < UDP_BATCH:
            size = s.segment if n + 1 < s.count else s.length - (s.count - 1) * s.segment
            udp_fill(p.out, n, p.sealed + at, size, 0, &s.to, &s.source, s.tos)
            at += size
            n += 1
        sent = udp_send(p.out, fd, 0, n)
        if sent == -EAGAIN:
            return False
        if sent <= 0:
            if s.source.family and is_local_error(-sent):
                forget_local(s)
                continue
            sent_or_dropped(p, s, 1, DROP_SEND_FAILED)
            sent = 1
        else:
            sent_or_dropped(p, s, sent, -1)
        s.offset += sent * s.segment
        s.length -= sent * s.segment if sent < s.count else s.length
        s.count -= sent
    return True


cdef bint blocked(Plane *p, int fd) noexcept nogil:
    p.blocked_fd = fd
    return False


cdef bint flush(Plane *p) noexcept nogil:
    """Send what is sealed; false when the socket would block: the rest is kept, and comes first next time."""
    cdef Super *s
    cdef int fd, n, sent, code
    if p.tap_outer:
        p.out_at = clock_wall()
    while p.super_first < p.super_count:
        s = &p.supers[p.super_first]
        fd = fd_of(p, &s.to)
        if fd < 0:
            sent_or_dropped(p, s, s.count, DROP_DEVICE_DOWN if is_down(p) else DROP_SEND_FAILED)
            p.super_first += 1
            continue
        if goes_singly(p, s):
            if s.peer != NULL and s.peer.refusal_left > 0:
                s.peer.refusal_left -= 1
            if not send_singly(p, s, fd):
                return blocked(p, fd)
            p.super_first += 1
            continue
        n = 0
        while p.super_first + n < p.super_count:
            s = &p.supers[p.super_first + n]
            if fd_of(p, &s.to) != fd or goes_singly(p, s):
                break
            udp_fill(p.out, n, p.sealed + s.offset, s.length, s.segment if s.count > 1 else 0, &s.to, &s.source,
                     s.tos)
            n += 1
        sent = udp_send(p.out, fd, 0, n)
        if sent > 0:
            if p.tap_outer:
                for n in range(sent):
                    s = &p.supers[p.super_first + n]
                    tap_sent(p, s, s.count, -1)
            p.super_first += sent
            continue
        code = -sent
        s = &p.supers[p.super_first]
        if code == EAGAIN:
            return blocked(p, fd)
        if s.count > 1 and (code == EIO or code == EINVAL or code == EMSGSIZE):
            # The size or the local address may be what is refused: datagram by datagram tells.
            if s.peer != NULL:
                s.peer.refused_host = s.to
                s.peer.refused_size = 0 if code == EIO else s.segment
                s.peer.refusal_left = REFUSAL_LASTS
            if not send_singly(p, s, fd):
                return blocked(p, fd)
            p.super_first += 1
        elif s.source.family and is_local_error(code):
            forget_local(s)
        else:
            sent_or_dropped(p, s, s.count, DROP_SEND_FAILED)
            p.super_first += 1
    p.super_first = 0
    p.super_count = 0
    p.sealed_used = 0
    p.blocked_fd = -1
    return True


cdef void add_datagram(Plane *p, const Target *t, size_t size, uint8_t tos) noexcept nogil:
    """The datagram that was sealed last, `size` bytes long, becomes part of a super-packet or a new one."""
    cdef Super *s
    if p.super_count > p.super_first:
        s = &p.supers[p.super_count - 1]
        if (
            s.peer == t.peer and not s.closed and s.tos == tos and size <= s.segment and s.count < UDP_SEGMENTS
            and s.length + size <= UDP_SUPER and same_address(&s.to, &t.to) and same_local(&s.source, &t.source)
        ):
            s.length += size
            s.count += 1
            s.closed = size < s.segment
            return
    s = &p.supers[p.super_count]
    s.peer = t.peer
    s.to = t.to
    s.source = t.source
    s.offset = p.sealed_used - size
    s.length = size
    s.segment = size
    s.count = 1
    s.closed = False
    s.tos = tos
    p.super_count += 1


cdef inline void note_sent(Plane *p, Session *s) noexcept nogil:
    if not s.has_sent:
        memset(&s.sent, 0, sizeof(Sent))
        s.sent.any = NEVER
        s.sent.data = NEVER
        s.has_sent = True
        s.next_sent = p.sent
        p.sent = s
        signal_activity(p)


cdef int seal(Plane *p, Session *s, const Target *t, uint8_t *packet, size_t n, double now) noexcept nogil:
    """Seal one packet, or (n = 0) a keepalive. The 16 bytes behind it are used, and restored.

    Why it was dropped, or -1.
    """
    cdef size_t padded = (n + 15) & ~<size_t>15
    cdef size_t size
    cdef uint8_t tos = 0
    cdef uint8_t *out
    cdef uint8_t behind[16]
    if padded > p.mtu:
        padded = n if n > p.mtu else p.mtu
    size = DATA_OVERHEAD + padded
    if (p.sealed_used + size > SEALED_BYTES or p.super_count == UDP_BATCH) and not flush(p):
        return DROP_SEND_FAILED
    out = p.sealed + p.sealed_used
    store32le(out, 4)
    store32le(out + 4, s.remote_index)
    store64le(out + 8, s.counter)
    if padded != n:
        memcpy(behind, packet + n, padded - n)
        memset(packet + n, 0, padded - n)
    if not aead_seal(&p.out_worker, s.sealer, s.counter, packet, padded, out + DATA_HEADER):
        return DROP_SEND_FAILED
    if padded != n:
        memcpy(packet + n, behind, padded - n)
    s.counter += 1
    p.sealed_used += size
    if n:
        tos = packet[1] & 3 if packet[0] >> 4 == 4 else packet[1] >> 4 & 3
    add_datagram(p, t, size, tos)

    note_sent(p, s)
    s.sent.size += size
    s.sent.packets += 1
    s.sent.any = now
    if n:
        s.sent.data = now
        if atomic_get_time(&s.unanswered_since) == NEVER:
            atomic_set_time(&s.unanswered_since, now)
    if atomic_get_time(&s.unacknowledged_since) != NEVER:
        atomic_set_time(&s.unacknowledged_since, NEVER)
    if s.counter >= s.rekey_limit and not s.rekey_limit_told:
        s.rekey_limit_told = True
        s.sent.rekey_limit_reached = True
        signal(p)
    return -1


cdef int hand_up(Plane *p, const Peer *peer, const uint8_t *packet, size_t n) noexcept nogil:
    if n and not queue_add(p, &p.no_session, peer.id, packet, n, NULL, NULL):
        return DROP_STAGED_OVERFLOW
    return -1


cdef int to_peer(Plane *p, Peer *peer, uint8_t *packet, size_t n, double now) noexcept nogil:
    """Send a packet under the peer's session, or hand it up. Why it was dropped, or -1."""
    cdef Session *s = <Session *>atomic_take_pointer(<void **>&peer.confirmed)
    cdef Target t
    if s != NULL and (peer.current == NULL or peer.current.born < s.born):
        peer.current = s
    s = peer.current
    if s == NULL or now >= s.expires:
        return hand_up(p, peer, packet, n)
    if s.counter >= s.message_limit:
        if not s.exhausted_told:
            note_sent(p, s)
            s.exhausted_told = True
            s.sent.exhausted = True
            signal(p)
        return hand_up(p, peer, packet, n)
    if is_down(p):
        return DROP_DEVICE_DOWN
    if not target_of(peer, &t):
        return DROP_NO_ENDPOINT
    return seal(p, s, &t, packet, n, now)


cdef int route_out(Plane *p, uint8_t *packet, size_t n, double now) noexcept nogil:
    """Why it was dropped, or -1."""
    cdef int version = ip_version(packet, n)
    cdef Peer *peer
    if version == 0 or ip_length(packet, version) > n or ip_length(packet, version) < 20:
        return DROP_NOT_AN_IP_PACKET
    peer = owner_of(p, &p.route, packet + (16 if version == 4 else 24), version)
    if peer == NULL:
        return NO_ROUTE_TOLD if queue_add(p, &p.no_route, 0, packet, n, NULL, NULL) else DROP_NO_ROUTE
    return to_peer(p, peer, packet, n, now)


cdef void packet_out(Plane *p, uint8_t *packet, size_t n, double now) noexcept nogil:
    cdef int reason = route_out(p, packet, n, now)
    p.out_packets += 1
    if 0 <= reason < DROP_COUNT:
        drop_out(p, reason, 1)
    if p.tap_inner:
        copy_of(p, &p.out_tap, True, packet, n, NULL, NULL, DROP_NO_ROUTE if reason == NO_ROUTE_TOLD else reason)


cdef void frame_out(Plane *p, size_t n, double now) noexcept nogil:
    """One frame from the tunnel device, in p.frame."""
    cdef uint8_t *vnet = p.frame
    cdef uint8_t *packet = p.frame
    cdef Split split
    cdef SplitVerdict verdict
    cdef size_t length = 0
    if is_down(p):
        drop_out(p, DROP_DEVICE_DOWN, 1)
        return
    if not p.vnet:
        packet_out(p, packet, n, now)
        return
    if n < VNET + 20:
        drop_out(p, DROP_TRUNCATED, 1)
        return
    packet += VNET
    n -= VNET
    if vnet[1] == 0:
        if vnet[0] & VNET_NEEDS_CSUM and not complete_checksum(
            packet, n, load16native(vnet + 6), load16native(vnet + 8)
        ):
            drop_out(p, DROP_BAD_OFFLOAD, 1)
            return
        packet_out(p, packet, n, now)
        return
    verdict = split_begin(&split, vnet, packet, n)
    if verdict != SPLIT_FITS:
        drop_out(p, DROP_TRUNCATED if verdict == SPLIT_TRUNCATED else DROP_BAD_OFFLOAD, 1)
        return
    while True:
        packet = split_next(&split, &length)
        if packet == NULL:
            return
        packet_out(p, packet, length, now)


cdef int outgoing(Plane *p, int limit, double now) noexcept nogil:
    """One burst of up to `limit` frames from the tunnel device; how many there were. Under out_lock."""
    cdef int moved = 0
    cdef ssize_t n
    p.tun_drained = True
    p.out_failed = False
    p.out_bytes = 0
    if p.super_count and not flush(p):
        return 0
    while True:
        if moved == limit or p.out_bytes >= BURST_BYTES or (moved and atomic_get(&p.waiting)):
            p.tun_drained = False
            break
        n = read(p.tun_fd, p.frame, FRAME_BYTES)
        if n <= 0:
            if n < 0 and c_errno == EINTR:
                continue
            if n == 0 or c_errno == EBADFD or c_errno == EBADF:
                tun_is_gone(p)
            elif c_errno != EAGAIN:
                p.out_failed = True
            break
        moved += 1
        p.out_bytes += n
        frame_out(p, n, now)
        if p.blocked_fd >= 0 or (p.sealed_used >= FLUSH_BYTES and not flush(p)):
            return moved
    flush(p)
    return moved


# --- Incoming. --------------------------------------------------------------------------------------------


cdef void write_tun(Plane *p, const iovec *parts, int count, int packets) noexcept nogil:
    while writev(p.tun_fd, parts, count) < 0:
        if c_errno == EINTR:
            continue
        if c_errno == EBADFD or c_errno == EBADF:
            tun_is_gone(p)
        drop_in(p, DROP_TUN_WRITE_FAILED, packets)
        return


cdef void write_packet(Plane *p, uint8_t *packet, size_t n) noexcept nogil:
    """One packet as it is; the 10 bytes before it are used."""
    cdef iovec part
    part.iov_base = packet
    part.iov_len = n
    if p.vnet:
        memset(packet - VNET, 0, VNET)
        part.iov_base = packet - VNET
        part.iov_len = n + VNET
    write_tun(p, &part, 1, 1)


cdef void write_flow(Plane *p, Flow *f) noexcept nogil:
    f.used = False
    flow_finish(f)
    write_tun(p, f.parts, f.count, f.count)


cdef void write_flows(Plane *p) noexcept nogil:
    cdef int i
    for i in range(p.flow_count):
        if p.flows[i].used:
            write_flow(p, &p.flows[i])
    p.flow_count = 0


cdef void packet_in(Plane *p, uint8_t *packet, size_t n, int version) noexcept nogil:
    """Write a packet into the tunnel device, or keep it until others of its flow have come."""
    cdef int kind, i
    cdef size_t payload = 0, headers = 0
    cdef Flow *f = NULL
    if not p.vnet:
        write_packet(p, packet, n)
        return
    kind = flow_kind(packet, n, version)
    if kind == 0:
        if packet[0] != 0x45 or load16(packet + 6) & 0x3FFF:
            write_flows(p)  # a fragment or one with options may belong to any flow: it is to overtake nothing
        write_packet(p, packet, n)
        return
    for i in range(p.flow_count):
        if p.flows[i].used and flow_same(&p.flows[i], packet, version, kind == TCP):
            f = &p.flows[i]
            break
    if kind == TCP or p.uso:
        payload = flow_payload(packet, n, version, kind == TCP, &headers)
    if f != NULL:
        if payload and flow_join(f, packet, headers, payload):
            return
        write_flow(p, f)
    if payload == 0:
        write_packet(p, packet, n)
        return
    if f == NULL:
        if p.flow_count == FLOWS:
            write_flows(p)
        f = &p.flows[p.flow_count]
        p.flow_count += 1
    flow_begin(f, packet, n, version, kind == TCP, headers, payload)


cdef bint ecn_in(uint8_t *packet, int version, int outer) noexcept nogil:
    """Combine the outer codepoint with the inner one (RFC 6040, figure 4); false: drop the packet."""
    cdef int inner = packet[1] & 3 if version == 4 else packet[1] >> 4 & 3
    cdef int combined = inner
    cdef uint16_t before
    cdef uint32_t total
    if outer == 3:
        if inner == 0:
            return False
        combined = 3
    elif outer == 1 and inner == 2:
        combined = 1
    if version == 6:
        packet[1] = <uint8_t>(packet[1] & 0xCF | combined << 4)
        return True
    before = load16(packet)
    packet[1] = <uint8_t>(packet[1] & 0xFC | combined)
    # RFC 1624, equation 3, so that a header that was wrong stays wrong
    total = (~load16(packet + 10) & 0xFFFF) + (~before & 0xFFFF) + load16(packet)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    store16(packet + 10, <uint16_t>(~total & 0xFFFF))
    return True


cdef inline void follow(Plane *p, Peer *peer, const udp_received *r) noexcept nogil:
    """An authentic message came from there: answer there."""
    if peer.has_endpoint and same_address(&peer.endpoint, &r.source) and same_local(&peer.local, &r.local):
        return
    spin_lock(&peer.endpoint_lock)
    peer.references += not peer.has_endpoint
    peer.has_endpoint = True
    peer.endpoint = r.source
    peer.local = r.local
    spin_unlock(&peer.endpoint_lock)
    if not peer.has_moved:
        peer.has_moved = True
        peer.next_moved = p.moved
        p.moved = peer
    signal(p)


cdef inline void note_arrived(Plane *p, Session *s, size_t size, double now) noexcept nogil:
    if not s.has_arrived:
        memset(&s.arrived, 0, sizeof(Arrived))
        s.arrived.data = NEVER
        s.has_arrived = True
        s.next_arrived = p.arrived
        p.arrived = s
        signal_activity(p)
    if not s.heard_from:
        s.heard_from = True
        s.arrived.first_use = True
        if not s.may_send:
            atomic_set_pointer(<void **>&s.peer.confirmed, s)
        signal(p)
    s.arrived.size += size
    s.arrived.packets += 1
    s.arrived.any = now
    if atomic_get_time(&s.unanswered_since) != NEVER:
        atomic_set_time(&s.unanswered_since, NEVER)


cdef int data_in(Plane *p, const udp_received *r, uint8_t *data, size_t size, double now) noexcept nogil:
    """One data message of at least 32 bytes. Why it was dropped, or -1."""
    cdef Session *s = session_find(p, load32le(data + 4))
    cdef uint64_t counter = load64le(data + 8)
    cdef size_t n = size - DATA_OVERHEAD
    cdef size_t length
    cdef uint8_t *packet = data + DATA_HEADER
    cdef int version
    if s == NULL:
        return DROP_UNKNOWN_INDEX
    if now >= s.expires or counter >= s.message_limit:
        return DROP_EXPIRED_SESSION
    if not aead_open(&p.in_worker, s.opener, counter, packet, n):
        return DROP_BAD_TAG
    if not replay_accept(&s.window, counter):
        return DROP_REPLAYED
    note_arrived(p, s, size, now)
    follow(p, s.peer, r)
    if n == 0:
        return -1
    s.arrived.data = now
    if atomic_get_time(&s.unacknowledged_since) == NEVER:
        atomic_set_time(&s.unacknowledged_since, now)

    version = ip_version(packet, n)
    if version == 0:
        return DROP_NOT_AN_IP_PACKET
    length = ip_length(packet, version)
    if length > n or length < 20:
        return DROP_NOT_AN_IP_PACKET
    if owner_of(p, &p.source, packet + (12 if version == 4 else 8), version) != s.peer:
        return DROP_SOURCE_NOT_ALLOWED
    if r.tos & 3 and not ecn_in(packet, version, r.tos & 3):
        return DROP_ECN
    if p.tap_inner:
        copy_of(p, &p.in_tap, True, packet, length, NULL, NULL, -1)
    packet_in(p, packet, length, version)
    return -1


cdef inline uint32_t source_hash(const Plane *p, const udp_address *a) noexcept nogil:
    """Where control messages from this address are counted; nobody outside knows who shares a place."""
    cdef uint32_t h = (load32(a.host) ^ p.hash_key) * 0x9E3779B1U
    if a.family == AF_INET6:
        h = (h ^ (h >> 15) ^ load32(a.host + 4)) * 0x85EBCA77U
    h ^= h >> 15
    h *= 0x846CA68BU
    return (h ^ (h >> 16)) & (SOURCES - 1)


cdef void send_replies(Plane *p) noexcept nogil:
    """Send the cookie replies that wait; what the system refuses is lost, and counted."""
    cdef int first = 0, sent, reason
    cdef Reply *reply
    cdef Copy *copy
    while first < p.reply_count:
        reply = &p.replies[first]
        sent = udp_send(p.reply_out, fd_of(p, &reply.to), first, p.reply_count - first)
        reason = -1
        if sent <= 0:
            if reply.source.family and is_local_error(-sent):
                memset(&reply.source, 0, sizeof(udp_local))
                fill_reply(p, first)
                continue
            sent = p.reply_count - first if sent == -EAGAIN else 1
            reason = DROP_SEND_FAILED
            drop(p.in_drops, "out", reason, sent)
        while sent > 0:
            reply = &p.replies[first]
            if p.tap_outer:
                copy = copy_of(
                    p, &p.in_tap, False, reply.message, COOKIE_REPLY, &reply.to, &reply.source, reason
                )
                if copy != NULL:
                    copy.sent = True
            first += 1
            sent -= 1
    p.reply_count = 0


cdef inline void fill_reply(Plane *p, int i) noexcept nogil:
    cdef Reply *reply = &p.replies[i]
    udp_fill(p.reply_out, i, reply.message, COOKIE_REPLY, 0, &reply.to, &reply.source, HANDSHAKE_TOS)


cdef uint32_t asked_hash(const Plane *p, const udp_address *a) noexcept nogil:
    cdef uint64_t h = (load64(a.host) ^ p.hash_key) * 0x9E3779B97F4A7C15ULL
    h = (h ^ (h >> 32) ^ load64(a.host + 8)) * 0xBF58476D1CE4E5B9ULL
    h = (h ^ (h >> 29) ^ a.port ^ p.hash_key) * 0x94D049BB133111EBULL
    return <uint32_t>(h >> 32) & (ASKED_BITS - 1)


cdef bint may_be_answered(Plane *p, const udp_address *source, double now) noexcept nogil:
    """Whether there is time to answer a message that brings no cookie.

    An answer costs as much as everything before it. Where there is no time for all, packets of sessions would be lost in
    the socket's buffer. So while it fills, few are answered, and of those only who asked before: whoever is there tries
    again after five seconds, and a source that is made up seldom comes twice.
    """
    cdef uint32_t place = asked_hash(p, source)
    cdef uint8_t bit = 1 << (place & 7)
    cdef uint8_t *lately
    cdef bint asked
    if not p.filling:
        return True
    if now - p.asked_since >= ASKED_LASTS:
        p.asked_since = now
        lately = p.asked[1]
        p.asked[1] = p.asked[0]
        p.asked[0] = lately
        memset(lately, 0, ASKED_BITS // 8)
    place >>= 3
    asked = ((p.asked[0][place] | p.asked[1][place]) & bit) != 0
    p.asked[0][place] |= bit
    if p.answers_saved < ANSWERS_SAVED * ANSWER_COSTS:
        p.answers_saved += 1
    if not asked or p.answers_saved < ANSWER_COSTS:
        return False
    p.answers_saved -= ANSWER_COSTS
    return True


cdef bint proves_its_source(
    Plane *p, const udp_received *r, const uint8_t *data, size_t n, double now
) noexcept nogil:
    """Whether a handshake message brings the cookie of its source; one that does not is answered with it."""
    cdef uint8_t cookie[16]
    cdef Reply *reply
    cdef bint brings = mac2_is_set(data, n)
    cdef bint answer = may_be_answered(p, &r.source, now)
    if not (brings or answer) or not cookie_of(p.cookies, &r.source, cookie):
        return False
    if brings and cookie_brought(p.cookies, cookie, data, n):
        return True
    if not answer:
        return False
    if p.reply_count == REPLIES:
        send_replies(p)
    if p.nonce_count == 0:
        if not random_fill(p.nonces, REPLIES * COOKIE_NONCE):
            return False
        p.nonce_count = REPLIES
    p.nonce_count -= 1
    reply = &p.replies[p.reply_count]
    if cookie_reply(p.cookies, cookie, data, n, p.nonces + p.nonce_count * COOKIE_NONCE, reply.message):
        reply.to = r.source
        reply.source = r.local
        fill_reply(p, p.reply_count)
        p.reply_count += 1
    return False


cdef int control_in(Plane *p, const udp_received *r, const uint8_t *data, size_t n, double now) noexcept nogil:
    """One message that is no data message. Why it was dropped, or -1."""
    cdef size_t size
    cdef uint16_t *count
    if n < 4:
        return DROP_TRUNCATED if n else DROP_EMPTY
    if data[0] < 1 or data[0] > 4:
        return DROP_UNKNOWN_TYPE
    if data[1] or data[2] or data[3]:
        return DROP_RESERVED_BITS
    size = 148 if data[0] == 1 else 92 if data[0] == 2 else 64
    if n != size:
        return DROP_TRUNCATED if n < size else DROP_OVERSIZED
    if data[0] != 3:  # a cookie reply has no MAC1
        if p.mac1 == NULL:
            return DROP_NO_PRIVATE_KEY
        if not mac_right(p.mac1, data, size - 32, data + size - 32):
            return DROP_BAD_MAC1
    count = &p.control_of[SOURCES if data[0] == 3 else source_hash(p, &r.source)]
    if count[0] >= HANDUP_SHARE:
        return DROP_QUEUE_FULL
    if data[0] != 3 and now < p.cookies_until and not proves_its_source(p, r, data, n, now):
        count[0] += 1
        return DROP_UNDER_LOAD
    if not queue_add(p, &p.control, 0, data, n, &r.source, &r.local):
        return DROP_QUEUE_FULL
    count[0] += 1
    return -1


cdef void message_in(Plane *p, const udp_received *r, double now) noexcept nogil:
    """Every datagram in one message of recvmmsg."""
    cdef size_t offset = 0
    cdef size_t size
    cdef uint8_t *data
    cdef Copy *copy = NULL
    cdef int reason
    if r.length == 0:
        drop_in(p, DROP_EMPTY, 1)
    while offset < r.length:
        data = r.data + offset
        size = r.segment if r.length - offset > r.segment else r.length - offset
        offset += size
        p.in_packets += 1
        if p.tap_outer:  # now: what is opened is opened where it lies
            copy = copy_of(p, &p.in_tap, False, data, size, &r.source, &r.local, -1)
        if size >= 4 and load32le(data) == 4:
            reason = data_in(p, r, data, size, now) if size >= DATA_OVERHEAD else DROP_TRUNCATED
        else:
            reason = control_in(p, r, data, size, now)
        if reason >= 0:
            drop_in(p, reason, 1)
        if copy != NULL:
            copy.reason = reason
            copy = NULL


cdef int incoming(Plane *p, int which, double now) noexcept nogil:
    """One burst from one socket; how many messages there were. Under in_lock."""
    cdef int got, i
    cdef udp_received r
    p.in_bytes = 0
    p.in_failed = False
    if p.fds[which] < 0:
        return 0
    got = udp_receive(p.into, p.fds[which], p.received, UDP_RECEIVE)
    if got < 0:
        p.in_failed = got != -EAGAIN
        return 0
    p.filling = now < p.cookies_until and udp_is_filling(p.fds[which])
    for i in range(got):
        if udp_parse(p.into, i, &r):
            p.in_bytes += r.length
            message_in(p, &r, now)
    write_flows(p)
    send_replies(p)
    return got


cdef inline double burst_begins(const char *direction) noexcept nogil:
    if probe_burst_begin_wanted():
        probe_burst_begin(direction)
    return clock_now()


cdef void burst_ends(
    Burst *all, const char *direction, int moved, uint64_t packets, size_t size, double begun
) noexcept nogil:
    cdef double seconds = clock_now() - begun
    if moved:
        burst_add(all, packets, seconds)
    if probe_burst_end_wanted():
        probe_burst_end(direction, packets, size, <uint64_t>(seconds * 1e9))


cdef int timed_outgoing(Plane *p, int limit, double now) noexcept nogil:
    """`outgoing`, and count the burst."""
    cdef uint64_t before = p.out_packets
    cdef double begun = burst_begins("out")
    cdef int moved = outgoing(p, limit, now)
    burst_ends(&p.out_bursts, "out", moved, p.out_packets - before, p.out_bytes, begun)
    return moved


cdef int timed_incoming(Plane *p, int which, double now) noexcept nogil:
    """`incoming`, and count the burst."""
    cdef uint64_t before = p.in_packets
    cdef double begun = burst_begins("in")
    cdef int got = incoming(p, which, now)
    burst_ends(&p.in_bursts, "in", got, p.in_packets - before, p.in_bytes, begun)
    return got


# --- Threads. ---------------------------------------------------------------------------------------------


cdef inline void give_way(Plane *p) noexcept nogil:
    """Let commands have the locks that were just given back."""
    while atomic_get(&p.waiting) > 0:
        sched_yield()


cdef inline int wait_awake(pollfd *fds, int n, double seconds) noexcept nogil:
    """How many descriptors became ready within that time; whoever else wants the processor gets it."""
    cdef double until = clock_now() + seconds
    cdef int ready = poll(fds, n, 0)
    while ready == 0 and clock_now() < until:
        sched_yield()
        ready = poll(fds, n, 0)
    return ready


cdef inline void wait_for(pollfd *fds, int n, int wake, bint awake) noexcept nogil:
    """Wait until one of the descriptors is ready, at first awake or asleep at once; the first is for waking us."""
    cdef uint64_t value
    cdef int ready = 0
    fds[0].fd = wake
    fds[0].events = POLLIN
    if awake:
        ready = wait_awake(fds, n, AWAKE)
    if ready == 0:
        ready = poll(fds, n, -1)
    if ready > 0 and fds[0].revents:
        read(wake, &value, sizeof(value))
    elif ready < 0 and c_errno != EINTR:
        usleep(PAUSE)


cdef inline void pause_after(bint failed) noexcept nogil:
    """What is ready and cannot be read is tried again, but not as fast as the processor can."""
    if failed:
        usleep(PAUSE)


cdef void wake_up(int wake) noexcept nogil:
    cdef uint64_t one = 1
    write(wake, &one, sizeof(one))


cdef inline bint is_light(int moved, size_t size) noexcept nogil:
    return moved <= LIGHT_FRAMES and size <= LIGHT_BYTES


cdef struct Turns:  # of a conversation: one packet answers the other
    bint last  # the direction of the last packet, as below
    int quick[2]  # by direction: how often in a row its packet was answered within QUICK, at most QUICK_ANSWERS


cdef inline void take_turn(Turns *t, bint out, double waited) noexcept nogil:
    """Something came in, or was sent out, that long after what came before."""
    cdef int *quick = &t.quick[t.last]
    if out == t.last or waited >= QUICK:
        quick[0] = 0
    elif quick[0] < QUICK_ANSWERS:
        quick[0] += 1
    t.last = out


cdef inline bint is_conversation(const Turns *t) noexcept nogil:
    return t.quick[t.last] == QUICK_ANSWERS


cdef void part(Plane *p) noexcept nogil:
    """Have the outgoing thread read the tunnel device again."""
    atomic_set(&p.light, 0)
    atomic_set(&p.together, 0)
    wake_up(p.out_wake)


cdef void outgoing_loop(Plane *p) noexcept nogil:
    cdef pollfd fds[2]
    cdef bint again, failed
    cdef int moved
    cdef double now, asleep_since = 0
    memset(fds, 0, sizeof(fds))
    while not atomic_get(&p.stopping):
        if atomic_get(&p.together):
            wait_for(fds, 1, p.out_wake, False)
            continue
        now = clock_now()
        pthread_mutex_lock(&p.out_lock)
        moved = timed_outgoing(p, BURST, now)
        if not is_light(moved, p.out_bytes) or now - asleep_since < WINK:
            atomic_set(&p.light, 0)
        again = not p.tun_drained and p.blocked_fd < 0
        if p.blocked_fd >= 0:
            fds[1].fd = p.blocked_fd
            fds[1].events = POLLOUT
        else:
            fds[1].fd = -1 if atomic_get(&p.gone) else p.tun_fd
            fds[1].events = POLLIN
            if atomic_add(&p.light, 1) > LIGHT_BURSTS:
                atomic_set(&p.together, 1)
                wake_up(p.in_wake)
        failed = p.out_failed
        pthread_mutex_unlock(&p.out_lock)
        give_way(p)
        pause_after(failed)
        if not again and not atomic_get(&p.together):
            asleep_since = clock_now()
            wait_for(fds, 2, p.out_wake, False)


cdef void incoming_loop(Plane *p) noexcept nogil:
    cdef pollfd fds[4]
    cdef bint again, light, failed
    cdef int i, got, moved, hurried = 0
    cdef double now, waits_since = 0
    cdef Turns turns
    memset(fds, 0, sizeof(fds))
    memset(&turns, 0, sizeof(turns))
    while not atomic_get(&p.stopping):
        now = clock_now()
        hurried = hurried + 1 if now - waits_since < WINK else 0
        again = False
        moved = 0
        light = True
        failed = False
        pthread_mutex_lock(&p.in_lock)
        for i in range(2):
            # After a sleep, only a socket that woke us has something; a full burst may have left something.
            if fds[i + 1].revents:
                got = timed_incoming(p, i, now)
                failed = failed or p.in_failed
                again = again or got == UDP_RECEIVE
                if got > 0:
                    take_turn(&turns, False, now - waits_since)
                light = light and is_light(got, p.in_bytes)
            fds[i + 1].fd = p.fds[i]
            fds[i + 1].events = POLLIN
        pthread_mutex_unlock(&p.in_lock)
        fds[3].fd = -1
        if atomic_get(&p.together):
            if fds[3].revents:
                pthread_mutex_lock(&p.out_lock)
                # One frame is nearly always all there is, and to ask for another costs as much as to sleep.
                moved = timed_outgoing(p, BURST if hurried else 1, now)
                failed = failed or p.out_failed
                light = light and is_light(moved, p.out_bytes) and p.blocked_fd < 0
                pthread_mutex_unlock(&p.out_lock)
            if not light or hurried > HURRIED_BURSTS:
                part(p)
            elif not atomic_get(&p.gone):
                fds[3].fd = p.tun_fd
                fds[3].events = POLLIN
        elif not light:
            atomic_set(&p.light, 0)
        if moved > 0:
            take_turn(&turns, True, now - waits_since)
        give_way(p)
        pause_after(failed)
        if not again:
            waits_since = clock_now()
            wait_for(fds, 4, p.in_wake, fds[3].fd >= 0 and is_conversation(&turns))


# --- Commands. --------------------------------------------------------------------------------------------


cdef void take_locks(Plane *p) noexcept nogil:
    """Both directions stand still from here on."""
    atomic_add(&p.waiting, 1)
    pthread_mutex_lock(&p.in_lock)
    pthread_mutex_lock(&p.out_lock)
    atomic_add(&p.waiting, -1)


cdef void give_locks(Plane *p) noexcept nogil:
    pthread_mutex_unlock(&p.out_lock)
    pthread_mutex_unlock(&p.in_lock)


cdef bint take_record(Session *s, Record *record) noexcept nogil:
    """Move what a session has to report into `record`; false when that is nothing. Under both locks."""
    if not s.has_sent and not s.has_arrived:
        return False
    memset(record, 0, sizeof(Record))
    record.local_index = s.local_index
    record.peer = s.peer.id
    record.sent.any = NEVER
    record.sent.data = NEVER
    record.arrived.any = NEVER
    record.arrived.data = NEVER
    if s.has_sent:
        record.sent = s.sent
    if s.has_arrived:
        record.arrived = s.arrived
    record.unanswered_since = s.unanswered_since
    record.unacknowledged_since = s.unacknowledged_since
    s.unanswered_since = NEVER
    s.unacknowledged_since = NEVER
    s.has_sent = False
    s.has_arrived = False
    return True


cdef void session_remove(Plane *p, Session *s) noexcept nogil:
    """Take a session out of all lists and forget its keys; what it has to report is kept. Under both locks."""
    cdef Session **place = &p.buckets[s.local_index & p.bucket_mask]
    cdef Record *retired
    while place[0] != s:
        place = &place[0].next_in_bucket
    place[0] = s.next_in_bucket
    p.session_count -= 1
    if s.has_sent:
        place = &p.sent
        while place[0] != s:
            place = &place[0].next_sent
        place[0] = s.next_sent
    if s.has_arrived:
        place = &p.arrived
        while place[0] != s:
            place = &place[0].next_arrived
        place[0] = s.next_arrived
    if s.has_sent or s.has_arrived:
        retired = <Record *>realloc(p.retired, (p.retired_count + 1) * sizeof(Record))
        if retired != NULL:
            p.retired = retired
            p.retired_count += take_record(s, &retired[p.retired_count])
    if s.peer.current == s:
        s.peer.current = NULL
    if s.peer.confirmed == s:
        s.peer.confirmed = NULL
    s.peer.references -= 1
    aead_key_free(s.sealer)
    aead_key_free(s.opener)
    free(s)


cdef void session_grow(Plane *p) noexcept nogil:
    """Twice as many buckets, if memory allows. Under both locks."""
    cdef uint32_t n = (p.bucket_mask + 1) * 2
    cdef uint32_t i
    cdef Session **buckets = <Session **>calloc(n, sizeof(Session *))
    cdef Session *s
    cdef Session *following
    if buckets == NULL:
        return
    for i in range(p.bucket_mask + 1):
        s = p.buckets[i]
        while s != NULL:
            following = s.next_in_bucket
            s.next_in_bucket = buckets[s.local_index & (n - 1)]
            buckets[s.local_index & (n - 1)] = s
            s = following
    free(p.buckets)
    p.buckets = buckets
    p.bucket_mask = n - 1


cdef void forget_lookups(Plane *p) noexcept nogil:
    p.route.version = 0
    p.source.version = 0


cdef void forget_sealed(Plane *p) noexcept nogil:
    p.super_first = 0
    p.super_count = 0
    p.sealed_used = 0
    p.blocked_fd = -1


cdef Plane *plane_new(aead_backend backend) noexcept nogil:
    cdef Plane *p = <Plane *>calloc(1, sizeof(Plane))
    if p == NULL:
        return NULL
    p.backend = backend
    p.blocked_fd = -1
    p.fds[0] = -1
    p.fds[1] = -1
    p.quiet = 1
    p.together = 1
    p.no_session.limit = HANDUP_LIMIT
    p.no_route.limit = NO_ROUTE_LIMIT
    p.control.limit = HANDUP_LIMIT
    pthread_mutex_init(&p.out_lock, NULL)
    pthread_mutex_init(&p.in_lock, NULL)
    p.bucket_mask = BUCKETS - 1
    p.hash_key = <uint32_t>(<size_t>p >> 4) ^ <uint32_t><uint64_t>(clock_now() * 1e9)
    p.buckets = <Session **>calloc(BUCKETS, sizeof(Session *))
    p.frame = <uint8_t *>malloc(FRAME_BYTES + SLACK)
    p.sealed = <uint8_t *>malloc(SEALED_BYTES)
    p.supers = <Super *>calloc(UDP_BATCH, sizeof(Super))
    p.out = <udp_out *>calloc(1, sizeof(udp_out))
    p.received = <uint8_t *>malloc(UDP_RECEIVE * UDP_LARGEST)
    p.into = <udp_in *>calloc(1, sizeof(udp_in))
    p.flows = <Flow *>calloc(FLOWS, sizeof(Flow))
    p.replies = <Reply *>calloc(REPLIES, sizeof(Reply))
    p.reply_out = <udp_out *>calloc(1, sizeof(udp_out))
    p.nonces = <uint8_t *>malloc(REPLIES * COOKIE_NONCE)
    p.asked[0] = <uint8_t *>calloc(ASKED_BITS // 8, 1)
    p.asked[1] = <uint8_t *>calloc(ASKED_BITS // 8, 1)
    p.cookies_until = NEVER
    p.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    p.out_wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    p.in_wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if (
        p.buckets == NULL or p.frame == NULL or p.sealed == NULL or p.supers == NULL or p.out == NULL
        or p.received == NULL or p.into == NULL or p.flows == NULL
        or p.replies == NULL or p.reply_out == NULL or p.nonces == NULL
        or p.asked[0] == NULL or p.asked[1] == NULL
        or p.event_fd < 0 or p.out_wake < 0 or p.in_wake < 0
        or not aead_worker_init(&p.out_worker, backend) or not aead_worker_init(&p.in_worker, backend)
    ):
        plane_free(p)
        return NULL
    return p


cdef void forget_cookies(Plane *p) noexcept nogil:
    cookie_maker_free(p.cookies)
    p.cookies = NULL
    p.cookies_until = NEVER


cdef void plane_forget(Plane *p) noexcept nogil:
    """Forget all sessions, their keys, and what is sealed. Under both locks."""
    cdef uint32_t i
    if p.buckets != NULL:
        for i in range(p.bucket_mask + 1):
            while p.buckets[i] != NULL:
                session_remove(p, p.buckets[i])
    forget_sealed(p)
    p.fds[0] = -1
    p.fds[1] = -1
    mac_free(p.mac1)
    p.mac1 = NULL
    forget_cookies(p)


cdef void plane_free(Plane *p) noexcept nogil:
    cdef Peer *peer
    plane_forget(p)
    trie_free(p.routes4)
    trie_free(p.routes6)
    while p.peers != NULL:
        peer = p.peers
        p.peers = peer.next
        free(peer)
    queue_clear(&p.no_session)
    queue_clear(&p.no_route)
    queue_clear(&p.control)
    aead_worker_free(&p.out_worker)
    aead_worker_free(&p.in_worker)
    free(p.buckets)
    free(p.retired)
    free(p.frame)
    free(p.sealed)
    free(p.supers)
    free(p.out)
    free(p.received)
    free(p.into)
    free(p.flows)
    free(p.replies)
    free(p.reply_out)
    free(p.nonces)
    free(p.asked[0])
    free(p.asked[1])
    free(p.out_tap.data)
    free(p.in_tap.data)
    if p.event_fd >= 0:
        close(p.event_fd)
    if p.out_wake >= 0:
        close(p.out_wake)
    if p.in_wake >= 0:
        close(p.in_wake)
    pthread_mutex_destroy(&p.out_lock)
    pthread_mutex_destroy(&p.in_lock)
    free(p)


# --- Python's side. ---------------------------------------------------------------------------------------

cdef unsigned _found = 0
cdef bint _looked = False
_CIPHERS = {"ipsec-mb": AEAD_IPSEC_MB, "boringssl": AEAD_BORINGSSL, "openssl": AEAD_OPENSSL}


cdef unsigned _libraries():
    global _found, _looked
    if not _looked:
        _found = aead_load()
        _looked = True
    return _found


def available():
    """None, or why this data path cannot run here."""
    if _libraries() == 0:
        return "libcrypto.so.3 (OpenSSL 3 with ChaCha20-Poly1305 and BLAKE2s) was not found"
    return None


def ciphers():
    """The names of the cipher libraries that were found, as `CompiledDataPath` takes them."""
    return [name for name, backend in _CIPHERS.items() if _libraries() & 1u << <int>backend]


def cipher_library(cipher=None):
    """The library that seals and opens, with its version: the one called `cipher`, else the fastest."""
    return aead_name(_backend(cipher)).decode()


cdef aead_backend _backend(cipher) except *:
    if cipher is None:
        return aead_fastest(_libraries())
    if cipher not in ciphers():
        raise PywgError(f"the cipher library '{cipher}' was not found; here are: {', '.join(ciphers())}")
    return _CIPHERS[cipher]


def try_seal(cipher, bytes key not None, uint64_t counter, bytes plaintext not None):
    """What one of `ciphers()` makes of a plaintext under a key (32 bytes): ciphertext and tag."""
    cdef aead_worker worker
    cdef aead_key *k = _trial_key(cipher, key, 1, &worker)
    cdef bytearray out = bytearray(len(plaintext) + AEAD_TAG)
    cdef int ok = aead_seal(&worker, k, counter, <const uint8_t *><const char *>plaintext, len(plaintext),
                            <uint8_t *><char *>out)
    aead_key_free(k)
    aead_worker_free(&worker)
    if not ok:
        raise PywgError(f"{cipher} did not seal")
    return bytes(out)


def try_open_untrusted(cipher, bytes key not None, uint64_t counter, bytes sealed not None):
    """The plaintext, or None when the tag is wrong. Likewise, for trying a library."""
    cdef aead_worker worker
    cdef aead_key *k
    cdef bytearray data = bytearray(sealed)
    cdef int ok
    if len(sealed) < AEAD_TAG:
        return None
    k = _trial_key(cipher, key, 0, &worker)
    ok = aead_open(&worker, k, counter, <uint8_t *><char *>data, len(sealed) - AEAD_TAG)
    aead_key_free(k)
    aead_worker_free(&worker)
    return bytes(data[:-AEAD_TAG]) if ok else None


cdef aead_key *_trial_key(object cipher, bytes key, int sealing, aead_worker *worker) except NULL:
    cdef aead_backend backend = _backend(cipher)
    cdef aead_key *k
    if len(key) != 32:
        raise PywgError("a key must have 32 bytes")
    k = aead_key_new(backend, <const uint8_t *><const char *>key, sealing)
    if k == NULL or not aead_worker_init(worker, backend):
        aead_key_free(k)
        raise MemoryError
    return k


cdef class Probes:
    """`pywg.device.events.Probes`, as probes of the kernel's: who traces this process sees what is told here."""

    def handshake_begin(self, peer, bint initiator):
        if probe_handshake_begin_wanted():
            key, name = _who(peer)
            probe_handshake_begin(<bytes>key, <bytes>name, initiator)

    def handshake_end(self, peer, bint initiator):
        cdef double seconds
        if probe_handshake_end_wanted():
            key, name = _who(peer)
            seconds = (peer.counts.round_trip or 0.0) if initiator else 0.0
            probe_handshake_end(<bytes>key, <bytes>name, initiator, <uint64_t>(seconds * 1e9))

    def handshake_give_up(self, peer):
        if probe_handshake_give_up_wanted():
            key, name = _who(peer)
            probe_handshake_give_up(<bytes>key, <bytes>name)

    def session_install(self, peer, uint32_t local_index, bint initiator):
        if probe_session_install_wanted():
            key, name = _who(peer)
            probe_session_install(<bytes>key, <bytes>name, local_index, initiator)

    def session_retire(self, peer, uint32_t local_index):
        if probe_session_retire_wanted():
            key, name = _who(peer)
            probe_session_retire(<bytes>key, <bytes>name, local_index)

    def drop(self, reason, uint64_t count, bint outgoing):
        if probe_drop_wanted():
            text = reason.value.encode()
            probe_drop(<bytes>text, "out" if outgoing else "in", count)


cdef tuple _who(object peer):
    """The peer's short key and its name, as C takes them."""
    return peer.short_key.encode(), peer.name.encode()


cdef inline object _time(double t):
    return None if t == NEVER else t


cdef object _host(int family, const uint8_t *host):
    if family == AF_INET:
        return socket.inet_ntop(socket.AF_INET, host[:4])
    return socket.inet_ntop(socket.AF_INET6, host[:16])


cdef object _endpoint(const udp_address *a, const udp_local *source):
    cdef object local = None
    if source.family:
        local = LocalAddress(_host(source.family, source.host), source.interface)
    return Endpoint(_host(a.family, a.host), socket.ntohs(a.port), a.scope, local)


cdef object _bursts(const Burst *b):
    cdef int i
    by_packets = [b.by_packets[i] for i in range(BURST_BUCKETS)]
    by_microseconds = [b.by_microseconds[i] for i in range(BURST_BUCKETS)]
    return Bursts(b.count, b.packets, b.seconds, by_packets, by_microseconds)


cdef int _read_copies(const Tap *tap, bint outgoing, list into) except -1:
    """Append what was copied of one direction."""
    cdef size_t at = 0
    cdef const Copy *copy
    cdef const uint8_t *data
    while at < tap.used:
        copy = <const Copy *>(tap.data + at)
        data = tap.data + at + sizeof(Copy)
        endpoint = None if copy.inner else _endpoint(&copy.address, &copy.local)
        dropped = None if copy.reason < 0 else _REASONS[copy.reason]
        into.append(
            Tapped(copy.at, bool(copy.inner), outgoing or copy.sent != 0, copy.length, data[: copy.kept], endpoint, dropped)
        )
        at += (sizeof(Copy) + copy.kept + 7) & ~<size_t>7
    return 0


cdef int _pack_host(object text, uint8_t *host) except -1:
    """Write an address into 16 bytes; its family."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    cdef bytes packed = socket.inet_pton(family, text)
    memcpy(host, <const char *>packed, len(packed))
    return family


cdef int _pack_endpoint(object endpoint, udp_address *a, udp_local *source) except -1:
    memset(a, 0, sizeof(udp_address))
    memset(source, 0, sizeof(udp_local))
    a.family = _pack_host(endpoint.host, a.host)
    a.port = socket.htons(endpoint.port)
    a.scope = endpoint.scope_id
    if endpoint.local is not None:
        source.family = _pack_host(endpoint.local.host, source.host)
        source.interface = endpoint.local.interface
    return 0


cdef struct Prefix:
    uint64_t high
    uint64_t low
    int length
    bint v6


cdef int _pack_network(object network, Prefix *n) except -1:
    """From the bytes of `pywg.wire.network.Network`: an address and the length of its prefix."""
    cdef Py_ssize_t size = len(network) - 1
    if not isinstance(network, bytes) or size not in (4, 16):
        raise TypeError("this is no network")
    cdef const uint8_t *data = <const uint8_t *><const char *><bytes>network
    n.v6 = size == 16
    n.length = data[size]
    if n.length > size * 8:
        raise ValueError("a prefix is longer than its address")
    n.high = load64(data) if n.v6 else <uint64_t>load32(data) << 32
    n.low = load64(data + 8) if n.v6 else 0
    return 0


cdef class CompiledDataPath:
    """The contract `DataPath` (see `base.py` for every method), with two threads once it was started.

    cipher: a name from `ciphers()`; None: the fastest for this processor. Raises PywgError when the tunnel device has
    no descriptor, or the library is not there.
    """

    cdef Plane *_plane
    cdef object _tun
    cdef object _threads
    cdef dict _peers  # PeerId: address of the Peer
    cdef bint _closed
    cdef size_t _xaead_seal  # libsodium's function

    def __cinit__(self, tun, cipher=None):
        global c_errno
        cdef aead_backend backend
        cdef int code
        self._peers = {}
        reason = available()
        if reason is not None:
            raise PywgError(reason)
        backend = _backend(cipher)
        if tun.fileno() < 0:
            raise PywgError("the compiled data path needs a tunnel device with a descriptor")
        self._tun = tun
        self._xaead_seal = xaead_seal_address()
        c_errno = 0
        self._plane = plane_new(backend)
        if self._plane == NULL:
            code = c_errno
            if code == 0 or code == ENOMEM:
                raise MemoryError
            raise OSError(code, f"the compiled data path cannot be made: {os.strerror(code)}{remedy(code)}")
        self._plane.tun_fd = tun.fileno()
        self._plane.vnet = tun.offload.vnet_hdr
        self._plane.uso = tun.offload.uso
        self._plane.mtu = tun.state().mtu

    def __dealloc__(self):
        if self._plane != NULL:
            plane_free(self._plane)

    # --- Life. ---------------------------------------------------------------------------------------------

    def start(self):
        if self._threads is not None or self._closed:
            return
        self._threads = [
            threading.Thread(target=self._run_outgoing, name="pywg-outgoing", daemon=True),
            threading.Thread(target=self._run_incoming, name="pywg-incoming", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _run_outgoing(self):
        with nogil:
            outgoing_loop(self._plane)

    def _run_incoming(self):
        with nogil:
            incoming_loop(self._plane)

    def close(self):
        cdef Plane *p = self._plane
        if self._closed:
            return
        self._closed = True
        atomic_set(&p.stopping, 1)
        wake_up(p.out_wake)
        wake_up(p.in_wake)
        for thread in self._threads or ():
            thread.join()
        plane_forget(p)

    def fileno(self):
        return -1 if self._threads is None or self._closed else self._plane.event_fd

    # --- What the control plane tells. ---------------------------------------------------------------------

    cdef Peer *_peer(self, object peer) except NULL:
        """The peer of this number, made if it is new; `_let_go` is to follow whatever it is made for."""
        cdef Peer *known
        address = self._peers.get(peer)
        if address is not None:
            return <Peer *><size_t>address
        known = <Peer *>calloc(1, sizeof(Peer))
        if known == NULL:
            raise MemoryError
        known.id = peer
        known.next = self._plane.peers
        if known.next != NULL:
            known.next.previous = known
        self._plane.peers = known
        self._peers[peer] = <size_t>known
        return known

    cdef int _let_go(self, object peer) except -1:
        """Free a peer that has no session, no network and no endpoint any more."""
        cdef Plane *p = self._plane
        cdef Peer *known
        cdef bint free_it
        cdef int i
        address = self._peers.get(peer)
        if address is None:
            return 0
        known = <Peer *><size_t>address
        with nogil:
            take_locks(p)
            free_it = known.references == 0 and not known.has_moved
            if free_it:
                forget_lookups(p)
                for i in range(p.super_first, p.super_count):
                    if p.supers[i].peer == known:
                        p.supers[i].peer = NULL
            give_locks(p)
        if free_it:
            del self._peers[peer]
            if known.previous != NULL:
                known.previous.next = known.next
            else:
                p.peers = known.next
            if known.next != NULL:
                known.next.previous = known.previous
            free(known)
        return 0

    def set_bind(self, bind):
        cdef Plane *p = self._plane
        cdef int fds[2]
        cdef bint gso = bind is not None and bind.offload.gso
        fds[0] = -1
        fds[1] = -1
        if bind is not None:
            for fd in bind.filenos():
                family = udp_family(fd)
                if family not in (AF_INET, AF_INET6):
                    raise PywgError("the compiled data path needs IPv4 or IPv6 sockets")
                fds[family == AF_INET6] = fd
        with nogil:
            take_locks(p)
            p.fds[0] = fds[0]
            p.fds[1] = fds[1]
            p.gso = gso
            forget_sealed(p)
            give_locks(p)
        wake_up(p.out_wake)
        wake_up(p.in_wake)

    def set_mtu(self, int mtu):
        cdef Plane *p = self._plane
        with nogil:
            take_locks(p)
            p.mtu = mtu
            give_locks(p)

    def set_identity(self, mac1_key):
        cdef Plane *p = self._plane
        cdef void *mac1 = NULL
        cdef void *before
        cdef bytes key
        if mac1_key is not None:
            key = bytes(mac1_key)
            if len(key) != 32:
                raise PywgError("the key of MAC1 must have 32 bytes")
            mac1 = mac_new(<const uint8_t *><const char *>key, 32)
            if mac1 == NULL:
                raise MemoryError
        with nogil:
            take_locks(p)
            before = p.mac1
            p.mac1 = mac1
            forget_cookies(p)
            give_locks(p)
        mac_free(before)

    def ask_for_cookies(self, bytes secret not None, bytes cookie_key not None, double until):
        cdef Plane *p = self._plane
        cdef cookie_maker *cookies
        cdef cookie_maker *before
        if len(secret) != 32 or len(cookie_key) != 32:
            raise PywgError("the secret and the key of cookies must have 32 bytes")
        if self._closed:
            return
        cookies = cookie_maker_new(
            <const uint8_t *><const char *>secret, <const uint8_t *><const char *>cookie_key, self._xaead_seal
        )
        if cookies == NULL:
            raise MemoryError
        with nogil:
            take_locks(p)
            before = p.cookies
            p.cookies = cookies
            p.cookies_until = until
            give_locks(p)
        cookie_maker_free(before)

    def install(self, session):
        cdef Plane *p = self._plane
        cdef Session *s
        cdef Session *same
        cdef bint replaced
        cdef int64_t before = 0
        cdef bytes send_key = bytes(session.send_key)
        cdef bytes receive_key = bytes(session.receive_key)
        cdef bint may_send = session.may_send
        if len(send_key) != 32 or len(receive_key) != 32:
            raise PywgError("a session's keys must have 32 bytes")
        if self._closed:
            return
        s = <Session *>calloc(1, sizeof(Session))
        if s == NULL:
            raise MemoryError
        try:
            s.local_index = session.local_index
            s.remote_index = session.remote_index
            s.born = session.born
            s.may_send = session.may_send
            s.expires = session.expires
            s.message_limit = session.message_limit
            s.rekey_limit = session.rekey_limit
            s.peer = self._peer(session.peer)
            s.sealer = aead_key_new(p.backend, <const uint8_t *><const char *>send_key, 1)
            s.opener = aead_key_new(p.backend, <const uint8_t *><const char *>receive_key, 0)
            if s.sealer == NULL or s.opener == NULL:
                raise MemoryError
        except BaseException:
            aead_key_free(s.sealer)
            aead_key_free(s.opener)
            free(s)
            self._let_go(session.peer)
            raise
        s.unanswered_since = NEVER
        s.unacknowledged_since = NEVER
        with nogil:
            take_locks(p)
            same = session_find(p, s.local_index)
            replaced = same != NULL
            s.peer.references += 1
            if replaced:
                before = same.peer.id
                session_remove(p, same)
            if p.session_count > p.bucket_mask:
                session_grow(p)
            s.next_in_bucket = p.buckets[s.local_index & p.bucket_mask]
            p.buckets[s.local_index & p.bucket_mask] = s
            p.session_count += 1
            if may_send:
                s.peer.current = s
            give_locks(p)
        if replaced:
            self._let_go(before)

    def activate(self, uint32_t local_index):
        cdef Plane *p = self._plane
        cdef Session *s
        with nogil:
            take_locks(p)
            s = session_find(p, local_index)
            if s != NULL:
                s.peer.current = s
            give_locks(p)

    def retire(self, uint32_t local_index):
        cdef Plane *p = self._plane
        cdef Session *s
        cdef int64_t peer = 0
        cdef bint found
        with nogil:
            take_locks(p)
            s = session_find(p, local_index)
            found = s != NULL
            if found:
                peer = s.peer.id
                session_remove(p, s)
            give_locks(p)
        if found:
            self._let_go(peer)

    def set_endpoint(self, peer, endpoint):
        cdef Plane *p = self._plane
        cdef Peer *known
        cdef Peer **place
        cdef udp_address to
        cdef udp_local source
        cdef bint has = endpoint is not None
        memset(&to, 0, sizeof(to))
        memset(&source, 0, sizeof(source))
        if has:
            _pack_endpoint(endpoint, &to, &source)
        elif peer not in self._peers:
            return
        known = self._peer(peer)
        with nogil:
            take_locks(p)
            known.references += has
            known.references -= known.has_endpoint
            known.has_endpoint = has
            known.endpoint = to
            known.local = source
            memset(&known.refused_local, 0, sizeof(udp_local))
            if known.has_moved:
                place = &p.moved
                while place[0] != known:
                    place = &place[0].next_moved
                place[0] = known.next_moved
                known.has_moved = False
            give_locks(p)
        if not has:
            self._let_go(peer)

    def add_routes(self, peer, networks):
        cdef Plane *p = self._plane
        cdef Peer *known = self._peer(peer)
        cdef Prefix batch[ROUTES_AT_ONCE]
        cdef int64_t losers[ROUTES_AT_ONCE]
        cdef Peer *before = NULL
        cdef int count, i, lost
        cdef bint ok = True
        try:
            left = list(networks)
            for first in range(0, len(left), ROUTES_AT_ONCE):
                count = 0
                lost = 0
                for network in left[first : first + ROUTES_AT_ONCE]:
                    _pack_network(network, &batch[count])
                    count += 1
                with nogil:
                    take_locks(p)
                    forget_lookups(p)
                    for i in range(count):
                        ok = trie_insert(
                            &p.routes6 if batch[i].v6 else &p.routes4,
                            batch[i].high, batch[i].low, batch[i].length, known, <void **>&before,
                        )
                        if not ok:
                            break
                        known.references += 1
                        if before != NULL:
                            before.references -= 1
                            if before.references == 0:
                                losers[lost] = before.id
                                lost += 1
                    give_locks(p)
                for i in range(lost):
                    self._let_go(losers[i])
                if not ok:
                    raise MemoryError
        finally:
            self._let_go(peer)

    def remove_routes(self, peer, networks):
        cdef Plane *p = self._plane
        cdef Peer *known
        cdef Prefix batch[ROUTES_AT_ONCE]
        cdef int count, i
        if peer not in self._peers:
            return
        known = self._peer(peer)
        left = list(networks)
        for first in range(0, len(left), ROUTES_AT_ONCE):
            count = 0
            for network in left[first : first + ROUTES_AT_ONCE]:
                _pack_network(network, &batch[count])
                count += 1
            with nogil:
                take_locks(p)
                forget_lookups(p)
                for i in range(count):
                    if trie_remove(
                        &p.routes6 if batch[i].v6 else &p.routes4,
                        batch[i].high, batch[i].low, batch[i].length, known,
                    ):
                        known.references -= 1
                give_locks(p)
        self._let_go(peer)

    def send(self, peer, packets, double now):
        cdef Plane *p = self._plane
        cdef Peer *known
        cdef const uint8_t *data
        cdef size_t n
        cdef bint is_blocked
        cdef int reason
        if self._closed:
            return
        known = self._peer(peer)
        for packet in packets or (b"",):
            packet = bytes(packet)
            n = len(packet)
            if n > FRAME_BYTES:
                continue
            data = <const uint8_t *><const char *><bytes>packet
            with nogil:
                take_locks(p)
                memcpy(p.frame, data, n)
                reason = to_peer(p, known, p.frame, n, now)
                if reason >= 0:
                    drop_out(p, reason, 1)
                give_locks(p)
        with nogil:
            take_locks(p)
            is_blocked = p.blocked_fd >= 0 or not flush(p)
            give_locks(p)
        if is_blocked:
            part(p)
        self._let_go(peer)

    def inject(self, packets):
        cdef Plane *p = self._plane
        cdef iovec parts[2]
        cdef uint8_t vnet[VNET]
        cdef bytes data
        memset(vnet, 0, VNET)
        for packet in packets:
            data = bytes(packet)
            parts[0].iov_base = vnet
            parts[0].iov_len = VNET
            parts[1].iov_base = <char *>data
            parts[1].iov_len = len(data)
            with nogil:
                take_locks(p)
                write_tun(p, &parts[0] if p.vnet else &parts[1], 2 if p.vnet else 1, 1)
                give_locks(p)

    cdef int _raise_if_gone(self) except -1:
        if atomic_get(&self._plane.gone):
            raise TunGoneError(f"the tunnel device {self._tun.name} was removed")
        return 0

    def set_tap(self, wanted):
        cdef Plane *p = self._plane
        cdef uint8_t *outgoing = NULL
        cdef uint8_t *incoming = NULL
        cdef bint inner = wanted is not None and wanted.inner
        cdef bint outer = wanted is not None and wanted.outer
        cdef size_t snaplen = wanted.snaplen if wanted is not None else 0
        if inner or outer:
            outgoing = <uint8_t *>malloc(TAP_ROOM)
            incoming = <uint8_t *>malloc(TAP_ROOM)
            if outgoing == NULL or incoming == NULL:
                free(outgoing)
                free(incoming)
                raise MemoryError
        with nogil:
            take_locks(p)
            free(p.out_tap.data)
            free(p.in_tap.data)
            memset(&p.out_tap, 0, sizeof(Tap))
            memset(&p.in_tap, 0, sizeof(Tap))
            p.out_tap.data = outgoing
            p.in_tap.data = incoming
            p.tap_inner = inner
            p.tap_outer = outer
            p.snaplen = snaplen
            give_locks(p)

    def take_tapped(self):
        cdef Plane *p = self._plane
        cdef Tap taken[2]
        cdef uint8_t *fresh
        cdef int i
        taken[0].data = taken[1].data = NULL
        for i in range(2):
            fresh = <uint8_t *>malloc(TAP_ROOM)  # untouched, it costs no memory
            if fresh == NULL:
                raise MemoryError
            with nogil:
                take_locks(p)
                if p.out_tap.data != NULL:  # there is a tap
                    if i == 0:
                        taken[i] = p.out_tap
                        p.out_tap = Tap(fresh, 0, 0)
                    else:
                        taken[i] = p.in_tap
                        p.in_tap = Tap(fresh, 0, 0)
                    fresh = NULL
                give_locks(p)
            free(fresh)
        try:
            tapped, lost = [], 0
            for i in range(2):
                if taken[i].data != NULL:
                    lost += taken[i].lost
                    _read_copies(&taken[i], i == 0, tapped)
            return tapped, lost
        finally:
            free(taken[0].data)
            free(taken[1].data)

    def bursts(self):
        cdef Plane *p = self._plane
        cdef Burst outgoing, incoming
        with nogil:
            take_locks(p)
            outgoing = p.out_bursts
            incoming = p.in_bursts
            give_locks(p)
        return _bursts(&outgoing), _bursts(&incoming)

    def step(self, double now):
        cdef Plane *p = self._plane
        cdef int moved = 0
        self._raise_if_gone()
        if self._threads is not None or self._closed:
            return False
        with nogil:
            take_locks(p)
            moved += timed_outgoing(p, BURST, now)
            moved += timed_incoming(p, 0, now)
            moved += timed_incoming(p, 1, now)
            give_locks(p)
        self._raise_if_gone()
        return moved > 0

    # --- What the control plane hears. ---------------------------------------------------------------------

    def drain(self, double now):
        cdef Plane *p = self._plane
        cdef Queue control, no_session, no_route
        cdef Record *records = NULL
        cdef Record *r
        cdef Handup *moved = NULL
        cdef Handup *h
        cdef int count = 0, moved_count = 0, room = 0, i
        cdef Session *s
        cdef Peer *peer
        cdef uint64_t drops[DROP_COUNT]
        cdef uint64_t value
        with nogil:
            read(p.event_fd, &value, sizeof(value))
            atomic_set(&p.signalled, 0)
            take_locks(p)
            control = p.control
            no_session = p.no_session
            no_route = p.no_route
            queue_reset(&p.control)
            memset(p.control_of, 0, sizeof(p.control_of))
            queue_reset(&p.no_session)
            queue_reset(&p.no_route)
            for i in range(DROP_COUNT):
                drops[i] = p.out_drops[i] + p.in_drops[i]
                p.out_drops[i] = 0
                p.in_drops[i] = 0
            records = p.retired
            count = p.retired_count
            p.retired = NULL
            p.retired_count = 0
            room = count
            s = p.sent
            while s != NULL:
                room += 1
                s = s.next_sent
            s = p.arrived
            while s != NULL:
                room += 1
                s = s.next_arrived
            if room > count:
                r = <Record *>realloc(records, room * sizeof(Record))
                if r != NULL:
                    records = r
                    while p.sent != NULL:
                        count += take_record(p.sent, &records[count])
                        p.sent = p.sent.next_sent
                    while p.arrived != NULL:
                        count += take_record(p.arrived, &records[count])
                        p.arrived = p.arrived.next_arrived
            peer = p.moved
            while peer != NULL:
                moved_count += 1
                peer = peer.next_moved
            if moved_count:
                moved = <Handup *>calloc(moved_count, sizeof(Handup))
                if moved == NULL:
                    moved_count = 0
                for i in range(moved_count):
                    moved[i].peer = p.moved.id
                    moved[i].source = p.moved.endpoint
                    moved[i].local = p.moved.local
                    p.moved.has_moved = False
                    p.moved = p.moved.next_moved
            atomic_set(&p.quiet, count == 0)
            give_locks(p)
        try:
            report = Report()
            for i in range(control.count):
                h = &control.items[i]
                report.control.append((h.data[: h.length], _endpoint(&h.source, &h.local)))
            by_peer = {}
            for i in range(no_session.count):
                h = &no_session.items[i]
                by_peer.setdefault(h.peer, []).append(h.data[: h.length])
            report.no_session = list(by_peer.items())
            for i in range(no_route.count):
                h = &no_route.items[i]
                report.no_route.append(h.data[: h.length])
            for i in range(moved_count):
                report.moved.append((moved[i].peer, _endpoint(&moved[i].source, &moved[i].local)))
            for i in range(count):
                r = &records[i]
                report.activity.append(
                    Activity(
                        local_index=r.local_index,
                        peer=r.peer,
                        sent_bytes=r.sent.size,
                        sent_packets=r.sent.packets,
                        received_bytes=r.arrived.size,
                        received_packets=r.arrived.packets,
                        any_sent=_time(r.sent.any),
                        any_received=_time(r.arrived.any),
                        data_sent=_time(r.sent.data),
                        data_received=_time(r.arrived.data),
                        unanswered_since=_time(r.unanswered_since),
                        unacknowledged_since=_time(r.unacknowledged_since),
                        first_use=bool(r.arrived.first_use),
                        rekey_limit_reached=bool(r.sent.rekey_limit_reached),
                        exhausted=bool(r.sent.exhausted),
                    )
                )
            for i in range(DROP_COUNT):
                if drops[i]:
                    report.drops[_REASONS[i]] = drops[i]
        finally:
            queue_clear(&control)
            queue_clear(&no_session)
            queue_clear(&no_route)
            free(records)
            free(moved)
        for peer_id, _ in report.moved:
            self._let_go(peer_id)
        return report
