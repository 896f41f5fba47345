"""The figures that the data plane has to reach, all in one run: ours, strongSwan's kernel-libipsec, plain veth.

    python -m bench.compare [--rounds 5] [--seconds 3] [--json FILE]

Alternating runs, medians, ratios; then a verdict for each line of the table. Needs root and Debian's strongSwan.
What `bench.throughput` measures is only judged here. Kernel ESP is judged in a kernel that has it (tests/kernel).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import rekeys, throughput
from bench.strongswan import strongswan_is_here
from ikeway import native

GCM, CHACHA = "aes128gcm16", "chacha20poly1305"
VETH = "plain veth"
MEASURES = "tcp,tcp4,udp,small,idle,loaded"


@dataclass(frozen=True)
class Line:
    """One line of the table: what, the figure that decides, and what it has to be."""

    what: str
    value: float
    unit: str
    to_reach: str
    reached: bool
    detail: str


class Medians:
    """Medians by measure, figure and contestant."""

    def __init__(self, samples: throughput.Samples) -> None:
        self._samples = samples

    def of(self, measure: str, figure: str, name: str) -> float:
        return statistics.median(self._samples[measure, figure, name])

    def ratio(self, measure: str, figure: str, suite: str) -> tuple[float, str]:
        """Ours to libipsec's, and both in words."""
        ours, theirs = (self.of(measure, figure, f"{who} {suite}") for who in ("ikeway", "libipsec"))
        return ours / theirs, f"{ours:,.0f} against {theirs:,.0f}"


def lines(medians: Medians) -> list[Line]:
    """The table of issue 3, as far as traffic decides."""
    found = []
    for what, measure, suite, factor in (
        ("one TCP flow, AES-128-GCM", "tcp", GCM, 8.0),
        ("four TCP flows", "tcp4", GCM, 8.0),
        ("one TCP flow, ChaCha20-Poly1305", "tcp", CHACHA, 6.0),
    ):
        ratio, detail = medians.ratio(measure, "mbit_per_s", suite)
        found.append(Line(what, ratio, "x libipsec", f"{factor:g} times libipsec", ratio >= factor, f"{detail} Mbit/s"))
    lost, bare = (medians.of("udp", "lost_percent", name) for name in (f"ikeway {GCM}", VETH))
    theirs = medians.of("udp", "lost_percent", f"libipsec {GCM}")
    found.append(
        Line(
            "UDP 300 Mbit/s: lost",
            lost,
            "%",
            "no more than plain veth",
            lost <= bare,
            f"veth {bare:.3f} %, libipsec {theirs:.3f} %",
        )
    )
    ours, theirs = (medians.of("udp", "cpu_s_per_gbit", f"{who} {GCM}") for who in ("ikeway", "libipsec"))
    found.append(
        Line("UDP 300 Mbit/s: CPU", ours, "s/Gbit", "below libipsec", ours < theirs, f"libipsec {theirs:.2f} s/Gbit")
    )
    ratio, detail = medians.ratio("small", "packets_per_s", GCM)
    found.append(Line("small packets", ratio, "x libipsec", "above libipsec", ratio > 1, f"{detail} packets/s"))
    bare, ours, theirs = (medians.of("idle", "rtt_ms", name) for name in (VETH, f"ikeway {GCM}", f"libipsec {GCM}"))
    found.append(
        Line(
            "round trip added, idle",
            ours - bare,
            "ms",
            "under 0.2 ms",
            ours - bare < 0.2,
            f"libipsec adds {theirs - bare:.3f} ms",
        )
    )
    ours, high, theirs = (
        medians.of("loaded", figure, f"{who} {GCM}")
        for who, figure in (("ikeway", "rtt_ms"), ("ikeway", "rtt_99_ms"), ("libipsec", "rtt_ms"))
    )
    detail = f"99 of 100 below {high:.1f} ms; libipsec's median {theirs:.1f} ms"
    found.append(Line("round trip under load", ours, "ms", "stated", True, detail))
    return found


def rekey_line(result: rekeys.Rekeys) -> Line:
    """A rekeying of the child SA at full rate."""
    dropped = ", ".join(f"{reason} {count}" for reason, count in result.dropped.items()) or "nothing"
    detail = (
        f"{result.sent - result.received} of {result.sent:,} datagrams lost at {result.megabits:g} Mbit/s in {result.count} "
        f"rekeyings; beside a flow of {result.mbit_per_s:,.0f} Mbit/s and {result.beside} rekeyings dropped: {dropped}"
    )
    return Line("rekeying at full rate: lost", float(result.lost), "packets", "none", result.lost == 0, detail)


def show(found: list[Line]) -> None:
    print()
    for line in found:
        verdict = "reached" if line.reached else "missed"
        print(f"{verdict:8} {line.what:32} {line.value:8.2f} {line.unit:11} (to reach: {line.to_reach}; {line.detail})")


def main() -> int:
    """Parse, run, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    if os.geteuid() != 0 or not strongswan_is_here():
        print("needs root, and strongSwan with kernel-libipsec (Debian: libcharon-extra-plugins)", file=sys.stderr)
        return 1
    load = os.getloadavg()[0]
    core = native.status()
    print(f"native core: {core.detail}; load before: {load:.1f}", flush=True)
    run = argparse.Namespace(
        rounds=options.rounds,
        seconds=options.seconds,
        measures=MEASURES,
        suites=f"{GCM},{CHACHA}",
        peers=f"{GCM},{CHACHA}",
        plain=False,
        raw=False,
    )
    samples = asyncio.run(throughput.run(run))
    rows = throughput.report(samples)
    found = [*lines(Medians(samples)), rekey_line(rekeys.measure(options.seconds))]
    show(found)
    if options.json:
        about = {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "native": core.used,
            "cores": len(os.sched_getaffinity(0)),
            "kernel": platform.release(),
            "load_before": load,
        }
        result = {**about, "lines": [asdict(line) for line in found], "results": rows}
        Path(options.json).write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
