"""Super-packets: splitting what the tunnel device hands over, and joining what goes into it.

Splitting makes each segment in the frame itself: its headers are written before its payload, over the end of
the payload before, which was sealed by then. Joining follows the kernel's GRO: only neighbours of one flow whose
checksums are right and whose headers agree, the last one possibly shorter.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef extern from "packet.h" nogil:
    uint16_t load16(const uint8_t *p)
    uint32_t load32(const uint8_t *p)
    uint64_t load64(const uint8_t *p)
    void store16(uint8_t *p, uint16_t v)
    void store32(uint8_t *p, uint32_t v)
    uint16_t load16native(const uint8_t *p)
    void store16native(uint8_t *p, uint16_t v)
    uint64_t sum_bytes(const uint8_t *p, size_t n)
    uint16_t sum_fold(uint64_t sum)
    uint64_t sum_pseudo(const uint8_t *ip, int v6, uint8_t protocol, size_t n)
    void sum_ipv4_header(uint8_t *ip, size_t n)

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len

cdef enum:
    VNET = 10  # bytes of a virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
    VNET_NEEDS_CSUM = 1
    VNET_TCP4 = 1
    VNET_TCP6 = 4
    VNET_UDP = 5
    VNET_ECN = 0x80
    TCP = 6
    UDP = 17
    FIN = 0x01
    PSH = 0x08
    ACK = 0x10
    CWR = 0x80
    LARGEST_HEADERS = 1024  # of a super-packet: IP with its extensions, and TCP
    JOINED = 64  # segments in one super-packet
    LARGEST_PACKET = 65535


cdef inline int ip_version(const uint8_t *packet, size_t n) noexcept nogil:
    """4 or 6 when a whole header of that version is there, else 0."""
    if n >= 20 and packet[0] >> 4 == 4:
        return 4
    if n >= 40 and packet[0] >> 4 == 6:
        return 6
    return 0


cdef inline size_t ip_length(const uint8_t *packet, int version) noexcept nogil:
    """What the header says, itself included."""
    return load16(packet + 2) if version == 4 else 40 + <size_t>load16(packet + 4)


# --- Splitting. -------------------------------------------------------------------------------------------

cdef enum SplitVerdict:
    SPLIT_FITS
    SPLIT_TRUNCATED
    SPLIT_BAD

cdef struct Split:
    uint8_t *packet
    size_t length  # of the whole super-packet
    size_t headers  # IP and transport header of each segment
    size_t transport  # where the transport header begins
    size_t size  # payload of each segment but the last
    size_t offset  # payload done
    size_t index
    int version
    bint tcp
    uint8_t header[LARGEST_HEADERS]


cdef inline bint complete_checksum(uint8_t *packet, size_t n, size_t start, size_t offset) noexcept nogil:
    """Finish the checksum that the kernel left to us; false when its place is not inside the packet."""
    cdef uint16_t value
    if start + offset + 2 > n:
        return False
    value = ~sum_fold(sum_bytes(packet + start, n - start)) & 0xFFFF
    store16native(packet + start + offset, value if value else 0xFFFF)  # 0 would be "none" for UDP
    return True


cdef inline SplitVerdict split_begin(Split *s, const uint8_t *vnet, uint8_t *packet, size_t n) noexcept nogil:
    """Look at a super-packet of at least 20 bytes; whether it and its virtio_net_hdr fit each other."""
    cdef int kind = vnet[1] & ~VNET_ECN
    cdef int protocol = UDP if kind == VNET_UDP else TCP
    cdef int following
    cdef size_t length = 8
    s.packet = packet
    s.length = n
    s.size = load16native(vnet + 4)
    s.offset = 0
    s.index = 0
    s.version = packet[0] >> 4
    s.tcp = protocol == TCP
    if s.version == 4 and (kind == VNET_TCP4 or kind == VNET_UDP):
        s.transport = (packet[0] & 15) * 4
        if s.transport < 20 or packet[9] != protocol:
            return SPLIT_BAD
    elif s.version == 6 and (kind == VNET_TCP6 or kind == VNET_UDP):
        if n < 40:
            return SPLIT_TRUNCATED
        following = packet[6]
        s.transport = 40
        while following == 0 or following == 43 or following == 60:
            if s.transport + 8 > n:
                return SPLIT_TRUNCATED
            following = packet[s.transport]
            s.transport += 8 * (packet[s.transport + 1] + 1)
        if following != protocol:
            return SPLIT_BAD
    else:
        return SPLIT_BAD
    if vnet[0] & VNET_NEEDS_CSUM and (
        load16native(vnet + 6) != s.transport or load16native(vnet + 8) != (16 if s.tcp else 6)
    ):
        return SPLIT_BAD
    if s.tcp:
        if s.transport + 20 > n:
            return SPLIT_TRUNCATED
        length = (packet[s.transport + 12] >> 4) * 4
        if length < 20:
            return SPLIT_BAD
    s.headers = s.transport + length
    if s.headers > n:
        return SPLIT_TRUNCATED
    if s.size == 0 or s.headers >= n or s.headers > LARGEST_HEADERS:
        return SPLIT_BAD
    memcpy(s.header, packet, s.headers)
    return SPLIT_FITS


cdef inline uint8_t *split_next(Split *s, size_t *length) noexcept nogil:
    """The next segment as a packet of its own, or NULL after the last. Valid until the next call."""
    cdef size_t rest = s.length - s.headers - s.offset
    cdef size_t size = s.size if rest > s.size else rest
    cdef uint8_t *packet = s.packet + s.offset
    cdef uint8_t *transport = packet + s.transport
    cdef size_t total = s.headers + size
    cdef uint16_t value
    if rest == 0:
        return NULL
    if s.index:
        memcpy(packet, s.header, s.headers)
    if s.version == 4:
        store16(packet + 2, <uint16_t>total)
        store16(packet + 4, <uint16_t>(load16(s.header + 4) + s.index))
        sum_ipv4_header(packet, s.transport)
    else:
        store16(packet + 4, <uint16_t>(total - 40))
    if s.tcp:
        store32(transport + 4, load32(s.header + s.transport + 4) + <uint32_t>s.offset)
        if rest > size:
            transport[13] &= ~(FIN | PSH) & 0xFF
        if s.index:
            transport[13] &= ~CWR & 0xFF
        store16native(transport + 16, 0)
        value = ~sum_fold(
            sum_bytes(transport, total - s.transport)
            + sum_pseudo(packet, s.version == 6, TCP, total - s.transport)
        ) & 0xFFFF
        store16native(transport + 16, value)
    else:
        store16(transport + 4, <uint16_t>(total - s.transport))
        store16native(transport + 6, 0)
        value = ~sum_fold(
            sum_bytes(transport, total - s.transport)
            + sum_pseudo(packet, s.version == 6, UDP, total - s.transport)
        ) & 0xFFFF
        store16native(transport + 6, value if value else 0xFFFF)
    s.offset += size
    s.index += 1
    length[0] = total
    return packet


# --- Joining. ---------------------------------------------------------------------------------------------

cdef struct Flow:
    # The super-packet that grows from one flow's packets. parts[0] is the first packet, with 10 bytes of room
    # before it for a virtio_net_hdr; the other parts are payloads.
    bint used
    bint tcp
    bint closed  # nothing may follow
    int version
    size_t headers
    size_t transport
    size_t size
    size_t payload
    uint32_t next_sequence
    uint16_t first_id
    int id_step  # of IPv4 identifications: 0, 1, or -1 while only one is known
    int count
    iovec parts[JOINED]


cdef inline int flow_kind(const uint8_t *packet, size_t n, int version) noexcept nogil:
    """TCP or UDP when the transport header follows at once and the packet is no fragment, else 0."""
    if version == 4:
        if packet[0] & 15 != 5 or load16(packet + 6) & 0x3FFF:
            return 0
        if packet[9] == TCP and n >= 40:
            return TCP
        if packet[9] == UDP and n >= 28:
            return UDP
        return 0
    if packet[6] == TCP and n >= 60:
        return TCP
    if packet[6] == UDP and n >= 48:
        return UDP
    return 0


cdef inline bint flow_same(const Flow *f, const uint8_t *packet, int version, bint tcp) noexcept nogil:
    """Whether the packet is of this flow: addresses, ports and protocol."""
    cdef const uint8_t *first = <const uint8_t *>f.parts[0].iov_base
    if f.version != version or f.tcp != tcp:
        return False
    if version == 4:
        return load64(first + 12) == load64(packet + 12) and load32(first + 20) == load32(packet + 20)
    return memcmp(first + 8, packet + 8, 36) == 0  # both addresses, and the ports behind them


cdef inline size_t flow_payload(const uint8_t *packet, size_t n, int version, bint tcp, size_t *headers) noexcept nogil:
    """The payload's length when the packet may be part of a super-packet at all, else 0."""
    cdef size_t transport = 20 if version == 4 else 40
    cdef size_t size
    cdef int protocol = TCP if tcp else UDP
    if tcp:
        headers[0] = transport + (packet[transport + 12] >> 4) * 4
        if headers[0] < transport + 20 or headers[0] >= n:
            return 0
        if packet[transport + 13] & ~PSH & 0xFF != ACK or packet[transport + 12] & 0x0F:
            return 0
    else:
        headers[0] = transport + 8
        if headers[0] >= n or load16(packet + transport + 4) != n - transport:
            return 0
        if load16(packet + transport + 6) == 0:
            return 0
    if version == 4 and sum_fold(sum_bytes(packet, 20)) != 0xFFFF:
        return 0
    size = n - transport
    if sum_fold(sum_bytes(packet + transport, size) + sum_pseudo(packet, version == 6, protocol, size)) != 0xFFFF:
        return 0
    return n - headers[0]


