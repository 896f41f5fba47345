"""Thousands of SAs: `python -m bench.sas [CLIENTS]` (10,000 by default).

What a gateway's data plane costs with so many clients, each with a child SA (two SAs: in and out) and an address of its
own: to install them, to find the right one for a packet, to read their counters, to go on with all of them when the
worker has died, and to remove them; the memory of daemon and worker. A real worker process; its TUN is a socket pair.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import os
import signal
import socket
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from scapy.layers.inet import IP, UDP
from tests.esp.material import esp_sa, network

from ikeway.address import Address
from ikeway.dataplane.interface import DataPlaneEvent, DataPlaneRestarted
from ikeway.dataplane.userspace.associations import Associations
from ikeway.dataplane.userspace.messages import Past
from ikeway.dataplane.userspace.paths import OuterSocket, Paths
from ikeway.dataplane.userspace.plane import UserspaceDataPlane
from ikeway.dataplane.userspace.sockets import open_udp
from ikeway.esp.parameters import EspSa
from ikeway.host.tun import TunDevice

HERE = Address("127.0.0.1", 4500)
AT_ONCE = 64  # connections whose steps are under way at the same time
LOOKUPS = 20_000


def sas(number: int, local: Address) -> tuple[EspSa, EspSa]:
    """(Inbound, outbound) of a client."""
    host = str(ipaddress.ip_address("10.64.0.0") + number)
    common = {
        "child_id": number,
        "connection_id": number,
        "local": local,
        "remote": Address("127.0.0.1", 10_000 + number % 50_000),
        "remote_selectors": (network(f"{host}/32"),),
    }
    return esp_sa(spi=0x10000 + number, **common), esp_sa(spi=0x20000000 + number, **common)


def resident(pid: int) -> int:
    """KiB of memory that a process has for itself."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = {line.split(":")[0]: line.split() for line in rollup.splitlines()[1:]}
    return int(fields["Private_Dirty"][1])


def cpu(pid: int) -> float:
    """Seconds of a core that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def in_turns(calls: Sequence[Callable[[], Awaitable[None]]]) -> float:
    """Seconds that all take, some of them at the same time."""
    waiting = iter(calls)

    async def work() -> None:
        for call in waiting:
            await call()

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return time.perf_counter() - started


async def measure(count: int) -> dict[str, float]:
    """Everything that needs a worker."""
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock = open_udp(Address("127.0.0.1", 0))
    local = Address(*sock.getsockname())
    plane = UserspaceDataPlane(TunDevice(outside.detach(), "none"), [sock])
    restarted = asyncio.Event()

    def on_event(event: DataPlaneEvent) -> None:
        if isinstance(event, DataPlaneRestarted):
            restarted.set()

    await plane.start(on_event)
    try:
        pairs = [sas(number, local) for number in range(count)]
        assert plane.pid
        pids = os.getpid(), plane.pid
        before, spent = [resident(pid) for pid in pids], [cpu(pid) for pid in pids]

        async def install(inbound: EspSa, outbound: EspSa) -> None:
            await plane.add_inbound(inbound)
            await plane.add_outbound(outbound)

        async def remove(inbound: EspSa, outbound: EspSa) -> None:
            await plane.remove_outbound(outbound.spi, outbound.remote)
            await plane.remove_inbound(inbound.spi)

        installing = await in_turns([lambda pair=pair: install(*pair) for pair in pairs])
        after, spent = [resident(pid) for pid in pids], [cpu(pid) - was for pid, was in zip(pids, spent, strict=True)]
        started = time.perf_counter()
        assert len(await plane.counters()) == 2 * count + 2
        counting = time.perf_counter() - started
        started = time.perf_counter()
        os.kill(plane.pid, signal.SIGKILL)
        await restarted.wait()
        recovering = time.perf_counter() - started
        assert plane.sas == 2 * count
        removing = await in_turns([lambda pair=pair: remove(*pair) for pair in pairs])
        assert plane.sas == 0
        assert len(await plane.counters()) == 2
    finally:
        await plane.stop()
        inside.close()
    each = 2 * count
    return {
        "install_seconds": round(installing, 2),
        "install_us_per_sa": round(installing / each * 1e6),
        "install_daemon_cpu_us_per_sa": round(spent[0] / each * 1e6),
        "install_worker_cpu_us_per_sa": round(spent[1] / each * 1e6),
        "remove_seconds": round(removing, 2),
        "remove_us_per_sa": round(removing / each * 1e6),
        "read_counters_seconds": round(counting, 2),
        "killed_to_carrying_again_seconds": round(recovering, 2),
        "worker_kib_per_sa": round((after[1] - before[1]) / each, 2),
        "daemon_kib_per_sa": round((after[0] - before[0]) / each, 2),
    }


def lookup(count: int) -> float:
    """Microseconds to find the SA for a packet of a flow that was not seen before, among those of so many clients."""
    policies = Associations(Paths([OuterSocket(socket.socket(), False, False, "0.0.0.0", 4500)]))
    for number in range(count):
        policies.add_outbound(sas(number, HERE)[1], Past(number))
    packets = [
        bytearray(bytes(IP(src="10.0.0.1", dst=str(ipaddress.ip_address("10.64.0.0") + number % count)) / UDP() / b"x"))
        for number in range(LOOKUPS // 10)
    ]
    seconds = []
    for turn in range(10):
        for number, packet in enumerate(packets):
            packet[20:22] = (turn * len(packets) + number).to_bytes(2, "big")  # another port: another flow
        started = time.perf_counter()
        for packet in packets:
            policies.route(packet)
        seconds.append((time.perf_counter() - started) / len(packets))
    return statistics.median(seconds) * 1e6


def main() -> None:
    """Print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", type=int, nargs="?", default=10_000)
    count = parser.parse_args().clients
    result: dict[str, float] = {"clients": count, "sas": 2 * count, **asyncio.run(measure(count))}
    for few in (10, count):
        result[f"lookup_us_among_{few}"] = round(lookup(few), 2)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
