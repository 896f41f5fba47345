"""`ikeway bench`: that it measures what it says, with root and without, and leaves nothing behind. No figure is judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ikeway.address import Address
from ikeway.cli.bench.handshakes import IKE_SUITE, Pair, shake_hands
from ikeway.cli.bench.measures import MEASURES, Figure
from ikeway.cli.bench.run import Plan, Samples, show
from ikeway.errors import ConfigError, IkewayError
from ikeway.esp.parameters import Encapsulation
from ikeway.wire.registry import EncryptionAlgorithm
from tests.cli.test_commands import run
from tests.interop.waiting import wait_until
from tests.unprivileged import as_user

BENCH = [sys.executable, "-m", "ikeway", "bench", "--rounds", "1"]


def test_a_plan_is_checked() -> None:
    plan = Plan.of(["aes128gcm16", "aes128gcm16"], None, 1.0, 2)
    assert plan.suites == ("aes128gcm16",)
    assert plan.measures == (*MEASURES, "handshakes")
    with pytest.raises(ConfigError, match="no measure 'speed'"):
        Plan.of(["aes128gcm16"], ["speed"], 1.0, 1)
    with pytest.raises(IkewayError):
        Plan.of(["aes9"], None, 1.0, 1)


def test_a_mistake_is_told_before_anything_begins() -> None:
    code, _, told = run("bench", "-m", "speed")
    assert code == 2
    assert "tcp, tcp4, udp, small, idle, loaded, handshakes" in told


def test_a_file_that_cannot_be_written_is_told_before_anything_begins(tmp_path: Path) -> None:
    code, _, told = run("bench", "-m", "handshakes", "--json", str(tmp_path / "nowhere" / "figures.json"))
    assert code == 6
    assert "nowhere/figures.json cannot be written: No such file or directory" in told


def test_a_handshake_in_memory_gives_both_sides_the_same_sas() -> None:
    pair = Pair("chacha20poly1305", (("10.78.0.1/32",), ("10.78.0.2/32",)))
    pair.connect(Address("10.77.0.1", 4500), Address("10.77.0.2", 4500))
    initiator, responder = pair.sides
    for outbound, inbound in ((initiator.outbound, responder.inbound), (responder.outbound, initiator.inbound)):
        (sent,), (taken,) = outbound, inbound
        assert (sent.spi, sent.encryption_key) == (taken.spi, taken.encryption_key)
        assert sent.encapsulation is Encapsulation.UDP
        assert sent.transforms.encryption is EncryptionAlgorithm.ENCR_CHACHA20_POLY1305
        assert (sent.local, sent.remote) == (taken.remote, taken.local)


def test_handshakes_are_counted() -> None:
    done = shake_hands(0.05)
    assert done.count >= 1
    assert done.initiator_seconds > 0
    assert done.responder_seconds > 0


def test_medians_are_shown_and_what_was_not_measured_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    samples = Samples()
    for value in (1.0, 9.0, 1234.5):
        samples.add("TCP, one flow", "aes128gcm16", [Figure("throughput", "Mbit/s", value)])
    samples.add("TCP, one flow", "no tunnel", [Figure("throughput", "Mbit/s", 12345.0)])
    samples.add("TCP, one flow", "aes128gcm16", [Figure("CPU", "s/Gbit", 0.5)])
    samples.add("Handshakes in memory", IKE_SUITE, [Figure("responder", "1/s of a core", 2000.0)])
    show(samples)
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["throughput", "Mbit/s", "9.00", "12,345"] in told
    assert ["CPU", "s/Gbit", "0.50", "-"] in told
    assert told[-1][-5:] == ["2,000", "1/s", "of", "a", "core"]


def measured(path: Path) -> dict[tuple[str, str, str], float]:
    report: dict[str, Any] = json.loads(path.read_text())
    assert report["rounds"] == 1
    return {(each["measure"], each["figure"], each["of"]): each["median"] for each in report["results"]}


@pytest.mark.root
def test_everything_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    before = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    path = tmp_path / "figures.json"
    done = subprocess.run(
        [*BENCH, "--seconds", "0.3", "-s", "aes128gcm16", "--json", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = measured(path)
    for title, _ in MEASURES.values():
        for way in ("no tunnel", "aes128gcm16"):
            names = {figure for measure, figure, of in found if (measure, of) == (title, way)}
            assert names & {"throughput", "packets", "median"}, (title, way)
    assert found["TCP, one flow", "throughput", "aes128gcm16"] > 0
    assert found["Round trip under load", "median", "aes128gcm16"] > 0
    assert found["Handshakes in memory", "responder", IKE_SUITE] > 0
    for title, _ in MEASURES.values():
        assert title in done.stdout
    assert subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout == before


@pytest.mark.root
def test_it_takes_no_root() -> None:
    words = as_user(*BENCH, "--seconds", "0.2", "-s", "aes128gcm16", "-m", "tcp", "-m", "idle")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TCP, one flow" in done.stdout


@pytest.mark.root
def test_ctrl_c_ends_it_without_a_word() -> None:
    """As a terminal sends it: to the whole process group, in the midst of a measurement. The figures of before stay."""
    with subprocess.Popen(
        [*BENCH, "--seconds", "20", "-s", "aes128gcm16", "-m", "tcp"],
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),  # whoever runs the tests ignores it
    ) as bench:
        wait_until(lambda: "tcp-source" in processes_of(bench.pid), "it never measures")
        os.killpg(bench.pid, signal.SIGINT)
        assert bench.wait(20) == 130
        assert bench.stderr is not None
        assert "Traceback" not in bench.stderr.read()
    assert not processes_of(bench.pid)


def processes_of(group: int) -> str:
    """The command lines of a process group."""
    return subprocess.run(["pgrep", "-a", "-g", str(group)], capture_output=True, text=True, check=False).stdout
