/* Static probes (USDT) for bpftrace and BCC: the ELF notes of SystemTap's sys/sdt.h, written by ourselves so that
 * wheels have them wherever they are built. docs/reference/probes.md lists the probes and their arguments.
 *
 * Each probe has one site, in a function that is never inlined: a `nop` that the kernel replaces by a breakpoint, and a
 * note that says where that is and in which registers the arguments are. Its semaphore counts who is attached, so
 * an unattached probe costs a load and a branch. Elsewhere than on Linux on x86-64 and AArch64 there are none, nor
 * with PYWG_NO_PROBES: the build that theirs is measured against. */
#ifndef PYWG_PROBE_H
#define PYWG_PROBE_H

#include <stdint.h>

#if !defined(PYWG_NO_PROBES) && defined(__linux__) && defined(__LP64__) && defined(__GNUC__) &&                         \
    (defined(__x86_64__) || defined(__aarch64__))
#define PROBES_BUILT 1
#else
#define PROBES_BUILT 0
#endif

#if PROBES_BUILT

/* Tools learn from .stapsdt.base by how much a file was moved after it was linked; there is one for the whole file.
 * A note: the sizes of its owner's name and of its content, its type, the name, the content. All numbers have 8 bytes. */
#define PROBE_SITE(name, arguments, ...)                                                                               \
    __asm__ volatile("990: nop\n"                                                                                      \
                     ".pushsection .note.stapsdt, \"\", \"note\"\n"                                                    \
                     ".balign 4\n"                                                                                     \
                     ".4byte 992f - 991f, 994f - 993f, 3\n"                                                            \
                     "991: .asciz \"stapsdt\"\n"                                                                       \
                     "992: .balign 4\n"                                                                                \
                     "993: .8byte 990b, _.stapsdt.base, probe_" #name "_semaphore\n"                                   \
                     ".asciz \"pywg\"\n"                                                                               \
                     ".asciz \"" #name "\"\n"                                                                          \
                     ".asciz \"" arguments "\"\n"                                                                      \
                     "994: .balign 4\n"                                                                                \
                     ".popsection\n"                                                                                   \
                     ".ifndef _.stapsdt.base\n"                                                                        \
                     ".pushsection .stapsdt.base, \"aG\", \"progbits\", .stapsdt.base, comdat\n"                       \
                     ".weak _.stapsdt.base\n"                                                                          \
                     ".hidden _.stapsdt.base\n"                                                                        \
                     "_.stapsdt.base: .space 1\n"                                                                      \
                     ".size _.stapsdt.base, 1\n"                                                                       \
                     ".popsection\n"                                                                                   \
                     ".endif\n" ::__VA_ARGS__)
#define PROBE_SEMAPHORE(name)                                                                                          \
    __attribute__((section(".probes"), used, visibility("hidden"))) volatile uint16_t probe_##name##_semaphore;
#define PROBE_WANTED(name) __builtin_expect(probe_##name##_semaphore != 0, 0)
#define PROBE_FUNCTION __attribute__((noinline, cold)) static void

#else

#define PROBE_SITE(name, arguments, ...) ((void)0)
#define PROBE_SEMAPHORE(name)
#define PROBE_WANTED(name) 0
#define PROBE_FUNCTION static inline void

#endif

#define PROBE(name)                                                                                                    \
    PROBE_SEMAPHORE(name)                                                                                              \
    static inline int probe_##name##_wanted(void) { return PROBE_WANTED(name); }

PROBE(handshake_begin)
PROBE(handshake_end)
PROBE(handshake_give_up)
PROBE(session_install)
PROBE(session_retire)
PROBE(drop)
PROBE(burst_begin)
PROBE(burst_end)

PROBE_FUNCTION probe_handshake_begin(const char *peer, const char *name, uint64_t initiator) {
    PROBE_SITE(handshake_begin, "8@%0 8@%1 8@%2", "r"(peer), "r"(name), "r"(initiator));
}

PROBE_FUNCTION probe_handshake_end(const char *peer, const char *name, uint64_t initiator, uint64_t nanoseconds) {
    PROBE_SITE(handshake_end, "8@%0 8@%1 8@%2 8@%3", "r"(peer), "r"(name), "r"(initiator), "r"(nanoseconds));
}

PROBE_FUNCTION probe_handshake_give_up(const char *peer, const char *name) {
    PROBE_SITE(handshake_give_up, "8@%0 8@%1", "r"(peer), "r"(name));
}

PROBE_FUNCTION probe_session_install(const char *peer, const char *name, uint64_t index, uint64_t initiator) {
    PROBE_SITE(session_install, "8@%0 8@%1 8@%2 8@%3", "r"(peer), "r"(name), "r"(index), "r"(initiator));
}

PROBE_FUNCTION probe_session_retire(const char *peer, const char *name, uint64_t index) {
    PROBE_SITE(session_retire, "8@%0 8@%1 8@%2", "r"(peer), "r"(name), "r"(index));
}

PROBE_FUNCTION probe_drop(const char *reason, const char *direction, uint64_t count) {
    PROBE_SITE(drop, "8@%0 8@%1 8@%2", "r"(reason), "r"(direction), "r"(count));
}

PROBE_FUNCTION probe_burst_begin(const char *direction) { PROBE_SITE(burst_begin, "8@%0", "r"(direction)); }

PROBE_FUNCTION probe_burst_end(const char *direction, uint64_t packets, uint64_t bytes, uint64_t nanoseconds) {
    PROBE_SITE(burst_end, "8@%0 8@%1 8@%2 8@%3", "r"(direction), "r"(packets), "r"(bytes), "r"(nanoseconds));
}

#endif
