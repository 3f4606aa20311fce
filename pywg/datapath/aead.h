/* ChaCha20-Poly1305 and keyed BLAKE2s from libraries that are found at run time, so that the build needs no
 * headers of theirs. Nothing here computes a cipher or a hash. Three libraries can do the sealing:
 *
 *   ipsec-mb   Intel's multi-buffer library, through its job interface; fastest with AVX-512
 *   boringssl  any libcrypto with BoringSSL's EVP_AEAD interface (BoringSSL, AWS-LC); fastest with AVX2
 *   openssl    OpenSSL 3 through EVP, with one context for each key, of which only the nonce is set per packet
 *
 * OpenSSL 3 must be there in any case: it does the MACs, and whatever another library seals on trial must be what
 * OpenSSL seals. `aead_load` is called with the interpreter lock held; everything else is free of it, as long
 * as one worker, and the keys of one direction, are used by one thread at a time. */
#ifndef PYWG_AEAD_H
#define PYWG_AEAD_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AEAD_TAG 16

enum aead_backend { AEAD_NONE, AEAD_OPENSSL, AEAD_BORINGSSL, AEAD_IPSEC_MB };

/* --- OpenSSL 3: prototypes as in its manual pages. ------------------------------------------------------- */

struct ossl_param {
    const char *key;
    unsigned int data_type;
    void *data;
    size_t data_size;
    size_t return_size;
};
#define OSSL_UNSIGNED_INTEGER 2
#define EVP_AEAD_GET_TAG 0x10
#define EVP_AEAD_SET_TAG 0x11

static struct {
    unsigned long (*version_num)(void);
    const char *(*version)(int);
    void (*cleanse)(void *, size_t);
    const void *(*chacha20_poly1305)(void);
    void *(*ctx_new)(void);
    void (*ctx_free)(void *);
    int (*encrypt_init)(void *, const void *, void *, const uint8_t *, const uint8_t *);
    int (*encrypt_update)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*encrypt_final)(void *, uint8_t *, int *);
    int (*decrypt_init)(void *, const void *, void *, const uint8_t *, const uint8_t *);
    int (*decrypt_update)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*decrypt_final)(void *, uint8_t *, int *);
    int (*ctx_ctrl)(void *, int, int, void *);
    void *(*mac_fetch)(void *, const char *, const char *);
    void *(*mac_ctx_new)(void *);
    void (*mac_ctx_free)(void *);
    int (*mac_init)(void *, const uint8_t *, size_t, const struct ossl_param *);
    int (*mac_update)(void *, const uint8_t *, size_t);
    int (*mac_final)(void *, uint8_t *, size_t *, size_t);
    int (*memcmp)(const void *, const void *, size_t);
    void *blake2s;
} ossl;

/* --- BoringSSL's EVP_AEAD (openssl/aead.h), the same in AWS-LC. ------------------------------------------ */

static struct {
    const void *(*chacha20_poly1305)(void);
    void *(*ctx_new)(const void *, const uint8_t *, size_t, size_t);
    void (*ctx_free)(void *);
    int (*seal_scatter)(const void *, uint8_t *, uint8_t *, size_t *, size_t, const uint8_t *, size_t,
                        const uint8_t *, size_t, const uint8_t *, size_t, const uint8_t *, size_t);
    int (*open_gather)(const void *, uint8_t *, const uint8_t *, size_t, const uint8_t *, size_t,
                       const uint8_t *, size_t, const uint8_t *, size_t);
} bssl;

/* --- IPsec-MB: the beginning of its structures, which is the same from version 1.1 to 2.0. ---------------- */

#define IMB_OLDEST 0x10100u
#define IMB_NEWEST 0x200ffu
#define IMB_CHACHA20_POLY1305_CIPHER 19
#define IMB_CHACHA20_POLY1305_HASH 29
#define IMB_ENCRYPT 1
#define IMB_DECRYPT 2
#define IMB_CIPHER_THEN_HASH 1
#define IMB_HASH_THEN_CIPHER 2
#define IMB_COMPLETED 3

struct imb_job {
    const void *enc_keys, *dec_keys;
    uint64_t key_len;
    const uint8_t *src;
    uint8_t *dst;
    uint64_t cipher_offset, cipher_len, hash_offset, hash_len;
    const uint8_t *iv;
    uint64_t iv_len;
    uint8_t *tag;
    uint64_t tag_len;
    const void *aad;
    uint64_t aad_len;
    void *context;
    uint32_t status, cipher_mode, direction, hash_alg, chain_order;
};

