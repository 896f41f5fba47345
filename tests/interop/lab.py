"""Puts the two sides of a case together and looks whether traffic passes."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ikeway.host.namespaces import Namespace
from tests.interop.agreement import Agreement
from tests.interop.charon_cmd import CharonCmd
from tests.interop.network import LAN_HOST, LAN_NETWORK, LAN_SECOND_HOST, LAN_SECOND_NETWORK, Network
from tests.interop.ours import IkewayClient, IkewayGateway
from tests.interop.strongswan import Charon, Sa, Settings, StrongswanClient, StrongswanGateway, daemon_settings
from tests.interop.traffic import Transfer, ping, transfer
from tests.interop.waiting import wait_until

HOST_IN_NETWORK = {
    LAN_NETWORK[4]: LAN_HOST[4],
    LAN_NETWORK[6]: LAN_HOST[6],
    LAN_SECOND_NETWORK: LAN_SECOND_HOST,
}


class Side(Protocol):
    """A gateway, or with `connect` a client, whoever made it."""

    is_ours: bool
    namespace: Namespace

    def rekey(self, what: str) -> None: ...

    def close(self) -> None: ...

    def kill(self) -> None: ...

    def stop(self) -> None: ...

    def wait_until_gone(self, timeout: float) -> None: ...

    def log(self) -> str: ...

    def status(self) -> str: ...


class Client(Side, Protocol):
    """A side that connects."""

    def connect(self, timeout: float = 15) -> None: ...


@dataclass(frozen=True)
class Pair:
    """Who is the client and who the gateway: "charon" or "ikeway"; as client also "charon-cmd"."""

    client: str
    gateway: str

    def __str__(self) -> str:
        return f"{self.client}-to-{self.gateway}"


THEIRS = Pair("charon", "charon")  # shows that a case is possible at all
PAIRS = (THEIRS, Pair("ikeway", "charon"), Pair("charon", "ikeway"))


class Tunnel:
    """A case at work."""

    def __init__(self, network: Network, agreed: Agreement, client: Client, gateway: Side) -> None:
        self.network, self.agreed, self.client, self.gateway = network, agreed, client, gateway

    @property
    def megabytes(self) -> int:
        """How much a transfer carries: less where both sides are strongSwan, which is only the proof of the lab."""
        return 100 if self.client.is_ours or self.gateway.is_ours else 10

    @property
    def charon(self) -> StrongswanClient | StrongswanGateway:
        """The side that can be asked what it sees: strongSwan's."""
        for side in (self.client, self.gateway):
            if isinstance(side, StrongswanClient | StrongswanGateway):
                return side
        raise AssertionError("no strongSwan in this case")

    def sa(self) -> Sa:
        """The one IKE SA, as strongSwan sees it: there is none, or there are two, in the middle of a rekeying."""
        standing: list[Sa] = []

        def is_one() -> bool:
            standing[:] = self.charon.sas()
            return len(standing) == 1

        wait_until(is_one, "not one IKE SA stands", logs=self.logs)
        return standing[0]

    @property
    def hosts(self) -> list[str]:
        """An address in every network that the child SAs reach."""
        return [HOST_IN_NETWORK[network] for networks in self.agreed.client.networks.values() for network in networks]

    def virtual(self, version: int) -> str:
        """The client's address inside."""
        if isinstance(self.client, IkewayClient):
            assigned = self.client.sessions()[0].addresses
        else:
            assigned = self.sa().virtual
        found = [address for address in assigned if ipaddress.ip_address(address).version == version]
        assert found, f"no IPv{version} address among {assigned}"
        return found[0]

    def check_ping(self) -> None:
        """Ping every network behind the gateway, and the client from there."""
        for host in self.hosts:
            result = ping(self.client.namespace, host)
            assert result.lost == 0, f"{host}: {result}\n{self.logs()}"
        for version in self.agreed.pool:
            result = ping(self.network.lan, self.virtual(version))
            assert result.lost == 0, f"back to the client: {result}\n{self.logs()}"

    def check_transfer(self, megabytes: int = 0) -> Transfer:
        """Send to every network behind the gateway, in all so many megabytes, and a tenth back."""
        hosts = self.hosts
        megabytes = megabytes or self.megabytes
        share = megabytes // len(hosts)
        done = [transfer(self.client.namespace, self.network.lan, host, megabytes=share) for host in hosts]
        version = next(iter(self.agreed.pool))
        transfer(self.network.lan, self.client.namespace, self.virtual(version), megabytes=max(1, megabytes // 10))
        return Transfer(sum(one.octets for one in done), sum(one.seconds for one in done))

    def logs(self) -> str:
        """What both sides say."""
        sides = (("client", self.client), ("gateway", self.gateway))
        return "\n".join(f"=== {name}\n{side.log()}\n{side.status()}" for name, side in sides)

    def stop(self) -> None:
        """End the case."""
        with suppress(AssertionError, OSError):
            self.client.stop()
        self.gateway.stop()


class Lab:
    """Makes tunnels. Charons serve many cases: they are started anew only for other settings."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self.folder = network, folder
        self._charons: dict[Namespace, tuple[Settings, Charon]] = {}
        self._count = 0

    def charon(self, namespace: Namespace, settings: Settings | None = None) -> Charon:
        """A charon in a namespace, with these settings."""
        settings = settings or {}
        standing = self._charons.get(namespace)
        if standing is not None and standing[0] == settings and standing[1].running:
            return standing[1]
        self.without_charon(namespace)
        charon = Charon(namespace, self._folder(), settings)
        self._charons[namespace] = (settings, charon)
        return charon

    def without_charon(self, namespace: Namespace) -> None:
        """No charon in this namespace: its ports are for another."""
        if namespace in self._charons:
            self._charons.pop(namespace)[1].stop()

    def tunnel(self, pair: Pair, agreed: Agreement) -> Tunnel:
        """Both sides, not yet connected."""
        gateway = self.gateway(pair.gateway, agreed)
        try:
            return Tunnel(self.network, agreed, self.client(pair.client, agreed), gateway)
        except BaseException:
            gateway.stop()
            raise

    def gateway(self, maker: str, agreed: Agreement) -> Side:
        """A gateway that waits."""
        namespace = self.network.gateway
        if maker == "charon":
            return StrongswanGateway(self.charon(namespace, daemon_settings(agreed, agreed.gateway)), agreed)
        self.without_charon(namespace)
        return IkewayGateway(namespace, self._folder(), agreed)

    def client(self, maker: str, agreed: Agreement, namespace: Namespace | None = None) -> Client:
        """A client, not yet connected."""
        namespace = namespace or self.network.client
        if maker == "charon-cmd":
            self.without_charon(namespace)
            return CharonCmd(namespace, self._folder(), agreed)
        if maker == "charon":
            return StrongswanClient(self.charon(namespace, daemon_settings(agreed, agreed.client)), agreed)
        self.without_charon(namespace)
        return IkewayClient(namespace, self._folder(), agreed)

    def close(self) -> None:
        """Stop all daemons."""
        for namespace in list(self._charons):
            self.without_charon(namespace)

    def _folder(self) -> Path:
        self._count += 1
        folder = self.folder / str(self._count)
        folder.mkdir()
        return folder
