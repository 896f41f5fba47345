"""The stage of the demonstration: four hosts with cables between them, a web page, and the two programs' files.

    client --- wifi   192.168.1.0/24  --- internet --- 198.51.100.0/24 --- gateway --- 10.80.0.0/24 --- web
           --- mobile 10.34.0.0/24    ---

All of it is in namespaces that are gone when the demonstration is, and its files are in their private /run.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import TracebackType

from ikeway.cli.demo.certificates import make_certificates
from ikeway.errors import HostError
from ikeway.host.linux import sysctl
from ikeway.host.linux.links import SCOPE_UNIVERSE, addresses, set_link
from ikeway.host.linux.netlink import Netlink
from ikeway.host.linux.routes import MAIN_TABLE, Route, add_route, routes, rule_priorities
from ikeway.host.namespaces import Namespace, Port, connect

GATEWAY = "198.51.100.1"
WIFI, WIFI_ROUTER = "192.168.1.23", "192.168.1.1"
MOBILE, MOBILE_ROUTER = "10.34.0.7", "10.34.0.1"
WEB, WEB6 = "10.80.0.10", "fd80::10"
WEB_PORT = 8080
GATEWAY_NAME = "vpn.demo.example"
USER = "alice@demo.example"
PROFILE, GATEWAY_CONFIG = "demo", "demo-gateway"
FILE = "download.bin"
_LOCAL_TABLE = 255

_PAGE = "<!doctype html><title>Behind the gateway</title><h1>You reached the network behind the gateway.</h1>\n"

_GATEWAY_TOML = """
[gateway]
identity = "{name}"
certificate = "gateway.pem"
key = "gateway.key"
users = "users.toml"

[network]
addresses = ["10.81.0.1", "fd81::1"]

[pools.clients]
ipv4 = "10.81.0.100-10.81.0.200"
ipv6 = "fd81::1:0/112"

[connections.clients]
login = "eap-mschapv2"
identities = "*@demo.example"
pools = "clients"
dns = "{web}"
domains = "demo.example"
"""

_PROFILE_TOML = """
[gateway]
address = "{gateway}"
identity = "{name}"
ca = "ca.pem"

[login]
username = "{user}"
password = {{ file = "password" }}
"""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a host's network looks like, to compare before and after."""

    addresses: frozenset[tuple[int, str]]
    main_routes: frozenset[str]
    other_routes: frozenset[str]
    rules: frozenset[int]
    forwarding: tuple[str, ...]


