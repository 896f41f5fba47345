"""Our client and gateway against libreswan and OpenIKED, which want a kernel with IPsec: a suite for one boot.

libreswan's package excludes strongSwan's, so it is unpacked aside (`.ci/run` does) and copied over the guest's files,
which are gone afterwards. OpenIKED on Linux (PF_KEY) does neither AES-GCM nor HMAC-SHA2-256 in ESP.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ikeway.host.namespaces import Namespace
from tests.interop.agreement import CLIENT_NAME, GATEWAY_NAME, SECRET, Agreement, agreement
from tests.interop.network import LAN_HOST, LAN_NETWORK, POOL, Network, Way
from tests.interop.ours import IkewayClient, IkewayGateway
from tests.interop.traffic import ping, transfer
from tests.interop.waiting import wait_for_text, wait_until
from tests.kernel import peers
from tests.kernel.machine import LIBRESWAN

SUITE = peers.SUITE.without_cases()
MEGABYTES = 20
IKED_ESP = "aes256-sha512"


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
    """The network, and places for daemons."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self._folder, self._count = network, folder, 0

    def folder(self) -> Path:
        self._count += 1
        made = self._folder / str(self._count)
        made.mkdir()
        return made

    @contextlib.contextmanager
    def libreswan(self, namespace: Namespace, connection: str) -> Iterator[Daemon]:
        """Pluto with one connection, `lab`."""
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
        path = self.folder() / "iked.conf"
        path.write_text(configuration)
        path.chmod(0o600)
        daemon = Daemon(namespace, self.folder(), "iked", "-dvv", "-f", str(path))
        try:
            daemon.wait_for("stickyaddress")
            yield daemon
        finally:
            daemon.stop()

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
        gateway = IkewayGateway(self.network.gateway, self.folder(), peers.in_kernel(agreed))
        try:
            yield gateway
        finally:
            gateway.stop()
        assert peers.leftovers(gateway.namespace) == "", peers.leftovers(gateway.namespace)


@contextlib.contextmanager
def prepare() -> Iterator[Guest]:
    with peers.prepare() as inner, tempfile.TemporaryDirectory() as folder:
        shutil.copytree(LIBRESWAN / "usr", "/usr", dirs_exist_ok=True, symlinks=True)
        Path("/var/lib/ipsec/nss").mkdir(parents=True, exist_ok=True)
        Path("/etc/ipsec.d").mkdir(exist_ok=True)
        subprocess.run(["ipsec", "initnss"], check=True, capture_output=True)
        # Both want to know the way to a client before there is one.
        inner.network.ip(inner.network.gateway, f"route replace default via {Way.WAN.client}")
        inner.network.ip(inner.network.gateway, f"-6 route replace default via {Way.WAN6.client}")
        yield Guest(inner.network, Path(folder))


def libreswan_gateway(way: Way, *, udp: bool) -> str:
    version = 6 if way is Way.WAN6 else 4
    return f"""
ikev2=insist
authby=secret
left={way.gateway}
leftid=@{GATEWAY_NAME}
leftsubnet={LAN_NETWORK[version]}
right=%any
rightaddresspool={"10.92.0.1-10.92.0.200" if version == 4 else "fd92::1-fd92::200"}
encapsulation={"yes" if udp else "no"}
ike=aes_gcm256-sha2_256-dh31
esp=aes_gcm256
pfs=no
mobike=yes
auto=add
"""


def used(client: IkewayClient | IkewayGateway, encapsulation: str) -> None:
    """The tunnel is the kernel's, and travels as it should."""
    (session,) = client.sessions()
    assert [child.encapsulation for child in session.children] == [encapsulation]
    assert session.children[0].octets_out > 0


def carries(guest: Guest, version: int = 4) -> None:
    """Traffic from the client to the LAN and back."""
    network = guest.network
    assert ping(network.client, LAN_HOST[version]).lost == 0
    transfer(network.client, network.lan, LAN_HOST[version], megabytes=MEGABYTES)


@SUITE.case(Way.WAN, False)
@SUITE.case(Way.WAN, True)
@SUITE.case(Way.WAN6, False)
def to_libreswan(guest: Guest, way: Way, udp: bool) -> None:
    """Our client: protocol 50, UDP, IPv6; then both kinds of rekeying."""
    version = 6 if way is Way.WAN6 else 4
    agreed = agreement(way=way, both={"networks": {"net": (LAN_NETWORK[version],)}}, pool={version: POOL[version]})
    with (
        guest.libreswan(guest.network.gateway, libreswan_gateway(way, udp=udp)) as daemon,
        guest.client(agreed) as client,
    ):
        try:
            client.connect(timeout=60)
            carries(guest, version)
            used(client, "udp" if udp else "esp")
            for what in ("child", "ike"):
                rekeyed(client, what)
                carries(guest, version)
            client.close()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{client.log()}\n{daemon.log()[-6000:]}") from error


def rekeyed(side: IkewayClient, what: str) -> None:
    """Renew keys, and wait for the new ones."""

    def mark() -> str:
        session = side.sessions()[0]
        return session.initiator_spi if what == "ike" else session.children[-1].spi_in

    before = mark()
    side.rekey(what)
    wait_until(lambda: mark() != before, f"no {what} rekeying", logs=side.log)


@SUITE.case()
def from_libreswan(guest: Guest) -> None:
    """Our gateway, with an address from its pool."""
    connection = f"""
ikev2=insist
authby=secret
left=%defaultroute
leftid={CLIENT_NAME}
leftmodecfgclient=yes
leftsubnet=0.0.0.0/0
right={Way.WAN.gateway}
rightid=@{GATEWAY_NAME}
rightsubnet=0.0.0.0/0
narrowing=yes
ike=aes_gcm256-sha2_256-dh31
esp=aes_gcm256
pfs=no
auto=add
"""
    network = guest.network
    network.ip(network.client, f"route add default via {Way.WAN.gateway}")
    try:
        with guest.gateway(agreement()) as gateway, guest.libreswan(network.client, connection) as daemon:
            said = daemon.run("ipsec", "auto", "--up", "lab")
            assert "IPsec SA established" in said or "established Child SA" in said, f"{said}\n{gateway.log()}"
            carries(guest)
            used(gateway, "esp")
    finally:
        network.ip(network.client, f"route delete default via {Way.WAN.gateway}", check=False)


IKED_ALGORITHMS = "ikesa enc aes-256-gcm prf hmac-sha2-256 group curve25519 childsa enc aes-256 auth hmac-sha2-512"


@SUITE.case()
def to_iked(guest: Guest) -> None:
    """Our client against OpenIKED, and both kinds of rekeying."""
    configuration = (
        f'ikev2 "lab" passive esp from {LAN_NETWORK[4]} to dynamic local {Way.WAN.gateway} peer any '
        f'{IKED_ALGORITHMS} srcid "{GATEWAY_NAME}" psk "{SECRET}" config address {POOL[4]}\n'
    )
    with (
        guest.iked(guest.network.gateway, configuration) as daemon,
        guest.client(agreement(both={"esp": IKED_ESP})) as client,
    ):
        try:
            client.connect(timeout=60)
            carries(guest)
            used(client, "esp")
            for what in ("child", "ike"):
                rekeyed(client, what)
                carries(guest)
            client.close()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{client.log()}\n{daemon.log()[-6000:]}") from error
