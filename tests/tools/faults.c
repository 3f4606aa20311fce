/* Makes system calls of one program fail, while it runs: preloaded into it (LD_PRELOAD) and told what to do
 * through a file that the test maps too (PYWG_FAULTS). Without that variable, or in a program whose name is not
 * the one in PYWG_FAULTS_IN, nothing is changed.
 *
 * The file is an array of struct rule, one for each call below, in that order. A call fails with `error` when
 * its rule has one, its descriptor is of the kind and its argument the one that the rule names, and its number
 * is a multiple of `every`, or one of `times` from -`every` on. It is not made then, so that what waited to be
 * read waits still; a write that fails is lost. An error of -1 is no error: the call says that it succeeded, and
 * is not made.
 * Behind the rules stand the seconds that the wall clock is to be off, and those that the machine is to have
 * slept: the clock that counts them jumps, the monotonic one does not, and timers on the first that are due by
 * then ring. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum call { SENDMSG, SENDMMSG, RECVMSG, RECVMMSG, READ, WRITE, WRITEV, POLL, EPOLL, SOCKET, BIND, SETSOCKOPT,
            ACCEPT, RECV, IOCTL, GETSOCKNAME, OPEN, SEND, SETRLIMIT, CALLS };
enum kind { ANY, UDP, TUN, NETLINK, UNIX, OTHER };

struct rule {
    int32_t error; /* 0: calls are left alone */
    int32_t kind;
    int32_t every;
    uint32_t only;   /* the family of a socket, level << 16 | option, the request of an ioctl; 0: any */
    uint64_t times;
    uint64_t calls;  /* that the rule is for, since it was made */
    uint64_t failed; /* of them, made to */
};

