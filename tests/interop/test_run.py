"""`ikeway run` by a user without rights, against strongSwan: what runs inside, and what does not get out."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.agreement import agreement
from tests.interop.lab import Lab
from tests.interop.network import LAN_HOST, Network
from tests.interop.ours import _profile, write_private
from tests.interop.strongswan import StrongswanGateway
from tests.interop.waiting import wait_until
from tests.unprivileged import NOBODY, as_user

pytestmark = pytest.mark.peer

HOST = LAN_HOST[4]


class Runner:
    """Starts `ikeway run` in the client's namespace."""

    def __init__(self, network: Network, folder: Path, gateway: StrongswanGateway) -> None:
        self.network, self.folder, self.gateway = network, folder, gateway
        self.profile = folder / "lab.toml"

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

    def words(self, *words: str, options: tuple[str, ...] = ()) -> list[str]:
        return [sys.executable, "-m", "ikeway", "run", str(self.profile), *options, "--", *words]

    def start(
        self, *words: str, options: tuple[str, ...] = ("-q",), user: bool = True, **streams: object
    ) -> subprocess.Popen[str]:
        command = self.words(*words, options=options)
        given: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **streams}
        return self.network.client.popen(as_user(*command) if user else command, environment=self.environment, **given)

    def run(self, *words: str, options: tuple[str, ...] = ("-q",), user: bool = True) -> tuple[int, str]:
        process = self.start(*words, options=options, user=user)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said


@pytest.fixture(scope="module")
def runner(network: Network, lab: Lab) -> Iterator[Runner]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        made = make_runner(network, lab, Path(folder))
        yield made
        made.gateway.stop()


def make_runner(network: Network, lab: Lab, folder: Path, **network_options: object) -> Runner:
    agreed = agreement("psk")
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


def test_ping_as_a_user(runner: Runner) -> None:
    code, said = runner.run("ping", "-c", "3", "-i", "0.2", HOST, options=())
    assert code == 0, said
    assert " 0% packet loss" in said
    assert "lab is up" in said


