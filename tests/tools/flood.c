/* Sends datagrams as fast as the system takes them, for tests of floods.
 *
 *     flood ADDRESS PORT SECONDS RATE SPOOFED < DATAGRAMS
 *
 * DATAGRAMS: one after the other, each behind its length in two bytes (big-endian); all are sent again and again,
 * in order. RATE: datagrams per second, 0: as many as possible. SPOOFED: 0, or 1 to give each another IPv4 source
 * address, of 10.0.0.0/8 (needs CAP_NET_RAW). Prints how many were sent. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 64
#define MOST 4096
#define HEADERS (sizeof(struct iphdr) + sizeof(struct udphdr))

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    static struct iovec datagrams[MOST], parts[BATCH][2];
    static struct mmsghdr messages[BATCH];
    static uint8_t headers[BATCH][HEADERS];
    struct sockaddr_in to = {.sin_family = AF_INET};
    unsigned count = 0, next = 0;
    int high, low;
    if (argc != 6 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
        return 2;
    to.sin_port = htons((uint16_t)atoi(argv[2]));
    double seconds = atof(argv[3]), rate = atof(argv[4]);
    int spoofed = atoi(argv[5]);
    while (count < MOST && (high = getchar()) != EOF && (low = getchar()) != EOF) {
        size_t size = (size_t)(high << 8 | low);
        datagrams[count].iov_len = size;
        datagrams[count].iov_base = malloc(size + 1);
        if (!datagrams[count].iov_base || fread(datagrams[count].iov_base, 1, size, stdin) != size)
            return 2;
        count++;
    }
    int fd = spoofed ? socket(AF_INET, SOCK_RAW, IPPROTO_RAW) : socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || !count) {
        perror("flood");
        return 1;
    }
    uint32_t random = 1;
    unsigned long long sent = 0;
    double start = now(), t;
    while ((t = now() - start) < seconds) {
        if (rate > 0 && (double)sent > rate * t) {
            struct timespec pause = {0, 200000};
            nanosleep(&pause, NULL);
            continue;
        }
        for (int i = 0; i < BATCH; i++) {
            struct msghdr *m = &messages[i].msg_hdr;
            struct iovec *datagram = &datagrams[next++ % count];
            memset(m, 0, sizeof *m);
            m->msg_name = &to;
            m->msg_namelen = sizeof to;
            m->msg_iov = parts[i];
            if (spoofed) {
                struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP};
                struct udphdr udp = {.dest = to.sin_port};
                random = random * 1664525 + 1013904223;
                ip.saddr = htonl(10u << 24 | random >> 8);
                ip.daddr = to.sin_addr.s_addr;
                udp.source = htons((uint16_t)(1024 + (random >> 16) % 60000));
                udp.len = htons((uint16_t)(datagram->iov_len + sizeof udp));
                memcpy(headers[i], &ip, sizeof ip);
                memcpy(headers[i] + sizeof ip, &udp, sizeof udp);
                parts[i][m->msg_iovlen].iov_base = headers[i];
                parts[i][m->msg_iovlen++].iov_len = HEADERS;
            }
            parts[i][m->msg_iovlen++] = *datagram;
        }
        int done = sendmmsg(fd, messages, BATCH, 0);
        if (done > 0)
            sent += (unsigned)done;
        next -= (unsigned)(BATCH - (done > 0 ? done : 0));
        if (done < 0 && errno != EAGAIN && errno != ENOBUFS && errno != ECONNREFUSED && errno != EPERM) {
            perror("flood");
            return 1;
        }
    }
    printf("%llu\n", sent);
    return 0;
}
