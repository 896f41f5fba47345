"""What a handshake costs each side: `python -m bench.handshake [--rounds 5] [--seconds 2] [--json FILE]`.

Two engines in memory, PSK, X25519, AES-128-GCM, one child SA; no sockets and no data plane. The responder's share is
what a gateway pays for a client that logs in, in the protocol alone; the memory is that of one side's SA and its child.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tracemalloc
from pathlib import Path

from ikeway.address import Address
from ikeway.cli.bench.handshakes import Pair, shake_hands

SAS = 500


def memory() -> float:
    """Octets that an established IKE SA with its child SA takes, at one side."""
    pair = Pair("aes128gcm16", (("10.1.0.0/16",), ("10.2.0.0/16",)))
    responder = Address("198.51.100.1", 4500)

    def connect(first: int, count: int) -> None:
        for number in range(first, first + count):
            pair.connect(Address(f"10.9.{number >> 8}.{number & 255}", 4500), responder)
        for side in pair.sides:  # what a data plane would have taken over
            side.inbound.clear()
            side.outbound.clear()
        gc.collect()

    connect(0, 50)  # tables and caches
    tracemalloc.start()
    connect(50, SAS)
    octets = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return octets / SAS / len(pair.sides)


def main() -> None:
    """Print medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rounds = [shake_hands(options.seconds) for _ in range(options.rounds)]
    initiator = statistics.median(each.initiator_seconds / each.count for each in rounds)
    responder = statistics.median(each.responder_seconds / each.count for each in rounds)
    result = {
        "load_before": load,
        "initiator_us": round(initiator * 1e6),
        "responder_us": round(responder * 1e6),
        "responder_sas_per_second_of_a_core": round(1 / responder),
        "kib_per_sa": round(memory() / 1024, 1),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
