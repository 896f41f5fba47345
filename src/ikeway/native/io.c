/* System calls for batches: the TUN device and the outer sockets. Nothing here waits. */
#include "core.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { LARGEST_READ = 65536 + VNET_OCTETS, MOST_MESSAGES = 64, CONTROL_OCTETS = 512, SEND_CONTROL_OCTETS = 128 };
enum { UDP_SEGMENT_OPTION = 103, UDP_GRO_OPTION = 104, MOST_SEGMENTS = 64, MOST_SEND_OCTETS = 65535 - 40 - 8 };

/* ---- The TUN device ---- */

/* Read until the device is empty or there is enough. 0, or an errno other than EAGAIN. */
IKW_EXPORT int ikw_read(struct ikw_read *job) {
    size_t used = 0;
    job->count = job->heads_count = job->flags = 0;
    while (job->count < job->most && used < job->enough && job->arena_octets - used >= LARGEST_READ) {
        ssize_t got = read(job->fd, job->arena + used, LARGEST_READ);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno == EAGAIN ? 0 : errno;
        if (!got)
            return 0;
        struct ikw_packet *packet = &job->packets[job->count];
        take_packet(job->arena, used, (size_t)got, job->header, packet);
        if (job->count)
            mark_same_flow(job->arena, packet - 1, packet);
        if (!(packet->flags & IKW_SAME_FLOW))
            job->heads[job->heads_count++] = (uint16_t)job->count;
        job->flags |= packet->flags;
        job->count++;
        used += ((size_t)got + 15) & ~(size_t)15;
    }
    return 0;
}

static int write_parts(int fd, const struct iovec *parts, size_t count) {
    ssize_t done;
    do
        done = writev(fd, parts, (int)count);
    while (done < 0 && errno == EINTR);
    return done < 0 ? errno : 0;
}

static int write_single(const struct ikw_write *job, uint32_t number) {
    static const uint8_t nothing[VNET_OCTETS];
    const struct ikw_entry *entry = &job->entries[number];
    struct iovec parts[2] = {{(void *)(uintptr_t)nothing, job->header}, {job->buffer + entry->at, entry->length}};
    return write_parts(job->fd, job->header ? parts : parts + 1, job->header ? 2 : 1);
}

/* The parts of a super-packet: its headers, then the payloads where they lie. */
static size_t collect(const struct ikw_write *job, const struct ikw_delivery *delivery, struct iovec *parts) {
    parts[0] = (struct iovec){(uint8_t *)(uintptr_t)delivery->head, (size_t)VNET_OCTETS + delivery->header};
    uint32_t number = delivery->first;
    for (size_t part = 1; part <= delivery->parts; part++, number = job->entries[number].next) {
        const struct ikw_entry *entry = &job->entries[number];
        parts[part] = (struct iovec){job->buffer + entry->at + delivery->header, entry->length - delivery->header};
    }
    return delivery->parts + 1u;
}

/* Write deliveries to the device, one call each. Merged ones need a device with virtio_net_hdr. */
IKW_EXPORT void ikw_write(struct ikw_write *job) {
    struct iovec parts[MOST_PARTS + 1];
    job->failed = 0;
    for (uint32_t at = 0; at < job->count; at++) {
        const struct ikw_delivery *delivery = &job->deliveries[at];
        if (delivery->parts == 1) {
            job->failed += write_single(job, delivery->first) != 0;
            continue;
        }
        int code = write_parts(job->fd, parts, collect(job, delivery, parts));
        if (code == EINVAL && delivery->udp) { /* Linux before 6.2: one by one */
            job->no_udp = 1;
            uint32_t number = delivery->first;
            for (uint32_t part = 0; part < delivery->parts; part++, number = job->entries[number].next)
                job->failed += write_single(job, number) != 0;
        } else if (code) {
            job->failed += delivery->parts;
        }
    }
}

/* ---- Sockets ---- */

static void read_control(struct msghdr *header, struct ikw_message *message) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        const uint8_t *octets = CMSG_DATA(c);
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            message->local_octets = 4;
            memcpy(message->local, octets + 4, 4);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            message->local_octets = 16;
            memcpy(message->local, octets, 16);
        } else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO_OPTION) {
            int segment;
            memcpy(&segment, octets, sizeof segment);
            if (segment > 0)
                message->segment = (uint32_t)segment;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
            message->traffic_class = *octets;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
            int value;
            memcpy(&value, octets, sizeof value);
            message->traffic_class = (uint8_t)value;
        }
    }
}

static void read_source(const struct sockaddr_in6 *source, struct ikw_message *message) {
    if (source->sin6_family == AF_INET6) {
        message->source_octets = 16;
        memcpy(message->source, &source->sin6_addr, 16);
        message->port = ntohs(source->sin6_port);
    } else {
        struct sockaddr_in ipv4;
        memcpy(&ipv4, source, sizeof ipv4);
        message->source_octets = 4;
        memcpy(message->source, &ipv4.sin_addr, 4);
        message->port = ntohs(ipv4.sin_port);
    }
}

