/* UDP sockets as the compiled data path uses them: messages of several segments for sendmmsg (UDP_SEGMENT,
 * IP_TOS, IP_PKTINFO), and what recvmmsg gave (UDP_GRO, IP_TOS, IP_PKTINFO), without a system call of its own
 * but those two. */
#ifndef PYWG_UDP_H
#define PYWG_UDP_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define UDP_BATCH 64     /* messages of one sendmmsg */
#define UDP_RECEIVE 16   /* messages of one recvmmsg */
#define UDP_LARGEST 65536 /* bytes of one message: more than UDP can carry */
#define UDP_SEGMENTS 64  /* what every kernel with UDP_SEGMENT takes */
#define UDP_SUPER 65487  /* bytes of one super-packet, so that IPv6 with UDP's header fits 65535 */
#define UDP_CONTROL 128

/* Addresses are compared with memcmp: every byte is always set. */
struct udp_address {
    uint16_t family; /* AF_INET, AF_INET6, or 0: none */
    uint16_t port;   /* network order */
    uint32_t scope;
    uint8_t host[16];
};

struct udp_local {
    uint16_t family; /* 0: whatever the kernel chooses */
    uint16_t unused;
    uint32_t interface;
    uint8_t host[16];
};

struct udp_names {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } name;
};

struct udp_out {
    struct mmsghdr messages[UDP_BATCH];
    struct iovec parts[UDP_BATCH];
    struct udp_names names[UDP_BATCH];
    uint8_t control[UDP_BATCH][UDP_CONTROL] __attribute__((aligned(16)));
};

struct udp_in {
    struct mmsghdr messages[UDP_RECEIVE];
    struct iovec parts[UDP_RECEIVE];
    struct udp_names names[UDP_RECEIVE];
    uint8_t control[UDP_RECEIVE][UDP_CONTROL] __attribute__((aligned(16)));
};

/* What arrived in one message: one or more datagrams of `segment` bytes, but for the last. */
struct udp_received {
    uint8_t *data;
    size_t length;
    size_t segment;
    int tos;
    struct udp_address from;
    struct udp_local local;
};

/* Make message i of a batch. segment 0: one datagram. */
static void udp_fill(struct udp_out *out, int i, uint8_t *data, size_t length, size_t segment,
                     const struct udp_address *to, const struct udp_local *from, uint8_t tos) {
    struct msghdr *m = &out->messages[i].msg_hdr;
    struct cmsghdr *c;
    int value = tos;
    uint16_t size = (uint16_t)segment;
    memset(m, 0, sizeof *m);
    memset(&out->names[i], 0, sizeof out->names[i]);
    out->parts[i].iov_base = data;
    out->parts[i].iov_len = length;
    m->msg_iov = &out->parts[i];
    m->msg_iovlen = 1;
    m->msg_name = &out->names[i].name;
    if (to->family == AF_INET6) {
        out->names[i].name.v6.sin6_family = AF_INET6;
        out->names[i].name.v6.sin6_port = to->port;
        out->names[i].name.v6.sin6_scope_id = to->scope;
        memcpy(&out->names[i].name.v6.sin6_addr, to->host, 16);
        m->msg_namelen = sizeof(struct sockaddr_in6);
    } else {
        out->names[i].name.v4.sin_family = AF_INET;
        out->names[i].name.v4.sin_port = to->port;
        memcpy(&out->names[i].name.v4.sin_addr, to->host, 4);
        m->msg_namelen = sizeof(struct sockaddr_in);
    }
    m->msg_control = out->control[i];
    m->msg_controllen = UDP_CONTROL;
    memset(out->control[i], 0, UDP_CONTROL);
    c = CMSG_FIRSTHDR(m);
    size_t used = 0;
    if (segment) {
        c->cmsg_level = SOL_UDP;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof size);
        memcpy(CMSG_DATA(c), &size, sizeof size);
        used += CMSG_SPACE(sizeof size);
        c = CMSG_NXTHDR(m, c);
    }
    if (tos) {
        c->cmsg_level = to->family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
        c->cmsg_type = to->family == AF_INET6 ? IPV6_TCLASS : IP_TOS;
        c->cmsg_len = CMSG_LEN(sizeof value);
        memcpy(CMSG_DATA(c), &value, sizeof value);
        used += CMSG_SPACE(sizeof value);
        c = CMSG_NXTHDR(m, c);
    }
    if (from->family && from->family == to->family) {
        if (from->family == AF_INET6) {
            struct in6_pktinfo info;
            memset(&info, 0, sizeof info);
            memcpy(&info.ipi6_addr, from->host, 16);
            info.ipi6_ifindex = from->interface;
            c->cmsg_level = IPPROTO_IPV6;
            c->cmsg_type = IPV6_PKTINFO;
            c->cmsg_len = CMSG_LEN(sizeof info);
            memcpy(CMSG_DATA(c), &info, sizeof info);
            used += CMSG_SPACE(sizeof info);
        } else {
            struct in_pktinfo info;
            memset(&info, 0, sizeof info);
            memcpy(&info.ipi_spec_dst, from->host, 4);
            info.ipi_ifindex = (int)from->interface;
            c->cmsg_level = IPPROTO_IP;
            c->cmsg_type = IP_PKTINFO;
            c->cmsg_len = CMSG_LEN(sizeof info);
            memcpy(CMSG_DATA(c), &info, sizeof info);
            used += CMSG_SPACE(sizeof info);
        }
    }
    m->msg_controllen = used;
    if (!used)
        m->msg_control = NULL;
}