struct imb_mgr {
    uint64_t flags, features, reserved[5];
    uint32_t used_arch;
    int error;
    struct imb_job *(*get_next_job)(struct imb_mgr *);
    struct imb_job *(*submit_job)(struct imb_mgr *);
    struct imb_job *(*submit_job_nocheck)(struct imb_mgr *);
    struct imb_job *(*get_completed_job)(struct imb_mgr *);
    struct imb_job *(*flush_job)(struct imb_mgr *);
};

static struct {
    unsigned (*get_version)(void);
    struct imb_mgr *(*alloc)(uint64_t);
    void (*free)(struct imb_mgr *);
    void (*init_auto)(struct imb_mgr *, int *);
} imb;

/* --- Keys and workers. ----------------------------------------------------------------------------------- */

struct aead_key {
    enum aead_backend backend;
    int sealing;
    uint8_t key[64]; /* 32, and room behind them: IPsec-MB 1.3 loads more than the key */
    void *context;
};

/* What one thread works with. */
struct aead_worker {
    struct imb_mgr *manager;
};

static void aead_wipe(void *p, size_t n) { ossl.cleanse(p, n); }

static void aead_key_free(struct aead_key *k) {
    if (!k)
        return;
    if (k->context && k->backend == AEAD_OPENSSL)
        ossl.ctx_free(k->context);
    if (k->context && k->backend == AEAD_BORINGSSL)
        bssl.ctx_free(k->context);
    aead_wipe(k, sizeof *k);
    free(k);
}

/* A key for one direction; NULL when memory is short. */
static struct aead_key *aead_key_new(enum aead_backend backend, const uint8_t key[32], int sealing) {
    struct aead_key *k = calloc(1, sizeof *k);
    int ok = k != NULL;
    if (!ok)
        return NULL;
    k->backend = backend;
    k->sealing = sealing;
    memcpy(k->key, key, 32);
    if (backend == AEAD_OPENSSL) {
        k->context = ossl.ctx_new();
        ok = k->context && (sealing ? ossl.encrypt_init : ossl.decrypt_init)(
                               k->context, ossl.chacha20_poly1305(), NULL, key, NULL) == 1;
    } else if (backend == AEAD_BORINGSSL) {
        k->context = bssl.ctx_new(bssl.chacha20_poly1305(), key, 32, AEAD_TAG);
        ok = k->context != NULL;
    }
    if (!ok) {
        aead_key_free(k);
        return NULL;
    }
    return k;
}

static int aead_worker_init(struct aead_worker *w, enum aead_backend backend) {
    w->manager = NULL;
    if (backend != AEAD_IPSEC_MB)
        return 1;
    w->manager = imb.alloc(0);
    if (!w->manager)
        return 0;
    imb.init_auto(w->manager, NULL);
    return w->manager->get_next_job && w->manager->submit_job_nocheck && w->manager->flush_job;
}

static void aead_worker_free(struct aead_worker *w) {
    if (w->manager)
        imb.free(w->manager);
    w->manager = NULL;
}

static inline void aead_nonce(uint8_t nonce[12], uint64_t counter) {
    memset(nonce, 0, 4);
    for (int i = 0; i < 8; i++)
        nonce[4 + i] = (uint8_t)(counter >> (8 * i));
}

static int aead_imb(struct imb_mgr *m, const struct aead_key *k, const uint8_t *nonce, const uint8_t *in, size_t n,
                    uint8_t *out, uint8_t *tag) {
    struct imb_job *j = m->get_next_job(m);
    j->enc_keys = j->dec_keys = k->key;
    j->key_len = 32;
    j->src = in;
    j->dst = out;
    j->cipher_offset = j->hash_offset = 0;
    j->cipher_len = j->hash_len = n;
    j->iv = nonce;
    j->iv_len = 12;
    j->tag = tag;
    j->tag_len = AEAD_TAG;
    j->aad = NULL;
    j->aad_len = 0;
    j->context = NULL;
    j->cipher_mode = IMB_CHACHA20_POLY1305_CIPHER;
    j->hash_alg = IMB_CHACHA20_POLY1305_HASH;
    j->direction = k->sealing ? IMB_ENCRYPT : IMB_DECRYPT;
    j->chain_order = k->sealing ? IMB_CIPHER_THEN_HASH : IMB_HASH_THEN_CIPHER;
    j = m->submit_job_nocheck(m);
    if (!j)
        j = m->flush_job(m);
    return j && j->status == IMB_COMPLETED;
}

