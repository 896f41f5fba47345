"""What a handshake costs each side: `python -m bench.handshake`.

Two engines in memory, PSK, X25519, AES-128-GCM, one child SA; no sockets and no data plane. The responder's share is
what a gateway pays for a client that logs in, in the protocol alone.
(`time.process_time` costs a millisecond a call on some machines, so wall-clock time is taken on an idle machine.)
"""

from __future__ import annotations

import json
import statistics
import time
import tracemalloc

from tests.ike.pair import IKE, Pair, connection, connection_b

from ikeway.address import Address
from ikeway.ike.settings import ResponderSettings

ROUNDS = 300


def handshakes(count: int) -> tuple[float, float, Pair]:
    """Seconds of initiator and responder for `count` handshakes."""
    pair = Pair(
        connection(initial_contact=False),
        connection_b(),
        responder=ResponderSettings(ike_proposals=IKE, cookie_threshold=10**9, half_open_per_address=10**9),
    )
    spent = {pair.a.name: 0.0, pair.b.name: 0.0}
    for number in range(count):
        local = Address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 500)
        started = time.perf_counter()
        pair.a.engine.connect(pair.a.connection, local, pair.b.address, pair.now)
        pair.a.take_events(pair.now)
        spent["a"] += time.perf_counter() - started
        for _ in range(2):
            for sender, receiver in ((pair.a, pair.b), (pair.b, pair.a)):
                datagrams = sender.engine.outgoing()
                started = time.perf_counter()
                for datagram in datagrams:
                    receiver.engine.receive(datagram.octets, datagram.remote, datagram.local, pair.now)
                    receiver.take_events(pair.now)
                spent[receiver.name] += time.perf_counter() - started
    assert len(pair.b.inbound) == count == len(pair.a.inbound)
    return spent["a"], spent["b"], pair


def main() -> None:
    """Print the medians of five runs, and the memory of an established SA."""
    handshakes(20)
    runs = [handshakes(ROUNDS)[:2] for _ in range(5)]
    initiator, responder = (statistics.median(run[side] for run in runs) / ROUNDS for side in (0, 1))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    _, _, kept = handshakes(200)
    memory = (tracemalloc.get_traced_memory()[0] - before) / 200 / 2
    assert kept
    result = {
        "initiator_us": round(initiator * 1e6),
        "responder_us": round(responder * 1e6),
        "responder_sas_per_cpu_second": round(1 / responder),
        "kib_per_sa_with_events_kept_by_the_bench": round(memory / 1024, 1),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
