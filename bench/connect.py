"""How long it takes to connect, from the command to the first answer to a ping: `ikeway up` beside charon-cmd.

    python -m bench.connect [--rounds 7] [--auth eap-mschapv2,rsa] [--json FILE]

Both connect in turn to the same strongSwan gateway, over the same wires. Pings leave every two milliseconds from the
start; the clock runs from just before the command's fork to the first answer. Needs root and strongSwan. Ikeway runs
from byte code, as an installed package does.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.interop.agreement import Agreement
from tests.interop.lab import Lab, Pair
from tests.interop.network import LAN_HOST, Network, socket_in
from tests.interop.test_charon_cmd import known_to_charon_cmd

CLIENTS = {"ikeway up": Pair("ikeway", "charon"), "charon-cmd": Pair("charon-cmd", "charon")}
PAUSE = 0.002
ICMP = struct.Struct("!BBHHH")


class FirstAnswer:
    """Pings a host from a namespace until it answers; `moment` is when that was."""

    def __init__(self, network: Network, host: str) -> None:
        self.moment = 0.0
        self._socket = socket_in(network.client, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.settimeout(0.5)
        self._host = host
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def wait(self, seconds: float) -> float:
        """The moment; raises `TimeoutError`."""
        deadline = time.monotonic() + seconds
        while not self.moment:
            if time.monotonic() > deadline:
                raise TimeoutError("no ping was answered")
            time.sleep(0.01)
        return self.moment

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _send(self) -> None:
        request = ICMP.pack(8, 0, 0, 1, 1)
        checksum = ~sum(struct.unpack("!4H", request)) & 0xFFFF
        request = ICMP.pack(8, 0, checksum, 1, 1)
        while not self._stop.wait(PAUSE):
            with contextlib.suppress(OSError):
                self._socket.sendto(request, (self._host, 0))

    def _receive(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                packet, (host, _) = self._socket.recvfrom(2048)
                if host == self._host and packet[20] == 0:
                    self.moment = time.monotonic()
                    return


def connect_once(lab: Lab, pair: Pair, agreed: Agreement) -> float:
    """Seconds from the command to the first answer."""
    tunnel = lab.tunnel(pair, agreed)
    answer = FirstAnswer(lab.network, LAN_HOST[4])
    try:
        started = time.monotonic()
        tunnel.client.connect()
        return answer.wait(15) - started
    finally:
        answer.close()
        with contextlib.suppress(AssertionError, OSError, ValueError):
            tunnel.client.close()
        tunnel.stop()


def median_and_spread(samples: list[float]) -> str:
    return f"{statistics.median(samples) * 1000:6.0f} ms   ({min(samples) * 1000:.0f} to {max(samples) * 1000:.0f})"


@contextlib.contextmanager
def byte_code() -> Iterator[None]:
    """Programs find their byte code compiled, whatever this shell says, in a folder of this benchmark."""
    with tempfile.TemporaryDirectory(prefix="ikeway-bench-") as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        yield


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--auth", default="eap-mschapv2,rsa")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    results: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(byte_code())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ikeway-bench-"))
        network = Network()
        stack.callback(network.close)
        lab = Lab(network, Path(folder))
        stack.callback(lab.close)
        for auth in options.auth.split(","):
            agreed = known_to_charon_cmd(auth)
            ours = dataclasses.replace(agreed.client, ike="aes128gcm16-prfsha256-x25519", esp="aes128gcm16")
            agreed = dataclasses.replace(agreed, client=ours)
            connect_once(lab, CLIENTS["ikeway up"], agreed)  # byte code
            samples: dict[str, list[float]] = {name: [] for name in CLIENTS}
            for _ in range(options.rounds):
                for name, pair in CLIENTS.items():
                    samples[name].append(connect_once(lab, pair, agreed))
            results[auth] = samples
            print(f"{auth}:")
            for name in CLIENTS:
                print(f"  {name:12}{median_and_spread(samples[name])}")
            mine, other = (statistics.median(samples[name]) for name in CLIENTS)
            print(f"  ratio       {mine / other:6.2f}")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
