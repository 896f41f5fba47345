/* Outbound: what a read of the TUN device gave, super-packets cut into segments, and all of it sealed into frames that
 * lie side by side. */
#include "core.h"

/* Finish the checksum of a packet that needs it (virtio_net_hdr). */
static int finish_checksum(uint8_t *octets, size_t length, size_t start, size_t offset) {
    if (start + offset + 2 > length)
        return -1;
    /* The field holds the sum of the pseudo-header, so it is part of what is summed. */
    uint32_t check = ~fold(sum_octets(octets + start, length - start)) & 0xFFFF;
    store_sum(octets + start + offset, check ? check : 0xFFFF);
    return 0;
}

static int is_tcp_syn(const uint8_t *p, size_t length) {
    size_t upper;
    if (p[0] >> 4 == 4) {
        if (p[9] != PROTOCOL_TCP || (p[6] & 0x1F) || p[7])
            return 0;
        upper = (size_t)(p[0] & 15) * 4;
    } else if (length >= 60 && p[6] == PROTOCOL_TCP) {
        upper = 40;
    } else {
        return 0;
    }
    return length >= upper + 20 && (p[upper + 13] & TCP_SYN);
}

void take_packet(uint8_t *arena, size_t at, size_t length, size_t header, struct ikw_packet *packet) {
    uint8_t *octets = arena + at + header;
    memset(packet, 0, sizeof *packet);
    packet->at = (uint32_t)(at + header);
    packet->flags = IKW_BAD;
    if (length <= header)
        return;
    length -= header;
    packet->length = (uint32_t)length;
    uint16_t size = 0, start = 0, offset = 0;
    int kind = GSO_NONE, flags = 0;
    if (header) {
        flags = octets[-VNET_OCTETS];
        kind = octets[1 - VNET_OCTETS] & ~GSO_ECN;
        memcpy(&size, octets + 4 - VNET_OCTETS, 2);
        memcpy(&start, octets + 6 - VNET_OCTETS, 2);
        memcpy(&offset, octets + 8 - VNET_OCTETS, 2);
    }
    if (kind == GSO_NONE || !size) {
        if ((flags & VNET_NEEDS_CHECKSUM) && finish_checksum(octets, length, start, offset))
            return;
    } else {
        int udp = kind == GSO_UDP_L4;
        size_t least = octets[0] >> 4 == 6 ? 40 : 20;
        if ((kind != GSO_TCPV4 && kind != GSO_TCPV6 && !udp) || (size_t)start + (udp ? 8 : 20) > length || start < least)
            return;
        size_t upper_octets = udp ? 8 : (size_t)(octets[start + 12] >> 4) * 4;
        if (upper_octets < (udp ? 8 : 20) || start + upper_octets >= length)
            return;
        packet->segment = size;
        packet->upper = start;
        packet->header = (uint16_t)(start + upper_octets);
    }
    packet->flags = 0;
    if (length < 20) /* Python will not like it either */
        return;
    packet->traffic_class = traffic_class_of(octets);
    if (!packet->segment && is_tcp_syn(octets, length))
        packet->flags = IKW_SYN;
}

/* Mark a packet that is of the same flow as the one before it. */
void mark_same_flow(const uint8_t *arena, const struct ikw_packet *before, struct ikw_packet *packet) {
    const uint8_t *octets = arena + packet->at, *last = arena + before->at;
    if ((packet->flags | before->flags) & IKW_BAD)
        return;
    size_t upper = flow_upper(octets, packet->length);
    if (upper && upper == flow_upper(last, before->length) && same_flow(octets, last, upper))
        packet->flags |= IKW_SAME_FLOW;
}

/* Describe one packet that begins at `at`: for tests and for whoever reads the device otherwise. */
IKW_EXPORT void ikw_take(uint8_t *arena, uint32_t at, uint32_t length, uint32_t header, struct ikw_packet *packet) {
    take_packet(arena, at, length, header, packet);
}

