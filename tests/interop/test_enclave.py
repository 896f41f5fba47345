"""Enclaves from Python, by a user without rights, against strongSwan; and hosts that do not allow them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.network import Network
from tests.interop.rootless import HOST, Runner, Wire, processes

pytestmark = pytest.mark.peer

ROOT = Path(__file__).parents[2]
WEB = """
import http.server as h
server = h.HTTPServer((%r, 80), h.SimpleHTTPRequestHandler)
print("listening", flush=True)
server.serve_forever()
"""


def python(runner: Runner, *words: str) -> tuple[int, str]:
    process = runner.popen(sys.executable, *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def test_the_example(named_runner: Runner, network: Network) -> None:
    words = [sys.executable, "-c", WEB % HOST]
    web = network.lan.popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert web.stdout is not None
        assert web.stdout.readline() == "listening\n"
        with Wire(network, "wan") as wire:
            code, said = python(named_runner, str(ROOT / "examples/without_root.py"), str(named_runner.profile), "db1")
            assert wire.leaks() == []
    finally:
        web.kill()
        web.communicate()
    assert code == 0, said
    assert "addresses: 10.92.0.1" in said
    assert "the server says: HTTP/1.0 200 OK" in said
    assert "ikeway0          UNKNOWN        10.92.0.1/32" in said
    assert "the command ended with 0" in said
    assert not processes("enclave.keeper", named_runner.folder)


COMMANDS = """
import asyncio, os, signal, sys
import ikeway

async def main():
    async with ikeway.connect(sys.argv[1], namespace=True) as tunnel:
        inside = tunnel.inside
        reading, writing = os.pipe()
        nothing = os.open(os.devnull, os.O_RDWR)
        words = ("sh", "-c", "echo $WORD; pwd")
        environment = {"WORD": "hello", "PATH": os.environ["PATH"]}
        command = await inside.start_command(
            *words, standard=(nothing, writing, nothing), directory="/usr", environment=environment
        )
        os.close(writing)
        assert await command.wait() == 0
        assert os.read(reading, 100) == b"hello\\n/usr\\n"
        sleeping = [await inside.start_command("sleep", "1004") for _ in range(3)]
        await sleeping[0].send_signal(signal.SIGTERM)
        assert await sleeping[0].wait() == 128 + signal.SIGTERM
        assert await (await inside.start_command("no-such-command")).wait() == 127
        for port in (81, 82):
            try:
                await inside.open_connection("10.91.0.10", port)
            except ikeway.errors.PeerUnreachable as error:
                print(error.reason)
        for name in ("no-name.test", "no..name", "fe80::1%lo"):
            try:
                await inside.connect(name, 80)
            except ikeway.errors.PeerUnreachable as error:
                print(error.reason)

asyncio.run(main())
"""


def test_commands_and_connections(runner: Runner) -> None:
    code, said = python(runner, "-c", COMMANDS, str(runner.profile))
    assert code == 0, said
    assert "cannot connect to 10.91.0.10 port 81: Connection refused" in said
    assert "name resolution" in said
    assert "codec" not in said
    assert "this is no host name" in said
    assert not processes("sleep 1004")
    assert not processes("enclave.keeper", runner.folder)


# -- hosts that do not allow it

PROBE = """
from pathlib import Path
from ikeway.host import userns
%s
found = userns.probe()
print(found.usable, found.failed, found.got)
print("\\n".join(found.remedies))
if not found.usable:
    print(found.error())
"""


def test_the_probe_where_it_works(runner: Runner) -> None:
    code, said = python(runner, "-c", PROBE % "")
    assert (code, said.splitlines()[0]) == (0, "True None ")


def test_the_probe_where_namespaces_are_forbidden(runner: Runner, network: Network) -> None:
    """The limit of the user namespace that the user is in: what a setting of the host comes to."""
    words = ["unshare", "-r", "sh", "-c"]
    probe = PROBE % "userns.may_make_namespaces = lambda: False"
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" "$@"'
    said = network.client.run([*words, script, sys.executable, "-c", probe])
    lines = said.splitlines()
    assert lines[0].startswith("False Step.USER_NAMESPACE No space left")
    assert lines[1] == "sysctl -w user.max_user_namespaces=10000"
    assert "sysctl -w user.max_user_namespaces=10000" in lines[-1]


def test_run_where_namespaces_are_forbidden(runner: Runner, network: Network) -> None:
    """The real command, from its log-in that never comes to its exit code."""
    command = " ".join(runner.words("echo", "never"))
    script = f"echo 0 > /proc/sys/user/max_net_namespaces; {command}; echo code $?"
    process = runner.popen("unshare", "-r", "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate(timeout=60)
    assert "this host does not let this user have network and mount namespaces" in said
    assert "sysctl -w user.max_net_namespaces=10000" in said
    assert "code 6" in said
    assert "IKE_SA_INIT" not in said


def test_run_on_a_full_disk(runner: Runner) -> None:
    """Said before the log-in, with the place that is full."""
    full = runner.folder / "full"
    fill = f"mkdir {full}; mount -t tmpfs -o size=4k none {full}; mkdir -m 700 {full}/run; yes > {full}/all"
    script = (
        f"({fill}) 2>/dev/null; IKEWAY_RUNTIME_DIR={full}/run {' '.join(runner.words('echo', 'never'))}; echo code $?"
    )
    process = runner.popen("unshare", "-rm", "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = process.communicate(timeout=60)
    assert f"a private /etc/resolv.conf cannot be made in {full}/run: No space left on device" in said
    assert "make room there" in said
    assert "code 6" in said
    assert "IKE_SA_INIT" not in said


@pytest.mark.parametrize("how", ["missing", "closed"])
def test_the_probe_without_a_device(runner: Runner, how: str, tmp_path: Path) -> None:
    change = "userns.DEVICE = Path('/nowhere')" if how == "missing" else "userns.DEVICE = Path('/etc/shadow')"
    code, said = python(runner, "-c", PROBE % change)
    assert code == 0
    assert said.startswith("False Step.DEVICE ")
    assert ("modprobe tun" if how == "missing" else "chmod 0666") in said


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_parser -r /etc/apparmor.d/ikeway"),
        ("user/max_net_namespaces", "0", "sysctl -w user.max_net_namespaces=10000"),
    ],
)
def test_settings_of_other_distributions(
    name: str, value: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This kernel has none of Debian's and Ubuntu's own settings, so their files stand in for them."""
    from ikeway.host import userns

    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(f"{value}\n")
    monkeypatch.setattr(userns, "_SYSCTLS", tmp_path)
    found = userns.explain(userns.Step.OTHER_NAMESPACES, 1)
    assert not found.usable
    assert remedy in "; ".join(found.remedies)
    assert remedy in str(found.error())
    assert "run it as root" in found.error().remedy
