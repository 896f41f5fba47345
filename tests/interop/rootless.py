"""`ikeway run` and `proxy` as a user without rights uses them, in the client's namespace of the lab."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.interop.agreement import Agreement, agreement
from tests.interop.lab import Lab
from tests.interop.network import LAN_HOST, Network
from tests.interop.ours import _profile, write_private
from tests.interop.strongswan import StrongswanGateway
from tests.unprivileged import NOBODY, as_user

HOST = LAN_HOST[4]


class Runner:
    """Starts `ikeway run` in the client's namespace."""

    def __init__(self, network: Network, folder: Path, gateway: StrongswanGateway) -> None:
        self.network, self.folder, self.gateway = network, folder, gateway
        self.profile = folder / "lab.toml"
        self._started: list[subprocess.Popen[str]] = []

    @property
    def environment(self) -> dict[str, str]:
        home = str(self.folder)
        return {
            "HOME": home,
            "IKEWAY_RUNTIME_DIR": f"{home}/run",
            "TERM": "dumb",
            "COLUMNS": "200",
            "PYTHONUNBUFFERED": "1",
        }

    def popen(self, *words: str, **streams: object) -> subprocess.Popen[str]:
        """Any command in the client's namespace, as the user."""
        return self.network.client.popen(as_user(*words), environment=self.environment, **streams)  # type: ignore[arg-type]

    def words(self, *words: str, options: tuple[str, ...] = ()) -> list[str]:
        return [sys.executable, "-m", "ikeway", "run", str(self.profile), *options, "--", *words]

    def start(
        self, *words: str, options: tuple[str, ...] = ("-q",), user: bool = True, **streams: object
    ) -> subprocess.Popen[str]:
        command = self.words(*words, options=options)
        given: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **streams}
        environment = self.environment if user else self.environment | {"IKEWAY_RUNTIME_DIR": f"{self.folder}/root"}
        process = self.network.client.popen(as_user(*command) if user else command, environment=environment, **given)
        self._started.append(process)
        return process

    def stop(self) -> None:
        """End what a test that failed has left running: it holds ports that the next one needs. And the gateway."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
        self.gateway.stop()

    def run(
        self, *words: str, options: tuple[str, ...] = ("-q",), user: bool = True, files: dict[str, Path] | None = None
    ) -> tuple[int, str]:
        process = self.start(*words, options=options, user=user, files=files)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said


def make_runner(
    network: Network, lab: Lab, folder: Path, agreed: Agreement | None = None, **network_options: object
) -> Runner:
    agreed = agreed or agreement("psk")
    gateway = lab.gateway("charon", agreed)
    assert isinstance(gateway, StrongswanGateway)
    table = dict(_profile(agreed.client, agreed, folder))
    table["network"] = {"request": ["ipv4"], **network_options}
    table["session"] = {"reconnect": True, "retry_limit": "1s"}
    ike = dict(table["ike"])  # type: ignore[call-overload]
    table["ike"] = ike | {"retransmit": {"first": 0.3, "factor": 1.2, "tries": 3}, "dpd": 1}
    write_private(folder / "lab.toml", table)
    for each in (folder, *folder.rglob("*")):
        os.chown(each, NOBODY, NOBODY)
    return Runner(network, folder, gateway)


def processes(words: str, home: Path | None = None) -> list[int]:
    """Those with these words in their command line, and, as other tests run beside, with this home."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words.encode() not in path.read_bytes().replace(b"\0", b" "):
                continue
            environment = (path.parent / "environ").read_bytes().split(b"\0")
            if home is None or f"HOME={home}".encode() in environment:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


NAME_SERVER = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("10.91.0.10", 53))
print("ready", flush=True)
while True:
    question, peer = server.recvfrom(2048)
    end = question.index(0, 12) + 5
    is_a = question[end - 4 : end - 2] == bytes((0, 1))
    head = question[:2] + b"\\x81\\x80\\0\\1" + (b"\\0\\1" if is_a else b"\\0\\0") + bytes(4) + question[12:end]
    answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x05\\0\\4" + bytes((10, 91, 0, 10))
    server.sendto(head + (answer if is_a else b""), peer)
"""


class Wire:
    """Everything that leaves the client's host on an interface, but not what is the tunnel's own or the link's."""

    def __init__(self, network: Network, interface: str) -> None:
        def open_it() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
            made.bind((interface, 3))
            return made

        self._socket = network.client.call(open_it)
        self._socket.setblocking(False)

    def leaks(self) -> list[bytes]:
        """Packets of ours that are neither IKE nor ESP, ARP, or neighbour discovery."""
        found = []
        while True:
            try:
                packet, address = self._socket.recvfrom(65536)
            except BlockingIOError:
                return found
            outgoing = address[2] == 4  # PACKET_OUTGOING
            is_ip4 = packet[0] >> 4 == 4 and address[1] == 0x800
            if outgoing and is_ip4 and not (packet[9] == 17 and packet[22:24] in (b"\x01\xf4", b"\x11\x94")):
                found.append(packet)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