class Program:
    """A running `ikeway` command. `show` gets its lines and says whether they were shown."""

    def __init__(self, process: subprocess.Popen[str], show: Callable[[str], bool]) -> None:
        self.process = process
        self.not_shown: list[str] = []  # for when something fails
        self._said: list[tuple[float, str]] = []
        self._show = show
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def said(self, start: str) -> bool:
        """True when a line has begun so."""
        return any(line.startswith(start) for _, line in self._said)

    def seconds_between(self, start: str, end: str) -> float:
        """The time between the first lines that begin with `start` and with `end`."""
        moments = (next((at for at, line in self._said if line.startswith(word)), 0.0) for word in (end, start))
        return next(moments) - next(moments)

    def wait(self, timeout: float = 15.0) -> int:
        """Wait for its end; return its exit code (`HostError` when it does not end)."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise HostError(f"a program did not end within {timeout:.0f} s: {error.cmd}") from error
        self._reader.join(timeout)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            words = line.rstrip("\n")
            self._said.append((time.monotonic(), words))
            if not self._show(words):
                self.not_shown.append(words)


class Stage:
    """Hosts, cables and files. A context manager."""

    def __init__(self, megabytes: int) -> None:
        self._exit = contextlib.ExitStack()
        try:
            self.folder = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="ikeway-demo-")))
            self.client, self.internet, self.gateway, self.web = (
                self._exit.enter_context(Namespace(label)) for label in ("client", "internet", "gateway", "web")
            )
            self._lay_cables()
            self.file_hash = self._write_web(megabytes)
            self._serve_web()
        except BaseException:
            self._exit.close()
            raise

    def __enter__(self) -> Stage:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear the stage."""
        self._exit.close()

    @property
    def resolv_conf(self) -> Path:
        """What the client sees as /etc/resolv.conf."""
        return self.folder / "resolv.conf"

    def start(
        self,
        namespace: Namespace,
        words: Sequence[str],
        show: Callable[[str], bool],
    ) -> Program:
        """Start an `ikeway` command on one of the hosts."""
        process = namespace.popen(
            [sys.executable, "-m", "ikeway", *words],
            files={"/etc/resolv.conf": self.resolv_conf} if namespace is self.client else None,
            environment={"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return Program(process, show)

    def write_configuration(self) -> None:
        """The files of both programs, with freshly made keys, certificates and password."""
        make_certificates(self.folder, GATEWAY_NAME)
        password = secrets.token_urlsafe(15)
        files = {
            f"{GATEWAY_CONFIG}.toml": _GATEWAY_TOML.format(name=GATEWAY_NAME, web=WEB),
            f"{PROFILE}.toml": _PROFILE_TOML.format(gateway=GATEWAY, name=GATEWAY_NAME, user=USER),
            "users.toml": f'[users."{USER}"]\npassword = "{password}"\n',
            "password": password,
        }
        for name, contents in files.items():
            write_private(self.folder / name, contents.encode())
        self.resolv_conf.write_text("# what the client has while no VPN is up\nnameserver 192.168.1.1\n")

    def leave_wifi(self) -> None:
        """The client loses one network and finds another, as a telephone does on the way out of the door."""

        def move() -> None:
            with Netlink() as nl:
                set_link(nl, "wifi", up=False)
                add_route(nl, _default_route(MOBILE_ROUTER, "mobile"))

        self.client.call(move)

    def surroundings(self, namespace: Namespace) -> Surroundings:
        """What the network of a host looks like now."""
        return namespace.call(_surroundings)

    def _lay_cables(self) -> None:
        connect(Port(self.client, "wifi", (f"{WIFI}/24",)), Port(self.internet, "wifi", (f"{WIFI_ROUTER}/24",)))
        connect(Port(self.client, "mobile", (f"{MOBILE}/24",)), Port(self.internet, "mobile", (f"{MOBILE_ROUTER}/24",)))
        connect(Port(self.internet, "core", ("198.51.100.254/24",)), Port(self.gateway, "wan", (f"{GATEWAY}/24",)))
        connect(
            Port(self.gateway, "lan", ("10.80.0.1/24", "fd80::1/64")),
            Port(self.web, "lan", (f"{WEB}/24", f"{WEB6}/64")),
        )
        self.internet.call(lambda: sysctl.write("net/ipv4/ip_forward", "1"))
        for namespace, router, interface in (
            (self.client, WIFI_ROUTER, "wifi"),
            (self.gateway, "198.51.100.254", "wan"),
            (self.web, "10.80.0.1", "lan"),
            (self.web, "fd80::1", "lan"),
        ):
            namespace.call(lambda router=router, interface=interface: _set_default_route(router, interface))  # type: ignore[misc]

    def _write_web(self, megabytes: int) -> str:
        folder = self.folder / "web"
        folder.mkdir()
        (folder / "index.html").write_text(_PAGE)
        digest = hashlib.sha256()
        with (folder / FILE).open("wb") as file:
            for _ in range(megabytes):
                piece = os.urandom(1_000_000)
                digest.update(piece)
                file.write(piece)
        return digest.hexdigest()

    def _serve_web(self) -> None:
        folder = str(self.folder / "web")
        server = [sys.executable, "-m", "http.server", "--bind", "::", "--directory", folder, str(WEB_PORT)]
        self.web.popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("the web server answers", lambda: self.web.call(_answers))


def page_hash() -> str:
    """The SHA-256 of the web page."""
    return hashlib.sha256(_PAGE.encode()).hexdigest()


def wait_until(what: str, happened: Callable[[], object], timeout: float = 30.0) -> None:
    """Look again and again until something has happened (`HostError` when it does not)."""
    deadline = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > deadline:
            raise HostError(f"it did not happen within {timeout:.0f} s that {what}")
        time.sleep(0.02)


def write_private(path: Path, octets: bytes) -> None:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_bytes(octets)


def _default_route(router: str, interface: str) -> Route:
    via = ip_address(router)
    destination = ip_network("::/0" if via.version == 6 else "0.0.0.0/0")
    return Route(table=MAIN_TABLE, destination=destination, interface=interface, via=via)


def _set_default_route(router: str, interface: str) -> None:
    with Netlink() as nl:
        add_route(nl, _default_route(router, interface))


def _surroundings() -> Surroundings:
    with Netlink() as nl:
        found = routes(nl)
        return Surroundings(
            # Those of the kernel's own making come and go with the links.
            frozenset((each.index, str(each.address)) for each in addresses(nl) if each.scope == SCOPE_UNIVERSE),
            frozenset(str(route) for route in found if route.table == MAIN_TABLE),
            frozenset(str(route) for route in found if route.table not in (MAIN_TABLE, _LOCAL_TABLE)),
            frozenset(rule_priorities(nl)),
            tuple(sysctl.read(path) for path in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")),
        )


def _answers() -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", WEB_PORT, timeout=1.0)
    try:
        connection.request("HEAD", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
