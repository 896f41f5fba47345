"""The commands as their users run them, in namespaces: a gateway, a client in the background, and what is done to them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ikeway.cli.capture import read_udp
from ikeway.daemon.control import ControlClient
from ikeway.errors import HostError
from ikeway.host.namespaces import Namespace
from tests.config.material import make_pki, write_private
from tests.netlab import GATEWAY, two_hosts

pytestmark = pytest.mark.root

IKEWAY = (sys.executable, "-m", "ikeway")

GATEWAY_FILE = """\
[gateway]
listen = "0.0.0.0"
certificate = "vpn.pem"
key = "vpn.key"
users = "users.toml"
[network]
addresses = "10.99.0.1/24"
[pools.office]
ipv4 = "10.99.0.0/24"
[connections.people]
login = "eap-mschapv2"
pools = "office"
subnets = "10.99.0.0/24"
"""
RETRANSMIT = "{ first = 0.3, factor = 1.5, tries = 6 }"  # ten seconds, for a loaded machine
PROFILE = f"""\
[gateway]
address = "{GATEWAY}"
identity = "vpn.example.com"
ca = "ca.pem"
[login]
username = "alice"
[network]
request = "ipv4"
dns = "off"
[ike]
retransmit = {RETRANSMIT}
[session]
retry_limit = "1s"
"""


class Side:
    """Runs commands on one side, with a folder for its sockets."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self.namespace, self.folder = namespace, folder
        self._environment = {"IKEWAY_RUNTIME_DIR": str(folder / "run"), "HOME": str(folder), "TERM": "dumb"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return self.namespace.popen(
            [*IKEWAY, *words],
            environment=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *words: str) -> tuple[int, str]:
        process = self.start(*words)
        told, _ = process.communicate(timeout=60)
        return process.returncode, told

    def status(self, role: str, name: str) -> dict[str, Any]:
        with ControlClient(self.folder / "run" / f"{role}.{name}.sock") as control:
            report: dict[str, Any] = control.call("status")
            return report

    def is_up(self, role: str, name: str) -> bool:
        with contextlib.suppress(HostError):
            return self.status(role, name)["state"] == "up"
        return False


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    folder = tmp_path_factory.mktemp("live")
    with two_hosts() as hosts:
        client, gateway = (
            Side(namespace, make_pki(folder / name))
            for name, namespace in (("client", hosts.client), ("gateway", hosts.gateway))
        )
        write_private(gateway.folder / "users.toml", '[users.alice]\npassword = "correct horse"\n')
        write_private(gateway.folder / "gateway.toml", GATEWAY_FILE)
        write_private(client.folder / "work.toml", PROFILE + '[login.password]\nfile = "password"\n')
        write_private(client.folder / "asks.toml", PROFILE)
        write_private(client.folder / "password", "correct horse\n")
        serving = gateway.start("gateway", "run", str(gateway.folder / "gateway.toml"))
        assert serving.stdout is not None
        wait_for(lambda: gateway.is_up("gateway", "gateway"))
        yield client, gateway
        assert gateway.run("gateway", "stop") == (0, "gateway has stopped\n")
        assert serving.wait(60) == 0


def wait_for(true: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_client_in_the_background(sides: tuple[Side, Side]) -> None:
    client, gateway = sides
    log, keys, trace = (client.folder / name for name in ("work.log", "work.keys", "work.pcapng"))
    traces = ("--log-file", str(log), "--keylog", str(keys), "--pcap", str(trace))
    code, told = client.run("up", "--detach", str(client.folder / "work.toml"), *traces)
    assert code == 0, told
    assert "the gateway says it is vpn.example.com" in told
    assert "the gateway assigned 10.99.0.2" in told
    assert "work is up: 10.99.0.2 on ikeway0, for 10.99.0.0/24" in told
    try:
        client.namespace.run(["ping", "-c", "2", "-i", "0.2", "-W", "2", "10.99.0.1"])
        code, told = client.run("status", "work", "--json")
        (session,) = json.loads(told)["sessions"]
        assert session["children"][0]["packets_out"] == 2
        before = session["children"][0]["spi_in"]
        assert client.run("rekey", "child", "work")[0] == 0
        wait_for(lambda: client.status("client", "work")["sessions"][0]["children"][0]["spi_in"] != before)
        code, told = gateway.run("gateway", "status", "--json")
        (session,) = json.loads(told)["sessions"]
        assert session["eap_identity"] == "alice"
        code, told = client.run("up", str(client.folder / "work.toml"))
        assert code == 6
        assert "runs already" in told

        assert gateway.run("gateway", "terminate", "alice")[1] == f"ended: {session['id']}\n"
        wait_for(lambda: any(each["id"] != session["id"] for each in gateway.status("gateway", "gateway")["sessions"]))
        wait_for(lambda: client.is_up("client", "work"))
        client.namespace.run(["ping", "-c", "1", "-W", "2", "10.99.0.1"])

        write_private(gateway.folder / "users.toml", "[users.alice]\npasword = 1\n")
        code, told = gateway.run("gateway", "reload")
        assert code == 2
        assert f"{gateway.folder / 'users.toml'}:2: unknown key `pasword`" in told
        write_private(gateway.folder / "users.toml", '[users.bob]\npassword = "x"\n')
        code, told = gateway.run("gateway", "reload")
        assert (code, told) == (
            0,
            "alice may not connect any more, and was disconnected\nthe configuration was read anew\n",
        )
        write_private(gateway.folder / "users.toml", '[users.alice]\npassword = "correct horse"\n')
        assert gateway.run("gateway", "reload")[0] == 0
    finally:
        down = client.run("down", "work")
    # On a slow machine the client has tried again while there was no alice, and has ended by itself.
    assert down == (0, "work is down\n") or (down[0] == 6 and "refused" in log.read_text()), down
    assert "is connected" in log.read_text()
    assert "uat:esp_sa:" in keys.read_text()
    assert len(list(read_udp(trace.read_bytes()))) > 10
    assert "ikeway0" not in client.namespace.run(["ip", "link"])
    assert client.run("status")[0] == 6


def at_terminal(side: Side, answers: list[str], *words: str) -> tuple[int, str]:
    """Run a command at a terminal, answer what it asks, and press Ctrl-C when it is up."""
    ours, theirs = pty.openpty()
    process = side.namespace.popen(
        ["setsid", "--ctty", *IKEWAY, *words],
        environment=side._environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    told, seen = "", 0  # what is read may be cut anywhere
    try:
        while chunk := os.read(ours, 4096).decode(errors="replace"):
            told += chunk
            if answers and (at := told.find("Password for alice", seen)) >= 0:
                seen = at + 1
                os.write(ours, f"{answers.pop(0)}\n".encode())
            if "is up: " in told[seen:]:
                seen = len(told)
                process.send_signal(signal.SIGINT)
    except OSError:  # EIO: the other end is closed
        pass
    os.close(ours)
    return process.wait(20), told


def test_a_password_is_asked_for(sides: tuple[Side, Side]) -> None:
    client, _ = sides
    code, told = at_terminal(client, ["correct horse"], "up", str(client.folder / "asks.toml"))
    assert code == 0, told
    assert "asks is up" in told
    assert "correct horse" not in told


def test_a_wrong_password(sides: tuple[Side, Side]) -> None:
    client, _ = sides
    code, told = at_terminal(client, ["wrong"] * 3, "up", str(client.folder / "asks.toml"))
    assert code == 3, told
    assert "refused" in told


def test_nobody_to_ask(sides: tuple[Side, Side]) -> None:
    client, _ = sides
    code, told = client.run("up", "--no-ask", str(client.folder / "asks.toml"))
    assert code == 2
    assert "nobody to ask" in told


def test_a_gateway_that_does_not_answer(sides: tuple[Side, Side]) -> None:
    client, _ = sides
    text = PROFILE.replace(GATEWAY, "192.168.50.77").replace(RETRANSMIT, "{ first = 0.2, factor = 1.2, tries = 2 }")
    path = write_private(client.folder / "far.toml", text)
    code, told = client.run("up", str(path), "--log-format", "json")
    assert code == 5, told
    assert "192.168.50.77:500" in told
    lines = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert {"resolve", "connect"} <= {line.get("step") for line in lines}
