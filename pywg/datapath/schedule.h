/* What the compiled data path asks of the kernel's scheduler. */
#ifndef PYWG_SCHEDULE_H
#define PYWG_SCHEDULE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SCHEDULE_SLICE 100000 /* nanoseconds: the least that Linux takes */

struct schedule_attributes { /* sched_setattr(2), as Linux first had it */
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime;
    uint64_t deadline;
    uint64_t period;
};

/* Have this thread run soon after it wakes, for short times (or as any other again): its share of the processor
 * stays the same. Linux 6.12 and newer do so, for any user; older ones take no notice. */
static void schedule_soon(int soon) {
#if defined(SYS_sched_getattr) && defined(SYS_sched_setattr)
    struct schedule_attributes a = {0};
    if (syscall(SYS_sched_getattr, 0, &a, (unsigned)sizeof a, 0) != 0 || a.policy != 0)
        return;
    a.size = sizeof a;
    a.runtime = soon ? SCHEDULE_SLICE : 0; /* 0: what is usual */
    syscall(SYS_sched_setattr, 0, &a, 0);
#endif
}

#endif