static struct rule *rules;
static volatile int64_t *wall_offset, *slept;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("PYWG_FAULTS"), *name = getenv("PYWG_FAULTS_IN");
    char own[64] = "";
    int fd;
    void *map;
    if (!path || !name)
        return;
    if ((fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC)) < 0)
        return;
    ssize_t n = syscall(SYS_read, fd, own, sizeof own - 1);
    close(fd);
    if (n <= 0 || strncmp(own, name, strlen(name)) || own[strlen(name)] != '\n')
        return;
    if ((fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
        return;
    map = mmap(NULL, sizeof(struct rule) * CALLS + 2 * sizeof *slept, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        rules = map, wall_offset = (int64_t *)(rules + CALLS), slept = wall_offset + 1;
}

static int kind_of(int fd) {
    struct sockaddr_storage address;
    socklen_t n = sizeof address;
    int type = 0;
    socklen_t size = sizeof type;
    char link[64], target[64] = "";
    if (fd < 0)
        return ANY;
    if (syscall(SYS_getsockname, fd, &address, &n) == 0) {
        if (address.ss_family == AF_NETLINK)
            return NETLINK;
        if (address.ss_family == AF_UNIX)
            return UNIX;
        if (syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_DGRAM)
            return UDP;
        return OTHER;
    }
    strcpy(link, "/proc/self/fd/");
    char digits[12];
    int i = 0, at = (int)strlen(link);
    do
        digits[i++] = (char)('0' + fd % 10);
    while (fd /= 10);
    while (i)
        link[at++] = digits[--i];
    link[at] = 0;
    ssize_t length = readlink(link, target, sizeof target - 1);
    return length > 0 && strstr(target, "/net/tun") ? TUN : OTHER;
}

/* Whether this call is not to be made: -1, with errno set, or 1 for one that is to seem to succeed; else 0. */
static int fails(enum call call, int fd, uint32_t argument) {
    struct rule *rule = rules ? &rules[call] : NULL;
    int error, before = errno;
    if (!rule || !(error = __atomic_load_n(&rule->error, __ATOMIC_ACQUIRE)))
        return 0;
    if (rule->only && rule->only != argument)
        return 0;
    int fits = rule->kind == ANY || kind_of(fd) == rule->kind;
    errno = before;
    if (!fits)
        return 0;
    uint64_t number = __atomic_add_fetch(&rule->calls, 1, __ATOMIC_RELAXED);
    if (rule->every < 0 ? number - (uint64_t)-rule->every >= rule->times : number % (uint64_t)rule->every)
        return 0;
    __atomic_add_fetch(&rule->failed, 1, __ATOMIC_RELAXED);
    if (error < 0)
        return 1;
    errno = error;
    return -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define INSTEAD_IF(call, fd, argument, name, ...)                        \
    do {                                                                 \
        static __typeof__(&name) real;                                   \
        int verdict = fails(call, fd, argument);                         \
        if (verdict)                                                     \
            return verdict < 0 ? -1 : 0;                                 \
        if (!real)                                                       \
            real = REAL(name);                                           \
        return real(__VA_ARGS__);                                        \
    } while (0)
#define INSTEAD(call, fd, name, ...) INSTEAD_IF(call, fd, 0, name, __VA_ARGS__)

ssize_t sendmsg(int fd, const struct msghdr *m, int flags) { INSTEAD(SENDMSG, fd, sendmsg, fd, m, flags); }
int sendmmsg(int fd, struct mmsghdr *m, unsigned n, int flags) { INSTEAD(SENDMMSG, fd, sendmmsg, fd, m, n, flags); }
ssize_t send(int fd, const void *data, size_t n, int flags) { INSTEAD(SEND, fd, send, fd, data, n, flags); }
ssize_t sendto(int fd, const void *data, size_t n, int flags, const struct sockaddr *to, socklen_t size) {
    INSTEAD(SEND, fd, sendto, fd, data, n, flags, to, size);
}
ssize_t recvmsg(int fd, struct msghdr *m, int flags) { INSTEAD(RECVMSG, fd, recvmsg, fd, m, flags); }
int recvmmsg(int fd, struct mmsghdr *m, unsigned n, int flags, struct timespec *t) {
    INSTEAD(RECVMMSG, fd, recvmmsg, fd, m, n, flags, t);
}
ssize_t recv(int fd, void *data, size_t n, int flags) { INSTEAD(RECV, fd, recv, fd, data, n, flags); }
ssize_t recvfrom(int fd, void *data, size_t n, int flags, struct sockaddr *from, socklen_t *size) {
    INSTEAD(RECV, fd, recvfrom, fd, data, n, flags, from, size);
}
ssize_t read(int fd, void *data, size_t n) { INSTEAD(READ, fd, read, fd, data, n); }
ssize_t write(int fd, const void *data, size_t n) { INSTEAD(WRITE, fd, write, fd, data, n); }
ssize_t writev(int fd, const struct iovec *parts, int n) { INSTEAD(WRITEV, fd, writev, fd, parts, n); }
int poll(struct pollfd *fds, nfds_t n, int timeout) { INSTEAD(POLL, -1, poll, fds, n, timeout); }
int epoll_wait(int fd, struct epoll_event *events, int n, int timeout) {
    INSTEAD(EPOLL, -1, epoll_wait, fd, events, n, timeout);
}
int epoll_pwait(int fd, struct epoll_event *events, int n, int timeout, const sigset_t *mask) {
    INSTEAD(EPOLL, -1, epoll_pwait, fd, events, n, timeout, mask);
}
int socket(int domain, int type, int protocol) {
    INSTEAD_IF(SOCKET, -1, (uint32_t)domain, socket, domain, type, protocol);
}
int bind(int fd, const struct sockaddr *address, socklen_t n) {
    INSTEAD_IF(BIND, fd, address->sa_family, bind, fd, address, n);
}
int getsockname(int fd, struct sockaddr *address, socklen_t *n) {
    INSTEAD(GETSOCKNAME, fd, getsockname, fd, address, n);
}
int setsockopt(int fd, int level, int option, const void *value, socklen_t n) {
    INSTEAD_IF(SETSOCKOPT, fd, (uint32_t)(level << 16 | option), setsockopt, fd, level, option, value, n);
}
int getsockopt(int fd, int level, int option, void *restrict value, socklen_t *restrict n) {
    INSTEAD_IF(SETSOCKOPT, fd, (uint32_t)(level << 16 | option), getsockopt, fd, level, option, value, n);
}
int accept4(int fd, struct sockaddr *address, socklen_t *n, int flags) {
    INSTEAD(ACCEPT, fd, accept4, fd, address, n, flags);
}
int accept(int fd, struct sockaddr *address, socklen_t *n) { INSTEAD(ACCEPT, fd, accept, fd, address, n); }
int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    INSTEAD_IF(IOCTL, fd, (uint32_t)request, ioctl, fd, request, argument);
}
/* Only the tunnel device's node. */
int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    if (!strcmp(path, "/dev/net/tun") && fails(OPEN, -1, 0))
        return -1;
    return openat(AT_FDCWD, path, flags, mode);
}
int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit) {
    INSTEAD_IF(SETRLIMIT, -1, resource, setrlimit, resource, limit);
}
int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit) {
    INSTEAD_IF(SETRLIMIT, -1, resource, setrlimit64, resource, limit);
}