def test_the_command_is_as_without_us(runner: Runner, tmp_path: Path) -> None:
    """User, working directory, variables, arguments, exit code; standard error is its own, and quiet is quiet."""
    script = "id -u; id -g; pwd; echo $HOME; grep CapEff /proc/self/status; cat; echo err >&2; exit 7"
    process = runner.start("sh", "-c", script, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    said, errors = process.communicate("from standard input\n", timeout=60)
    none = "CapEff:\t0000000000000000"
    wanted = [str(NOBODY), str(NOBODY), str(Path.cwd()), str(runner.folder), none, "from standard input"]
    assert said.splitlines() == wanted
    assert errors == "err\n"
    assert process.returncode == 7


def test_only_the_tunnel_is_there(runner: Runner) -> None:
    code, said = runner.run("sh", "-c", "ip -o link; ip route; ping -c1 -W1 10.90.0.1; ping -c1 -W1 192.168.77.1")
    assert code != 0
    links = re.findall(r"(?m)^\d+: (\w+):", said)
    assert links == ["lo", "ikeway0"]
    assert said.count("Network is unreachable") == 2


@pytest.mark.parametrize(
    ("words", "code"), [(("no-such-command",), 127), (("/dev/null",), 126), (("/nowhere/x",), 127)]
)
def test_commands_that_cannot_be_started(runner: Runner, words: tuple[str, ...], code: int) -> None:
    assert runner.run(*words)[0] == code


def test_death_by_a_signal(runner: Runner) -> None:
    assert runner.run("sh", "-c", "kill -KILL $$")[0] == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_signals_reach_the_command(runner: Runner, number: signal.Signals) -> None:
    trap = f"trap 'echo got it; exit 5' {number.name.removeprefix('SIG')}; echo ready; while :; do sleep 0.05; done"
    process = runner.start("sh", "-c", trap)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == "got it\n"
    assert process.returncode == 5


def test_what_the_command_leaves_is_ended(runner: Runner) -> None:
    code, said = runner.run("sh", "-c", "setsid sleep 1000 & (trap '' TERM HUP; sleep 1001) & sleep 0.2; echo $!")
    assert code == 0, said
    assert not processes("sleep 100")


def processes(words: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words.encode() in path.read_bytes().replace(b"\0", b" "):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


class Terminal:
    """A shell with job control at a terminal of its own, in which `ikeway run` is a job like any other."""

    def __init__(self, runner: Runner) -> None:
        self._ours, theirs = pty.openpty()
        shell = ["setsid", "--ctty", "bash", "--norc", "--noprofile", "-i"]
        environment = {**runner.environment, "PS1": "PROMPT> ", "HISTFILE": ""}
        self.process = runner.network.client.popen(
            as_user(*shell), environment=environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.said = ""
        self.wait_for("PROMPT> ")

    def type(self, text: str) -> None:
        self.said = ""
        os.write(self._ours, text.encode())

    def wait_for(self, pattern: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not re.search(pattern, self.said):
            assert time.monotonic() < end, self.said
            if select.select([self._ours], [], [], 0.2)[0]:
                self.said += os.read(self._ours, 65536).decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal(runner: Runner) -> Iterator[Terminal]:
    made = Terminal(runner)
    yield made
    made.close()


def test_job_control(runner: Runner, terminal: Terminal) -> None:
    """Ctrl-Z stops the command and its job; `fg` lets both go on; Ctrl-C ends the command. The tunnel lives through it."""
    trap = "trap 'echo interrupted; exit 3' INT; echo rea''dy; while :; do sleep 0.1; done"
    terminal.type(shlex.join(runner.words("sh", "-c", trap, options=("-q",))) + "\n")
    terminal.wait_for("ready")
    terminal.type("\x1a")
    terminal.wait_for(r"Stopped[\s\S]*PROMPT> ")
    time.sleep(3)  # longer than the gateway's patience would be, were the engine stopped
    terminal.type("fg\n")
    terminal.wait_for("fg")
    terminal.type("\x03")
    terminal.wait_for("interrupted[\\s\\S]*PROMPT> ")
    terminal.type("echo code $?\n")
    terminal.wait_for(r"code 3\b")


def test_a_shell_inside_has_job_control(runner: Runner, terminal: Terminal) -> None:
    terminal.type(shlex.join(runner.words("bash", "--norc", "--noprofile", "-i", options=("-q",))) + "\n")
    terminal.wait_for(r"\n.*PROMPT> ")
    terminal.type(f"ping -c1 {HOST} | grep 'packet loss'\n")
    terminal.wait_for(" 0% packet loss")
    terminal.type("sleep 1003\n")
    wait_until(lambda: processes("sleep 1003"), "the shell starts nothing")
    terminal.type("\x1a")
    terminal.wait_for("Stopped")
    terminal.type("kill %1; stty size; exit 4\n")
    terminal.wait_for(r"exit[\s\S]*PROMPT> ")
    terminal.type("echo code $?; jobs\n")
    terminal.wait_for(r"code 4\b")
    assert "no job control" not in terminal.said


def test_ctrl_c_at_the_log_in(runner: Runner, terminal: Terminal) -> None:
    far = runner.folder / "far.toml"
    far.touch(mode=0o600)
    far.write_text(runner.profile.read_text().replace("10.90.0.1", "10.90.0.77"))
    os.chown(far, NOBODY, NOBODY)
    terminal.type(shlex.join([sys.executable, "-m", "ikeway", "run", str(far), "--", "echo", "never"]) + "\n")
    terminal.wait_for("sent +IKE_SA_INIT")
    terminal.type("\x03")
    terminal.wait_for("PROMPT> ")
    terminal.type("echo code $?\n")
    terminal.wait_for(r"code 130\b")


def test_kill_minus_nine(runner: Runner) -> None:
    """Of ours the keeper, then the engine, are killed. What runs inside is ended, or has no network."""
    before = runner.network.client.run(["sh", "-c", "ip addr; ip rule; ip route show table all; nft list ruleset"])
    process = runner.start("sh", "-c", "echo ready; exec sleep 1002")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait(10)
    wait_until(lambda: not processes("sleep 1002"), "the command still runs")
    wait_until(lambda: not processes(str(runner.profile)), "the engine still runs", 20)
    after = runner.network.client.run(["sh", "-c", "ip addr; ip rule; ip route show table all; nft list ruleset"])
    assert after == before
