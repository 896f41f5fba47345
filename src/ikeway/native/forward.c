/* The shortest way of a packet: both directions without Python in between, for what Python has decided before.
 *
 * Python tells which SA a flow goes to, which SA an SPI means, and which flows an SA may carry; `ikw_flows` remembers it
 * until Python says that something has changed. What is not remembered, or is not plain, comes back to Python in the
 * middle of the call ("attention"), which decides, and calls again to go on. Counters add up here and are taken over by
 * Python after each call. */
#include "core.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

/* ---- What was decided ---- */

enum { KEY_OCTETS = 40, PROBES = 8 };

struct key {
    uint8_t octets, key[KEY_OCTETS - 1];
};

struct slot {
    const void *owner; /* of the decision: NULL, or an inbound SA */
    void *value;
    uint64_t generation; /* free, unless it is that of now */
    struct key key;
};

struct ikw_flows {
    uint64_t seed, generation;
    uint32_t mask;
    struct slot slots[];
};

IKW_EXPORT struct ikw_flows *ikw_flows_new(uint32_t bits, uint64_t seed) {
    size_t count = (size_t)1 << bits;
    struct ikw_flows *flows = calloc(1, sizeof *flows + count * sizeof(struct slot));
    if (flows) {
        flows->mask = (uint32_t)(count - 1);
        flows->seed = seed;
        flows->generation = 1;
    }
    return flows;
}

IKW_EXPORT void ikw_flows_free(struct ikw_flows *flows) { free(flows); }

IKW_EXPORT void ikw_flows_clear(struct ikw_flows *flows) { flows->generation++; }

/* The key of a packet's flow; its length is 0 when the flow cannot be remembered. */
static struct key flow_key(const uint8_t *p, size_t length) {
    struct key key = {0};
    size_t upper = flow_upper(p, length);
    if (upper) {
        size_t from = upper == 20 ? 12 : 8, octets = upper + selected_octets(p, upper) - from;
        key.octets = (uint8_t)(octets + 1);
        key.key[0] = protocol_of(p, upper);
        memcpy(key.key + 1, p + from, octets);
    }
    return key;
}

static struct key spi_key(uint32_t spi) {
    struct key key = {.octets = 4};
    store32(key.key, spi);
    return key;
}

