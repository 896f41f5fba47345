"""One TCP flow between two namespaces: a sender and a receiver process, and what arrived in a given time."""

from __future__ import annotations

import subprocess
import sys

PORT = 5201

_RECEIVER = """
import socket, sys, time
host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
listener.settimeout(10)
print("ready", flush=True)
flow, _ = listener.accept()
flow.settimeout(10)
room = bytearray(1 << 20)
warm = time.monotonic() + 0.5
while time.monotonic() < warm and flow.recv_into(room): pass
start, octets = time.monotonic(), 0
while time.monotonic() - start < seconds:
    count = flow.recv_into(room)
    if not count: break
    octets += count
print(octets * 8 / (time.monotonic() - start) / 1e6)
"""

_SENDER = """
import socket, sys
flow = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
flow.settimeout(10)
load = bytes(1 << 18)
try:
    while True: flow.sendall(load)
except OSError: pass
"""


def transfer(sender: str, receiver: str, address: str, seconds: float) -> float:
    """Mbit/s that reach `address` in the receiver's namespace, after half a second to warm up."""
    listening = subprocess.Popen(
        ["ip", "netns", "exec", receiver, sys.executable, "-c", _RECEIVER, address, str(PORT), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listening.stdout
    with listening.stdout as said:
        if said.readline() != "ready\n":
            raise RuntimeError("the receiver did not start")
        sending = subprocess.Popen(["ip", "netns", "exec", sender, sys.executable, "-c", _SENDER, address, str(PORT)])
        try:
            listening.wait(seconds + 20)
            return float(said.read())
        finally:
            sending.wait(15)
            listening.kill()
