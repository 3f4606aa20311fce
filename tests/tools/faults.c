/* Makes system calls of one program fail, while it runs: preloaded into it (LD_PRELOAD) and told what to do
 * through a file that the test maps too (PYWG_FAULTS). Without that variable, or in a program whose name is not
 * the one in PYWG_FAULTS_IN, nothing is changed.
 *
 * The file is an array of struct rule, one for each call below, in that order. A call fails with `error` when
 * its rule has one, its descriptor is of the kind that the rule names, and its number is a multiple of `every`.
 * It is not made then, so that what waited to be read waits still; a write that fails is lost. Behind the rules
 * stand the seconds that the wall clock is to be off. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum call { SENDMSG, SENDMMSG, RECVMSG, RECVMMSG, READ, WRITE, WRITEV, POLL, EPOLL, SOCKET, BIND, SETSOCKOPT,
            ACCEPT, RECV, IOCTL, CALLS };
enum kind { ANY, UDP, TUN, NETLINK, UNIX, OTHER };

struct rule {
    int32_t error; /* 0: calls are left alone */
    int32_t kind;
    int32_t every;
    int32_t unused;
    uint64_t calls;  /* that the rule is for, since the program started */
    uint64_t failed; /* of them, made to */
};

static struct rule *rules;
static volatile int64_t *wall_offset;

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
    if (n <= 0 || strncmp(own, name, strlen(name)))
        return;
    if ((fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
        return;
    map = mmap(NULL, sizeof(struct rule) * CALLS + sizeof *wall_offset, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED)
        rules = map, wall_offset = (int64_t *)(rules + CALLS);
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

/* Whether this call is to fail; errno is set then. */
static int fails(enum call call, int fd) {
    struct rule *rule = rules ? &rules[call] : NULL;
    int error, before = errno;
    if (!rule || !(error = __atomic_load_n(&rule->error, __ATOMIC_ACQUIRE)))
        return 0;
    int fits = rule->kind == ANY || kind_of(fd) == rule->kind;
    errno = before;
    if (!fits || __atomic_add_fetch(&rule->calls, 1, __ATOMIC_RELAXED) % (uint64_t)rule->every)
        return 0;
    __atomic_add_fetch(&rule->failed, 1, __ATOMIC_RELAXED);
    errno = error;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define INSTEAD(call, fd, name, ...)                       \
    do {                                                   \
        static __typeof__(&name) real;                     \
        if (fails(call, fd))                               \
            return -1;                                     \
        if (!real)                                         \
            real = REAL(name);                             \
        return real(__VA_ARGS__);                          \
    } while (0)

ssize_t sendmsg(int fd, const struct msghdr *m, int flags) { INSTEAD(SENDMSG, fd, sendmsg, fd, m, flags); }
int sendmmsg(int fd, struct mmsghdr *m, unsigned n, int flags) { INSTEAD(SENDMMSG, fd, sendmmsg, fd, m, n, flags); }
ssize_t recvmsg(int fd, struct msghdr *m, int flags) { INSTEAD(RECVMSG, fd, recvmsg, fd, m, flags); }
int recvmmsg(int fd, struct mmsghdr *m, unsigned n, int flags, struct timespec *t) {
    INSTEAD(RECVMMSG, fd, recvmmsg, fd, m, n, flags, t);
}
ssize_t recv(int fd, void *data, size_t n, int flags) { INSTEAD(RECV, fd, recv, fd, data, n, flags); }
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
int socket(int domain, int type, int protocol) { INSTEAD(SOCKET, -1, socket, domain, type, protocol); }
int bind(int fd, const struct sockaddr *address, socklen_t n) { INSTEAD(BIND, fd, bind, fd, address, n); }
int setsockopt(int fd, int level, int option, const void *value, socklen_t n) {
    INSTEAD(SETSOCKOPT, fd, setsockopt, fd, level, option, value, n);
}
int accept4(int fd, struct sockaddr *address, socklen_t *n, int flags) {
    INSTEAD(ACCEPT, fd, accept4, fd, address, n, flags);
}
int accept(int fd, struct sockaddr *address, socklen_t *n) { INSTEAD(ACCEPT, fd, accept, fd, address, n); }
int clock_gettime(clockid_t clock, struct timespec *t) {
    int result = (int)syscall(SYS_clock_gettime, clock, t);
    if (!result && wall_offset && clock == CLOCK_REALTIME)
        t->tv_sec += *wall_offset;
    return result;
}
int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    INSTEAD(IOCTL, fd, ioctl, fd, request, argument);
}
