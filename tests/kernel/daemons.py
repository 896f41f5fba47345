"""libreswan's and OpenIKED's daemons in a guest, and what is common to the cases with them.

libreswan's package excludes strongSwan's, so it is unpacked aside (`.ci/run` does) and copied over the guest's files,
which are gone afterwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ikeway.dataplane.kernel.support import probe
from ikeway.host.namespaces import Namespace
from tests.interop.agreement import SECRET, Agreement
from tests.interop.network import CLIENT_SECOND_ADDRESS, LAN_HOST, Network, Way
from tests.interop.ours import IkewayClient, IkewayGateway
from tests.interop.traffic import ping, transfer
from tests.interop.waiting import wait_for_text, wait_until
from tests.kernel import peers
from tests.kernel.case import Suite
from tests.kernel.machine import LIBRESWAN

# Also what CBC with HMAC is wrapped in, and the interface that OpenIKED wants.
SUITE = Suite(*peers.SUITE.modules, "echainiv", "authenc", "authencesn", "dummy")
MEGABYTES = 20
MEGABYTES_AGAIN = 2
AF_KEY, PF_KEY_V2, SADB_REGISTER, SADB_SATYPE_ESP = 15, 2, 7, 3  # RFC 2367


class Daemon:
    """Somebody else's daemon in a namespace, with a /run of its own."""

    def __init__(self, namespace: Namespace, folder: Path, *words: str) -> None:
        self.namespace, self.folder = namespace, folder
        self._run, self._log = folder / "run", folder / "log"
        (self._run / "pluto").mkdir(parents=True)
        with self._log.open("wb") as log:
            self.process = namespace.popen(words, files={"/run": self._run}, stdout=log, stderr=subprocess.STDOUT)

    def run(self, *words: str, timeout: float = 60) -> str:
        """A command beside it."""
        return self.namespace.run(words, files={"/run": self._run}, timeout=timeout, check=False)

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in (self._log, self._run / "log") if path.exists())

    def wait_for(self, pattern: str) -> None:
        wait_for_text(self.log, pattern, 8, lambda: self.process.poll() is not None)

    def stop(self) -> None:
        """End it, and forget what it has left in the kernel."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.namespace.run(["sh", "-c", "ip xfrm state flush; ip xfrm policy flush"])


class Guest:
    """The network, and places for daemons. A gateway of ours goes on to the next case that wants the same, for Python
    starts slowly here."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self._folder, self._count = network, folder, 0
        self._standing: tuple[Agreement, IkewayGateway] | None = None

    def folder(self) -> Path:
        self._count += 1
        made = self._folder / str(self._count)
        made.mkdir()
        return made

    @contextlib.contextmanager
    def libreswan(self, namespace: Namespace, connection: str) -> Iterator[Daemon]:
        """Pluto with one connection, `lab`."""
        self._make_room(namespace)
        lines = "".join(f"    {line}\n" for line in connection.strip().splitlines())
        Path("/etc/ipsec.conf").write_text(f"config setup\n    logfile=/run/log\nconn lab\n{lines}")
        secrets = Path("/etc/ipsec.secrets")
        secrets.write_text(f': PSK "{SECRET}"\n')
        secrets.chmod(0o600)
        daemon = Daemon(namespace, self.folder(), "/usr/libexec/ipsec/pluto", "--config", "/etc/ipsec.conf", "--nofork")
        try:
            daemon.wait_for("listening for IKE messages|adding UDP interface")
            wait_until(lambda: (daemon.folder / "run/pluto/pluto.ctl").exists(), "no control socket", logs=daemon.log)
            said = daemon.run("ipsec", "addconn", "--config", "/etc/ipsec.conf", "lab")
            wait_until(lambda: "added" in daemon.log(), f"not added: {said}", logs=daemon.log)
            yield daemon
        finally:
            daemon.stop()

    @contextlib.contextmanager
    def iked(self, namespace: Namespace, configuration: str) -> Iterator[Daemon]:
        """OpenIKED with a configuration."""
        self._make_room(namespace)
        path = self.folder() / "iked.conf"
        path.write_text(configuration)
        path.chmod(0o600)
        daemon = Daemon(namespace, self.folder(), "iked", "-dvv", "-f", str(path))
        try:
            daemon.wait_for("stickyaddress")
            yield daemon
        finally:
            daemon.stop()

    def _make_room(self, namespace: Namespace) -> None:
        if namespace is self.network.gateway:
            self.without_gateway()

    @contextlib.contextmanager
    def client(self, agreed: Agreement) -> Iterator[IkewayClient]:
        client = IkewayClient(self.network.client, self.folder(), peers.in_kernel(agreed))
        try:
            yield client
        finally:
            client.stop()
        assert peers.leftovers(client.namespace) == "", peers.leftovers(client.namespace)

    @contextlib.contextmanager
    def gateway(self, agreed: Agreement) -> Iterator[IkewayGateway]:
        wanted = dataclasses.replace(peers.in_kernel(agreed), way=Way.WAN)  # it listens everywhere
        if self._standing is None or self._standing[0] != wanted:
            self.without_gateway()
            self._standing = (wanted, IkewayGateway(self.network.gateway, self.folder(), wanted))
        gateway = self._standing[1]
        try:
            yield gateway
            wait_until(lambda: not gateway.sessions(), "the client has not said that it ends", logs=gateway.log)
        except BaseException:
            self.without_gateway()
            raise

    def without_gateway(self) -> None:
        """Its ports are for another."""
        if self._standing is not None:
            gateway = self._standing[1]
            self._standing = None
            gateway.stop()
            assert peers.leftovers(gateway.namespace) == "", peers.leftovers(gateway.namespace)