/* Seal n bytes into out (n + 16); in and out are the same or do not overlap. Returns 1, or 0 on failure. */
static int aead_seal(struct aead_worker *w, const struct aead_key *k, uint64_t counter, const uint8_t *in, size_t n,
                     uint8_t *out) {
    uint8_t nonce[12];
    size_t tag_len = 0;
    int len = 0;
    aead_nonce(nonce, counter);
    switch (k->backend) {
    case AEAD_IPSEC_MB:
        return aead_imb(w->manager, k, nonce, in, n, out, out + n);
    case AEAD_BORINGSSL:
        return bssl.seal_scatter(k->context, out, out + n, &tag_len, AEAD_TAG, nonce, 12, in, n, NULL, 0, NULL, 0);
    case AEAD_OPENSSL:
        return ossl.encrypt_init(k->context, NULL, NULL, NULL, nonce) == 1 &&
               ossl.encrypt_update(k->context, out, &len, in, (int)n) == 1 &&
               ossl.encrypt_final(k->context, out + n, &len) == 1 &&
               ossl.ctx_ctrl(k->context, EVP_AEAD_GET_TAG, AEAD_TAG, out + n) == 1;
    default:
        return 0;
    }
}

/* Open n bytes that are followed by their tag, in place. Returns 1, or 0 when the tag is wrong: what is in
 * the buffer then must not be used. */
static int aead_open(struct aead_worker *w, const struct aead_key *k, uint64_t counter, uint8_t *data, size_t n) {
    uint8_t nonce[12], tag[AEAD_TAG];
    int len = 0;
    aead_nonce(nonce, counter);
    switch (k->backend) {
    case AEAD_IPSEC_MB:
        return aead_imb(w->manager, k, nonce, data, n, data, tag) && ossl.memcmp(tag, data + n, AEAD_TAG) == 0;
    case AEAD_BORINGSSL:
        return bssl.open_gather(k->context, data, nonce, 12, data, n, data + n, AEAD_TAG, NULL, 0);
    case AEAD_OPENSSL:
        return ossl.decrypt_init(k->context, NULL, NULL, NULL, nonce) == 1 &&
               ossl.ctx_ctrl(k->context, EVP_AEAD_SET_TAG, AEAD_TAG, data + n) == 1 &&
               ossl.decrypt_update(k->context, data, &len, data, (int)n) == 1 &&
               ossl.decrypt_final(k->context, tag, &len) == 1;
    default:
        return 0;
    }
}

/* --- MACs: keyed BLAKE2s with 16 bytes of output. --------------------------------------------------------- */

static int mac_set_key(void *ctx, const uint8_t *key, size_t n) {
    size_t size = 16;
    struct ossl_param params[2] = {{"size", OSSL_UNSIGNED_INTEGER, &size, sizeof size, (size_t)-1}, {0}};
    return ossl.mac_init(ctx, key, n, params) == 1;
}

/* A context for MACs under this key of n bytes, 1 to 32; NULL when memory is short. */
static void *mac_new(const uint8_t *key, size_t n) {
    void *ctx = ossl.mac_ctx_new(ossl.blake2s);
    if (ctx && !mac_set_key(ctx, key, n)) {
        ossl.mac_ctx_free(ctx);
        ctx = NULL;
    }
    return ctx;
}

static void mac_free(void *ctx) {
    if (ctx)
        ossl.mac_ctx_free(ctx);
}

/* The MAC of the n bytes at data, 16 bytes. Returns 1, or 0 on failure. */
static int mac_of(void *ctx, const uint8_t *data, size_t n, uint8_t *mac) {
    uint8_t out[32];
    size_t len = 0;
    if (ossl.mac_init(ctx, NULL, 0, NULL) != 1 || ossl.mac_update(ctx, data, n) != 1 ||
        ossl.mac_final(ctx, out, &len, sizeof out) != 1 || len != 16)
        return 0;
    memcpy(mac, out, 16);
    return 1;
}

/* Whether the 16 bytes at mac are the MAC of the n bytes at data. */
static int mac_right(void *ctx, const uint8_t *data, size_t n, const uint8_t *mac) {
    uint8_t right[16];
    return mac_of(ctx, data, n, right) && ossl.memcmp(right, mac, 16) == 0;
}

