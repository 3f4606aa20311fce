/* A stand-in for wintun.dll and for the part of kernel32.dll that goes with it, as a shared library of any system
   with POSIX threads: two rings per adapter, events that reset themselves when somebody has waited for them.
   The functions that begin with Host are the other end: what the system's network stack does. Errors are Windows'
   numbers, in errno. */

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

enum { ACCESS_DENIED = 5, INVALID_PARAMETER = 87, HANDLE_EOF = 38, BUFFER_OVERFLOW = 111, NO_MORE_ITEMS = 259 };
enum { ADAPTERS = 8, MAX_EVENTS = 64 };
#define WAIT_FAILED 0xFFFFFFFFu

typedef struct Event { int set, manual; } Event;
typedef struct Packet { struct Packet *next; uint32_t size; unsigned char bytes[]; } Packet;
typedef struct Ring { Packet *first, **last; uint64_t used; } Ring;
typedef struct Adapter {
    wchar_t name[128];
    int in_use, session, going;
    uint32_t capacity;
    Ring to_program, to_host;
    Packet *borrowed;
    Event arrived;
} Adapter;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static Adapter adapters[ADAPTERS];
static int administrator = 1, handles;

static void *failed(int number) { pthread_mutex_unlock(&lock); errno = number; return NULL; }

static void put(Ring *ring, Packet *packet) {
    packet->next = NULL;
    *ring->last = packet;
    ring->last = &packet->next;
    ring->used += packet->size;
}

static Packet *take(Ring *ring) {
    Packet *packet = ring->first;
    if (packet) {
        ring->first = packet->next;
        if (!ring->first) ring->last = &ring->first;
        ring->used -= packet->size;
    }
    return packet;
}

static Packet *filled(const void *bytes, uint32_t size) {
    Packet *packet = malloc(sizeof *packet + size);
    packet->size = size;
    if (bytes) memcpy(packet->bytes, bytes, size);
    return packet;
}

static void set(Event *event) { event->set = 1; pthread_cond_broadcast(&changed); }

/* --- kernel32 --- */

void *CreateEventW(void *security, int manual, int initial, const char *name) {
    (void)security; (void)name;
    Event *event = calloc(1, sizeof *event);
    event->manual = manual;
    event->set = initial;
    pthread_mutex_lock(&lock);
    handles++;
    pthread_mutex_unlock(&lock);
    return event;
}

int SetEvent(void *event) {
    pthread_mutex_lock(&lock);
    set(event);
    pthread_mutex_unlock(&lock);
    return 1;
}

int CloseHandle(void *event) {
    pthread_mutex_lock(&lock);
    handles--;
    pthread_mutex_unlock(&lock);
    free(event);
    return 1;
}

uint32_t WaitForMultipleObjects(uint32_t count, void **events, int all, uint32_t milliseconds) {
    if (!count || count > MAX_EVENTS || all || milliseconds != 0xFFFFFFFFu) { errno = INVALID_PARAMETER; return WAIT_FAILED; }
    pthread_mutex_lock(&lock);
    for (;;) {
        for (uint32_t at = 0; at < count; at++) {
            Event *event = events[at];
            if (event->set) {
                if (!event->manual) event->set = 0;
                pthread_mutex_unlock(&lock);
                return at;
            }
        }
        pthread_cond_wait(&changed, &lock);
    }
}

/* --- wintun --- */

void *WintunCreateAdapter(const wchar_t *name, const wchar_t *kind, const void *guid) {
    (void)guid;
    pthread_mutex_lock(&lock);
    if (!administrator) return failed(ACCESS_DENIED);
    if (!name || !kind || wcslen(name) > 127) return failed(INVALID_PARAMETER);
    for (Adapter *one = adapters; one < adapters + ADAPTERS; one++)
        if (!one->in_use) {
            memset(one, 0, sizeof *one);
            wcscpy(one->name, name);
            one->in_use = 1;
            one->to_program.last = &one->to_program.first;
            one->to_host.last = &one->to_host.first;
            pthread_mutex_unlock(&lock);
            return one;
        }
    return failed(INVALID_PARAMETER);
}

