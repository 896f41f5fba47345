"""`ikeway proxy` by a user without rights, against strongSwan, as curl and others use it."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.interop.network import Network
from tests.interop.rootless import HOST, Runner, Wire, processes
from tests.interop.waiting import wait_for_text, wait_until

pytestmark = pytest.mark.peer

PAGES = {"docs": "a page behind the gateway\n"}
UDP_ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("10.91.0.10", 7))
print("ready", flush=True)
while True:
    octets, peer = server.recvfrom(2048)
    server.sendto(octets.upper(), peer)
"""


class Proxy:
    """A running `ikeway proxy`, and the web behind the gateway."""

    def __init__(self, runner: Runner, *options: str) -> None:
        self.runner = runner
        self._output = runner.folder / "proxy.log"
        with self._output.open("wb") as output:
            words = [sys.executable, "-m", "ikeway", "proxy", str(runner.profile), *options]
            self.process = runner.popen(*words, stdout=output, stderr=subprocess.STDOUT)
        wait_for_text(self.log, "lab is up", 30, lambda: self.process.poll() is not None)

    def log(self) -> str:
        return self._output.read_text(errors="replace")

    def curl(self, *words: str) -> tuple[int, str]:
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed; Debian: apt-get install curl")
        process = self.runner.popen("curl", "-sS", "-m", "20", *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def connect(self, port: int) -> socket.socket:
        made = self.runner.network.client.call(lambda: socket.create_connection(("127.0.0.1", port)))
        made.settimeout(20)
        return made


@pytest.fixture
def web(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("web")
    for name, text in PAGES.items():
        (folder / name).write_text(text)
    (folder / "large").write_bytes(bytes(5_000_000))
    server = [sys.executable, "-m", "http.server", "--bind", HOST, "--directory", str(folder), "80"]
    echo = network.lan.popen([sys.executable, "-c", UDP_ECHO], stdout=subprocess.PIPE)
    programs = [network.lan.popen(server), echo]
    assert echo.stdout is not None
    assert echo.stdout.readline() == "ready\n"
    wait_until(lambda: network.lan.call(_web_answers), "the web server does not answer")
    yield
    for each in programs:
        each.kill()
        each.communicate()


def _web_answers() -> bool:
    try:
        socket.create_connection((HOST, 80)).close()
    except OSError:
        return False
    return True


@pytest.fixture
def proxy(named_runner: Runner, web: None) -> Iterator[Callable[..., Proxy]]:
    made: list[Proxy] = []

    def start(*options: str) -> Proxy:
        made.append(Proxy(named_runner, *options))
        return made[-1]

    yield start
    for each in made:
        each.process.terminate()
        assert each.process.wait(30) == 0, each.log()
        assert not processes("enclave.keeper", named_runner.folder), "a keeper is left"


@pytest.mark.parametrize(
    "way",
    [
        ("--socks5-hostname", "127.0.0.1:1080"),
        ("-x", "http://127.0.0.1:8118"),
        ("-p", "-x", "http://127.0.0.1:8118"),
    ],
    ids=["socks", "http", "connect"],
)
def test_curl(proxy: Callable[..., Proxy], network: Network, way: tuple[str, ...]) -> None:
    """Names are looked up behind the VPN, pages come, and none of it is seen outside."""
    running = proxy()
    with Wire(network, "wan") as wire:
        assert running.curl(*way, "http://db1.corp.test/docs") == (0, PAGES["docs"])
        assert running.curl(*way, "-o", "/dev/null", "-w", "%{size_download}", f"http://{HOST}/large") == (0, "5000000")
        assert running.curl(*way, f"http://{HOST}/docs", f"http://{HOST}/docs") == (0, PAGES["docs"] * 2)
        code, said = running.curl(*way, f"http://{HOST}:81/")
        assert code != 0 or "Connection refused" in said
        assert wire.leaks() == []


def test_curl_logs_in(proxy: Callable[..., Proxy], named_runner: Runner) -> None:
    users = named_runner.folder / "users"
    users.touch(mode=0o600)
    users.write_text("ann:open sesame\n")
    shutil.chown(users, "nobody")
    running = proxy("--users", str(users), "--socks", "1081", "--http", "8119")
    for way in ("socks5h://{}127.0.0.1:1081", "http://{}127.0.0.1:8119"):
        assert running.curl("-x", way.format("ann:open%20sesame@"), f"http://{HOST}/docs") == (0, PAGES["docs"])
        code, said = running.curl("-f", "-x", way.format("ann:wrong@"), f"http://{HOST}/docs")
        assert code != 0, said


def test_datagrams(proxy: Callable[..., Proxy], network: Network) -> None:
    running = proxy("--socks", "1080")
    with running.connect(1080) as control:
        control.sendall(b"\5\1\0")
        assert control.recv(2) == b"\5\0"
        control.sendall(b"\5\3\0\1" + bytes(6))
        answer = control.recv(10)
        assert answer[:4] == b"\5\0\0\1"
        near = network.client.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with near, Wire(network, "wan") as wire:
            near.settimeout(20)
            near.connect((socket.inet_ntoa(answer[4:8]), struct.unpack("!H", answer[8:])[0]))
            address = b"\0\0\0\1" + socket.inet_aton(HOST) + struct.pack("!H", 7)
            for head in (b"\0\0\0\3\x0ddb1.corp.test" + struct.pack("!H", 7), address):
                near.send(head + b"word")
                assert near.recv(2048) == address + b"WORD"
            assert wire.leaks() == []


def test_a_port_that_is_taken(named_runner: Runner, network: Network) -> None:
    with network.client.call(lambda: socket.create_server(("127.0.0.1", 1080))):
        words = [sys.executable, "-m", "ikeway", "proxy", str(named_runner.profile)]
        process = named_runner.popen(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 6
    assert "the SOCKS proxy cannot listen on 127.0.0.1 port 1080" in said
    assert "IKE_SA_INIT" not in said