/* --- Finding the libraries. ------------------------------------------------------------------------------ */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) /* gcc's words */
#define AEAD_UNDER_SANITIZER
#elif defined(__has_feature) /* clang's */
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define AEAD_UNDER_SANITIZER
#endif
#endif

static void *aead_dlopen(const char *name) {
    int flags = RTLD_NOW | RTLD_LOCAL;
#if defined(RTLD_DEEPBIND) && !defined(AEAD_UNDER_SANITIZER)
    flags |= RTLD_DEEPBIND; /* several libraries of one process define OpenSSL's names */
#endif
    return dlopen(name, flags);
}

#define AEAD_SYMBOL(target, name)                      \
    do {                                               \
        *(void **)&(target) = dlsym(library, name);    \
        if (!(target))                                 \
            return 0;                                  \
    } while (0)

static int aead_load_openssl(void) {
    void *library = aead_dlopen("libcrypto.so.3");
    if (!library)
        return 0;
    AEAD_SYMBOL(ossl.version_num, "OpenSSL_version_num");
    AEAD_SYMBOL(ossl.version, "OpenSSL_version");
    AEAD_SYMBOL(ossl.cleanse, "OPENSSL_cleanse");
    AEAD_SYMBOL(ossl.chacha20_poly1305, "EVP_chacha20_poly1305");
    AEAD_SYMBOL(ossl.ctx_new, "EVP_CIPHER_CTX_new");
    AEAD_SYMBOL(ossl.ctx_free, "EVP_CIPHER_CTX_free");
    AEAD_SYMBOL(ossl.encrypt_init, "EVP_EncryptInit_ex");
    AEAD_SYMBOL(ossl.encrypt_update, "EVP_EncryptUpdate");
    AEAD_SYMBOL(ossl.encrypt_final, "EVP_EncryptFinal_ex");
    AEAD_SYMBOL(ossl.decrypt_init, "EVP_DecryptInit_ex");
    AEAD_SYMBOL(ossl.decrypt_update, "EVP_DecryptUpdate");
    AEAD_SYMBOL(ossl.decrypt_final, "EVP_DecryptFinal_ex");
    AEAD_SYMBOL(ossl.ctx_ctrl, "EVP_CIPHER_CTX_ctrl");
    AEAD_SYMBOL(ossl.mac_fetch, "EVP_MAC_fetch");
    AEAD_SYMBOL(ossl.mac_ctx_new, "EVP_MAC_CTX_new");
    AEAD_SYMBOL(ossl.mac_ctx_free, "EVP_MAC_CTX_free");
    AEAD_SYMBOL(ossl.mac_init, "EVP_MAC_init");
    AEAD_SYMBOL(ossl.mac_update, "EVP_MAC_update");
    AEAD_SYMBOL(ossl.mac_final, "EVP_MAC_final");
    AEAD_SYMBOL(ossl.memcmp, "CRYPTO_memcmp");
    if (ossl.version_num() >> 28 != 3)
        return 0;
    ossl.blake2s = ossl.mac_fetch(NULL, "BLAKE2SMAC", NULL);
    return ossl.blake2s != NULL;
}

static int aead_load_boringssl(void) {
    static const char *const names[] = {
        "libcrypto-awslc.so.0", "libcrypto-awslc.so", "libcrypto.so.0", "libboringcrypto.so",
#if defined(__x86_64__)
        "/usr/lib/x86_64-linux-gnu/android/libcrypto.so.0", /* Debian's android-libboringssl */
#elif defined(__aarch64__)
        "/usr/lib/aarch64-linux-gnu/android/libcrypto.so.0",
#endif
    };
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof *names; i++)
        library = aead_dlopen(names[i]);
    if (!library)
        return 0;
    AEAD_SYMBOL(bssl.chacha20_poly1305, "EVP_aead_chacha20_poly1305");
    AEAD_SYMBOL(bssl.ctx_new, "EVP_AEAD_CTX_new");
    AEAD_SYMBOL(bssl.ctx_free, "EVP_AEAD_CTX_free");
    AEAD_SYMBOL(bssl.seal_scatter, "EVP_AEAD_CTX_seal_scatter");
    AEAD_SYMBOL(bssl.open_gather, "EVP_AEAD_CTX_open_gather");
    return 1;
}

