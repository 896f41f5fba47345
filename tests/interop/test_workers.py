"""Workers of the data plane that die, and a gateway over several of them, against strongSwan."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ikeway.daemon.status import Status
from ikeway.host.namespaces import Namespace, Port, connect
from tests.dataplane.capture import Sequences, packet_socket
from tests.interop.agreement import GATEWAY_NAME, SECRET, Agreement, agreement
from tests.interop.lab import Lab, Pair, Tunnel
from tests.interop.network import LAN_HOST, LAN_NETWORK, POOL, SYSCTLS, Network, Way
from tests.interop.ours import Ikeway, IkewayClient, write_private
from tests.interop.strongswan import Charon, StrongswanClient
from tests.interop.traffic import MEGABYTE, Pulse, RunningTransfer, ping
from tests.interop.waiting import wait_until

pytestmark = pytest.mark.peer

CLIENTS = 4


def workers(program: Ikeway) -> tuple:
    """How the workers are."""
    return Status.from_json(program.call("status")).workers


def kill(program: Ikeway, number: int = 0) -> None:
    """kill -9 of a worker, and wait until there is another one."""
    pid = workers(program)[number].pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: workers(program)[number].pid not in {None, pid}, "no other worker", logs=program.log)


@pytest.mark.parametrize("pair", [Pair("ikeway", "charon"), Pair("charon", "ikeway")], ids=str)
def test_a_worker_that_is_killed_during_a_transfer(
    tunnel: Callable[[Pair, Agreement], Tunnel], network: Network, pair: Pair
) -> None:
    """In both directions: what arrives is what was sent, nobody logs in anew, and no number is used twice."""
    made = tunnel(pair, agreement())
    made.client.connect()
    ours = made.client if isinstance(made.client, IkewayClient) else made.gateway
    assert isinstance(ours, Ikeway)
    source = Way.WAN.client if ours is made.client else Way.WAN.gateway
    capture = Sequences(ours.namespace.call(packet_socket), source)
    there = RunningTransfer(network.client, network.lan, LAN_HOST[4], megabytes=60)
    back = RunningTransfer(network.lan, network.client, made.virtual(4), megabytes=60)
    for received in (10, 25):
        there.wait_for(received * MEGABYTE)
        back.wait_for(received * MEGABYTE)
        kill(ours)
    there.result()
    back.result()
    made.check_ping()
    seen = capture.stop()
    assert len(seen) > 10_000
    assert len(set(seen)) == len(seen), "a sequence number was used twice"
    (worker,) = workers(ours)
    assert (worker.restarts, worker.sas) == (2, 2)
    (child,) = ours.sessions()[0].children
    assert child.octets_out > 60 * MEGABYTE * 0.9 and child.octets_in > 60 * MEGABYTE * 0.9
    assert len(made.charon.sas()) == 1
    logged = made.charon.log()
    assert logged.count("generating IKE_SA_INIT") + logged.count("parsed IKE_SA_INIT") == 2, "the client logged in anew"


class Fleet:
    """Our gateway with two workers, and charons in namespaces of their own: the first behind the NAT, without MOBIKE."""

    def __init__(self, lab: Lab, network: Network, folder: Path, stack: contextlib.ExitStack) -> None:
        self.network = network
        lab.without_charon(network.gateway)
        self.gateway = Ikeway(network.gateway, folder, "gateway", "run", str(_configuration(folder)), "-v")
        stack.callback(self.gateway.stop)
        self.gateway.wait_for_log(r"(?i)\bserving\b|\bserves\b")
        self.clients: list[StrongswanClient] = []
        self.addresses: list[str] = []
        for number in range(CLIENTS):
            agreed = agreement(
                client={"identity": f"user{number}@lab.test", "mobike": number != 0},
                way=Way.WAN if number else Way.NAT,
            )
            namespace = self.namespace(number, stack) if number else network.client
            if not number:
                lab.without_charon(namespace)
            charon = Charon(namespace, folder / f"charon{number}")
            stack.callback(charon.stop)
            client = StrongswanClient(charon, agreed)
            client.connect()
            self.clients.append(client)
            self.addresses.append(client.sas()[0].virtual[0])

    def namespace(self, number: int, stack: contextlib.ExitStack) -> Namespace:
        """Another client's host."""
        namespace = stack.enter_context(Namespace(f"client{number}"))
        net = f"10.97.{number}"
        connect(Port(namespace, "wan", (f"{net}.2/24",)), Port(self.network.gateway, f"to{number}", (f"{net}.1/24",)))
        stack.callback(self.network.ip, self.network.gateway, f"link delete to{number}", check=False)
        settings = {**SYSCTLS, "net.ipv4.conf.wan.promote_secondaries": 1}
        namespace.run(["sysctl", "-q", *(f"{name}={value}" for name, value in settings.items())])
        self.network.ip(namespace, f"route add {Way.WAN.gateway} via {net}.1")
        return namespace

    def worker_of(self, number: int) -> int:
        """Which worker serves a client, by its SPI."""
        return int(self.session(number).children[-1].spi_in, 16) & 1

    def session(self, number: int):
        """What the gateway says of a client."""
        (found,) = [each for each in self.gateway.sessions() if each.remote_identity == f"user{number}@lab.test"]
        return found

    def unknown_spis(self) -> int:
        """How many packets have reached a worker that does not know their SPI."""
        return self.gateway.call("status")["dropped"].get("unknown-spi", 0)

    def check_pings(self) -> None:
        """From and to every client."""
        for number, client in enumerate(self.clients):
            assert ping(client.namespace, LAN_HOST[4]).lost == 0, f"from client {number}\n{self.logs()}"
            assert ping(self.network.lan, self.addresses[number]).lost == 0, f"to client {number}\n{self.logs()}"

    def logs(self) -> str:
        """What all say."""
        return "\n".join([self.gateway.log(), self.gateway.status(), *(each.log() for each in self.clients)])


