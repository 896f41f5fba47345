"""The structures of core.h, as ctypes lays them out. `LAYOUT` is raised with every change on either side."""

from __future__ import annotations

from ctypes import Array, Structure, c_char_p, c_int32, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

LAYOUT = 6
VNET_OCTETS = 10
MOST_GROUPS = 64
MOST_RUNS = 256
MOST_MESSAGES = 64
MOST_OUT_GROUPS = 32
MOST_TOUCHED = 256

BAD, SAME_FLOW, SYN = 1, 2, 4  # flags of packets and entries
RUN_ESP, RUN_IKE, RUN_KEEPALIVE, RUN_SHORT = range(4)
RAW, KEYED, OTHER, ALONE, DROPPED = range(5)  # what became of an entry; from DROPPED on: REASONS
REASONS = 14
SELECTORS = 13
LEFT, FAILED = 1, 2  # why sealing stopped
OUT_DONE, OUT_SEND_FAILED, OUT_REFUSED = range(3)
IN_DONE, IN_RUN, IN_LOOK = range(3)
LOOP_SETTLE, LOOP_OUT, LOOP_IN, LOOP_OTHER = range(4)
MOST_SOCKETS = 16
MODE_AEAD, MODE_CCM, MODE_CBC, MODE_CTR = range(4)


class Packet(Structure):
    """One packet or super-packet out of the TUN device (`ikeway.dataplane.userspace.segments.TunPacket`)."""

    _fields_ = (
        ("at", c_uint32),
        ("length", c_uint32),
        ("segment", c_uint16),
        ("upper", c_uint16),
        ("header", c_uint16),
        ("traffic_class", c_uint8),
        ("flags", c_uint8),
    )
    at: int
    length: int
    segment: int
    upper: int
    header: int
    traffic_class: int
    flags: int


class Frame(Structure):
    """One sealed ESP packet."""

    _fields_ = (("at", c_uint32), ("length", c_uint32), ("traffic_class", c_uint32))
    at: int
    length: int
    traffic_class: int


class Message(Structure):
    """One datagram, or several merged ones of `segment` octets."""

    _fields_ = (
        ("at", c_uint32),
        ("length", c_uint32),
        ("segment", c_uint32),
        ("port", c_uint16),
        ("traffic_class", c_uint8),
        ("source_octets", c_uint8),
        ("local_octets", c_uint8),
        ("source", c_uint8 * 16),
        ("local", c_uint8 * 16),
        ("pad", c_uint8 * 3),
    )
    at: int
    length: int
    segment: int
    port: int
    traffic_class: int
    source_octets: int
    local_octets: int
    source: Array[c_uint8]
    local: Array[c_uint8]


class Entry(Structure):
    """One ESP packet in the receive buffer, later the inner packet."""

    _fields_ = (
        ("at", c_uint32),
        ("length", c_uint32),
        ("message", c_uint16),
        ("next", c_uint16),
        ("status", c_uint8),
        ("group", c_uint8),
        ("next_header", c_uint8),
        ("flags", c_uint8),
    )
    at: int
    length: int
    message: int
    next: int
    status: int
    group: int
    next_header: int
    flags: int


class Run(Structure):
    """Packets of one SPI, sender and traffic class."""

    _fields_ = (
        ("spi", c_uint32),
        ("first", c_uint16),
        ("count", c_uint16),
        ("message", c_uint16),
        ("kind", c_uint8),
        ("pad", c_uint8),
    )
    spi: int
    first: int
    count: int
    message: int
    kind: int


class Group(Structure):
    """The packets of one flow."""

    _fields_ = (("entry", c_uint16), ("delivery", c_uint16), ("allowed", c_uint16))
    entry: int
    allowed: int


class Delivery(Structure):
    """What one write to the TUN device takes."""

    _fields_ = (
        ("first", c_uint16),
        ("last", c_uint16),
        ("parts", c_uint16),
        ("upper", c_uint16),
        ("header", c_uint16),
        ("size", c_uint16),
        ("open", c_uint8),
        ("push", c_uint8),
        ("udp", c_uint8),
        ("pad", c_uint8),
        ("octets", c_uint32),
        ("sequence", c_uint32),
        ("head", c_uint8 * (VNET_OCTETS + 120)),
    )
    first: int
    parts: int
    header: int


class Suite(Structure):
    """What a new SA is told."""

    _fields_ = (
        ("cipher", c_char_p),
        ("digest", c_char_p),
        ("key", c_char_p),
        ("integrity_key", c_char_p),
        ("salt", c_char_p),
        ("integrity_octets", c_uint32),
        ("salt_octets", c_uint8),
        ("iv_octets", c_uint8),
        ("icv_octets", c_uint8),
        ("align", c_uint8),
        ("mode", c_uint8),
        ("extended", c_uint8),
        ("sealing", c_uint8),
        ("openssl_only", c_uint8),
    )