static int aead_load_ipsec_mb(void) {
    void *library = aead_dlopen("libIPSec_MB.so.2");
    if (!library)
        library = aead_dlopen("libIPSec_MB.so.1");
    if (!library)
        return 0;
    AEAD_SYMBOL(imb.get_version, "imb_get_version");
    AEAD_SYMBOL(imb.alloc, "alloc_mb_mgr");
    AEAD_SYMBOL(imb.free, "free_mb_mgr");
    AEAD_SYMBOL(imb.init_auto, "init_mb_mgr_auto");
    return imb.get_version() >= IMB_OLDEST && imb.get_version() <= IMB_NEWEST;
}

/* Whether this backend seals what OpenSSL seals, opens it, and refuses it when one bit is wrong. */
static int aead_agrees(enum aead_backend backend) {
    static const uint16_t lengths[] = {0, 1, 15, 16, 63, 64, 65, 255, 256, 1000, 1420, 2047};
    static uint8_t plain[2048], ours[2048 + AEAD_TAG], theirs[2048 + AEAD_TAG];
    uint8_t key[32];
    struct aead_worker w;
    struct aead_key *seal, *open, *reference;
    int ok = aead_worker_init(&w, backend);
    for (int i = 0; i < 32; i++)
        key[i] = (uint8_t)(7 * i + 1);
    for (int i = 0; i < 2048; i++)
        plain[i] = (uint8_t)(i * 31 + (i >> 8));
    seal = aead_key_new(backend, key, 1);
    open = aead_key_new(backend, key, 0);
    reference = aead_key_new(AEAD_OPENSSL, key, 1);
    ok = ok && seal && open && reference;
    for (size_t i = 0; ok && i < sizeof lengths / sizeof *lengths; i++) {
        size_t n = lengths[i];
        uint64_t counter = 0x0123456789abcdefULL * i;
        ok = aead_seal(&w, seal, counter, plain, n, ours) && aead_seal(&w, reference, counter, plain, n, theirs) &&
             memcmp(ours, theirs, n + AEAD_TAG) == 0 && aead_open(&w, open, counter, ours, n) &&
             memcmp(ours, plain, n) == 0;
        theirs[n + i] ^= 1;
        ok = ok && !aead_open(&w, open, counter, theirs, n);
    }
    aead_key_free(seal);
    aead_key_free(open);
    aead_key_free(reference);
    aead_worker_free(&w);
    return ok;
}

/* Bit (1 << backend) is set for each library that is there and works. 0: not even OpenSSL 3. */
static unsigned aead_load(void) {
    unsigned found = 0;
    if (!aead_load_openssl() || !aead_agrees(AEAD_OPENSSL))
        return 0;
    found |= 1u << AEAD_OPENSSL;
    if (aead_load_boringssl() && aead_agrees(AEAD_BORINGSSL))
        found |= 1u << AEAD_BORINGSSL;
    if (aead_load_ipsec_mb() && aead_agrees(AEAD_IPSEC_MB))
        found |= 1u << AEAD_IPSEC_MB;
    return found;
}

/* The fastest of those found, for this processor. */
static enum aead_backend aead_fastest(unsigned found) {
    int wide = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
#endif
    if (wide && (found & 1u << AEAD_IPSEC_MB))
        return AEAD_IPSEC_MB;
    if (found & 1u << AEAD_BORINGSSL)
        return AEAD_BORINGSSL;
    if (found & 1u << AEAD_IPSEC_MB)
        return AEAD_IPSEC_MB;
    return found & 1u << AEAD_OPENSSL ? AEAD_OPENSSL : AEAD_NONE;
}

/* "OpenSSL 3.0.13" and so on; static storage. */
static const char *aead_name(enum aead_backend backend) {
    static char text[64];
    unsigned v;
    switch (backend) {
    case AEAD_IPSEC_MB:
        v = imb.get_version();
        snprintf(text, sizeof text, "Intel IPsec-MB %u.%u.%u", v >> 16, v >> 8 & 255, v & 255);
        return text;
    case AEAD_BORINGSSL:
        return "BoringSSL";
    case AEAD_OPENSSL:
        v = (unsigned)ossl.version_num();
        snprintf(text, sizeof text, "OpenSSL %u.%u.%u", v >> 28, v >> 20 & 255, v >> 4 & 255);
        return text;
    default:
        return "none";
    }
}

#endif
