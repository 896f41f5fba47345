"""What a rekeying of the child SA costs at full rate: packets lost, and dropped by which reason.

A client and a gateway (`ikeway up`, `ikeway gateway run`), with IKE between them. First datagrams at a rate that this
machine carries for so long without loss, counted at both ends, while keys are renewed again and again; then the same
beside a TCP flow that takes all it gets, judged by what the data planes drop: where a queue is full, TCP slows down, and
only other reasons are the rekeying's.
"""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.interop.agreement import agreement
from tests.interop.lab import Lab, Pair, Tunnel
from tests.interop.network import LAN_HOST, Network

from ikeway.cli.bench.measures import UDP_MEGABITS, UDP_OCTETS, stream, tcp
from ikeway.cli.bench.tunnel import Way
from ikeway.daemon.status import Status
from ikeway.esp.drops import Drop

PAUSE = 0.3  # seconds between two rekeyings
QUEUES = {Drop.SEND_BUFFER, Drop.TUN_WRITE, Drop.RECEIVE_QUEUE, Drop.DEVICE_QUEUE}  # full without any rekeying too
NOTHING = {Drop.KEEPALIVE, Drop.DUMMY}


@dataclass(frozen=True)
class Rekeys:
    """`sent` and `received` datagrams, at `megabits` a second, while keys were renewed `count` times; then, beside a TCP
    flow of `mbit_per_s`, what both data planes dropped for reasons other than a full queue while keys were renewed
    `beside` times."""

    megabits: float
    count: int
    sent: int
    received: int
    beside: int
    mbit_per_s: float
    dropped: dict[str, int]

    @property
    def lost(self) -> int:
        """Datagrams that did not arrive, and packets dropped beside the flow."""
        return self.sent - self.received + sum(self.dropped.values())


def measure(seconds: float) -> Rekeys:
    """Both parts, so many seconds each."""
    with tempfile.TemporaryDirectory(prefix="ikeway-bench-") as folder:
        network = Network()
        lab = Lab(network, Path(folder))
        try:
            agreed = agreement(both={"ike": "aes128gcm16-prfsha256-x25519", "esp": "aes128gcm16-x25519"})
            tunnel = lab.tunnel(Pair("ikeway", "ikeway"), agreed)
            tunnel.client.connect()
            try:
                return _measure(tunnel, seconds)
            finally:
                tunnel.client.close()
                tunnel.stop()
        finally:
            lab.close()
            network.close()


def _measure(tunnel: Tunnel, seconds: float) -> Rekeys:
    way = Way("ikeway", (tunnel.network.client, tunnel.network.lan), ("", LAN_HOST[4]))
    megabits = _without_loss(way, seconds)
    with _renewing(tunnel) as renewed:
        sent, received, _ = stream(way, UDP_OCTETS, megabits * 1e6 / 8 / UDP_OCTETS, seconds)
        count = renewed[0]
    before = _drops(tunnel)
    with _renewing(tunnel) as renewed:
        rate = next(figure.value for figure in tcp(way, seconds) if figure.unit == "Mbit/s")
        beside = renewed[0]
    dropped = _drops(tunnel) - before
    return Rekeys(megabits, count, sent, received, beside, rate, dict(dropped))


def _without_loss(way: Way, seconds: float) -> float:
    """The highest of some rates, in Mbit/s, at which nothing is lost while keys stay as they are."""
    megabits = float(UDP_MEGABITS)
    while megabits > 1:
        sent, received, _ = stream(way, UDP_OCTETS, megabits * 1e6 / 8 / UDP_OCTETS, seconds)
        if sent == received:
            break
        megabits /= 2
    return megabits


@contextmanager
def _renewing(tunnel: Tunnel) -> Iterator[list[int]]:
    """Renew the keys of the child SA again and again; the list has how often."""
    stop, count = threading.Event(), [0]

    def work() -> None:
        while not stop.wait(PAUSE):
            tunnel.client.rekey("child")
            count[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()


def _drops(tunnel: Tunnel) -> Counter[str]:
    """What both data planes have dropped so far."""
    found: Counter[str] = Counter()
    for side in (tunnel.client, tunnel.gateway):
        found.update(Status.from_json(side.call("status")).dropped)
    return Counter({reason: count for reason, count in found.items() if reason not in {*QUEUES, *NOTHING}})
