"""What is measured of a way between two hosts. Each measure gives figures by their names."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ikeway.cli.bench.tunnel import Way
from ikeway.errors import HostError
from ikeway.host.namespaces import Namespace

UDP_OCTETS, UDP_MEGABITS = 1200, 300
SMALL_OCTETS = 64
# Ctrl-C reaches them too, and would be a traceback while they import: who started them ends them.
_GENERATORS = (
    *("sh", "-c", 'trap "" INT; exec "$@"', "sh"),
    *(sys.executable, str(Path(__file__).with_name("generators.py"))),
)
_PORT = "5201"
_LOAD_SETTLES = 1.0  # seconds that a TCP flow takes to get going


@dataclass(frozen=True, slots=True)
class Figure:
    """One value with its unit."""

    name: str
    unit: str
    value: float


Measure = Callable[[Way, float], list[Figure]]


def tcp(way: Way, seconds: float, flows: int = 1) -> list[Figure]:
    """TCP flows from the first host to the second."""
    before = way.cpu_seconds()
    with _flows(way, seconds, flows) as sink:
        megabits = float(_rest(sink, seconds))
    found = [Figure("throughput", "Mbit/s", megabits)]
    return found + _cpu(way, before, megabits * seconds / 1000)


def tcp4(way: Way, seconds: float) -> list[Figure]:
    """Four flows at once."""
    return tcp(way, seconds, 4)


def udp(way: Way, seconds: float) -> list[Figure]:
    """Datagrams with 1,200 octets at 300 Mbit/s."""
    before = way.cpu_seconds()
    sent, received, lasted = stream(way, UDP_OCTETS, UDP_MEGABITS * 1e6 / 8 / UDP_OCTETS, seconds)
    gigabits = received * UDP_OCTETS * 8 / 1e9
    found = [
        Figure("throughput", "Mbit/s", gigabits * 1000 / lasted),
        Figure("lost", "%", (sent - received) / sent * 100),
    ]
    return found + _cpu(way, before, gigabits)


def small(way: Way, seconds: float) -> list[Figure]:
    """Datagrams with 64 octets, as fast as one sender goes."""
    sent, received, lasted = stream(way, SMALL_OCTETS, 0, seconds)
    return [
        Figure("packets", "1/s", received / lasted),
        Figure("lost", "%", (sent - received) / sent * 100),
    ]


def idle(way: Way, seconds: float) -> list[Figure]:
    """Round trips of pings with nothing else going on."""
    return _trips(way, seconds, 0.005)


def loaded(way: Way, seconds: float) -> list[Figure]:
    """Round trips beside one TCP flow in the same direction."""
    with _flows(way, seconds + _LOAD_SETTLES, 1):
        _run(way.ends[0], "ping", way.addresses[1], str(_LOAD_SETTLES), "0.1")
        return _trips(way, seconds, 0.02)


MEASURES: Mapping[str, tuple[str, Measure]] = {
    "tcp": ("TCP, one flow", tcp),
    "tcp4": ("TCP, four flows", tcp4),
    "udp": (f"UDP, {UDP_MEGABITS} Mbit/s in {UDP_OCTETS:,} octets", udp),
    "small": (f"UDP, {SMALL_OCTETS} octets", small),
    "idle": ("Round trip, idle", idle),
    "loaded": ("Round trip under load", loaded),
}


def _trips(way: Way, seconds: float, interval: float) -> list[Figure]:
    sent, *words = _run(way.ends[0], "ping", way.addresses[1], str(seconds), str(interval)).split()
    trips = sorted(map(float, words))
    if not trips:
        raise HostError(f"none of {sent} pings was answered")
    return [
        Figure("median", "ms", statistics.median(trips)),
        Figure("99 of 100 below", "ms", trips[len(trips) * 99 // 100]),
        Figure("lost", "%", (int(sent) - len(trips)) / int(sent) * 100),
    ]


def _cpu(way: Way, before: float, gigabits: float) -> list[Figure]:
    if not way.processes or not gigabits:
        return []
    return [Figure("CPU", "s/Gbit", (way.cpu_seconds() - before) / gigabits)]


@contextlib.contextmanager
def _flows(way: Way, seconds: float, flows: int) -> Iterator[subprocess.Popen[str]]:
    """TCP flows for so long, that end with the block at the latest."""
    arguments = (way.addresses[1], _PORT)
    sink = _start(way.ends[1], "tcp-sink", *arguments, str(seconds), str(flows))
    _await_ready(sink)
    source = _start(way.ends[0], "tcp-source", *arguments, str(flows))
    try:
        yield sink
    finally:
        for process in (sink, source):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds + 5)
            process.kill()
            process.wait()


def stream(way: Way, octets: int, rate: float, seconds: float) -> tuple[int, int, float]:
    """Datagrams sent, datagrams received, and seconds of sending."""
    sink = _start(way.ends[1], "udp-sink", way.addresses[1], _PORT)
    _await_ready(sink)
    said = _run(way.ends[0], "udp-source", way.addresses[1], _PORT, str(octets), str(rate), str(seconds))
    sent, lasted = said.split()
    return int(sent), int(_rest(sink, 15)), float(lasted)


def _start(host: Namespace, *words: str) -> subprocess.Popen[str]:
    return host.popen([*_GENERATORS, *words], stdout=subprocess.PIPE)


def _run(host: Namespace, *words: str) -> str:
    return host.run([*_GENERATORS, *words], timeout=600)


def _await_ready(sink: subprocess.Popen[str]) -> None:
    assert sink.stdout is not None
    if sink.stdout.readline() != "ready\n":
        raise HostError("a traffic generator did not start", remedy="run the benchmark again, with less going on")


def _rest(sink: subprocess.Popen[str], seconds: float) -> str:
    assert sink.stdout is not None
    said = sink.stdout.read()
    sink.wait(seconds + 20)
    return said