class Beside:
    """A charon that keeps the connection that it has when it gets another one."""

    def __init__(self, charon: Charon) -> None:
        self._charon = charon

    def __getattr__(self, name: str):
        return getattr(self._charon, name)

    def forget(self) -> None:
        """Not this time."""

    def load(self, name: str, connection, own) -> None:
        """Under another name."""
        self._charon.load("second", connection, own)


def _configuration(folder: Path) -> Path:
    users = {"%any": {"psk": SECRET}}
    users |= {f"own{host}@lab.test": {"psk": SECRET, "ipv4": f"10.92.0.{host}"} for host in (50, 200)}
    write_private(folder / "users.toml", {"users": users})
    table = {
        "gateway": {"identity": GATEWAY_NAME, "users": str(folder / "users.toml")},
        "network": {"data_plane": "userspace", "workers": 2},
        "pools": {"lab": {"ipv4": POOL[4]}},
        "connections": {
            "lab": {"login": "psk", "identities": ["*@lab.test"], "pools": ["lab"], "subnets": [LAN_NETWORK[4]]}
        },
    }
    write_private(folder / "gateway.toml", table)
    return folder / "gateway.toml"


@pytest.fixture(scope="module")
def fleet(lab: Lab, network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with contextlib.ExitStack() as stack:
        yield Fleet(lab, network, Path(tmp_path_factory.mktemp("fleet")), stack)


def test_clients_land_on_both_workers_and_carry_traffic(fleet: Fleet) -> None:
    assert sorted(fleet.worker_of(number) for number in range(CLIENTS)) == [0, 0, 1, 1]
    assert [worker.sas for worker in workers(fleet.gateway)] == [4, 4]
    assert len({worker.pid for worker in workers(fleet.gateway)}) == 2
    fleet.check_pings()
    running = [
        RunningTransfer(client.namespace, fleet.network.lan, LAN_HOST[4], megabytes=20) for client in fleet.clients
    ]
    for each in running:
        each.result()
    for number in range(CLIENTS):
        assert fleet.session(number).children[0].octets_in > 20 * MEGABYTE


@pytest.mark.parametrize("what", ["child", "ike"])
@pytest.mark.parametrize("by", ["client", "gateway"])
def test_rekeying_stays_on_the_worker_and_loses_nothing(fleet: Fleet, what: str, by: str) -> None:
    pulses = [Pulse(client.namespace, fleet.network.lan, LAN_HOST[4]) for client in fleet.clients]
    for number, client in enumerate(fleet.clients):
        before = fleet.session(number)
        worker = fleet.worker_of(number)
        if by == "client":
            client.rekey(what)
        else:
            fleet.gateway.call("rekey", session=str(before.id), what=what)

        def renewed(number=number, before=before) -> bool:
            now = fleet.session(number)
            fresh = now.initiator_spi if what == "ike" else now.children[-1].spi_in
            return fresh not in {before.initiator_spi, before.children[-1].spi_in}

        wait_until(renewed, f"no {what} rekeying", logs=fleet.logs)
        assert fleet.worker_of(number) == worker
    for number, pulse in enumerate(pulses):
        pulse.wait_for(6)
        counted = pulse.stop()
        assert counted.lost == 0, f"client {number}: {counted}\n{fleet.logs()}"
    wait_until(lambda: [worker.sas for worker in workers(fleet.gateway)] == [4, 4], "SAs are left", logs=fleet.logs)


def test_log_ins_from_one_address_and_port_share_a_worker(fleet: Fleet, tmp_path: Path) -> None:
    """Their own addresses lie in both slices. The kernel merges what they send, and cannot tell them apart then."""
    before = fleet.unknown_spis()
    with contextlib.ExitStack() as stack:
        namespace = fleet.namespace(CLIENTS, stack)
        fleet.network.gateway.run(["ethtool", "-K", f"to{CLIENTS}", "gro", "on"])
        charon = Charon(namespace, tmp_path)
        stack.callback(charon.stop)
        first = StrongswanClient(charon, agreement(client={"identity": "own50@lab.test"}))
        first.connect()
        second = StrongswanClient(Beside(charon), agreement(client={"identity": "own200@lab.test"}))
        second.name = "second"
        second.connect()
        found = {each.remote_identity: each for each in fleet.gateway.sessions() if each.remote_identity[:3] == "own"}
        assert len({each.remote for each in found.values()}) == 1
        assert len({int(each.children[0].spi_in, 16) & 1 for each in found.values()}) == 1
        running = [
            RunningTransfer(namespace, fleet.network.lan, LAN_HOST[4], megabytes=20, source=f"10.92.0.{host}")
            for host in (50, 200)
        ]
        for each in running:
            each.result()
        for host in (50, 200):
            assert ping(fleet.network.lan, f"10.92.0.{host}").lost == 0, fleet.logs()
        assert fleet.unknown_spis() == before
    wait_until(lambda: len(fleet.gateway.sessions()) == CLIENTS, "they are still there", logs=fleet.logs)


def test_a_nat_that_forgets_is_followed_on_the_same_worker(fleet: Fleet) -> None:
    """The source port changes during a transfer: the SPI says the worker, so nobody else gets a packet."""
    before, worker = fleet.session(0), fleet.worker_of(0)
    running = RunningTransfer(fleet.clients[0].namespace, fleet.network.lan, LAN_HOST[4], megabytes=20)
    for received in (3, 10):
        running.wait_for(received * MEGABYTE)
        # Masquerading forgets its mappings with the address that they stand on.
        fleet.network.ip(fleet.network.nat, "address delete 10.95.0.254/24 dev out")
        fleet.network.ip(fleet.network.nat, "address add 10.95.0.254/24 dev out")
    running.result()

    def is_followed() -> bool:
        # All may have arrived before the second change: then this is the traffic that shows it.
        ping(fleet.clients[0].namespace, LAN_HOST[4], count=1, timeout=0.2)
        return fleet.session(0).remote != before.remote

    wait_until(is_followed, "it is not followed", logs=fleet.logs)
    after = fleet.session(0)
    assert (after.id, after.children[-1].spi_in) == (before.id, before.children[-1].spi_in)
    assert fleet.worker_of(0) == worker
    fleet.check_pings()


def test_a_client_that_moves_stays_on_its_worker(fleet: Fleet) -> None:
    """MOBIKE."""
    client, worker = fleet.clients[1], fleet.worker_of(1)
    running = RunningTransfer(client.namespace, fleet.network.lan, LAN_HOST[4], megabytes=20)
    running.wait_for(3 * MEGABYTE)
    fleet.network.ip(client.namespace, "address add 10.97.1.3/24 dev wan")
    fleet.network.ip(client.namespace, "address delete 10.97.1.2/24 dev wan")
    running.result()
    wait_until(lambda: fleet.session(1).remote.startswith("10.97.1.3:"), "it did not move", logs=fleet.logs)
    assert fleet.worker_of(1) == worker
    fleet.check_pings()


@pytest.mark.parametrize("number", [0, 1])
def test_the_death_of_one_worker_is_nothing_to_the_other(fleet: Fleet, number: int) -> None:
    """kill -9 under traffic of all clients: those of the other worker lose no packet, the others no connection."""
    before = workers(fleet.gateway)
    sessions = [fleet.session(each).id for each in range(CLIENTS)]
    mine = [each for each in range(CLIENTS) if fleet.worker_of(each) == number]
    others = [each for each in range(CLIENTS) if each not in mine]
    # No transfer beside the pulse of a client: that it fills a queue of strongSwan's is none of our workers' affair.
    pulses = [Pulse(fleet.clients[each].namespace, fleet.network.lan, LAN_HOST[4]) for each in others]
    running = [
        RunningTransfer(fleet.clients[each].namespace, fleet.network.lan, LAN_HOST[4], megabytes=20) for each in mine
    ]
    for each in running:
        each.wait_for(2 * MEGABYTE)
    kill(fleet.gateway, number)
    for each in running:
        each.result()
    for each, pulse in zip(others, pulses, strict=True):
        pulse.wait_for(51)
        counted = pulse.stop()
        assert counted.lost == 0, f"client {each}: {counted}\n{fleet.logs()}"
    after = workers(fleet.gateway)
    assert after[number].restarts == before[number].restarts + 1
    assert after[1 - number] == before[1 - number]
    assert [fleet.session(each).id for each in range(CLIENTS)] == sessions
    assert all(len(client.sas()) == 1 for client in fleet.clients)
    fleet.check_pings()


def test_the_gateway_ends_with_all_workers(fleet: Fleet) -> None:
    """Nothing of it is left: no interface, no route, no rule."""
    pids = [worker.pid for worker in workers(fleet.gateway)]
    interfaces = [worker.interface for worker in workers(fleet.gateway)]
    assert fleet.gateway.interrupt() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    links = fleet.network.gateway.run(["ip", "link"])
    assert not any(f" {name}:" in links for name in interfaces)
    assert POOL[4][:6] not in fleet.network.gateway.run(["ip", "route"])
    for client in fleet.clients:
        client.wait_until_gone(5)
