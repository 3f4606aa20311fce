/* Cookies, on the side that asks for them (WireGuard paper, sections 5.3 and 5.4.7): whether a handshake message
 * brings the cookie of its source, and the reply that gives it one. MACs are from aead.h; what seals a cookie is
 * libsodium's crypto_aead_xchacha20poly1305_ietf_encrypt, whose address comes from whoever has loaded it. */
#ifndef PYWG_COOKIE_H
#define PYWG_COOKIE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "aead.h"
#include "udp.h"

#define COOKIE 16
#define COOKIE_NONCE 24
#define COOKIE_REPLY 64 /* type, receiver index, nonce, sealed cookie */

typedef int (*xaead_seal)(uint8_t *out, unsigned long long *out_length, const uint8_t *in, unsigned long long length,
                          const uint8_t *associated, unsigned long long associated_length, const uint8_t *unused,
                          const uint8_t *nonce, const uint8_t *key);

/* What makes cookies as long as one secret lasts. */
struct cookie_maker {
    void *secret;
    void *mac2;
    xaead_seal seal;
    uint8_t key[32];
};

static void cookie_maker_free(struct cookie_maker *m) {
    if (!m)
        return;
    mac_free(m->secret);
    mac_free(m->mac2);
    aead_wipe(m, sizeof *m);
    free(m);
}

/* secret and key have 32 bytes; NULL when memory is short. */
static struct cookie_maker *cookie_maker_new(const uint8_t *secret, const uint8_t *key, uintptr_t seal) {
    struct cookie_maker *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->seal = (xaead_seal)seal;
    memcpy(m->key, key, sizeof m->key);
    m->secret = mac_new(secret, 32);
    m->mac2 = mac_new(key, 32); /* gets a cookie for its key each time */
    if (!m->secret || !m->mac2) {
        cookie_maker_free(m);
        return NULL;
    }
    return m;
}

/* The cookie of this source: a MAC of its address and port. Returns 1, or 0 on failure. */
static int cookie_of(struct cookie_maker *m, const struct udp_address *source, uint8_t cookie[COOKIE]) {
    uint8_t packed[18];
    size_t n = source->family == AF_INET6 ? 16 : 4;
    memcpy(packed, source->host, n);
    memcpy(packed + n, &source->port, 2);
    return mac_of(m->secret, packed, n + 2, cookie);
}

/* Whether the sender of a handshake message of n bytes had a cookie at all. */
static int mac2_is_set(const uint8_t *message, size_t n) {
    static const uint8_t none[COOKIE];
    return memcmp(message + n - COOKIE, none, COOKIE) != 0;
}

/* Whether a handshake message of n bytes ends with the MAC that its sender makes with this cookie. */
static int cookie_brought(struct cookie_maker *m, const uint8_t cookie[COOKIE], const uint8_t *message, size_t n) {
    return mac_set_key(m->mac2, cookie, COOKIE) && mac_right(m->mac2, message, n - COOKIE, message + n - COOKIE);
}

/* The reply that gives the sender of a handshake message of n bytes this cookie. Returns 1, or 0 on failure. */
static int cookie_reply(struct cookie_maker *m, const uint8_t cookie[COOKIE], const uint8_t *message, size_t n,
                        const uint8_t nonce[COOKIE_NONCE], uint8_t reply[COOKIE_REPLY]) {
    static const uint8_t type[4] = {3, 0, 0, 0};
    const uint8_t *mac1 = message + n - 2 * COOKIE;
    memcpy(reply, type, 4);
    memcpy(reply + 4, message + 4, 4);
    memcpy(reply + 8, nonce, COOKIE_NONCE);
    return m->seal(reply + 8 + COOKIE_NONCE, NULL, cookie, COOKIE, mac1, COOKIE, NULL, nonce, m->key) == 0;
}

/* n unpredictable bytes. Returns 1, or 0 when the system has none. */
static int random_fill(uint8_t *out, size_t n) {
    while (n > 0) {
        ssize_t got = getrandom(out, n, 0);
        if (got < 0 && errno != EINTR)
            return 0;
        if (got > 0) {
            out += got;
            n -= (size_t)got;
        }
    }
    return 1;
}

#endif
