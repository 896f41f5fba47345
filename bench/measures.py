"""What is measured of a way between two namespaces. Each measure gives figures by their names."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from bench.contestants import Contestant
from bench.datagrams import stream
from bench.latency import round_trips, round_trips_under_load
from bench.tcp import transfer

Figures = dict[str, float]
Measure = Callable[[Contestant, float], Figures]

UDP_OCTETS, UDP_RATE = 1200, 300e6 / 8 / 1200
SMALL_OCTETS = 64


def _per_gbit(contestant: Contestant, before: float, gbit: float) -> Figures:
    return {"cpu_s_per_gbit": (contestant.cpu_seconds() - before) / gbit} if contestant.processes and gbit else {}


def tcp(contestant: Contestant, seconds: float, flows: int = 1) -> Figures:
    """TCP flows from the first end to the second, and the processes' time for what has passed."""
    before = contestant.cpu_seconds()
    mbit = transfer(*contestant.ends, contestant.addresses[1], seconds, flows)
    passed = mbit * (seconds + 0.5) / 1000  # it warms up for half a second
    return {"mbit_per_s": mbit} | _per_gbit(contestant, before, passed)


def tcp4(contestant: Contestant, seconds: float) -> Figures:
    """Four flows at once."""
    return tcp(contestant, seconds, 4)


def tcp_back(contestant: Contestant, seconds: float) -> Figures:
    """One flow from the second end to the first."""
    ends, addresses = contestant.ends[::-1], contestant.addresses
    return {"mbit_per_s": transfer(*ends, addresses[0], seconds)}


def udp(contestant: Contestant, seconds: float) -> Figures:
    """300 Mbit/s of datagrams with 1,200 octets."""
    before = contestant.cpu_seconds()
    result = stream(*contestant.ends, contestant.addresses[1], UDP_OCTETS, UDP_RATE, seconds)
    gbit = result.received * UDP_OCTETS * 8 / 1e9
    figures = {"mbit_per_s": gbit * 1000 / result.seconds, "lost_percent": result.lost * 100}
    return figures | _per_gbit(contestant, before, gbit)


def small(contestant: Contestant, seconds: float) -> Figures:
    """Datagrams with 64 octets as fast as one sender goes: how many arrive."""
    before = contestant.cpu_seconds()
    result = stream(*contestant.ends, contestant.addresses[1], SMALL_OCTETS, 0, seconds)
    figures = {"packets_per_s": result.received / result.seconds, "lost_percent": result.lost * 100}
    if contestant.processes:
        figures["cpu_us_per_packet"] = (contestant.cpu_seconds() - before) / result.received * 1e6
    return figures


def idle(contestant: Contestant, seconds: float) -> Figures:
    """The median round trip of a ping with nothing else going on."""
    times = round_trips(contestant.ends[0], contestant.addresses[1], int(seconds * 100))
    return {"rtt_ms": statistics.median(times)}


def loaded(contestant: Contestant, seconds: float) -> Figures:
    """Round trips beside one TCP flow: the median, and what 99 of 100 stay below."""
    times = sorted(round_trips_under_load(contestant.ends, contestant.addresses[1], seconds + 1))
    return {"rtt_ms": statistics.median(times), "rtt_99_ms": times[len(times) * 99 // 100]}


MEASURES: Mapping[str, Measure] = {
    "tcp": tcp,
    "tcp4": tcp4,
    "back": tcp_back,
    "udp": udp,
    "small": small,
    "idle": idle,
    "loaded": loaded,
}
