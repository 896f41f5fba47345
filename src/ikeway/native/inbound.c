/* Inbound: datagrams sorted by SA, opened in place, looked at, and put together again for the TUN device. */
#include "core.h"

enum { MARKER_OCTETS = 4 };

/* ---- Sorting ---- */

static int kind_of(const uint8_t *p, size_t length, int raw) {
    static const uint8_t marker[MARKER_OCTETS];
    if (length >= MARKER_OCTETS && !memcmp(p, marker, MARKER_OCTETS))
        return IKW_RUN_IKE;
    if (length >= 8)
        return IKW_RUN_ESP;
    return length == 1 && *p == 0xFF && !raw ? IKW_RUN_KEEPALIVE : IKW_RUN_SHORT;
}

static int same_sender(const struct ikw_message *a, const struct ikw_message *b) {
    return a->port == b->port && a->traffic_class == b->traffic_class && a->source_octets == b->source_octets &&
           !memcmp(a->source, b->source, sizeof a->source);
}

static uint32_t find_run(struct ikw_sort *job, uint32_t latest, int kind, uint32_t spi, uint16_t message) {
    const struct ikw_message *sender = &job->messages[message];
    if (kind == IKW_RUN_ESP)
        for (uint32_t tried = 0; tried <= job->runs_count && job->runs_count; tried++) {
            uint32_t number = tried ? job->runs_count - tried : latest;
            const struct ikw_run *run = &job->runs[number];
            if (run->kind == kind && run->spi == spi && same_sender(&job->messages[run->message], sender))
                return number;
        }
    uint32_t number = job->runs_count++;
    job->runs[number] = (struct ikw_run){spi, 0, 0, message, (uint8_t)kind, 0};
    return number;
}

/* Make entries of messages, and runs of the entries: of one SPI and sender each, in the order of arrival. At most
 * MOST_RUNS runs are made. `entry.group` is free; `entry.next` holds the run on the way. */
IKW_EXPORT void ikw_sort(struct ikw_sort *job) {
    uint32_t made = 0, run = 0, at = job->taken;
    job->runs_count = 0;
    for (; at < job->messages_count; at++) {
        const struct ikw_message *message = &job->messages[at];
        uint32_t size = message->segment ? message->segment : message->length, parts = size ? (message->length + size - 1) / size : 0;
        if (made + parts > job->most_entries || job->runs_count + parts > MOST_RUNS) {
            if (made)
                break;
            parts = job->most_entries < MOST_RUNS ? job->most_entries : MOST_RUNS; /* a merge of tiny ones: the rest is lost */
        }
        for (uint32_t part = 0; part < parts; part++) {
            uint32_t from = part * size, length = message->length - from < size ? message->length - from : size;
            const uint8_t *p = job->buffer + message->at + from;
            int kind = kind_of(p, length, (int)job->raw);
            uint32_t spi = kind == IKW_RUN_ESP ? load32(p) : 0;
            const struct ikw_run *latest = &job->runs[run];
            if (!job->runs_count || kind != IKW_RUN_ESP || latest->kind != kind || latest->spi != spi || latest->message != at)
                run = find_run(job, run, kind, spi, (uint16_t)at);
            job->runs[run].count++;
            job->entries[made++] =
                (struct ikw_entry){message->at + from, length, (uint16_t)at, (uint16_t)run, IKW_RAW, 0, 0, 0};
        }
    }
    job->taken = at;
    job->entries_count = made;
    uint16_t first = 0;
    for (uint32_t number = 0; number < job->runs_count; number++) {
        job->runs[number].first = first;
        first = (uint16_t)(first + job->runs[number].count);
        job->runs[number].count = 0;
    }
    for (uint32_t number = 0; number < made; number++) {
        struct ikw_run *of = &job->runs[job->entries[number].next];
        job->order[of->first + of->count++] = (uint16_t)number;
    }
}

/* ---- Opening ---- */

__extension__ typedef __int128 wide;

/* The 64 bits of a sequence number (RFC 4303 appendix A2.2; `ikeway.esp.sequence.infer_sequence`). */
static wide infer(const struct ikw_open *job, uint32_t low) {
    if (!sa_extended(job->sa))
        return low;
    wide bottom = (wide)job->highest - (wide)(job->window ? job->window : (uint64_t)1 << 31) + 1;
    return bottom + (uint32_t)(low - (uint32_t)bottom);
}

