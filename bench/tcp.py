"""TCP flows between two namespaces: a sender and a receiver process, and what arrived in a given time."""

from __future__ import annotations

import subprocess
import sys

PORT = 5201

_RECEIVER = """
import select, socket, sys, time
host, port, seconds, flows = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
listener.settimeout(10)
print("ready", flush=True)
accepted = [listener.accept()[0] for _ in range(flows)]
room, now = bytearray(1 << 20), time.monotonic
poll = select.epoll()
for flow in accepted: poll.register(flow.fileno(), select.EPOLLIN)
by_fd = {flow.fileno(): flow for flow in accepted}
start, octets = now() + 0.5, 0
while (at := now()) < start + seconds:
    ready = poll.poll(10)
    if not ready: break
    for fd, _ in ready:
        count = by_fd[fd].recv_into(room)
        if at >= start: octets += count
print(octets * 8 / (now() - start) / 1e6)
"""

_SENDER = """
import socket, sys, threading
def send():
    flow = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
    flow.settimeout(10)
    load = bytes(1 << 18)
    try:
        while True: flow.sendall(load)
    except OSError: pass
for _ in range(int(sys.argv[3])): threading.Thread(target=send).start()
"""


def transfer(sender: str, receiver: str, address: str, seconds: float, flows: int = 1) -> float:
    """Mbit/s that reach `address` in the receiver's namespace, after half a second to warm up."""
    listening = subprocess.Popen(
        [
            "ip",
            "netns",
            "exec",
            receiver,
            sys.executable,
            "-c",
            _RECEIVER,
            address,
            str(PORT),
            str(seconds),
            str(flows),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listening.stdout
    with listening.stdout as said:
        if said.readline() != "ready\n":
            raise RuntimeError("the receiver did not start")
        sending = subprocess.Popen(
            ["ip", "netns", "exec", sender, sys.executable, "-c", _SENDER, address, str(PORT), str(flows)]
        )
        try:
            listening.wait(seconds + 20)
            return float(said.read())
        finally:
            sending.wait(15)
            listening.kill()