class SealJob(Structure):
    """`ikw_seal`: packets of one SA in, frames out."""

    _fields_ = (
        ("sa", c_void_p),
        ("arena", c_void_p),
        ("packets", c_void_p),
        ("order", c_void_p),
        ("out", c_void_p),
        ("frames", c_void_p),
        ("sequence", c_uint64),
        ("iv_base", c_uint64),
        ("sequences_left", c_uint64),
        ("octets_left", c_uint64),
        ("octets", c_uint64),
        ("spi", c_uint32),
        ("count", c_uint32),
        ("out_octets", c_uint32),
        ("most_frames", c_uint32),
        ("next", c_uint32),
        ("segment", c_uint32),
        ("made", c_uint32),
        ("refused", c_uint32),
    )
    sa: int | None
    arena: int
    packets: int
    order: int
    out: int
    frames: int
    sequence: int
    iv_base: int
    sequences_left: int
    octets_left: int
    octets: int
    spi: int
    count: int
    out_octets: int
    most_frames: int
    next: int
    segment: int
    made: int
    refused: int


class SortJob(Structure):
    """`ikw_sort`: messages in, entries and runs out."""

    _fields_ = (
        ("buffer", c_void_p),
        ("messages", c_void_p),
        ("entries", c_void_p),
        ("order", c_void_p),
        ("runs", c_void_p),
        ("most_entries", c_uint32),
        ("messages_count", c_uint32),
        ("raw", c_uint32),
        ("entries_count", c_uint32),
        ("runs_count", c_uint32),
        ("taken", c_uint32),
    )
    buffer: int
    messages: int
    entries: int
    order: int
    runs: int
    most_entries: int
    messages_count: int
    raw: int
    entries_count: int
    runs_count: int
    taken: int


class OpenJob(Structure):
    """`ikw_open`: entries of one SA, opened in place."""

    _fields_ = (
        ("sa", c_void_p),
        ("buffer", c_void_p),
        ("entries", c_void_p),
        ("order", c_void_p),
        ("groups", c_void_p),
        ("ring", c_void_p),
        ("window", c_uint64),
        ("highest", c_uint64),
        ("packets_left", c_uint64),
        ("count", c_uint32),
        ("ecn", c_uint32),
        ("opened", c_uint32),
        ("groups_count", c_uint32),
        ("others", c_uint32),
        ("syns", c_uint32),
        ("dropped", c_uint32 * REASONS),
    )
    sa: int | None
    buffer: int
    entries: int
    order: int
    groups: int
    ring: int | None
    window: int
    highest: int
    packets_left: int
    count: int
    ecn: int
    opened: int
    groups_count: int
    others: int
    syns: int
    dropped: Array[c_uint32]


class MergeJob(Structure):
    """`ikw_merge`: entries in, deliveries out."""

    _fields_ = (
        ("buffer", c_void_p),
        ("entries", c_void_p),
        ("order", c_void_p),
        ("groups", c_void_p),
        ("deliveries", c_void_p),
        ("count", c_uint32),
        ("groups_count", c_uint32),
        ("merge_tcp", c_uint32),
        ("merge_udp", c_uint32),
        ("made", c_uint32),
        ("packets", c_uint32),
        ("refused", c_uint32),
        ("pad", c_uint32),
        ("octets", c_uint64),
    )
    buffer: int
    entries: int
    order: int
    groups: int
    deliveries: int
    count: int
    groups_count: int
    merge_tcp: int
    merge_udp: int
    made: int
    packets: int
    refused: int
    octets: int


class ReadJob(Structure):
    """`ikw_read`: packets out of the TUN device."""

    _fields_ = (
        ("arena", c_void_p),
        ("packets", c_void_p),
        ("arena_octets", c_uint32),
        ("most", c_uint32),
        ("enough", c_uint32),
        ("fd", c_int32),
        ("header", c_uint32),
        ("heads", c_void_p),
        ("count", c_uint32),
        ("heads_count", c_uint32),
        ("flags", c_uint32),
    )
    arena: int
    packets: int
    count: int
    heads_count: int
    flags: int


class WriteJob(Structure):
    """`ikw_write`: deliveries to the TUN device."""

    _fields_ = (
        ("buffer", c_void_p),
        ("entries", c_void_p),
        ("deliveries", c_void_p),
        ("count", c_uint32),
        ("fd", c_int32),
        ("header", c_uint32),
        ("failed", c_uint32),
        ("no_udp", c_uint32),
    )
    count: int
    failed: int
    no_udp: int