/* 0: the number may be accepted. */
static int refuse(const struct ikw_open *job, wide sequence) {
    if (sequence > (wide)job->highest)
        return sequence > (wide)UINT64_MAX ? IKW_TOO_OLD : 0;
    if (job->window && sequence <= (wide)job->highest - (wide)job->window)
        return IKW_TOO_OLD;
    if (sequence <= 0)
        return sequence < 0 ? IKW_TOO_OLD : IKW_REPLAYED;
    return job->window && job->ring[(uint64_t)sequence % job->window] ? IKW_REPLAYED : 0;
}

static void remember(struct ikw_open *job, uint64_t sequence) {
    uint64_t window = job->window;
    if (sequence > job->highest) {
        uint64_t jumped = sequence - job->highest - 1;
        if (window && jumped) {
            uint64_t count = jumped < window ? jumped : window, start = (job->highest + 1) % window;
            uint64_t part = count < window - start ? count : window - start;
            memset(job->ring + start, 0, part);
            memset(job->ring, 0, count - part);
        }
        job->highest = sequence;
    }
    if (window)
        job->ring[sequence % window] = 1;
}

/* Decrypt in place and take the trailer off (RFC 4303 section 2.4 to 2.6). A status. */
static uint8_t open_entry(struct ikw_open *job, struct ikw_entry *entry) {
    struct ikw_sa *sa = job->sa;
    uint8_t *frame = job->buffer + entry->at;
    size_t head = sa_overhead_head(sa), icv = sa_icv(sa), align = sa_align(sa);
    if (entry->length < head + align + icv || (entry->length - head - icv) % align)
        return IKW_TOO_SHORT;
    wide sequence = infer(job, load32(frame + 4));
    int refused = refuse(job, sequence);
    if (refused)
        return (uint8_t)refused;
    if (sa_open(sa, frame, entry->length, (uint32_t)((uint64_t)sequence >> 32)))
        return IKW_INTEGRITY;
    remember(job, (uint64_t)sequence);
    job->opened++;
    size_t length = entry->length - head - icv;
    const uint8_t *plain = frame + head;
    entry->next_header = plain[length - 1];
    if (entry->next_header == NO_NEXT_HEADER)
        return IKW_DUMMY;
    size_t padding = plain[length - 2];
    if (padding + 2 > length)
        return IKW_PADDING;
    length -= padding + 2;
    for (size_t i = 0; i < padding; i++)
        if (plain[length + i] != i + 1)
            return IKW_PADDING;
    entry->at += (uint32_t)head;
    entry->length = (uint32_t)length;
    return IKW_OTHER;
}

static uint8_t find_group(struct ikw_open *job, uint16_t number, const uint8_t *packet, size_t upper, uint8_t latest) {
    for (uint32_t tried = 0; tried <= job->groups_count && job->groups_count; tried++) {
        uint32_t group = tried ? job->groups_count - tried : latest;
        const struct ikw_entry *other = &job->entries[job->groups[group].entry];
        const uint8_t *known = job->buffer + other->at;
        if (upper == flow_upper(known, other->length) && same_flow(packet, known, upper))
            return (uint8_t)group;
    }
    if (job->groups_count == MOST_GROUPS)
        return MOST_GROUPS;
    job->groups[job->groups_count] = (struct ikw_group){number, 0, 0};
    return (uint8_t)job->groups_count++;
}

/* What an authentic payload of tunnel mode is. A status. */
static uint8_t examine(struct ikw_open *job, uint16_t number, struct ikw_entry *entry, uint8_t *latest) {
    const uint8_t *packet = job->buffer + entry->at;
    if (entry->next_header != IPV4_IN_ESP && entry->next_header != IPV6_IN_ESP)
        return IKW_NEXT_HEADER;
    if (!entry->length || packet[0] >> 4 != (entry->next_header == IPV4_IN_ESP ? 4 : 6))
        return IKW_MALFORMED;
    size_t upper = flow_upper(packet, entry->length);
    /* Outer CE and ECT(1) may change the inner field (RFC 6040 section 4.2): Python does that. */
    if (!upper || ((job->ecn & 1) && job->ecn != (traffic_class_of(packet) & 3u)))
        return IKW_OTHER;
    size_t length = upper == 20 ? load16(packet + 2) : 40u + load16(packet + 4);
    if (length < upper + selected_octets(packet, upper) || length > entry->length)
        return IKW_MALFORMED;
    entry->length = (uint32_t)length; /* TFC padding is cut off (RFC 4303 section 2.7) */
    entry->group = find_group(job, number, packet, upper, *latest);
    if (entry->group == MOST_GROUPS)
        return IKW_OTHER;
    *latest = entry->group;
    if (protocol_of(packet, upper) == PROTOCOL_TCP && length >= upper + 20 && (packet[upper + 13] & TCP_SYN)) {
        entry->flags = IKW_SYN;
        job->syns++;
    }
    return IKW_KEYED;
}