def load_algorithms() -> None:
    """Have the kernel load all algorithms for ESP, and look for no further modules: it would look for those that it
    lacks, a program for each, whenever a daemon starts."""
    with socket.socket(AF_KEY, socket.SOCK_RAW, PF_KEY_V2) as opened:
        opened.send(struct.pack("=BBBBHHII", PF_KEY_V2, SADB_REGISTER, 0, SADB_SATYPE_ESP, 2, 0, 1, os.getpid()))
        opened.recv(4096)
    probe()  # AES-GCM
    Path("/proc/sys/kernel/modprobe").write_text("\n")


@contextlib.contextmanager
def prepare() -> Iterator[Guest]:
    with peers.prepare() as inner, tempfile.TemporaryDirectory() as folder:
        shutil.copytree(LIBRESWAN / "usr", "/usr", dirs_exist_ok=True, symlinks=True)
        Path("/var/lib/ipsec/nss").mkdir(parents=True, exist_ok=True)
        Path("/etc/ipsec.d").mkdir(exist_ok=True)
        subprocess.run(["ipsec", "initnss"], check=True, capture_output=True)
        load_algorithms()
        # Both want to know the way to a client before there is one.
        inner.network.ip(inner.network.gateway, f"route replace default via {Way.WAN.client}")
        inner.network.ip(inner.network.gateway, f"-6 route replace default via {Way.WAN6.client}")
        guest = Guest(inner.network, Path(folder))
        try:
            yield guest
        finally:
            guest.without_gateway()


@contextlib.contextmanager
def telling(side: IkewayClient | IkewayGateway, daemon: Daemon) -> Iterator[None]:
    """With what fails goes what both sides said."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{error}\n{side.log()}\n{daemon.log()[-6000:]}") from error


def used(side: IkewayClient | IkewayGateway, *, udp: bool, mode: str = "tunnel") -> None:
    """The tunnel is the kernel's, and travels as it should."""
    (session,) = side.sessions()
    assert [(child.encapsulation, child.mode) for child in session.children] == [("udp" if udp else "esp", mode)]
    assert session.children[0].octets_out > 0 and session.children[0].octets_in > 0


def carries(guest: Guest, version: int = 4, *, megabytes: int = MEGABYTES_AGAIN) -> None:
    """Traffic from the client to the LAN and back."""
    network = guest.network
    assert ping(network.client, LAN_HOST[version]).lost == 0, "pings were lost"
    transfer(network.client, network.lan, LAN_HOST[version], megabytes=megabytes)


def carries_between_hosts(guest: Guest, way: Way, *, megabytes: int = MEGABYTES_AGAIN) -> None:
    """Traffic between the outer addresses, as transport mode has it."""
    network = guest.network
    assert ping(network.client, way.gateway).lost == 0, "pings were lost"
    transfer(network.client, network.gateway, way.gateway, megabytes=megabytes)
    transfer(network.gateway, network.client, way.client, megabytes=1)


@contextlib.contextmanager
def another_address(guest: Guest) -> Iterator[None]:
    """The client's address goes, another one on the same link takes over."""
    network = guest.network
    network.ip(network.client, f"address add {CLIENT_SECOND_ADDRESS}/24 dev wan")
    network.ip(network.client, f"address delete {Way.WAN.client}/24 dev wan")
    try:
        yield
    finally:
        network.restore_client_addresses()


def moved(ours: IkewayClient, address: str = CLIENT_SECOND_ADDRESS) -> None:
    """Wait until the client goes on from this address."""
    wait_until(lambda: address in ours.sessions()[0].local, f"it has not moved to {address}", logs=ours.log)


def marks(side: IkewayClient | IkewayGateway) -> dict[str, str]:
    """What changes when keys are renewed: of the IKE SA, of the child SA."""
    sessions = side.sessions()
    if len(sessions) != 1 or len(sessions[0].children) != 1:
        return {}
    return {"ike": sessions[0].initiator_spi, "child": sessions[0].children[0].spi_in}


def rekeyed(side: IkewayClient | IkewayGateway, what: str, by: Callable[[], object] | None = None) -> None:
    """Let keys of the "child" or the "ike" SA be renewed, by our side unless told otherwise, and wait for the new ones."""
    wait_until(lambda: what in marks(side), "the rekeying before comes to no end", logs=side.log)
    before = marks(side)[what]
    if by is None:
        side.rekey(what)
    else:
        by()
    wait_until(lambda: marks(side).get(what, before) != before, f"no {what} rekeying", logs=side.log)