/* --- Clocks. ---------------------------------------------------------------------------------------------- */

#define TIMERS 16

static struct {
    int fd;
    struct itimerspec due; /* by the clock that jumps */
} timers[TIMERS];
static int timer_count;
static pthread_mutex_t timers_lock = PTHREAD_MUTEX_INITIALIZER;

int clock_gettime(clockid_t clock, struct timespec *t) {
    int result = (int)syscall(SYS_clock_gettime, clock, t);
    if (!result && rules && clock == CLOCK_REALTIME)
        t->tv_sec += *wall_offset;
    if (!result && rules && clock == CLOCK_BOOTTIME)
        t->tv_sec += *slept;
    return result;
}

static int arm(int fd, struct itimerspec due) {
    if (due.it_value.tv_sec || due.it_value.tv_nsec) {
        due.it_value.tv_sec -= *slept;
        if (due.it_value.tv_sec < 0)
            due.it_value.tv_sec = 0, due.it_value.tv_nsec = 1;
    }
    return (int)syscall(SYS_timerfd_settime, fd, TFD_TIMER_ABSTIME, &due, NULL);
}

/* What a system does when it wakes up: timers on the clock that counts sleep are looked at again. */
static void *look_after_timers(void *nothing) {
    int64_t known = *slept;
    const struct timespec pause = {0, 5000000};
    for (;;) {
        nanosleep(&pause, NULL);
        if (*slept == known)
            continue;
        known = *slept;
        pthread_mutex_lock(&timers_lock);
        for (int i = 0; i < timer_count; i++)
            arm(timers[i].fd, timers[i].due);
        pthread_mutex_unlock(&timers_lock);
    }
    return nothing;
}

int timerfd_create(clockid_t clock, int flags) {
    int fd = (int)syscall(SYS_timerfd_create, clock, flags);
    pthread_t thread;
    if (fd < 0 || !rules || clock != CLOCK_BOOTTIME || timer_count == TIMERS)
        return fd;
    pthread_mutex_lock(&timers_lock);
    timers[timer_count].fd = fd;
    memset(&timers[timer_count].due, 0, sizeof timers->due);
    if (!timer_count++)
        pthread_create(&thread, NULL, look_after_timers, NULL);
    pthread_mutex_unlock(&timers_lock);
    return fd;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *due, struct itimerspec *before) {
    int result = -1, found = 0;
    pthread_mutex_lock(&timers_lock);
    for (int i = 0; i < timer_count; i++)
        if (timers[i].fd == fd && flags == TFD_TIMER_ABSTIME) {
            found = 1;
            timers[i].due = *due;
            result = arm(fd, *due);
        }
    pthread_mutex_unlock(&timers_lock);
    return found ? result : (int)syscall(SYS_timerfd_settime, fd, flags, due, before);
}
