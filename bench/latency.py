"""Round trips by ping, idle and beside a TCP transfer."""

from __future__ import annotations

import re
import subprocess
import threading

from bench.tcp import transfer

_TIME = re.compile(r"time=([\d.]+) ms")


def round_trips(namespace: str, address: str, count: int = 100, interval: float = 0.01) -> list[float]:
    """Milliseconds of each ping that was answered."""
    command = ["ping", "-n", "-i", str(interval), "-c", str(count), "-W", "2", address]
    said = subprocess.run(
        ["ip", "netns", "exec", namespace, *command], check=False, capture_output=True, text=True
    ).stdout
    return [float(time) for time in _TIME.findall(said)]


def round_trips_under_load(ends: tuple[str, str], address: str, seconds: float) -> list[float]:
    """The same while one TCP flow takes all it gets, in the same direction."""
    loading = threading.Thread(target=transfer, args=(*ends, address, seconds + 0.5))
    loading.start()
    try:
        return round_trips(ends[0], address, int(seconds * 50), 0.02)[50:]  # the flow takes a second to get going
    finally:
        loading.join()
