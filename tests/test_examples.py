"""The examples are run as their readers would run them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ikeway.wire import ExchangeType, Message, Nonce
from tests.client.live import INNER, live
from tests.interop.waiting import wait_for_text

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments, **options):
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments], capture_output=True, text=True, timeout=30, **options
    )


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "connect.py",
        "decode.py",
        "engine_in_memory.py",
        "gateway.py",
        "without_root.py",
        "workbench.py",
    }


def test_engine_in_memory():
    done = run("engine_in_memory.py")
    assert done.returncode == 0, done.stderr
    assert "alice sends IKE_SA_INIT request 0" in done.stdout
    assert "Both sides have the same keys" in done.stdout


def test_decode():
    message = Message(bytes(range(8)), bytes(8), ExchangeType.IKE_SA_INIT, True, False, 0, (Nonce(bytes(32)),))
    done = run("decode.py", message.encode().hex())
    assert done.returncode == 0, done.stderr
    assert "IKE_SA_INIT request 0" in done.stdout
    done = run("decode.py", input="00ff\nno-hex\n")
    assert done.returncode == 1
    assert "this is no IKE message" in done.stdout
    assert "this is not hexadecimal: no-hex" in done.stdout


def test_workbench():
    done = run("workbench.py")
    assert done.returncode == 0, done.stderr
    assert "held: IKE_AUTH response 1 { EAP }: EAP method expanded type 9:1145197136" in done.stdout
    assert "message 2: <config-auth type='auth-request'><form/></config-auth>" in done.stdout
    assert "The recording has given the first answer" in done.stdout


@pytest.mark.root
def test_connect_to_gateway(tmp_path):
    with live(tmp_path) as stage:
        stage.write_gateway()
        profile = stage.write_profile()
        environment = {"IKEWAY_RUNTIME_DIR": str(tmp_path)}
        log = tmp_path / "example.log"
        with log.open("wb") as output:
            gateway = stage.hosts.gateway.popen(
                [sys.executable, "-u", str(EXAMPLES / "gateway.py"), str(tmp_path / "gateway.toml")],
                environment=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_for_text(log.read_text, "serving on ikeway0", 20, lambda: gateway.poll() is not None)
        said = stage.hosts.client.run(
            [sys.executable, str(EXAMPLES / "connect.py"), str(profile)], environment=environment
        )
        assert "addresses: 10.99.0.1 fd99::1" in said
        assert "networks:  10.91.0.0/24 fd91::/64" in said
        wait_for_text(log.read_text, "ann@test at .*: 10.99.0.1, fd99::1", 10)
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(15) == 0, log.read_text()
        assert INNER not in said