/* Open the entries of one SA in tunnel mode. The window moves over what is authentic. */
IKW_EXPORT void ikw_open(struct ikw_open *job) {
    uint8_t latest = 0;
    job->opened = job->groups_count = job->others = job->syns = 0;
    memset(job->dropped, 0, sizeof job->dropped);
    for (uint32_t i = 0; i < job->count; i++) {
        uint16_t number = job->order[i];
        struct ikw_entry *entry = &job->entries[number];
        entry->status = job->packets_left > job->opened ? open_entry(job, entry) : IKW_EXPIRED;
        if (entry->status == IKW_OTHER)
            entry->status = examine(job, number, entry, &latest);
        if (entry->status >= IKW_DROPPED)
            job->dropped[entry->status]++;
        else if (entry->status == IKW_OTHER)
            job->others++;
    }
}

/* ---- Merging ---- */

enum { MOST_MERGED_OCTETS = 65535, MOST_UDP_PARTS = 64 };

static int checks_are_right(const uint8_t *p, size_t upper, size_t length) {
    size_t start = upper == 20 ? 12 : 8;
    uint64_t sum = sum_octets(p + start, length - start) + word16(protocol_of(p, upper)) + word16(length - upper);
    return fold(sum) == 0xFFFF && (upper == 40 || fold(sum_octets(p, 20)) == 0xFFFF);
}

/* Where the payload begins of a segment that could be part of a super-packet (the conditions of Linux's GRO); 0: none. */
static size_t mergeable(const struct ikw_merge *job, const uint8_t *p, size_t upper, size_t length) {
    size_t header;
    if (protocol_of(p, upper) == PROTOCOL_TCP) {
        if (!job->merge_tcp || length <= upper + 20 || (p[upper + 13] & ~TCP_PSH) != TCP_ACK)
            return 0;
        header = upper + (size_t)(p[upper + 12] >> 4) * 4;
        if (header < upper + 20 || header >= length)
            return 0;
    } else {
        header = upper + 8;
        if (!job->merge_udp || protocol_of(p, upper) != PROTOCOL_UDP || length <= header || load16(p + upper + 4) != length - upper || !load16(p + upper + 6))
            return 0; /* without a checksum one must not get one */
    }
    return checks_are_right(p, upper, length) ? header : 0;
}

static int equal(const uint8_t *a, const uint8_t *b, size_t from, size_t to) { return !memcmp(a + from, b + from, to - from); }

/* Whether the identification of an IPv4 packet is what cutting will give it, or nobody looks at it (RFC 6864). */
static int identified(const struct ikw_delivery *d, const uint8_t *p) {
    const uint8_t *first = d->head + VNET_OCTETS;
    return (p[6] & 0x40) || load16(p + 4) == (uint16_t)(load16(first + 4) + d->parts);
}

/* Whether a mergeable segment continues a delivery. */
static int continues(const struct ikw_delivery *d, const uint8_t *p, size_t header, size_t length) {
    const uint8_t *first = d->head + VNET_OCTETS;
    size_t upper = d->upper, payload = length - header;
    if (!d->open || d->parts == MOST_PARTS || header != d->header || payload > d->size || header + d->octets + payload > MOST_MERGED_OCTETS)
        return 0;
    if (upper == 20 ? !(equal(p, first, 0, 2) && equal(p, first, 6, 10) && identified(d, p)) : !(equal(p, first, 0, 4) && equal(p, first, 6, 8)))
        return 0;
    if (d->udp)
        return d->parts < MOST_UDP_PARTS; /* the flow is the same */
    return load32(p + upper + 4) == d->sequence && equal(p, first, upper + 8, upper + 13) &&
           equal(p, first, upper + 14, upper + 16) && equal(p, first, upper + 20, header);
}

