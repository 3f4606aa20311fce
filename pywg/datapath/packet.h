/* Bytes of packets: loads and stores of either order, the Internet checksum, and the few atomic operations
 * that the two directions share. Nothing here checks a length: callers have done so. */
#ifndef PYWG_PACKET_H
#define PYWG_PACKET_H

#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

static inline uint16_t load16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t load32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline uint64_t load64(const uint8_t *p) { return (uint64_t)load32(p) << 32 | load32(p + 4); }
static inline void store16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void store32(uint8_t *p, uint32_t v) {
    store16(p, (uint16_t)(v >> 16));
    store16(p + 2, (uint16_t)v);
}
static inline uint32_t load32le(const uint8_t *p) {
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}
static inline uint64_t load64le(const uint8_t *p) { return (uint64_t)load32le(p + 4) << 32 | load32le(p); }
static inline void store32le(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}
static inline void store64le(uint8_t *p, uint64_t v) {
    store32le(p, (uint32_t)v);
    store32le(p + 4, (uint32_t)(v >> 32));
}
/* Fields of a virtio_net_hdr are in the machine's own order. */
static inline uint16_t load16native(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
static inline void store16native(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }

/* --- The Internet checksum (RFC 1071). Sums are of 16-bit words in the machine's own order, which comes to
 * the same as long as results are stored in that order too. ------------------------------------------------ */

typedef uint64_t sum_lanes __attribute__((vector_size(32))); /* for whatever vectors the processor has */

static inline __attribute__((always_inline)) uint64_t sum_body(const uint8_t *p, size_t n) {
    sum_lanes low = {0}, high = {0}, lanes;
    uint64_t sum = 0;
    uint32_t word;
    uint16_t half;
    while (n >= 64) {
        memcpy(&lanes, p, 32);
        low += lanes & 0xffffffff;
        high += lanes >> 32;
        memcpy(&lanes, p + 32, 32);
        low += lanes & 0xffffffff;
        high += lanes >> 32;
        p += 64;
        n -= 64;
    }
    while (n >= 4) {
        memcpy(&word, p, 4);
        sum += word;
        p += 4;
        n -= 4;
    }
    if (n >= 2) {
        memcpy(&half, p, 2);
        sum += half;
        p += 2;
        n -= 2;
    }
    if (n) {
        uint8_t last[2] = {*p, 0};
        memcpy(&half, last, 2);
        sum += half;
    }
    low += high;
    return sum + low[0] + low[1] + low[2] + low[3];
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint8_t *p, size_t n) { return sum_body(p, n); }
#endif
static uint64_t sum_plain(const uint8_t *p, size_t n) { return sum_body(p, n); }

/* The sum of n bytes, an odd last one as if a zero followed. Never overflows for n below 2^32. */
static inline uint64_t sum_bytes(const uint8_t *p, size_t n) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return sum_avx2(p, n);
#endif
    return sum_plain(p, n);
}

static inline uint16_t sum_fold(uint64_t sum) {
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffffffffu) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static inline uint64_t sum_word(uint16_t v) { /* one 16-bit field given as a number */
    uint8_t b[2];
    store16(b, v);
    return load16native(b);
}

/* The pseudo header of a TCP segment or UDP datagram of n bytes inside this IPv4 or IPv6 packet. */
static inline uint64_t sum_pseudo(const uint8_t *ip, int v6, uint8_t protocol, size_t n) {
    uint64_t sum = v6 ? sum_bytes(ip + 8, 32) : sum_bytes(ip + 12, 8);
    return sum + sum_word(protocol) + sum_word((uint16_t)(n >> 16)) + sum_word((uint16_t)n);
}

/* Write an IPv4 header's checksum; n is the header's length. */
static inline void sum_ipv4_header(uint8_t *ip, size_t n) {
    store16native(ip + 10, 0);
    store16native(ip + 10, (uint16_t)~sum_fold(sum_bytes(ip, n)));
}

/* --- Atomics. -------------------------------------------------------------------------------------------- */

static inline int atomic_get(const int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void atomic_set(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline int atomic_swap(int *p, int v) { return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL); }
static inline int atomic_add(int *p, int v) { return __atomic_add_fetch(p, v, __ATOMIC_ACQ_REL); }

static inline void atomic_set_pointer(void **p, void *v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline void *atomic_take_pointer(void **p) {
    if (!__atomic_load_n(p, __ATOMIC_RELAXED))
        return NULL;
    return __atomic_exchange_n(p, NULL, __ATOMIC_ACQ_REL);
}
static inline double atomic_get_time(const double *p) {
    double v;
    __atomic_load(p, &v, __ATOMIC_RELAXED);
    return v;
}
static inline void atomic_set_time(double *p, double v) { __atomic_store(p, &v, __ATOMIC_RELAXED); }

/* A lock for a few instructions. */
static inline void spin_lock(int *p) {
    while (__atomic_exchange_n(p, 1, __ATOMIC_ACQUIRE))
        sched_yield();
}
static inline void spin_unlock(int *p) { __atomic_store_n(p, 0, __ATOMIC_RELEASE); }

/* Seconds of the clock that goes on while the machine sleeps. */
static inline double clock_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Nanoseconds since 1970. */
static inline int64_t clock_wall(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

#endif