class ReceiveJob(Structure):
    """`ikw_receive`: datagrams out of a socket."""

    _fields_ = (
        ("buffer", c_void_p),
        ("messages", c_void_p),
        ("stride", c_uint32),
        ("slots", c_uint32),
        ("fd", c_int32),
        ("raw_ipv4", c_uint32),
        ("count", c_uint32),
        ("octets", c_uint32),
    )
    slots: int
    fd: int
    raw_ipv4: int
    count: int
    octets: int


class SendJob(Structure):
    """`ikw_send`: frames into a socket."""

    _fields_ = (
        ("frames_octets", c_void_p),
        ("frames", c_void_p),
        ("count", c_uint32),
        ("fd", c_int32),
        ("ipv6", c_uint32),
        ("merge", c_uint32),
        ("port", c_uint16),
        ("source_given", c_uint8),
        ("pad", c_uint8),
        ("remote", c_uint8 * 16),
        ("local", c_uint8 * 16),
        ("next", c_uint32),
        ("run", c_uint32),
    )
    frames_octets: int
    frames: int
    count: int
    fd: int
    merge: int
    port: int
    source_given: int
    remote: Array[c_uint8]
    local: Array[c_uint8]
    next: int
    run: int


class Touched(Structure):
    """The addresses of SAs (routes or ways) with something to take over."""

    _fields_ = (("count", c_uint32), ("pad", c_uint32), ("all", c_void_p * MOST_TOUCHED))
    count: int
    all: Array[c_void_p]


class Route(Structure):
    """One outbound SA in tunnel mode, with what has been sealed since it was looked at."""

    _fields_ = (
        ("seal", SealJob),
        ("send", SendJob),
        ("ledger", c_void_p),
        ("packets", c_uint64),
        ("octets", c_uint64),
        ("largest", c_uint32),
        ("touched", c_uint32),
    )
    seal: SealJob
    send: SendJob
    ledger: int | None
    packets: int
    octets: int
    largest: int
    touched: int


class OutGroup(Structure):
    """The packets of one route in a batch."""

    _fields_ = (("route", c_void_p), ("first", c_uint16), ("count", c_uint16), ("pad", c_uint32))
    route: int
    first: int
    count: int


class OutJob(Structure):
    """`ikw_out`: one batch from the TUN device to the network."""

    _fields_ = (
        ("read", ReadJob),
        ("flows", c_void_p),
        ("order", c_void_p),
        ("misses", c_void_p),
        ("groups", c_void_p),
        ("touched", c_void_p),
        ("clamp", c_uint32),
        ("groups_count", c_uint32),
        ("next_group", c_uint32),
        ("misses_count", c_uint32),
        ("stage", c_uint32),
        ("code", c_int32),
    )
    read: ReadJob
    flows: int
    clamp: int
    groups_count: int
    next_group: int
    misses_count: int
    stage: int
    code: int


class Way(Structure):
    """One inbound SA in tunnel mode, with what has come since it was looked at."""

    _fields_ = (
        ("open", OpenJob),
        ("ledger", c_void_p),
        ("packets", c_uint64),
        ("octets", c_uint64),
        ("opened", c_uint64),
        ("reasons", c_uint32 * REASONS),
        ("port", c_uint16),
        ("source_octets", c_uint8),
        ("touched", c_uint8),
        ("moved", c_uint8),
        ("pad", c_uint8 * 3),
        ("source", c_uint8 * 16),
    )
    open: OpenJob
    ledger: int | None
    packets: int
    octets: int
    opened: int
    reasons: Array[c_uint32]
    port: int
    source_octets: int
    touched: int
    moved: int
    source: Array[c_uint8]


class InJob(Structure):
    """`ikw_in`: one batch from a socket to the TUN device."""

    _fields_ = (
        ("receive", ReceiveJob),
        ("sort", SortJob),
        ("merge", MergeJob),
        ("write", WriteJob),
        ("flows", c_void_p),
        ("touched", c_void_p),
        ("way", c_void_p),
        ("clamp", c_uint32),
        ("stage", c_uint32),
        ("run", c_uint32),
        ("code", c_int32),
        ("moved", c_uint32),
        ("pad", c_uint32),
    )
    receive: ReceiveJob
    sort: SortJob
    merge: MergeJob
    write: WriteJob
    flows: int
    way: int
    clamp: int
    stage: int
    run: int
    code: int


class LoopJob(Structure):
    """`ikw_loop`: packets until Python is needed."""

    _fields_ = (
        ("out", c_void_p),
        ("in_", c_void_p * MOST_SOCKETS),
        ("in_count", c_uint32),
        ("number", c_uint32),
        ("epoll_fd", c_int32),
        ("attention", c_int32),
    )
    in_: Array[c_void_p]
    in_count: int
    number: int
    attention: int