static void start_delivery(struct ikw_merge *job, uint16_t number, size_t upper, size_t header) {
    struct ikw_delivery *d = &job->deliveries[job->made++];
    const struct ikw_entry *entry = &job->entries[number];
    const uint8_t *p = job->buffer + entry->at;
    memset(d->head, 0, VNET_OCTETS);
    d->first = d->last = number;
    d->parts = 1;
    d->open = header > 0;
    if (!header)
        return;
    d->upper = (uint16_t)upper;
    d->header = (uint16_t)header;
    d->size = (uint16_t)(entry->length - header);
    d->octets = d->size;
    d->udp = protocol_of(p, upper) == PROTOCOL_UDP;
    d->push = d->udp ? 0 : p[upper + 13] & TCP_PSH;
    d->sequence = load32(p + upper + 4) + d->octets;
    memcpy(d->head + VNET_OCTETS, p, header);
}

static void append(struct ikw_merge *job, struct ikw_delivery *d, uint16_t number) {
    const struct ikw_entry *entry = &job->entries[number];
    uint32_t payload = entry->length - d->header;
    job->entries[d->last].next = number;
    d->last = number;
    d->parts++;
    d->octets += payload;
    d->sequence += payload;
    d->open = payload == d->size; /* nothing follows a shorter one */
    if (!d->udp)
        d->push |= job->buffer[entry->at + d->upper + 13] & TCP_PSH;
}

/* Renew the headers of a super-packet, and describe it to the device. */
static void finish(struct ikw_delivery *d) {
    uint8_t *p = d->head + VNET_OCTETS;
    size_t upper = d->upper, total = d->header + d->octets;
    uint64_t partial = word16(total - upper);
    if (upper == 20) {
        store16(p + 2, total);
        store16(p + 10, 0);
        store_sum(p + 10, ~fold(sum_octets(p, 20)) & 0xFFFF);
        partial += sum_octets(p + 12, 8) + word16(p[9]);
    } else {
        store16(p + 4, total - 40);
        partial += sum_octets(p + 8, 32) + word16(p[6]);
    }
    if (d->udp)
        store16(p + upper + 4, total - upper);
    else
        p[upper + 13] |= d->push;
    store_sum(p + upper + (d->udp ? 6 : 16), fold(partial) % 0xFFFF); /* the host finishes it, segment by segment */
    uint16_t numbers[4] = {d->header, d->size, d->upper, d->udp ? 6 : 16};
    d->head[0] = VNET_NEEDS_CHECKSUM;
    d->head[1] = d->udp ? GSO_UDP_L4 : upper == 20 ? GSO_TCPV4 : GSO_TCPV6;
    memcpy(d->head + 2, numbers, sizeof numbers);
}

/* Make deliveries of the entries that may pass. Packets of one flow keep their order; what has no flow keeps its place
 * among all. */
IKW_EXPORT void ikw_merge(struct ikw_merge *job) {
    job->made = job->packets = job->refused = 0;
    job->octets = 0;
    for (uint32_t group = 0; group < job->groups_count; group++)
        job->groups[group].delivery = 0;
    for (uint32_t i = 0; i < job->count; i++) {
        uint16_t number = job->order[i];
        struct ikw_entry *entry = &job->entries[number];
        if (entry->status == IKW_KEYED) {
            struct ikw_group *group = &job->groups[entry->group];
            if (!group->allowed) {
                entry->status = IKW_SELECTORS;
                job->refused++;
                continue;
            }
            const uint8_t *p = job->buffer + entry->at;
            size_t upper = p[0] >> 4 == 4 ? 20 : 40, header = mergeable(job, p, upper, entry->length);
            struct ikw_delivery *d = group->delivery ? &job->deliveries[group->delivery - 1] : NULL;
            if (d && header && continues(d, p, header, entry->length)) {
                append(job, d, number);
            } else {
                start_delivery(job, number, upper, header);
                group->delivery = (uint16_t)job->made;
            }
        } else if (entry->status == IKW_ALONE) {
            start_delivery(job, number, 0, 0);
            for (uint32_t group = 0; group < job->groups_count; group++)
                job->groups[group].delivery = 0;
        } else {
            continue;
        }
        job->packets++;
        job->octets += entry->length;
    }
    for (uint32_t at = 0; at < job->made; at++)
        if (job->deliveries[at].parts > 1)
            finish(&job->deliveries[at]);
}