/* Send messages [first, first + n). The number that was taken, or -errno of the first. */
static int udp_send(struct udp_out *out, int fd, int first, int n) {
    int sent;
    do
        sent = sendmmsg(fd, out->messages + first, (unsigned)n, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

/* Receive up to n messages into buffers of UDP_LARGEST bytes each. Their number, or -errno. */
static int udp_receive(struct udp_in *in, int fd, uint8_t *buffers, int n) {
    int got;
    for (int i = 0; i < n; i++) {
        struct msghdr *m = &in->messages[i].msg_hdr;
        in->parts[i].iov_base = buffers + (size_t)i * UDP_LARGEST;
        in->parts[i].iov_len = UDP_LARGEST;
        m->msg_iov = &in->parts[i];
        m->msg_iovlen = 1;
        m->msg_name = &in->names[i].name;
        m->msg_namelen = sizeof in->names[i].name;
        m->msg_control = in->control[i];
        m->msg_controllen = UDP_CONTROL;
        m->msg_flags = 0;
    }
    do
        got = recvmmsg(fd, in->messages, (unsigned)n, MSG_DONTWAIT, NULL);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

/* Read what message i says. 0 when its source is no address of ours to answer. */
static int udp_parse(struct udp_in *in, int i, struct udp_received *r) {
    struct msghdr *m = &in->messages[i].msg_hdr;
    memset(r, 0, sizeof *r);
    r->data = in->parts[i].iov_base;
    r->length = in->messages[i].msg_len;
    r->segment = r->length;
    if (in->names[i].name.any.sa_family == AF_INET && m->msg_namelen >= sizeof(struct sockaddr_in)) {
        r->from.family = AF_INET;
        r->from.port = in->names[i].name.v4.sin_port;
        memcpy(r->from.host, &in->names[i].name.v4.sin_addr, 4);
    } else if (in->names[i].name.any.sa_family == AF_INET6 && m->msg_namelen >= sizeof(struct sockaddr_in6)) {
        r->from.family = AF_INET6;
        r->from.port = in->names[i].name.v6.sin6_port;
        r->from.scope = in->names[i].name.v6.sin6_scope_id;
        memcpy(r->from.host, &in->names[i].name.v6.sin6_addr, 16);
    } else
        return 0;
    if (m->msg_flags & MSG_CTRUNC)
        return 1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        size_t n = c->cmsg_len - CMSG_LEN(0);
        const uint8_t *data = CMSG_DATA(c);
        int value = 0;
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO && n >= 2) {
            memcpy(&value, data, n >= sizeof value ? sizeof value : 2);
            if (value > 0)
                r->segment = (size_t)value;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS && n >= 1) {
            r->tos = data[0];
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS && n >= sizeof value) {
            memcpy(&value, data, sizeof value);
            r->tos = value & 255;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO && n >= sizeof(struct in_pktinfo)) {
            struct in_pktinfo info;
            memcpy(&info, data, sizeof info);
            r->local.family = AF_INET;
            r->local.interface = (uint32_t)info.ipi_ifindex;
            memcpy(r->local.host, &info.ipi_spec_dst, 4);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO &&
                   n >= sizeof(struct in6_pktinfo)) {
            struct in6_pktinfo info;
            memcpy(&info, data, sizeof info);
            r->local.family = AF_INET6;
            r->local.interface = (uint32_t)info.ipi6_ifindex;
            memcpy(r->local.host, &info.ipi6_addr, 16);
        }
    }
    return 1;
}

/* Whether more than half of the socket's buffer for what arrives is taken; 0 where the kernel does not tell. */
static int udp_is_filling(int fd) {
    uint32_t info[SK_MEMINFO_VARS];
    socklen_t n = sizeof info;
    memset(info, 0, sizeof info);
    return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &n) == 0 &&
           info[SK_MEMINFO_RMEM_ALLOC] > info[SK_MEMINFO_RCVBUF] / 2;
}

static int udp_family(int fd) {
    int family = 0;
    socklen_t n = sizeof family;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &n) == 0 ? family : 0;
}

#endif
