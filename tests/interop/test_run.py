"""`ikeway run` by a user without rights, against strongSwan: what runs inside, and what does not get out."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.agreement import agreement
from tests.interop.lab import Lab
from tests.interop.network import LAN_HOST, LAN_NETWORK, POOL, Network, Way
from tests.interop.rootless import HOST, Runner, Wire, make_runner, processes
from tests.interop.waiting import wait_until
from tests.unprivileged import NOBODY, as_user

pytestmark = pytest.mark.peer


def test_ping_as_a_user(runner: Runner) -> None:
    code, said = runner.run("ping", "-c", "3", "-i", "0.2", HOST, options=())
    assert code == 0, said
    assert " 0% packet loss" in said
    assert "lab is up" in said


def test_a_wish_for_the_kernel_s_esp_is_answered(network: Network, lab: Lab) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = make_runner(network, lab, Path(folder), data_plane="kernel")
        code, said = made.run("ping", "-c", "1", "-W", "5", HOST, options=())
        made.stop()
    assert code == 0, said
    assert "ESP is carried in userspace" in said


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


def test_the_end_of_its_output_is_seen_when_it_ends(runner: Runner) -> None:
    """Although the goodbye to the gateway comes after it."""
    charon = runner.gateway.charon._process
    script = "echo one; read word; echo two"
    process = runner.start("sh", "-c", script, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "one\n"
    charon.send_signal(signal.SIGSTOP)
    try:
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert process.stdout.read() == "two\n"
        assert process.poll() is None  # it waits for the gateway's answer
    finally:
        charon.send_signal(signal.SIGCONT)
    assert process.wait(30) == 0


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
    assert not processes("sleep 100", runner.folder)


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


# Not a shell's loop: stopped between vfork(2) and exec(2) of its child, a shell would be waited for without end.
JOB = """
import signal, sys, time
signal.signal(signal.SIGCONT, lambda *_: print("resu" + "med", flush=True))
try:  # around all: it may be stopped, and go on with the signal's handler, while it still says that it is ready
    print("rea" + "dy", flush=True)
    while True:
        time.sleep(0.1)
except KeyboardInterrupt:
    print("inter" + "rupted", flush=True)
    sys.exit(3)
