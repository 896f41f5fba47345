"""A client and a gateway of ours as processes in namespaces, and what tests do to them."""

import contextlib
import difflib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ikeway.daemon.control import ControlClient
from ikeway.host.namespaces import Namespace
from tests.interop.waiting import wait_for_text, wait_until
from tests.netlab import GATEWAY, TwoHosts, snapshot, two_hosts

COMMANDS = {"client": ("up",), "gateway": ("gateway", "run")}
READY = {"client": r"\bis up: ", "gateway": r"\bserves\b|\bserving\b|\bready\b"}
_numbers = itertools.count()
SECRET = "a shared secret that is long enough"
INNER, INNER6 = "10.91.0.1", "fd91::1"  # of a host behind the gateway

GATEWAY_FILE = """
[gateway]
identity = "gw.test"
users = "users.toml"
listen = {listen}

[network]
{network}

[ike]
dpd = "{dpd}"
retransmit = {{ first = 0.3, factor = 1.3, tries = 4 }}
{ike}

[esp]
{esp}

[pools.main]
ipv4 = "10.99.0.0/24"
ipv6 = "fd99::/112"

[connections.all]
login = "psk"
pools = "main"
subnets = {subnets}
"""

PROFILE = """
[gateway]
address = "{address}"
port = {port}
identity = "gw.test"

[login]
method = "psk"
identity = "{user}@test"
psk = "{secret}"

[network]
{network}

[ike]
dpd = "{dpd}"
retransmit = {{ first = 0.3, factor = 1.3, tries = 4 }}
{ike}

[session]
retry_limit = "1s"
{session}
"""