void WintunCloseAdapter(void *handle) {
    Adapter *adapter = handle;
    Packet *packet;
    pthread_mutex_lock(&lock);
    while ((packet = take(&adapter->to_program))) free(packet);
    while ((packet = take(&adapter->to_host))) free(packet);
    adapter->in_use = 0;
    pthread_mutex_unlock(&lock);
}

void *WintunStartSession(void *handle, uint32_t capacity) {
    Adapter *adapter = handle;
    pthread_mutex_lock(&lock);
    if (capacity < 0x20000 || capacity > 0x4000000 || (capacity & (capacity - 1)) || adapter->session)
        return failed(INVALID_PARAMETER);
    adapter->capacity = capacity;
    adapter->session = 1;
    pthread_mutex_unlock(&lock);
    return adapter;
}

void WintunEndSession(void *handle) {
    pthread_mutex_lock(&lock);
    ((Adapter *)handle)->session = 0;
    pthread_mutex_unlock(&lock);
}

void *WintunGetReadWaitEvent(void *handle) { return &((Adapter *)handle)->arrived; }

void *WintunReceivePacket(void *handle, uint32_t *size) {
    Adapter *adapter = handle;
    pthread_mutex_lock(&lock);
    if (adapter->going) return failed(HANDLE_EOF);
    if (adapter->borrowed) abort(); /* the one before was not released */
    Packet *packet = take(&adapter->to_program);
    if (!packet) return failed(NO_MORE_ITEMS);
    adapter->borrowed = packet;
    *size = packet->size;
    pthread_mutex_unlock(&lock);
    return packet->bytes;
}

void WintunReleaseReceivePacket(void *handle, const void *bytes) {
    Adapter *adapter = handle;
    pthread_mutex_lock(&lock);
    if (!adapter->borrowed || adapter->borrowed->bytes != bytes) abort();
    free(adapter->borrowed);
    adapter->borrowed = NULL;
    pthread_mutex_unlock(&lock);
}

void *WintunAllocateSendPacket(void *handle, uint32_t size) {
    Adapter *adapter = handle;
    pthread_mutex_lock(&lock);
    if (adapter->going) return failed(HANDLE_EOF);
    if (size > 0xFFFF) return failed(INVALID_PARAMETER);
    if (adapter->to_host.used + size > adapter->capacity) return failed(BUFFER_OVERFLOW);
    pthread_mutex_unlock(&lock);
    return filled(NULL, size)->bytes;
}

void WintunSendPacket(void *handle, const void *bytes) {
    pthread_mutex_lock(&lock);
    put(&((Adapter *)handle)->to_host, (Packet *)((unsigned char *)bytes - offsetof(Packet, bytes)));
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* --- the system's end --- */

void HostSetAdministrator(int yes) { administrator = yes; }
int HostOpenHandles(void) { return handles; }

void *HostFindAdapter(const wchar_t *name) {
    for (Adapter *one = adapters; one < adapters + ADAPTERS; one++)
        if (one->in_use && !wcscmp(one->name, name)) return one;
    return NULL;
}

void HostSend(void *handle, const void *bytes, uint32_t size) {
    Adapter *adapter = handle;
    pthread_mutex_lock(&lock);
    put(&adapter->to_program, filled(bytes, size));
    set(&adapter->arrived);
    pthread_mutex_unlock(&lock);
}

/* Waits, for some seconds at most, for a packet that the program sent; returns its size, 0 for none. */
uint32_t HostReceive(void *handle, void *bytes, int seconds) {
    Adapter *adapter = handle;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    pthread_mutex_lock(&lock);
    while (!adapter->to_host.first)
        if (pthread_cond_timedwait(&changed, &lock, &until)) break;
    Packet *packet = take(&adapter->to_host);
    pthread_mutex_unlock(&lock);
    if (!packet) return 0;
    uint32_t size = packet->size;
    memcpy(bytes, packet->bytes, size);
    free(packet);
    return size;
}

void HostRemoveAdapter(void *handle) {
    Adapter *adapter = handle;
    pthread_mutex_lock(&lock);
    adapter->going = 1;
    set(&adapter->arrived);
    pthread_mutex_unlock(&lock);
}
