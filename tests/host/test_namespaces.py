import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ikeway.errors import HostError
from ikeway.host.namespaces import Namespace, isolate
from tests.netlab import CLIENT, FAR, GATEWAY, GATEWAY6, two_hosts

pytestmark = pytest.mark.root

NOBODY = 65534


@pytest.mark.parametrize("nat", [False, True])
def test_two_hosts_reach_each_other(nat: bool) -> None:
    with two_hosts(nat=nat) as lab:
        for address in [GATEWAY, FAR] if nat else [GATEWAY, GATEWAY6, FAR]:
            assert "1 received" in lab.client.run(["ping", "-c1", "-W2", address])
        seen = "import socket; s = socket.socket(type=2); s.bind(('', 99)); print(s.recvfrom(9)[1][0])"
        listener = lab.gateway.popen([sys.executable, "-c", seen], stdout=subprocess.PIPE)
        send = "import socket,time; s = socket.socket(type=2)\nfor _ in range(9): s.sendto(b'', ('%s', 99)); time.sleep(.1)"
        lab.client.run([sys.executable, "-c", send % FAR])
        assert listener.communicate(timeout=5)[0].strip() == CLIENT


def test_close_kills_what_runs_inside_and_frees_the_namespace() -> None:
    before = os.listdir("/proc/self/fd")
    with Namespace() as namespace:
        sleeper = namespace.popen(["sleep", "1000"])
        inode = os.readlink(f"/proc/{sleeper.pid}/ns/net")
    assert sleeper.returncode == -signal.SIGKILL
    assert os.listdir("/proc/self/fd") == before
    assert inode not in {_network_of(process) for process in Path("/proc").glob("[0-9]*")}


def test_a_failing_program_is_an_error_with_its_output() -> None:
    with Namespace() as namespace:
        with pytest.raises(subprocess.CalledProcessError) as caught:
            namespace.run(["sh", "-c", "echo alas; exit 3"])
        assert (caught.value.returncode, caught.value.output) == (3, "alas\n")
        with pytest.raises(subprocess.TimeoutExpired):
            namespace.run(["sleep", "100"], timeout=0.1)


def _network_of(process: Path) -> str:
    try:
        return os.readlink(process / "ns" / "net")
    except OSError:
        return ""


def isolated(uid: int, pipe: int) -> None:
    """In a child: become another user, isolate, try everything, tell the result."""
    try:
        if uid:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            # As if freshly executed by that user: /proc/self is theirs then (PR_SET_DUMPABLE).
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
        isolate()
        facts = [os.getuid(), os.getpid(), os.listdir("/run"), len(list(Path("/proc").glob("[0-9]*")))]
        with two_hosts() as lab:
            facts.append("1 received" in lab.client.run(["ping", "-c1", "-W2", GATEWAY]))
            lab.client.popen(["sleep", "1000"])
            os.write(pipe, repr(facts).encode() + b"\n")
            if uid == 0:
                time.sleep(60)
    except BaseException as error:
        os.write(pipe, repr(error).encode())
        os._exit(1)
    os._exit(7)


@pytest.mark.parametrize("uid", [0, NOBODY])
def test_isolated_programs_leave_nothing_behind(uid: int) -> None:
    """With root: killed from outside with SIGKILL. Without: its exit code comes through."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        isolated(uid, writer)
    os.close(writer)
    told = os.read(reader, 4096).decode()
    os.close(reader)
    inside = set() if uid else _descendants(child)
    if uid == 0:
        assert len(inside) >= 3  # init, the program, its sleep
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert told == "[0, 2, ['tmp'], 2, True]\n"
    assert os.waitstatus_to_exitcode(status) == (7 if uid else -signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in inside):
        time.sleep(0.02)
    assert not [pid for pid in inside if Path(f"/proc/{pid}").exists()]


def _descendants(pid: int) -> set[int]:
    found = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found |= {int(child)} | _descendants(int(child))
    return found


def test_a_refusal_names_the_settings() -> None:
    """Namespaces are used up where none are left to make."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            Namespace()
        except HostError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    told = os.read(reader, 4096).decode()
    os.close(reader)
    os.waitpid(child, 0)
    assert "CAP_SYS_ADMIN" in told
    assert "unshare -Ur" in told