def private(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


class Program:
    """One of them, with a /run of its own."""

    def __init__(self, namespace: Namespace, folder: Path, role: str, path: Path, *options, files=None, prefix=()):
        self.namespace, self.folder, self.role, self.name = namespace, folder, role, path.stem
        self.run_folder = folder / role[0]  # short: the path of a socket has room for 107 octets
        self.run_folder.mkdir(exist_ok=True)
        self._output = folder / f"{role}-{next(_numbers)}.log"
        self.files = {"/run": self.run_folder, **(files or {})}
        with self._output.open("wb") as output:
            self.process = namespace.popen(
                [*prefix, sys.executable, "-m", "ikeway", *COMMANDS[role], *options, str(path)],
                files=self.files,
                environment={"HOME": str(folder), "TERM": "dumb", "PYTHONFAULTHANDLER": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def log(self) -> str:
        return self._output.read_text(errors="replace")

    def wait_for(self, pattern: str, timeout: float = 15) -> str:
        return wait_for_text(self.log, pattern, timeout, lambda: self.process.poll() is not None)

    def logins(self) -> int:
        """How often it has connected."""
        return len(re.findall(r"(?m)^established\b", self.log()))

    def call(self, command: str, **arguments):
        with ControlClient(self.run_folder / "ikeway" / f"{self.role}.{self.name}.sock") as control:
            return control.call(command, **arguments)

    def workers(self) -> list[int]:
        """The process ids of its data plane."""
        return [
            int(each) for each in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def worker(self) -> int:
        """The process id of its only worker."""
        (pid,) = self.workers()
        return pid

    def end(self, number=signal.SIGTERM, timeout: float = 60) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # it says where it is
            self.process.wait(10)
            raise AssertionError(f"the {self.role} has not ended within {timeout:g} s\n{self.log()}") from None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)


@dataclass
class Live:
    hosts: TwoHosts
    folder: Path
    programs: list[Program] = field(default_factory=list)
    as_before: bool = True  # compare the hosts at the end with what they were

    def gateway(self, **options):
        return self._start(self.hosts.gateway, "gateway", self.write_gateway(**options))

    def write_gateway(
        self,
        *,
        network="",
        subnets='["10.91.0.0/24", "fd91::/64"]',
        dpd="30s",
        ike="",
        esp="",
        users=("ann",),
        listen='["0.0.0.0", "::"]',
    ):
        self.users(*users)
        text = GATEWAY_FILE.format(listen=listen, network=network, subnets=subnets, dpd=dpd, ike=ike, esp=esp)
        return private(self.folder / "gateway.toml", text)

    def users(self, *names):
        private(self.folder / "users.toml", "\n".join(f'[users."{name}@test"]\npsk = "{SECRET}"' for name in names))

    def client(self, *options, wait=True, files=None, prefix=(), **settings):
        path = self.write_profile(**settings)
        return self._start(self.hosts.client, "client", path, *options, wait=wait, files=files, prefix=prefix)

    def write_profile(
        self,
        *,
        name="work",
        address=GATEWAY,
        port=500,
        user="ann",
        network="",
        ike="",
        dpd="30s",
        session="",
        secret=SECRET,
    ):
        text = PROFILE.format(
            address=address, port=port, user=user, secret=secret, network=network, ike=ike, dpd=dpd, session=session
        )
        return private(self.folder / f"{name}.toml", text)

    def _start(self, namespace, role, path, *options, wait=True, files=None, prefix=()):
        program = Program(namespace, self.folder, role, path, *options, files=files, prefix=prefix)
        self.programs.append(program)
        if wait:
            program.wait_for(READY[role])
        return program

    def ping(self, target=INNER, count=3, **options) -> str:
        return self.hosts.client.run(["ping", "-c", str(count), "-i", "0.1", "-W", "2", target], **options)

    def ping_arrives(self, target=INNER) -> bool:
        return " 0% packet loss" in self.ping(target, count=1, check=False)

    def close_the_clear_way(self, how="add") -> None:
        """To the network behind the gateway nothing leads but a tunnel: the default route would."""
        for family, address in (("-4", f"{INNER}/32"), ("-6", f"{INNER6}/128")):
            self.hosts.client.run(["ip", family, "route", how, "unreachable", address, "metric", "4096"])

    @contextlib.contextmanager
    def in_the_clear(self) -> Iterator[None]:
        """The default route leads there meanwhile."""
        self.close_the_clear_way("del")
        try:
            yield
        finally:
            self.close_the_clear_way()

    def logs(self) -> str:
        return "\n".join(f"--- {each.role}\n{each.log()}" for each in self.programs)


@contextlib.contextmanager
def live(folder: Path, **options) -> Iterator[Live]:
    """Two hosts; behind the gateway is a network that only the tunnel reaches. All has to be undone at the end."""
    with two_hosts(**options) as hosts:
        hosts.gateway.run(["ip", "addr", "add", f"{INNER}/24", "dev", "lo"])
        hosts.gateway.run(["ip", "addr", "add", f"{INNER6}/64", "dev", "lo"])
        stage = Live(hosts, folder)
        stage.close_the_clear_way()
        before = {each: snapshot(each) for each in (hosts.client, hosts.gateway)}
        try:
            yield stage
        except BaseException:
            print(stage.logs())
            raise
        for program in reversed(stage.programs):
            program.end()
        for host, then in before.items() if stage.as_before else ():
            changed = "\n".join(difflib.unified_diff(then.splitlines(), snapshot(host).splitlines(), n=0, lineterm=""))
            assert not changed, f"{host.label} is not as it was:\n{changed}\n{stage.logs()}"


def descriptors(program: Program) -> list[str]:
    found = []
    for each in Path(f"/proc/{program.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(each).partition(":")[0])
    return sorted(found)


def descriptors_at_rest(program: Program) -> list[str]:
    """Those that stay: whoever has just asked it something has one more for a moment."""
    found = []
    for _ in range(10):
        found.append(descriptors(program))
        time.sleep(0.05)
    return min(found, key=len)


__all__ = ["INNER", "INNER6", "Live", "Program", "descriptors", "descriptors_at_rest", "live", "wait_until"]