static struct slot *find(struct ikw_flows *flows, const void *owner, const struct key *key, int put) {
    uint64_t hash = flows->seed ^ (uint64_t)(uintptr_t)owner, words[KEY_OCTETS / 8];
    memcpy(words, key, sizeof words);
    for (size_t i = 0; i < KEY_OCTETS / 8; i++) {
        hash = (hash ^ words[i]) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    struct slot *slot = NULL;
    for (uint32_t probe = 0; probe < PROBES; probe++) {
        slot = &flows->slots[((uint32_t)hash + probe) & flows->mask];
        if (slot->generation != flows->generation)
            return put ? slot : NULL;
        if (slot->owner == owner && !memcmp(&slot->key, key, sizeof *key))
            return slot;
    }
    return put ? &flows->slots[(uint32_t)hash & flows->mask] : NULL; /* it is full here: the first one is forgotten */
}

static void *look_up(struct ikw_flows *flows, const void *owner, const struct key *key) {
    struct slot *slot = key->octets ? find(flows, owner, key, 0) : NULL;
    return slot ? slot->value : NULL;
}

static void remember(struct ikw_flows *flows, const void *owner, const struct key *key, void *value) {
    if (!key->octets)
        return;
    struct slot *slot = find(flows, owner, key, 1);
    slot->owner = owner;
    slot->value = value;
    slot->generation = flows->generation;
    slot->key = *key;
}

/* Remember what a packet's flow means. */
IKW_EXPORT void ikw_remember_flow(struct ikw_flows *flows, const void *owner, const uint8_t *packet, uint32_t length, void *value) {
    struct key key = flow_key(packet, length);
    remember(flows, owner, &key, value);
}

IKW_EXPORT void ikw_remember_spi(struct ikw_flows *flows, uint32_t spi, void *value) {
    struct key key = spi_key(spi);
    remember(flows, NULL, &key, value);
}

/* SAs with something that Python has to take over. */
enum { MOST_TOUCHED = 256 };

struct ikw_touched {
    uint32_t count, pad;
    void *all[MOST_TOUCHED];
};

/* What outlives this process, 64 bits each (`ikeway.dataplane.userspace.ledger`): the mark, packets, octets. */
enum { LEDGER_MARK, LEDGER_PACKETS, LEDGER_OCTETS };

static void account(volatile uint64_t *ledger, uint64_t packets, uint64_t octets) {
    if (ledger) {
        ledger[LEDGER_PACKETS] += packets;
        ledger[LEDGER_OCTETS] += octets;
    }
}

/* ---- To the network ---- */

/* One outbound SA in tunnel mode. */
struct ikw_route {
    struct ikw_seal seal;
    struct ikw_send send;
    volatile uint64_t *ledger; /* or NULL; Python sees to the mark */
    uint64_t packets, octets;  /* since Python has looked */
    uint32_t largest;         /* payload of one packet; 0: the path has not said */
    uint32_t touched;
};

struct ikw_out_group {
    struct ikw_route *route;
    uint16_t first, count;
    uint32_t pad;
};

enum { MOST_OUT_GROUPS = 32 };
enum { OUT_DONE, OUT_SEND_FAILED, OUT_REFUSED };
enum { STAGE_NEW, STAGE_SEAL, STAGE_SENT };

struct ikw_out {
    struct ikw_read read;
    struct ikw_flows *flows;
    uint16_t *order, *misses; /* misses: (first, end) of runs that Python has to route; twice as much room as for packets */
    struct ikw_out_group *groups; /* MOST_OUT_GROUPS */
    struct ikw_touched *touched;
    uint32_t clamp;               /* SYNs are Python's */
    uint32_t groups_count, next_group, misses_count;
    uint32_t stage; /* 0 to begin a batch */
    int32_t code;   /* an errno */
};

static int fits(const struct ikw_route *route, const struct ikw_read *read, uint32_t first, uint32_t end) {
    if (route->largest)
        for (uint32_t at = first; at < end; at++) {
            const struct ikw_packet *packet = &read->packets[at];
            if ((packet->segment ? (uint32_t)packet->header + packet->segment : packet->length) > route->largest)
                return 0;
        }
    return 1;
}

static struct ikw_out_group *group_of(struct ikw_out *job, struct ikw_route *route) {
    for (uint32_t at = 0; at < job->groups_count; at++)
        if (job->groups[at].route == route)
            return &job->groups[at];
    if (job->groups_count == MOST_OUT_GROUPS || (!route->touched && job->touched->count == MOST_TOUCHED))
        return NULL;
    if (!route->touched) {
        route->touched = 1;
        job->touched->all[job->touched->count++] = route;
    }
    struct ikw_out_group *group = &job->groups[job->groups_count++];
    *group = (struct ikw_out_group){route, 0, 0, 0};
    return group;
}

/* Find the route of every run, and bring the packets of each route together. */
static void route_all(struct ikw_out *job) {
    const struct ikw_read *read = &job->read;
    uint8_t owner[4096];
    job->groups_count = job->misses_count = job->next_group = 0;
    for (uint32_t run = 0; run < read->heads_count; run++) {
        uint32_t first = read->heads[run], end = run + 1 < read->heads_count ? read->heads[run + 1] : read->count;
        const struct ikw_packet *packet = &read->packets[first];
        struct ikw_out_group *group = NULL;
        if (!(packet->flags & IKW_BAD) && !(job->clamp && (read->flags & IKW_SYN))) {
            struct key key = flow_key(read->arena + packet->at, packet->length);
            struct ikw_route *route = look_up(job->flows, NULL, &key);
            if (route && fits(route, read, first, end))
                group = group_of(job, route);
        }
        if (!group) {
            job->misses[job->misses_count++] = (uint16_t)first;
            job->misses[job->misses_count++] = (uint16_t)end;
        } else {
            group->count = (uint16_t)(group->count + (end - first));
        }
        memset(owner + first, group ? (int)(group - job->groups) : MOST_OUT_GROUPS, end - first);
    }
    uint16_t first = 0;
    for (uint32_t at = 0; at < job->groups_count; at++) {
        job->groups[at].first = first;
        first = (uint16_t)(first + job->groups[at].count);
        job->groups[at].count = 0;
    }
    for (uint32_t at = 0; at < read->count; at++)
        if (owner[at] < MOST_OUT_GROUPS) {
            struct ikw_out_group *group = &job->groups[owner[at]];
            job->order[group->first + group->count++] = (uint16_t)at;
        }
}

/* Seal and send one group, from where it stopped. */
static int send_group(struct ikw_out *job, struct ikw_out_group *group) {
    struct ikw_route *route = group->route;
    struct ikw_seal *seal = &route->seal;
    if (job->stage == STAGE_NEW) {
        seal->order = job->order + group->first;
        seal->count = group->count;
        seal->next = seal->segment = seal->refused = 0;
        job->stage = STAGE_SEAL;
    }
    for (;;) {
        if (job->stage == STAGE_SENT) {
            job->stage = STAGE_SEAL;
            if (seal->refused)
                return OUT_REFUSED; /* Python sets seal->next to the end */
        }
        if (seal->next >= seal->count)
            return OUT_DONE;
        ikw_seal(seal);
        route->packets += seal->made;
        route->octets += seal->octets;
        account(route->ledger, seal->made, seal->octets);
        seal->octets_left -= seal->octets < seal->octets_left ? seal->octets : seal->octets_left;
        job->stage = STAGE_SENT;
        if (seal->made) {
            route->send.count = seal->made;
            route->send.next = 0;
            job->code = ikw_send(&route->send);
            if (job->code)
                return OUT_SEND_FAILED; /* Python sees to the frames that are left */
        }
    }
}

/* One batch from the TUN device to the network. OUT_DONE, or what Python has to see to before it calls again. At the end
 * `misses` are left for Python; `code` is the errno of a device that is gone. `read.most` is at most 4,096. */
IKW_EXPORT int ikw_out(struct ikw_out *job) {
    if (job->stage == STAGE_NEW) {
        job->code = ikw_read(&job->read);
        route_all(job);
    }
    while (job->next_group < job->groups_count) {
        int attention = send_group(job, &job->groups[job->next_group]);
        if (attention)
            return attention;
        job->next_group++;
        job->stage = STAGE_NEW;
    }
    return OUT_DONE;
}

/* ---- From the network ---- */

/* One inbound SA in tunnel mode. */
struct ikw_way {
    struct ikw_open open;
    volatile uint64_t *ledger; /* or NULL; its mark is the highest number seen */
    uint64_t packets, octets, opened; /* since Python has looked */
    uint32_t reasons[IKW_REASONS];
    uint16_t port; /* where the newest packet came from; moved: the one before came from elsewhere */
    uint8_t source_octets, touched, moved, pad[3];
    uint8_t source[16];
};

enum { IN_DONE, IN_RUN, IN_LOOK };
enum { MANY_SLOTS = 64, FEW_SLOTS = 4, SHORT_OCTETS = 4096 };
enum { IN_NEW, IN_SORT, IN_NEXT, IN_OPENED };

struct ikw_in {
    struct ikw_receive receive;
    struct ikw_sort sort;
    struct ikw_merge merge;
    struct ikw_write write;
    struct ikw_flows *flows;
    struct ikw_touched *touched;
    struct ikw_way *way; /* of the run at hand */
    uint32_t clamp;      /* SYNs are Python's */
    uint32_t stage; /* 0 to begin a batch */
    uint32_t run;   /* at hand; with IN_RUN Python makes its SA known, or does it all and adds 1 */
    int32_t code;   /* an errno of the socket */
    uint32_t moved; /* some peer has: Python wants to know at once */
    uint32_t pad;
};

/* Note that an SA has something for Python to take over. */
static void touch(struct ikw_in *job, struct ikw_way *way) {
    if (!way->touched) {
        way->touched = 1;
        job->touched->all[job->touched->count++] = way;
    }
}

/* Open one run. Whether all of it may be delivered without asking Python. */
static int open_run(struct ikw_in *job, struct ikw_way *way, const struct ikw_run *run) {
    struct ikw_open *opened = &way->open;
    const struct ikw_message *message = &job->sort.messages[run->message];
    uint64_t before = opened->highest;
    opened->order = job->sort.order + run->first;
    opened->count = run->count;
    opened->ecn = message->traffic_class & 3;
    touch(job, way);
    ikw_open(opened);
    way->opened += opened->opened;
    for (uint32_t reason = IKW_DROPPED; reason < IKW_REASONS; reason++)
        way->reasons[reason] += opened->dropped[reason];
    if (opened->highest > before && !job->sort.raw &&
        (way->port != message->port || memcmp(way->source, message->source, sizeof way->source))) {
        way->port = message->port;
        way->source_octets = message->source_octets;
        memcpy(way->source, message->source, sizeof way->source);
        way->moved = 1;
        job->moved = 1;
    }
    int known = !opened->others && !(job->clamp && opened->syns);
    for (uint32_t number = 0; number < opened->groups_count; number++) {
        struct ikw_group *group = &opened->groups[number];
        const struct ikw_entry *entry = &opened->entries[group->entry];
        struct key key = flow_key(opened->buffer + entry->at, entry->length);
        group->allowed = look_up(job->flows, way, &key) != NULL;
        known = known && group->allowed;
    }
    return known;
}

/* Hand the host what one run has carried. */
static void deliver(struct ikw_in *job, struct ikw_way *way, const struct ikw_run *run) {
    struct ikw_merge *merge = &job->merge;
    merge->order = job->sort.order + run->first;
    merge->count = run->count;
    merge->groups_count = way->open.groups_count;
    ikw_merge(merge);
    way->packets += merge->packets;
    way->octets += merge->octets;
    way->reasons[IKW_SELECTORS] += merge->refused;
    uint64_t left = way->open.packets_left;
    way->open.packets_left = left - (merge->packets < left ? merge->packets : left);
    if (way->ledger)
        way->ledger[LEDGER_MARK] = way->open.highest; /* before the host gets anything */
    account(way->ledger, merge->packets, merge->octets);
    job->write.count = merge->made;
    uint32_t failed = job->write.failed;
    ikw_write(&job->write);
    job->write.failed += failed;
    if (job->write.no_udp)
        merge->merge_udp = 0;
}

/* One batch from a socket to the TUN device. IN_DONE, or what Python has to see to before it calls again: IN_RUN,
 * a run of no known SA, or what has been counted; IN_LOOK, packets that are opened and wait for its verdict. */
IKW_EXPORT int ikw_in(struct ikw_in *job) {
    if (job->stage == IN_NEW) {
        job->sort.taken = job->sort.messages_count = job->moved = 0;
        job->code = ikw_receive(&job->receive);
        if (job->code)
            return IN_DONE;
        job->sort.messages_count = job->receive.count;
        /* Many slots for single datagrams; of merged ones a few are a batch: the other direction must not wait for long. */
        job->receive.slots = job->receive.octets < SHORT_OCTETS * job->receive.count ? MANY_SLOTS : FEW_SLOTS;
        job->stage = IN_SORT;
    }
    for (;;) {
        if (job->stage == IN_SORT) {
            if (job->sort.taken >= job->sort.messages_count)
                return IN_DONE;
            ikw_sort(&job->sort);
            job->run = 0;
            job->stage = IN_NEXT;
        }
        while (job->run < job->sort.runs_count) {
            const struct ikw_run *run = &job->sort.runs[job->run];
            if (job->stage == IN_NEXT) {
                struct key key = spi_key(run->spi);
                job->way = run->kind == IKW_RUN_ESP ? look_up(job->flows, NULL, &key) : NULL;
                if (!job->way || (!job->way->touched && job->touched->count == MOST_TOUCHED))
                    return IN_RUN;
                job->stage = IN_OPENED;
                if (!open_run(job, job->way, run))
                    return IN_LOOK;
            }
            deliver(job, job->way, run);
            job->run++;
            job->stage = IN_NEXT;
        }
        job->stage = IN_SORT;
    }
}

/* ---- Both ---- */

enum { MOST_SOCKETS = 16, MOST_EVENTS = MOST_SOCKETS + 2, MOST_BATCHES = 32, MOST_PACKETS = 1 << 16, SETTLE_MS = 2 };
enum { LOOP_SETTLE, LOOP_OUT, LOOP_IN, LOOP_OTHER };

struct ikw_loop {
    struct ikw_out *out;
    struct ikw_in *in[MOST_SOCKETS];
    uint32_t in_count, number; /* number: of the socket, with LOOP_IN */
    int32_t epoll_fd;
    int32_t attention; /* what ikw_out or ikw_in has returned */
};

static int forward_out(struct ikw_loop *job) {
    struct ikw_out *out = job->out;
    out->stage = STAGE_NEW;
    job->attention = ikw_out(out);
    return job->attention || out->misses_count || out->code ? LOOP_OUT : LOOP_SETTLE;
}

static int forward_in(struct ikw_loop *job, uint32_t number) {
    struct ikw_in *in = job->in[number];
    in->stage = IN_NEW;
    job->number = number;
    job->attention = ikw_in(in);
    return job->attention || (in->code && in->code != EAGAIN) ? LOOP_IN : LOOP_SETTLE;
}

static int too_much_to_settle(const struct ikw_touched *touched) {
    for (uint32_t at = 0; at < touched->count; at++)
        if (((const struct ikw_route *)touched->all[at])->packets >= MOST_PACKETS)
            return 1;
    return 0;
}

/* Forward packets until Python is needed: LOOP_SETTLE, to take over what was counted (soon after the last packet, too);
 * LOOP_OUT and LOOP_IN, to see to `attention`, misses or an errno; LOOP_OTHER, for another descriptor or a signal. */
IKW_EXPORT int ikw_loop(struct ikw_loop *job) {
    struct epoll_event events[MOST_EVENTS];
    for (uint32_t batches = 0; batches < MOST_BATCHES;) {
        int timeout = job->out->touched->count || job->in[0]->touched->count ? SETTLE_MS : -1;
        int ready = epoll_wait(job->epoll_fd, events, MOST_EVENTS, timeout);
        if (ready <= 0)
            return ready ? LOOP_OTHER : LOOP_SETTLE;
        uint32_t places[MOST_EVENTS];
        for (int at = 0; at < ready; at++) { /* before any packet */
            places[at] = 0;
            if (events[at].data.fd != job->out->read.fd) {
                while (places[at] < job->in_count && job->in[places[at]]->receive.fd != events[at].data.fd)
                    places[at]++;
                places[at]++;
            }
            if (places[at] > job->in_count || events[at].events & ~(uint32_t)EPOLLIN)
                return LOOP_OTHER;
        }
        for (int at = 0; at < ready; at++) {
            int reason = places[at] ? forward_in(job, places[at] - 1) : forward_out(job);
            if (reason != LOOP_SETTLE || (places[at] && job->in[places[at] - 1]->moved))
                return reason;
            batches++;
        }
        if (too_much_to_settle(job->out->touched))
            break;
    }
    return LOOP_SETTLE;
}
