"""The userspace data plane beside plain veth and strongSwan's kernel-libipsec.

    python -m bench.throughput [--rounds 5] [--seconds 3] [--measures tcp,udp,...] [--suites aes128gcm16,...] [--json FILE]

Two network namespaces, keys known to both sides, no IKE. All contestants run in turn, round by round, so that a noisy
machine treats them alike; medians and ratios count. Needs root. strongSwan takes part where it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
from collections import defaultdict

from bench.contestants import Contestant, ikeway, libipsec, veth
from bench.measures import MEASURES
from bench.strongswan import strongswan_is_here
from ikeway import native

Samples = dict[tuple[str, str, str], list[float]]  # by measure, figure, contestant


async def contestants(stack: contextlib.AsyncExitStack, options: argparse.Namespace) -> list[Contestant]:
    """Everyone who takes part, set up."""
    suites = options.suites.split(",")
    found = [await stack.enter_async_context(veth())]
    for number, suite in enumerate(suites, 1):
        found.append(await stack.enter_async_context(ikeway(number, suite)))
        if options.plain:
            found.append(await stack.enter_async_context(ikeway(number + 20, suite, vnet_header=False)))
        if options.raw:
            found.append(await stack.enter_async_context(ikeway(number + 40, suite, raw=True)))
    if not strongswan_is_here():
        print("strongSwan is not installed here and takes no part", file=sys.stderr)
        return found
    for number, suite in enumerate(options.peers.split(",")):
        found.append(await stack.enter_async_context(libipsec(suite, number)))
    return found


async def run(options: argparse.Namespace) -> Samples:
    """All measures of all contestants, in turn."""
    samples: Samples = defaultdict(list)
    async with contextlib.AsyncExitStack() as stack:
        everyone = await contestants(stack, options)
        for turn in range(options.rounds):
            for measure in options.measures.split(","):
                for contestant in everyone:
                    figures = await asyncio.to_thread(MEASURES[measure], contestant, options.seconds)
                    for name, value in figures.items():
                        samples[measure, name, contestant.name].append(value)
            print(f"round {turn + 1} of {options.rounds} done", file=sys.stderr)
    return samples


def report(samples: Samples) -> list[dict[str, object]]:
    """Print the table; the same as values. The ratio is to the first strongSwan."""
    rows: list[dict[str, object]] = []
    reference = {
        (measure, figure): statistics.median(values)
        for (measure, figure, name), values in reversed(samples.items())
        if name.startswith("libipsec")
    }
    before = None
    order = list(dict.fromkeys((measure, figure) for measure, figure, _ in samples))
    for (measure, figure, name), values in sorted(samples.items(), key=lambda item: order.index(item[0][:2])):
        if (measure, figure) != before:
            print(f"\n{measure}: {figure}")
            before = measure, figure
        median, peer = statistics.median(values), reference.get((measure, figure))
        ratio = median / peer if peer else None
        shown = f"{ratio:8.2f}" if ratio else f"{'-':>8}"
        print(f"  {name:34}{median:10.2f}  {min(values):9.2f} -{max(values):9.2f} {shown}")
        rows.append(
            {"measure": measure, "figure": figure, "name": name, "median": median, "samples": values, "ratio": ratio}
        )
    return rows


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--measures", default=",".join(MEASURES))
    parser.add_argument("--suites", default="aes128gcm16,chacha20poly1305", help="of ours")
    parser.add_argument("--peers", default="aes128gcm16,chacha20poly1305", help="of strongSwan")
    parser.add_argument("--plain", action="store_true", help="also without super-packets from the TUN device")
    parser.add_argument("--raw", action="store_true", help="also as IP protocol 50")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root: network namespaces and TUN devices", file=sys.stderr)
        return 1
    core = native.status()
    print(f"native core: {core.detail}; load before: {os.getloadavg()[0]:.1f}", flush=True)
    rows = report(asyncio.run(run(options)))
    if options.json:
        with open(options.json, "w") as file:
            figures = {"rounds": options.rounds, "seconds": options.seconds, "native": core.used, "results": rows}
            json.dump(figures, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
