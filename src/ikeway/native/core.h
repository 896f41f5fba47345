/* The native core of the userspace data plane: loops over octets, one call for a batch. Python (`ikeway.native`) has
 * the SAs, the routing, the limits and the counters, and lays these structures out with ctypes: change both together
 * and raise IKW_LAYOUT. Numbers in structures are in host order. Every function trusts its caller for the bounds of
 * the buffers and arrays that it is given, and nothing that is in packets. */
#ifndef IKEWAY_CORE_H
#define IKEWAY_CORE_H

#define _GNU_SOURCE

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define IKW_LAYOUT 6
#define IKW_EXPORT __attribute__((visibility("default")))

/* One packet or super-packet that came out of the TUN device. segment > 0: every segment carries that many octets,
 * upper is where TCP or UDP begins, header counts the octets in front of the payload. */
struct ikw_packet {
    uint32_t at, length;
    uint16_t segment, upper, header;
    uint8_t traffic_class, flags;
};
enum { IKW_BAD = 1, IKW_SAME_FLOW = 2, IKW_SYN = 4 };

/* One sealed ESP packet; neighbours follow each other without a gap. */
struct ikw_frame {
    uint32_t at, length;
    uint32_t traffic_class;
};

/* One UDP or raw datagram, or several merged ones of `segment` octets each. */
struct ikw_message {
    uint32_t at, length, segment;
    uint16_t port;
    uint8_t traffic_class, source_octets, local_octets;
    uint8_t source[16], local[16];
    uint8_t pad[3];
};

/* One ESP packet in the receive buffer, and later the inner packet that it carried. */
struct ikw_entry {
    uint32_t at, length;
    uint16_t message, next;
    uint8_t status, group, next_header, flags;
};

/* Packets of one SPI, source and traffic class, or single datagrams that are no ESP; `first` indexes the order. */
struct ikw_run {
    uint32_t spi;
    uint16_t first, count, message;
    uint8_t kind, pad;
};
enum { IKW_RUN_ESP, IKW_RUN_IKE, IKW_RUN_KEEPALIVE, IKW_RUN_SHORT };

/* What became of an entry. From IKW_DROPPED on: a reason (`ikeway.native` maps them). */
enum {
    IKW_RAW,     /* not opened */
    IKW_KEYED,   /* opened, whole, of the flow `group` */
    IKW_OTHER,   /* opened: Python looks at it */
    IKW_ALONE,   /* Python lets it through, by itself */
    IKW_DROPPED, /* the reasons follow */
    IKW_TOO_SHORT = IKW_DROPPED,
    IKW_REPLAYED,
    IKW_TOO_OLD,
    IKW_INTEGRITY,
    IKW_PADDING,
    IKW_DUMMY,
    IKW_NEXT_HEADER,
    IKW_MALFORMED,
    IKW_EXPIRED,
    IKW_SELECTORS,
    IKW_REASONS
};

enum { VNET_OCTETS = 10, VNET_NEEDS_CHECKSUM = 1, GSO_NONE = 0, GSO_TCPV4 = 1, GSO_TCPV6 = 4, GSO_UDP_L4 = 5, GSO_ECN = 0x80 };
enum { MOST_PARTS = 1000 }; /* writev takes 1,024 */

/* What is written to the TUN device at once: `parts` entries, linked by `next`, the first one's headers renewed. */
struct ikw_delivery {
    uint16_t first, last, parts, upper;
    uint16_t header, size; /* of the headers, of the payload of the first part */
    uint8_t open, push, udp, pad;
    uint32_t octets; /* payload of all */
    uint32_t sequence; /* that has to follow, TCP */
    uint8_t head[VNET_OCTETS + 100 + 20]; /* virtio_net_hdr, IP and TCP or UDP header */
};

enum { IPV4_IN_ESP = 4, IPV6_IN_ESP = 41, NO_NEXT_HEADER = 59 };
enum { PROTOCOL_ICMP = 1, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17, PROTOCOL_ICMPV6 = 58 };
enum { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_PSH = 0x08, TCP_ACK = 0x10, TCP_CWR = 0x80 };

