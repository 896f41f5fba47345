"""One TCP flow through the userspace data plane, beside plain veth and strongSwan's kernel-libipsec.

    python -m bench.throughput [--rounds 5] [--seconds 3] [--suites aes128gcm16,...] [--json FILE]

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
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from tests.dataplane.namespaces import two_namespaces
from tests.dataplane.tunnels import connect, two_sides
from tests.esp.material import transforms

from bench.strongswan import libipsec_pair, strongswan_is_here
from bench.tcp import transfer

Measure = Callable[[float, bool], Awaitable[float]]


@dataclass
class Contestant:
    """A way from one namespace to the other; `measure(seconds, reverse)` gives Mbit/s."""

    name: str
    measure: Measure
    processes: tuple[int, ...] = ()
    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with its threads."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def between(source: str, destination: str, addresses: tuple[str, str]) -> Measure:
    """Measure between the two ends of something; reversed, the second one sends."""

    async def measure(seconds: float, reverse: bool) -> float:
        sender, receiver = (destination, source) if reverse else (source, destination)
        return await asyncio.to_thread(transfer, sender, receiver, addresses[0] if reverse else addresses[1], seconds)

    return measure


@contextlib.asynccontextmanager
async def veth() -> AsyncIterator[Contestant]:
    """No tunnel at all."""
    with two_namespaces("ikb0") as (left, right):
        yield Contestant("plain veth", between(left, right, ("10.77.0.1", "10.77.0.2")))


@contextlib.asynccontextmanager
async def ikeway(number: int, suite: str, vnet_header: bool) -> AsyncIterator[Contestant]:
    """Our data plane."""
    async with two_sides(f"ikb{number}", vnet_header=vnet_header) as (left, right):
        await connect(left, right, transforms=transforms(suite))
        pids = tuple(pid for pid in (left.plane.pid, right.plane.pid) if pid)
        name = f"ikeway {suite}" + ("" if vnet_header else " (no offload)")
        yield Contestant(name, between(left.namespace, right.namespace, (left.inner, right.inner)), pids)


@contextlib.asynccontextmanager
async def libipsec(suite: str) -> AsyncIterator[Contestant]:
    """strongSwan with ESP in userspace."""
    async with libipsec_pair(suite) as pair:
        measure = between(pair.client, pair.server, (pair.client_inner, pair.server_inner))
        yield Contestant(f"strongSwan libipsec {suite}", measure, pair.processes)


async def run(rounds: int, seconds: float, suites: list[str], plain: bool) -> list[Contestant]:
    """All contestants, in turn."""
    async with contextlib.AsyncExitStack() as stack:
        contestants = [await stack.enter_async_context(veth())]
        for number, suite in enumerate(suites, 1):
            contestants.append(await stack.enter_async_context(ikeway(number, suite, True)))
            if plain:
                contestants.append(await stack.enter_async_context(ikeway(number + 20, suite, False)))
        if strongswan_is_here():
            contestants.append(await stack.enter_async_context(libipsec(suites[0])))
        else:
            print("strongSwan is not installed here and takes no part", file=sys.stderr)
        for turn in range(rounds):
            for contestant in contestants:
                before, started = sum(map(cpu_seconds, contestant.processes)), time.monotonic()
                contestant.forward.append(await contestant.measure(seconds, False))
                contestant.backward.append(await contestant.measure(seconds, True))
                contestant.cpu_seconds += sum(map(cpu_seconds, contestant.processes)) - before
                contestant.wall_seconds += time.monotonic() - started
            print(f"round {turn + 1} of {rounds} done", file=sys.stderr)
        return contestants


def report(contestants: list[Contestant]) -> list[dict[str, object]]:
    """Print the table; the same as values."""
    peer = next((c for c in contestants if c.name.startswith("strongSwan")), None)
    rows: list[dict[str, object]] = []
    print(f"{'':36}{'Mbit/s':>9}{'back':>9}{'spread':>16}{'x libipsec':>12}{'cores':>7}")
    for contestant in contestants:
        forward, backward = statistics.median(contestant.forward), statistics.median(contestant.backward)
        ratio = forward / statistics.median(peer.forward) if peer else None
        cores = contestant.cpu_seconds / contestant.wall_seconds
        spread = f"{min(contestant.forward):.0f}-{max(contestant.forward):.0f}"
        shown = f"{ratio:.2f}" if ratio else "-"
        print(f"{contestant.name:36}{forward:9.0f}{backward:9.0f}{spread:>16}{shown:>12}{cores:7.2f}")
        rows.append(
            {
                "name": contestant.name,
                "mbit_per_second": forward,
                "mbit_per_second_reversed": backward,
                "samples": contestant.forward,
                "samples_reversed": contestant.backward,
                "ratio_to_libipsec": ratio,
                "cores": cores,
            }
        )
    return rows


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each transfer, one in each direction")
    parser.add_argument("--suites", default="aes128gcm16,aes256gcm16,chacha20poly1305,aes256-sha256")
    parser.add_argument("--plain", action="store_true", help="also without super-packets from the TUN device")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root: network namespaces and TUN devices", file=sys.stderr)
        return 1
    rows = report(asyncio.run(run(options.rounds, options.seconds, options.suites.split(","), options.plain)))
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"rounds": options.rounds, "seconds": options.seconds, "results": rows}, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