cdef inline void flow_begin(
    Flow *f, uint8_t *packet, size_t n, int version, bint tcp, size_t headers, size_t payload
) noexcept nogil:
    f.used = True
    f.tcp = tcp
    f.version = version
    f.headers = headers
    f.transport = 20 if version == 4 else 40
    f.size = payload
    f.payload = payload
    f.count = 1
    f.parts[0].iov_base = packet
    f.parts[0].iov_len = n
    f.closed = False
    if tcp:
        f.next_sequence = load32(packet + f.transport + 4) + <uint32_t>payload
        f.closed = packet[f.transport + 13] & PSH != 0
    if version == 4:
        f.first_id = load16(packet + 4)
        f.id_step = -1


cdef inline bint flow_join(Flow *f, uint8_t *packet, size_t headers, size_t payload) noexcept nogil:
    """Add a packet of the same flow whose checksum is right; false when it cannot follow."""
    cdef const uint8_t *first = <const uint8_t *>f.parts[0].iov_base
    cdef const uint8_t *mine = first + f.transport
    cdef const uint8_t *other = packet + f.transport
    cdef int step
    if f.closed or f.count == JOINED or headers != f.headers or payload > f.size:
        return False
    if f.headers + f.payload + payload > LARGEST_PACKET:
        return False
    if f.version == 4:
        # type of service, don't-fragment, time to live
        if first[1] != packet[1] or first[6] != packet[6] or first[8] != packet[8]:
            return False
        step = f.id_step
        if step < 0:
            step = (load16(packet + 4) - f.first_id) & 0xFFFF
            if step > 1 or (step == 0 and not first[6] & 0x40):
                return False
        if load16(packet + 4) != <uint16_t>(f.first_id + step * f.count):
            return False
    else:
        step = 0
        if load32(first) != load32(packet) or first[7] != packet[7]:  # class and flow label, hop limit
            return False
    if f.tcp:
        if load32(other + 4) != f.next_sequence or load32(mine + 8) != load32(other + 8):
            return False
        if load16(mine + 14) != load16(other + 14):  # window
            return False
        if memcmp(mine + 18, other + 18, headers - f.transport - 18) != 0:  # urgent pointer, options
            return False
        f.next_sequence += <uint32_t>payload
        if other[13] & PSH:
            (<uint8_t *>mine)[13] |= PSH
            f.closed = True
    f.id_step = step
    if payload < f.size:
        f.closed = True
    f.parts[f.count].iov_base = packet + headers
    f.parts[f.count].iov_len = payload
    f.count += 1
    f.payload += payload
    return True