static inline uint16_t load16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static inline uint32_t load32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void store16(uint8_t *p, size_t value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static inline void store32(uint8_t *p, uint32_t value) {
    store16(p, value >> 16);
    store16(p + 2, value & 0xFFFF);
}

static inline void store64(uint8_t *p, uint64_t value) {
    store32(p, (uint32_t)(value >> 32));
    store32(p + 4, (uint32_t)value);
}

/* The ones' complement sum of octets in host order, folded as needed: such sums are the same in either order of
 * octets but for that order (RFC 1071). 32 bits at a time, which compilers make vectors of. */
static inline uint64_t sum_octets(const uint8_t *p, size_t length) {
    uint64_t total = 0;
    size_t at = 0;
    for (; at + 4 <= length; at += 4) {
        uint32_t word;
        memcpy(&word, p + at, 4);
        total += word;
    }
    uint32_t rest = 0;
    memcpy(&rest, p + at, length - at);
    return total + rest;
}

static inline uint32_t fold(uint64_t total) {
    while (total >> 16)
        total = (total & 0xFFFF) + (total >> 16);
    return (uint32_t)total;
}

/* A number of 16 bits as a word of such a sum. */
static inline uint64_t word16(size_t value) {
    uint8_t octets[2];
    uint16_t word;
    store16(octets, value);
    memcpy(&word, octets, 2);
    return word;
}

static inline void store_sum(uint8_t *p, uint32_t sum) {
    uint16_t word = (uint16_t)sum;
    memcpy(p, &word, 2);
}

static inline uint8_t protocol_of(const uint8_t *p, size_t upper) { return p[upper == 20 ? 9 : 6]; }

static inline int is_icmp(const uint8_t *p, size_t upper) {
    return protocol_of(p, upper) == (upper == 20 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6);
}

/* Whether a packet is so common that a few octets settle its flow, as `cache_key` of `ikeway.esp.inner` has it: TCP, UDP
 * or ICMP, unfragmented, no IP options. Where TCP, UDP or ICMP begins, or 0. The packet has at least `length` octets;
 * what its own header says of its length is not looked at. */
static inline size_t flow_upper(const uint8_t *p, size_t length) {
    if (length >= 24 && p[0] == 0x45 && !(p[6] & 0x3F) && !p[7])
        return p[9] == PROTOCOL_TCP || p[9] == PROTOCOL_UDP || p[9] == PROTOCOL_ICMP ? 20 : 0;
    if (length >= 44 && p[0] >> 4 == 6)
        return p[6] == PROTOCOL_TCP || p[6] == PROTOCOL_UDP || p[6] == PROTOCOL_ICMPV6 ? 40 : 0;
    return 0;
}

/* How many octets behind the IP header the selectors look at: ports, or type and code. */
static inline size_t selected_octets(const uint8_t *p, size_t upper) { return is_icmp(p, upper) ? 2 : 4; }

/* Whether two packets with the same `flow_upper` are of one flow. */
static inline int same_flow(const uint8_t *a, const uint8_t *b, size_t upper) {
    size_t from = upper == 20 ? 12 : 8;
    return protocol_of(a, upper) == protocol_of(b, upper) && !memcmp(a + from, b + from, upper + selected_octets(a, upper) - from);
}

/* DSCP and ECN of an IPv4 or IPv6 packet of at least two octets. */
static inline uint8_t traffic_class_of(const uint8_t *p) {
    return p[0] >> 4 == 6 ? (uint8_t)(p[0] << 4 | p[1] >> 4) : p[1];
}

/* ---- Jobs: what one call is given and gives back ---- */

struct ikw_sa;

/* A batch of packets of one SA in tunnel mode, to be sealed as far as there is room and leave. */
struct ikw_seal {
    struct ikw_sa *sa;
    const uint8_t *arena;
    const struct ikw_packet *packets;
    const uint16_t *order; /* which packets */
    uint8_t *out;
    struct ikw_frame *frames;
    uint64_t sequence, iv_base; /* the number used last; IV = iv_base + sequence number */
    uint64_t sequences_left, octets_left;
    uint64_t octets; /* sealed, without what ESP adds */
    uint32_t spi, count, out_octets, most_frames;
    uint32_t next, segment; /* where to go on: index into order, and of the segment */
    uint32_t made;          /* frames */
    uint32_t refused;       /* 1: no sequence number or octet is left for the next one; 2: the library failed */
};

struct ikw_sort {
    const uint8_t *buffer;
    const struct ikw_message *messages;
    struct ikw_entry *entries;
    uint16_t *order;
    struct ikw_run *runs;
    uint32_t most_entries; /* not above 65,536 */
    uint32_t messages_count, raw;
    uint32_t entries_count, runs_count;
    uint32_t taken; /* messages; fewer than there are when the arrays are full: go on from there */
};

struct ikw_group {
    uint16_t entry;    /* one packet of the flow */
    uint16_t delivery; /* its latest one, plus 1 */
    uint16_t allowed;  /* set by Python */
};

struct ikw_open {
    struct ikw_sa *sa;
    uint8_t *buffer;
    struct ikw_entry *entries;
    const uint16_t *order;
    struct ikw_group *groups; /* room for MOST_GROUPS */
    uint8_t *ring;            /* `window` octets, one for each sequence number: `ikeway.esp.replay` */
    uint64_t window, highest;
    uint64_t packets_left;
    uint32_t count, ecn; /* ecn: the outer field */
    uint32_t opened, groups_count, others, syns;
    uint32_t dropped[IKW_REASONS];
};

struct ikw_merge {
    uint8_t *buffer;
    struct ikw_entry *entries;
    const uint16_t *order;
    struct ikw_group *groups;
    struct ikw_delivery *deliveries; /* as many as entries */
    uint32_t count, groups_count;
    uint32_t merge_tcp, merge_udp;
    uint32_t made, packets, refused; /* refused by the selectors */
    uint32_t pad;
    uint64_t octets;
};

struct ikw_read {
    uint8_t *arena;
    struct ikw_packet *packets;
    uint32_t arena_octets, most; /* most: packets */
    uint32_t enough;             /* octets after which no more is read */
    int32_t fd;
    uint32_t header; /* octets of virtio_net_hdr: 10 or 0 */
    uint16_t *heads; /* where runs of one flow begin: as much room as for packets */
    uint32_t count, heads_count, flags; /* flags: those of all packets */
};

struct ikw_write {
    uint8_t *buffer;
    const struct ikw_entry *entries;
    const struct ikw_delivery *deliveries;
    uint32_t count;
    int32_t fd;
    uint32_t header;
    uint32_t failed;  /* packets that the device did not take */
    uint32_t no_udp;  /* set when the host takes no merged UDP */
};

struct ikw_receive {
    uint8_t *buffer; /* `slots` parts of `stride` octets */
    struct ikw_message *messages;
    uint32_t stride, slots; /* slots: at most MOST_MESSAGES */
    int32_t fd;
    uint32_t raw_ipv4; /* the outer IP header comes with each datagram */
    uint32_t count, octets;
};

/* Where frames go, and what of them has gone. */
struct ikw_send {
    const uint8_t *frames_octets;
    const struct ikw_frame *frames;
    uint32_t count;
    int32_t fd;
    uint32_t ipv6, merge; /* merge: the kernel cuts runs of equal length (UDP_SEGMENT) */
    uint16_t port;
    uint8_t source_given, pad;
    uint8_t remote[16], local[16];
    uint32_t next; /* the first frame that has not gone */
    uint32_t run;  /* how many frames the send holds that failed */
};

enum { MOST_RUNS = 256, MOST_GROUPS = 64 };

IKW_EXPORT void ikw_seal(struct ikw_seal *job);
IKW_EXPORT int ikw_read(struct ikw_read *job);
IKW_EXPORT int ikw_send(struct ikw_send *job);
IKW_EXPORT int ikw_receive(struct ikw_receive *job);
IKW_EXPORT void ikw_sort(struct ikw_sort *job);
IKW_EXPORT void ikw_open(struct ikw_open *job);
IKW_EXPORT void ikw_merge(struct ikw_merge *job);
IKW_EXPORT void ikw_write(struct ikw_write *job);

/* outbound.c: describe what one read gave, `header` octets of virtio_net_hdr first (or none). */
void take_packet(uint8_t *arena, size_t at, size_t length, size_t header, struct ikw_packet *packet);
void mark_same_flow(const uint8_t *arena, const struct ikw_packet *before, struct ikw_packet *packet);

/* crypto.c */
size_t sa_overhead_head(const struct ikw_sa *sa);
size_t sa_padding(const struct ikw_sa *sa, size_t payload);
size_t sa_icv(const struct ikw_sa *sa);
size_t sa_align(const struct ikw_sa *sa);
int sa_extended(const struct ikw_sa *sa);
/* Seal in place: header, IV, plaintext with trailer, ICV; `random_iv` where IVs do not count. 0: done. */
int sa_seal(struct ikw_sa *sa, uint8_t *frame, size_t size, uint32_t spi, uint64_t sequence, uint64_t iv,
            const uint8_t *random_iv);
size_t sa_random_iv(const struct ikw_sa *sa);
int random_octets(uint8_t *out, size_t length);
void wipe(void *octets, size_t length);
/* Verify and decrypt in place. 0: the ICV is right. `high` is the upper half of the sequence number. */
int sa_open(struct ikw_sa *sa, uint8_t *frame, size_t size, uint32_t high);

/* gcm.c */
struct gcm;
int gcm_supported(void);
size_t gcm_octets(void);
size_t gcm_alignment(void);
void gcm_set_key(struct gcm *gcm, const uint8_t *key, size_t octets);
void gcm_crypt(const struct gcm *gcm, const uint8_t *nonce, const uint8_t *associated, size_t associated_octets,
               uint8_t *text, size_t length, int sealing, uint8_t tag[16]);

#endif