/* Headers of a segment of a super-packet: lengths, identification, checksums, sequence number and flags. */
static void write_headers(const struct ikw_packet *packet, size_t index, size_t payload, uint64_t payload_sum, int last,
                          uint8_t *out) {
    size_t upper = packet->upper, header = packet->header, length = header + payload;
    int tcp = header - upper >= 20, ipv6 = out[0] >> 4 == 6;
    uint64_t sum = payload_sum + word16(length - upper) + word16(tcp ? PROTOCOL_TCP : PROTOCOL_UDP);
    if (ipv6) {
        store16(out + 4, length - 40);
        sum += sum_octets(out + 8, 32);
    } else {
        store16(out + 2, length);
        store16(out + 4, load16(out + 4) + index);
        store16(out + 10, 0);
        store_sum(out + 10, ~fold(sum_octets(out, upper)) & 0xFFFF);
        sum += sum_octets(out + 12, 8);
    }
    uint8_t *place = out + upper + (tcp ? 16 : 6);
    if (tcp) {
        uint8_t flags = out[upper + 13];
        store32(out + upper + 4, load32(out + upper + 4) + (uint32_t)(index * packet->segment));
        if (index)
            flags &= (uint8_t)~TCP_CWR;
        if (!last)
            flags &= (uint8_t) ~(TCP_FIN | TCP_PSH);
        out[upper + 13] = flags;
    } else {
        store16(out + upper + 4, length - upper);
    }
    store16(place, 0);
    uint32_t check = ~fold(sum + sum_octets(out + upper, header - upper)) & 0xFFFF;
    store_sum(place, !check && !tcp ? 0xFFFF : check); /* UDP: 0 would say that there is none */
}

static size_t segments_of(const struct ikw_packet *packet) {
    if (!packet->segment)
        return 1;
    return (packet->length - packet->header + packet->segment - 1u) / packet->segment;
}

static size_t segment_length(const struct ikw_packet *packet, size_t index) {
    if (!packet->segment)
        return packet->length;
    size_t rest = packet->length - packet->header - index * packet->segment;
    return packet->header + (rest < packet->segment ? rest : packet->segment);
}

/* Write segment `index` of a packet (0 of one that is none) to `out`, `length` octets. */
static void cut_segment(const uint8_t *octets, const struct ikw_packet *packet, size_t index, size_t length, uint8_t *out) {
    if (!packet->segment) {
        memcpy(out, octets, length);
        return;
    }
    size_t header = packet->header, payload = length - header, from = header + index * packet->segment;
    memcpy(out, octets, header);
    memcpy(out + header, octets + from, payload);
    write_headers(packet, index, payload, sum_octets(out + header, payload), from + payload == packet->length, out);
}

enum { LEFT = 1, FAILED = 2, RANDOM_OCTETS = 1024 };

static void write_trailer(uint8_t *at, size_t padding, uint8_t next_header) {
    for (size_t i = 0; i < padding; i++)
        at[i] = (uint8_t)(i + 1);
    at[padding] = (uint8_t)padding;
    at[padding + 1] = next_header;
}

/* Seal until everything is sealed, `out` or `frames` is full, or `refused`. */
IKW_EXPORT void ikw_seal(struct ikw_seal *job) {
    struct ikw_sa *sa = job->sa;
    size_t head = sa_overhead_head(sa), icv = sa_icv(sa), used = 0, each = sa_random_iv(sa), kept = 0;
    uint8_t random[RANDOM_OCTETS];
    job->made = job->refused = 0;
    job->octets = 0;
    for (; job->next < job->count; job->next++, job->segment = 0) {
        const struct ikw_packet *packet = &job->packets[job->order[job->next]];
        const uint8_t *octets = job->arena + packet->at;
        size_t count = segments_of(packet);
        for (; job->segment < count; job->segment++) {
            size_t length = segment_length(packet, job->segment), padding = sa_padding(sa, length);
            size_t size = head + length + padding + 2 + icv;
            if (job->made == job->most_frames || used + size > job->out_octets)
                return;
            if (!job->sequences_left || job->octets >= job->octets_left) {
                job->refused = LEFT;
                return;
            }
            if (each && kept < each) {
                kept = RANDOM_OCTETS / each * each;
                if (random_octets(random, kept)) {
                    job->refused = FAILED;
                    return;
                }
            }
            uint8_t *out = job->out + used;
            cut_segment(octets, packet, job->segment, length, out + head);
            write_trailer(out + head + length, padding, octets[0] >> 4 == 6 ? IPV6_IN_ESP : IPV4_IN_ESP);
            job->sequence++; /* also when the library fails: a number is never tried twice */
            job->sequences_left--;
            const uint8_t *iv = each ? random + (kept -= each) : NULL;
            if (sa_seal(sa, out, size, job->spi, job->sequence, job->iv_base + job->sequence, iv)) {
                job->refused = FAILED;
                return;
            }
            job->frames[job->made++] = (struct ikw_frame){(uint32_t)used, (uint32_t)size, packet->traffic_class};
            job->octets += length;
            used += size;
        }
    }
}

/* How many packets are left from where `ikw_seal` stopped. */
IKW_EXPORT uint32_t ikw_left(const struct ikw_seal *job) {
    size_t left = 0;
    for (uint32_t at = job->next; at < job->count; at++)
        left += segments_of(&job->packets[job->order[at]]);
    return (uint32_t)(left - job->segment);
}
