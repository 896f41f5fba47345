"""Why a packet was dropped: every one of them is counted under one of these."""

from __future__ import annotations

import enum


class Drop(enum.StrEnum):
    """A reason. The value is what counters, logs and `ikeway status` show."""

    # From the network
    TOO_SHORT = "too-short"  # not even an ESP header, or no whole block
    UNKNOWN_SPI = "unknown-spi"
    REPLAYED = "replayed"  # this sequence number was seen already, or is 0
    TOO_OLD = "too-old"  # left of the replay window
    INTEGRITY = "integrity"  # the ICV is wrong
    PADDING = "padding"  # authentic, but not padded as RFC 4303 section 2.4 says
    DUMMY = "dummy"  # next header 59 (RFC 4303 section 2.6); sent to be dropped
    NEXT_HEADER = "next-header"  # authentic, but carries nothing that the mode allows
    ECN = "ecn"  # congestion was signalled to an inner packet that cannot say so (RFC 6040 section 4.2)
    KEEPALIVE = "keepalive"  # one octet 0xFF (RFC 3948 section 2.3); sent to be dropped
    IKE_QUEUE_FULL = "ike-queue-full"  # the daemon does not keep up
    TUN_WRITE = "tun-write"  # the device did not take the packet
    RECEIVE_QUEUE = "receive-queue"  # the socket's queue was full: the data plane does not keep up
    # To the network
    NO_POLICY = "no-policy"  # no SA's selectors cover it
    SEQUENCE_END = "sequence-end"  # the SA has no sequence number left
    TOO_BIG = "too-big"  # does not fit the path; the sender was told
    SEND_BUFFER = "send-buffer"  # the socket stayed full
    SEND_FAILED = "send-failed"  # the host refused to send
    DEVICE_QUEUE = "device-queue"  # the TUN device's queue was full: the data plane does not keep up
    # In both directions
    MALFORMED = "malformed"  # the inner packet is no IP packet, or its lengths lie
    SELECTORS = "selectors"  # the inner packet is outside of what was negotiated (RFC 4301 section 5.2)
    EXPIRED = "expired"  # the SA has reached a hard limit
    TRANSPORT = "transport"  # has what transport mode here does not carry: IP options, fragments
