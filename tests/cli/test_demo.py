"""The demonstration as its user sees it: what it says, its exit code, and that nothing of it stays."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(150)]

DEMO = [sys.executable, "-m", "ikeway", "demo", "--megabytes", "2"]


def traces() -> dict[str, object]:
    """What the demonstration could leave on this host."""
    commands = ("ip -o link", "ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all")
    found: dict[str, object] = {
        command: subprocess.run(command.split(), capture_output=True, text=True).stdout for command in commands
    }
    run = Path("/run/ikeway")
    found["run"] = sorted(map(str, run.rglob("*"))) if run.exists() else None
    found["tmp"] = sorted(each.name for each in Path("/tmp").glob("ikeway-demo-*"))
    found["mounts"] = [line for line in Path("/proc/self/mounts").read_text().splitlines() if "ikeway " in line]
    found["forwarding"] = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    return found


def descendants(pid: int) -> set[int]:
    found = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found |= {int(child)} | descendants(int(child))
    return found


def wait_until_gone(processes: set[int]) -> None:
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in processes):
        assert time.monotonic() < deadline, "processes of the demonstration live on"
        time.sleep(0.05)


def test_it_shows_everything_and_leaves_nothing(tmp_path: Path) -> None:
    before = traces()
    done = subprocess.run(
        [*DEMO, "--keylog", str(tmp_path / "keys"), "--pcap", str(tmp_path / "pcap")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    for words in (
        "sent         IKE_SA_INIT request 0 { SAi1, KEi, Ni",
        "logged in by EAP-MSCHAPv2",
        "the web page behind the gateway, from [fd80::10]",
        "their SHA-256 is right",
        "child SA: SPI",
        "IKE SA: SPI",
        "to 10.34.0.7:4500, without a new login",
        "rules and resolv.conf are as they were before",
        "Summary",
    ):
        assert words in said
    answered = re.search(r"(\d+) of (\d+) pings were answered", said)
    assert answered is not None
    assert answered[1] == answered[2]  # while rekeying
    assert (tmp_path / "keys").stat().st_size > 0
    assert (tmp_path / "pcap").stat().st_size > 0
    assert traces() == before


def test_a_failure_is_told_with_its_cause_and_an_exit_code(tmp_path: Path) -> None:
    before = traces()
    done = subprocess.run(
        [*DEMO, "--pcap", str(tmp_path / "no" / "where")], capture_output=True, text=True, timeout=100
    )
    assert done.returncode != 0
    assert "The demonstration failed" in done.stdout
    assert "where" in done.stdout  # what `ikeway up` said
    assert traces() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ended_in_the_middle_it_leaves_nothing(number: signal.Signals) -> None:
    before = traces()
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "Through the tunnel" in line:
                break
        processes = descendants(demo.pid)
        assert len(processes) >= 6  # init, the story, web, gateway, client and their workers
        demo.send_signal(number)
        code = demo.wait(30)
    assert code == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    wait_until_gone(processes)
    assert traces() == before
