"""Numbered UDP datagrams between two namespaces, at a rate or as fast as one sender goes, and how many of them arrive."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

PORT = 5202

_RECEIVER = """
import socket, sys, time
host, seconds = sys.argv[1], float(sys.argv[3])
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
sock.bind((host, int(sys.argv[2])))
sock.settimeout(5)
print("ready", flush=True)
room, count = bytearray(2048), 0
receive = sock.recv_into
receive(room)
sock.settimeout(1)
start = time.monotonic()
try:
    while True:
        receive(room)
        count += 1
except TimeoutError:
    pass
print(count + 1, time.monotonic() - start - 1)
"""

_SENDER = """
import socket, sys, time
host, port, size, rate, seconds = sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:])
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, 32, 4 << 20)
sock.connect((host, port))
load, sent, send, now = bytes(int(size)), 0, sock.send, time.monotonic
start = now()
end = start + seconds
while now() < end:
    due = int((now() - start) * rate) if rate else sent + 64
    if due <= sent:
        time.sleep(0.0002)
    for _ in range(min(due - sent, 64)):
        send(load)
        sent += 1
print(sent, now() - start)
"""


@dataclass(frozen=True)
class Stream:
    """What was sent and what arrived."""

    sent: int
    received: int
    seconds: float

    @property
    def lost(self) -> float:
        """The share of it."""
        return 1 - self.received / self.sent


def stream(sender: str, receiver: str, address: str, size: int, rate: float, seconds: float) -> Stream:
    """Send datagrams with `size` octets of payload, `rate` a second (0: as fast as it goes)."""
    listening = subprocess.Popen(
        ["ip", "netns", "exec", receiver, sys.executable, "-c", _RECEIVER, address, str(PORT), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listening.stdout
    with listening.stdout as said:
        if said.readline() != "ready\n":
            raise RuntimeError("the receiver did not start")
        arguments = [address, str(PORT), str(size), str(rate), str(seconds)]
        sending = subprocess.run(
            ["ip", "netns", "exec", sender, sys.executable, "-c", _SENDER, *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        try:
            listening.wait(20)
            sent, lasted = sending.stdout.split()
            received = said.read().split()
            return Stream(int(sent), int(received[0]), float(lasted))
        finally:
            listening.kill()
