"""Traffic of tests through a tunnel: pings, whole TCP transfers with a check of the hash, numbered datagrams."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import sys
import time
from dataclasses import dataclass, field

from tests.dataplane.namespaces import inside, run_in
from tests.dataplane.tunnels import Side

PORT = 7777

_SERVE = """
import hashlib, socket, sys
host, port = sys.argv[1], int(sys.argv[2])
with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
    server.settimeout(20)
    print("ready", flush=True)
    flow, _ = server.accept()
digest = hashlib.sha256()
flow.settimeout(60)
while octets := flow.recv(1 << 18):
    digest.update(octets)
print(digest.hexdigest(), flush=True)
"""
_SEND = """
import hashlib, random, socket, sys
flow = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
flow.settimeout(60)
source, digest = random.Random(1), hashlib.sha256()
for _ in range(int(sys.argv[3])):
    block = source.randbytes(1 << 16)
    digest.update(block)
    flow.sendall(block)
flow.shutdown(socket.SHUT_WR)
flow.recv(1)
print(digest.hexdigest())
"""


async def ping(side: Side, address: str, *options: str, count: int = 3) -> str:
    """What `ping` says."""
    result = await asyncio.to_thread(
        run_in, side.namespace, "ping", "-n", "-i", "0.01", "-c", str(count), "-W", "3", *options, address
    )
    return result.stdout + result.stderr


async def transfer(source: Side, target: Side, address: str, mebibytes: float = 4) -> None:
    """Send random octets through the tunnel; they must arrive as they were."""
    blocks, port = int(mebibytes * 16), 20000 + int.from_bytes(os.urandom(2), "big") % 10000
    server = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", target.namespace, sys.executable, "-c", _SERVE, address, str(port),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout
    try:
        assert await server.stdout.readline() == b"ready\n"
        client = await asyncio.to_thread(
            run_in, source.namespace, sys.executable, "-c", _SEND, address, str(port), str(blocks), timeout=90
        )
        arrived = await asyncio.wait_for(server.stdout.read(), 30)
        assert client.stdout == arrived.decode(), client.stderr
        assert len(arrived.strip()) == hashlib.sha256().digest_size * 2
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


@dataclass
class Numbered:
    """A stream of numbered datagrams; `missing()` says which did not arrive."""

    source: Side
    target: Side
    rate: float = 1000.0
    sent: int = 0
    arrived: set[int] = field(default_factory=set)

    async def run(self, seconds: float) -> None:
        """Send for a while, then wait for the last ones."""
        receiver = inside(self.target.namespace, lambda: _bound(self.target.inner, PORT))
        sender = inside(self.source.namespace, lambda: _bound(self.source.inner, 0))
        with receiver, sender:
            end, due = time.monotonic() + seconds, time.monotonic()
            while time.monotonic() < end:
                due += 1 / self.rate
                sender.sendto(self.sent.to_bytes(8, "big") + bytes(200), (self.target.inner, PORT))
                self.sent += 1
                self._collect(receiver)
                await asyncio.sleep(max(due - time.monotonic(), 0))
            for _ in range(100):
                self._collect(receiver)
                if not self.missing():
                    break
                await asyncio.sleep(0.02)

    def _collect(self, receiver: socket.socket) -> None:
        try:
            while True:
                self.arrived.add(int.from_bytes(receiver.recv(1000)[:8], "big"))
        except BlockingIOError:
            pass

    def missing(self) -> list[int]:
        """Numbers that were sent and did not arrive."""
        return sorted(set(range(self.sent)) - self.arrived)


def _bound(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
    sock.bind((host, port))
    sock.setblocking(False)
    return sock