"""


def test_job_control(runner: Runner, terminal: Terminal) -> None:
    """Ctrl-Z stops the command and its job; `fg` lets both go on; Ctrl-C ends the command. The tunnel lives through it."""
    job = runner.folder / "job.py"
    job.write_text(JOB)
    terminal.type(shlex.join(runner.words(sys.executable, str(job), options=())) + "\n")
    terminal.wait_for("ready")
    terminal.type("\x1a")
    terminal.wait_for(r"Stopped[\s\S]*PROMPT> ")
    (before,) = runner.gateway.sas()
    time.sleep(3)  # longer than this engine's patience with the gateway, which asks it every second
    terminal.type("fg\n")
    terminal.wait_for("resumed")
    terminal.type("\x03")
    terminal.wait_for(r"interrupted[\s\S]*PROMPT> ")
    terminal.type("echo code $?\n")
    terminal.wait_for(r"code 3\b")
    assert before.installed


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


def test_ipv6_inside_and_outside(network: Network, lab: Lab) -> None:
    """Without IPv4 at all."""
    agreed = agreement(way=Way.WAN6, both={"networks": {"net": (LAN_NETWORK[6],)}}, pool={6: POOL[6]})
    with tempfile.TemporaryDirectory() as folder:
        runner = make_runner(network, lab, Path(folder), agreed, request=["ipv6"], dns_servers=[LAN_HOST[6]])
        try:
            script = f"ping -c 2 -i 0.2 {LAN_HOST[6]}; ip -6 route; ip -4 route; cat /etc/resolv.conf"
            code, said = runner.run("sh", "-c", script)
        finally:
            runner.gateway.stop()
    assert code == 0, said
    assert " 0% packet loss" in said
    assert f"{LAN_NETWORK[6]} dev ikeway0" in said
    assert f"nameserver {LAN_HOST[6]}" in said


def test_the_names_of_resolved(runner: Runner, tmp_path: Path) -> None:
    """resolv.conf is a link into resolved's folder, nsswitch.conf and a socket lead to it: none of it is there inside."""
    etc, run = runner.folder / "etc", runner.folder / "host-run"
    shutil.copytree("/etc", etc, symlinks=True, ignore_dangling_symlinks=True)
    (run / "systemd/resolve").mkdir(parents=True)
    (run / "systemd/resolve/stub-resolv.conf").write_text("nameserver 127.0.0.53\n")
    (etc / "resolv.conf").unlink()
    (etc / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (etc / "nsswitch.conf").write_text("passwd: files\nhosts: files resolve [!UNAVAIL=return] myhostname dns # x\n")
    with socket.socket(socket.AF_UNIX) as resolved:
        resolved.bind(str(run / "systemd/resolve/io.systemd.Resolve"))
        script = "cat /etc/nsswitch.conf; ls -A /run/systemd/resolve; cat /etc/resolv.conf"
        code, said = runner.run("sh", "-c", script, files={"/etc": etc, "/run": run})
    assert code == 0, said
    lines = said.splitlines()
    assert lines[:3] == ["passwd: files", "hosts: files myhostname dns", "stub-resolv.conf"]
    assert not any(line.startswith("nameserver") for line in lines)
    assert (run / "systemd/resolve/stub-resolv.conf").read_text() == "nameserver 127.0.0.53\n"


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def inner_pids(process: subprocess.Popen[str]) -> tuple[int, int]:
    """The engine and its data plane."""
    (engine,) = [each for each in children(process.pid) if children(each)]
    return engine, children(engine)[0]


def test_the_engine_is_killed(runner: Runner) -> None:
    process = runner.start("sh", "-c", "echo ready; exec sleep 1005")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(inner_pids(process)[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=30)
    assert "the connection has ended, and the command is ended with it" in said
    assert process.returncode == 128 + signal.SIGKILL
    assert not processes("sleep 1005")
    runner.gateway.kill()  # it was told nothing, and would keep asking


def test_the_data_plane_is_killed(runner: Runner) -> None:
    """The command does not notice more than lost packets."""
    process = runner.start("ping", "-i", "0.1", "-O", HOST, options=("-v",))
    lines: list[str] = []
    read_until(process, lines, "icmp_seq=3")
    os.kill(inner_pids(process)[1], signal.SIGKILL)
    lines.clear()
    for _ in range(5):
        read_until(process, lines, "64 bytes from")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


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


def test_as_root_for_another_user(runner: Runner) -> None:
    script = "id -u; echo $HOME $USER; grep CapEff /proc/self/status; ping -c 2 -i 0.2 " + HOST
    os.chown(runner.profile, 0, 0)  # root takes no secrets out of others' files
    try:
        code, said = runner.run("sh", "-c", script, options=("-q", "--user", "nobody"), user=False)
    finally:
        os.chown(runner.profile, NOBODY, NOBODY)
    assert code == 0, said
    assert said.splitlines()[:3] == [str(NOBODY), "/nonexistent nobody", "CapEff:\t0000000000000000"]
    assert " 0% packet loss" in said


def test_only_root_may_name_a_user(runner: Runner) -> None:
    code, said = runner.run("true", options=("-q", "--user", "root"))
    assert code == 6
    assert "only root may run a command as another user" in said


ANSWER = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
connection, _ = server.accept()
heard = b""
while octets := connection.recv(65536):
    heard += octets
connection.sendall(b"heard %d" % len(heard))
connection.close()
"""
ANSWER_UDP = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
for _ in range(2):
    octets, peer = server.recvfrom(2048)
    server.sendto(octets.upper(), peer)
"""
ASK = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.sendall(bytes(3_000_000))
    connection.shutdown(socket.SHUT_WR)
    print(connection.makefile("rb").read().decode())
"""
ASK_UDP = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.connect(("127.0.0.1", int(sys.argv[1])))
    asking.settimeout(10)
    for word in (b"one", b"two"):
        asking.send(word)
        print(asking.recv(2048).decode())
"""


@pytest.mark.parametrize(
    ("answer", "ask", "kind", "said"),
    [(ANSWER, ASK, "", "heard 3000000\n"), (ANSWER_UDP, ASK_UDP, "/udp", "ONE\nTWO\n")],
    ids=["tcp", "udp"],
)
def test_a_port_of_the_inside_from_the_host(runner: Runner, answer: str, ask: str, kind: str, said: str) -> None:
    options = ("-q", "-p", f"8080:80{kind}")
    process = runner.start(sys.executable, "-c", answer, "80", options=options)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert runner.network.client.run([sys.executable, "-c", ask, "8080"]) == said
    assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("answer", "ask", "kind", "said"),
    [(ANSWER, ASK, "", "heard 3000000\n"), (ANSWER_UDP, ASK_UDP, "/udp", "ONE\nTWO\n")],
    ids=["tcp", "udp"],
)
def test_a_service_of_the_host_from_inside(runner: Runner, answer: str, ask: str, kind: str, said: str) -> None:
    service = runner.network.client.popen([sys.executable, "-c", answer, "5432"], stdout=subprocess.PIPE)
    assert service.stdout is not None
    assert service.stdout.readline() == "ready\n"
    options = ("-q", "--reach", f"5432:54{kind}")
    assert runner.run(sys.executable, "-c", ask, "54", options=options) == (0, said)
    assert service.wait(30) == 0


def test_a_port_that_is_taken_is_told_before_the_log_in(runner: Runner) -> None:
    with runner.network.client.call(lambda: socket.create_server(("127.0.0.1", 8081))):
        code, said = runner.run("true", options=("-p", "8081:80"))
    assert code == 6
    assert "cannot listen on 127.0.0.1 port 8081 of this host: Address already in use" in said
    assert "IKE_SA_INIT" not in said


def test_names_are_asked_inside_only(named_runner: Runner, network: Network) -> None:
    """Also where resolved and nscd would be asked first: their sockets are not there, nor nsswitch's words."""
    run_folder = Path("/run/nscd")
    made = not run_folder.exists()
    run_folder.mkdir(exist_ok=True)
    (run_folder / "socket").touch()
    try:
        script = "getent hosts db1; ls -A /run/nscd; cat /etc/resolv.conf; grep hosts: /etc/nsswitch.conf"
        with Wire(network, "wan") as wire:
            code, said = named_runner.run("sh", "-c", script)
            assert wire.leaks() == []
    finally:
        (run_folder / "socket").unlink()
        if made:
            run_folder.rmdir()
    assert code == 0, said
    lines = said.splitlines()
    assert lines[0].split() == [HOST, "db1.corp.test"]
    assert lines[2:] == ["search corp.test", f"nameserver {HOST}", "hosts: files dns"]


def test_two_of_a_profile_beside_one_another(runner: Runner) -> None:
    """Neither tells the gateway that it is the only one, which would end the other, again and again."""
    both = [runner.start("ping", "-i", "0.2", "-O", HOST, options=("-v",)) for _ in range(2)]
    heard: list[list[str]] = [[], []]
    try:
        for process, lines in zip(both, heard, strict=True):
            read_until(process, lines, "icmp_seq=30")  # longer than it takes to miss the gateway
        asked = runner.popen(sys.executable, "-m", "ikeway", "status", stdout=subprocess.PIPE)
        status, _ = asked.communicate(timeout=30)
    finally:
        for process in both:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
    assert sorted(re.findall(r"client (\S+) is up", status)) == ["lab", "lab-2"]
    for lines in heard:
        said = "".join(lines)
        # The last ones may be late on a loaded machine.
        assert set(range(1, 26)) <= set(map(int, re.findall(r"64 bytes from .* icmp_seq=(\d+)", said))), said
        assert "disconnected" not in said


def test_nothing_leaves_when_the_gateway_dies(runner: Runner, lab: Lab, network: Network) -> None:
    """And the same command goes on when it is back, with the same namespace."""
    with Wire(network, "wan") as wire:
        process = runner.start("ping", "-i", "0.1", "-O", HOST, options=("-v",))
        lines: list[str] = []
        read_until(process, lines, "icmp_seq=3")
        runner.gateway.kill()
        for _ in range(25):
            read_until(process, lines, "no answer yet")
        assert wire.leaks() == []
        runner.gateway = make_runner(network, lab, runner.folder).gateway
        read_until(process, lines, "64 bytes from")
        assert wire.leaks() == []
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def read_until(process: subprocess.Popen[str], lines: list[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError(f"it never said {text!r}:\n{''.join(lines)}")