cdef inline void flow_finish(Flow *f) noexcept nogil:
    """Put a virtio_net_hdr before the first packet, and turn its headers into the super-packet's."""
    cdef uint8_t *packet = <uint8_t *>f.parts[0].iov_base
    cdef uint8_t *vnet = packet - VNET
    cdef uint8_t *transport = packet + f.transport
    cdef size_t total = f.headers + f.payload
    cdef size_t offset = 16 if f.tcp else 6
    memset(vnet, 0, VNET)
    f.parts[0].iov_base = vnet
    f.parts[0].iov_len += VNET
    if f.count == 1 and not f.tcp:
        return
    vnet[0] = VNET_NEEDS_CSUM
    store16native(vnet + 6, <uint16_t>f.transport)
    store16native(vnet + 8, <uint16_t>offset)
    if f.count > 1:
        vnet[1] = (VNET_TCP4 if f.version == 4 else VNET_TCP6) if f.tcp else VNET_UDP
        store16native(vnet + 2, <uint16_t>f.headers)
        store16native(vnet + 4, <uint16_t>f.size)
        if f.version == 4:
            store16(packet + 2, <uint16_t>total)
            sum_ipv4_header(packet, 20)
        else:
            store16(packet + 4, <uint16_t>(total - 40))
        if not f.tcp:
            store16(transport + 4, <uint16_t>(total - f.transport))
    store16native(
        transport + offset,
        sum_fold(sum_pseudo(packet, f.version == 6, TCP if f.tcp else UDP, total - f.transport)),
    )
