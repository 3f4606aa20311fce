/* Seals and opens beside memory that cannot be read: what a cipher library reads behind a buffer's end kills it.
 * Tells, for every library found, how many of the sizes went wrong. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "aead.h"

enum { ROOM = 8192, PAGE = 4096 };

/* The end of ROOM bytes, behind which nothing can be read or written. */
static uint8_t *edge(void) {
    uint8_t *m = mmap(NULL, ROOM + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(m + ROOM, PAGE, PROT_NONE);
    return m + ROOM;
}

static void try_one(enum aead_backend backend, int sealing, size_t n) {
    uint8_t bytes[32] = {1};
    struct aead_worker worker;
    struct aead_key *key, *at_edge = (struct aead_key *)(edge() - sizeof *key);
    uint8_t *in = edge() - n - (sealing ? 0 : AEAD_TAG), *out = edge() - n - AEAD_TAG;
    if (!aead_worker_init(&worker, backend) || !(key = aead_key_new(backend, bytes, sealing)))
        _exit(2);
    *at_edge = *key;
    if (sealing)
        aead_seal(&worker, at_edge, 5, in, n, out);
    else
        aead_open(&worker, at_edge, 5, in, n);
    _exit(0);
}

int main(void) {
    unsigned found = aead_load();
    for (int backend = AEAD_OPENSSL; backend <= AEAD_IPSEC_MB; backend++) {
        int wrong = 0;
        if (!(found >> backend & 1))
            continue;
        for (size_t n = 0; n <= 1500; n += n < 280 ? 1 : 61)
            for (int sealing = 0; sealing < 2; sealing++) {
                int status = 0;
                pid_t child = fork();
                if (!child)
                    try_one(backend, sealing, n);
                waitpid(child, &status, 0);
                wrong += status != 0;
            }
        printf("%s: %d\n", aead_name(backend), wrong);
    }
    return 0;
}