/* Read what there is, up to `slots` datagrams (or merged ones). 0, or an errno when nothing was read (EAGAIN too). */
IKW_EXPORT int ikw_receive(struct ikw_receive *job) {
    struct mmsghdr headers[MOST_MESSAGES];
    struct iovec parts[MOST_MESSAGES];
    struct sockaddr_in6 sources[MOST_MESSAGES];
    _Alignas(8) uint8_t controls[MOST_MESSAGES][CONTROL_OCTETS];
    uint32_t slots = job->slots < MOST_MESSAGES ? job->slots : MOST_MESSAGES;
    for (uint32_t i = 0; i < slots; i++) {
        parts[i] = (struct iovec){job->buffer + (size_t)i * job->stride, job->stride};
        headers[i].msg_hdr = (struct msghdr){&sources[i], sizeof sources[i], &parts[i], 1, controls[i], CONTROL_OCTETS, 0};
        headers[i].msg_len = 0;
    }
    job->count = job->octets = 0;
    int got;
    do
        got = recvmmsg(job->fd, headers, slots, MSG_DONTWAIT, NULL);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno;
    for (uint32_t i = 0; i < (uint32_t)got; i++) {
        struct ikw_message *message = &job->messages[i];
        memset(message, 0, sizeof *message);
        message->at = i * job->stride;
        message->length = headers[i].msg_len;
        read_source(&sources[i], message);
        read_control(&headers[i].msg_hdr, message);
        job->octets += message->length;
        const uint8_t *octets = job->buffer + message->at;
        if (job->raw_ipv4 && message->length >= 20) {
            uint32_t header = (uint32_t)(octets[0] & 15) * 4;
            header = header < message->length ? header : message->length;
            message->at += header;
            message->length -= header;
        }
        if (!message->segment || job->raw_ipv4)
            message->segment = message->length;
    }
    job->count = (uint32_t)got;
    return 0;
}

static size_t put_control(uint8_t *at, int level, int type, const void *octets, size_t length) {
    struct cmsghdr header = {.cmsg_len = CMSG_LEN(length), .cmsg_level = level, .cmsg_type = type};
    memset(at, 0, CMSG_SPACE(length));
    memcpy(at, &header, sizeof header);
    memcpy(at + CMSG_LEN(0), octets, length);
    return CMSG_SPACE(length);
}

static size_t make_control(const struct ikw_send *job, const struct ikw_frame *frame, uint32_t run, uint8_t *out) {
    size_t used = 0;
    int traffic_class = (int)frame->traffic_class;
    if (job->ipv6) {
        struct in6_pktinfo info = {0};
        memcpy(&info.ipi6_addr, job->local, 16);
        if (job->source_given)
            used += put_control(out, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
        used += put_control(out + used, IPPROTO_IPV6, IPV6_TCLASS, &traffic_class, sizeof traffic_class);
    } else {
        struct in_pktinfo info = {0};
        memcpy(&info.ipi_spec_dst, job->local, 4);
        if (job->source_given)
            used += put_control(out, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
        used += put_control(out + used, IPPROTO_IP, IP_TOS, &traffic_class, sizeof traffic_class);
    }
    if (run > 1) {
        uint16_t size = (uint16_t)frame->length;
        used += put_control(out + used, IPPROTO_UDP, UDP_SEGMENT_OPTION, &size, sizeof size);
    }
    return used;
}

/* How many frames can go in one send: equal ones, and one shorter at the end. */
static uint32_t run_length(const struct ikw_send *job, uint32_t from) {
    const struct ikw_frame *first = &job->frames[from];
    size_t octets = first->length;
    uint32_t end = from + 1;
    if (!job->merge)
        return 1;
    while (end < job->count && end - from < MOST_SEGMENTS) {
        const struct ikw_frame *frame = &job->frames[end];
        octets += frame->length;
        if (frame->length > first->length || frame->traffic_class != first->traffic_class || octets > MOST_SEND_OCTETS)
            break;
        end++;
        if (frame->length < first->length)
            break;
    }
    return end - from;
}

static socklen_t make_name(const struct ikw_send *job, struct sockaddr_in6 *name) {
    memset(name, 0, sizeof *name);
    if (job->ipv6) {
        name->sin6_family = AF_INET6;
        name->sin6_port = htons(job->port);
        memcpy(&name->sin6_addr, job->remote, 16);
        return sizeof *name;
    }
    struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = htons(job->port)};
    memcpy(&ipv4.sin_addr, job->remote, 4);
    memcpy(name, &ipv4, sizeof ipv4);
    return sizeof ipv4;
}

/* Send frames from `next` on. 0 when all have gone; else an errno, and `run` frames from `next` on have failed. */
IKW_EXPORT int ikw_send(struct ikw_send *job) {
    struct mmsghdr headers[MOST_MESSAGES];
    struct iovec parts[MOST_MESSAGES];
    uint32_t runs[MOST_MESSAGES];
    _Alignas(8) uint8_t controls[MOST_MESSAGES][SEND_CONTROL_OCTETS];
    struct sockaddr_in6 name;
    socklen_t name_octets = make_name(job, &name);
    while (job->next < job->count) {
        uint32_t messages = 0;
        for (uint32_t at = job->next; at < job->count && messages < MOST_MESSAGES; messages++) {
            uint32_t run = run_length(job, at);
            const struct ikw_frame *frame = &job->frames[at], *last = frame + run - 1;
            uint8_t *octets = (uint8_t *)(uintptr_t)job->frames_octets + frame->at;
            runs[messages] = run;
            parts[messages] = (struct iovec){octets, last->at + last->length - frame->at};
            headers[messages].msg_len = 0;
            headers[messages].msg_hdr = (struct msghdr){
                &name, name_octets, &parts[messages], 1, controls[messages], make_control(job, frame, run, controls[messages]), 0};
            at += run;
        }
        int sent = sendmmsg(job->fd, headers, messages, MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        for (int i = 0; i < sent; i++)
            job->next += runs[i];
        if (sent < 0) { /* the first one failed */
            job->run = runs[0];
            return errno;
        }
    }
    return 0;
}
