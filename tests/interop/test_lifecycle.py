"""What happens to a tunnel after it stands: rekeying, dead peers, changes of address, deletes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.interop.agreement import Agreement, agreement
from tests.interop.lab import PAIRS, Pair, Tunnel
from tests.interop.network import CLIENT_SECOND_ADDRESS, LAN_HOST, Network, Way
from tests.interop.traffic import MEGABYTE, Pulse, RunningTransfer
from tests.interop.waiting import wait_until

pytestmark = pytest.mark.peer

Make = Callable[[Pair, Agreement], Tunnel]
every_pair = pytest.mark.parametrize("pair", PAIRS, ids=str)
each_side = pytest.mark.parametrize("by", ["client", "gateway"])
# Without MOBIKE, which would try all other addresses of the peer too before it gives up.
IMPATIENT = {"patient": False, "mobike": False}


def spi(made: Tunnel, what: str) -> str:
    """What changes with a rekeying; empty while that is under way."""
    standing = made.charon.sas()
    if len(standing) != 1 or not standing[0].installed:
        return ""  # in the middle of it
    return standing[0].initiator_spi if what == "ike" else standing[0].installed[-1].spi_in


def rekey_until(made: Tunnel, by: str, what: str, changes: int) -> None:
    """Let one side rekey so many times."""
    side = made.client if by == "client" else made.gateway
    for _ in range(changes):
        before = spi(made, what)
        side.rekey(what)
        wait_until(lambda before=before: spi(made, what) not in {before, ""}, f"no {what} rekeying", logs=made.logs)
        time.sleep(0.3)  # of traffic on what is new
        wait_until(lambda: spi(made, what) != "", "the old one does not go", logs=made.logs)


@every_pair
@each_side
@pytest.mark.parametrize("what", ["child", "ike"])
def test_rekeying_loses_no_packet(tunnel: Make, pair: Pair, by: str, what: str) -> None:
    made = tunnel(pair, agreement())
    made.client.connect()
    pulse = Pulse(made.client.namespace, made.network.lan, LAN_HOST[4])
    rekey_until(made, by, what, 3)
    pulse.wait_for(51)
    counted = pulse.stop()
    assert counted.lost == 0, f"{counted}\n{made.logs()}"


@every_pair
@each_side
@pytest.mark.parametrize("what", ["child", "ike"])
def test_rekeying_during_a_transfer(tunnel: Make, pair: Pair, by: str, what: str) -> None:
    made = tunnel(pair, agreement())
    made.client.connect()
    before = spi(made, what)
    running = RunningTransfer(made.client.namespace, made.network.lan, LAN_HOST[4], megabytes=100)
    running.wait_for(20 * MEGABYTE)
    rekey_until(made, by, what, 1)
    running.result()
    assert spi(made, what) != before
    made.check_ping()
    made.client.close()
    wait_until(lambda: made.charon.sas() == [], "strongSwan still has the SA", logs=made.logs)


@every_pair
def test_rekeying_of_everything_by_both_sides(tunnel: Make, pair: Pair) -> None:
    """Both rekey the child SA and the IKE SA on their own clocks, and meet now and then."""
    clocks = {"rekey_child": 2.0, "rekey_ike": 3.0}
    made = tunnel(pair, agreement(client=clocks, gateway=clocks))
    made.client.connect()
    pulse = Pulse(made.client.namespace, made.network.lan, LAN_HOST[4])
    time.sleep(10)
    counted = pulse.stop()
    assert counted.lost == 0, f"{counted}\n{made.logs()}"
    wait_until(lambda: [len(sa.installed) for sa in made.charon.sas()] == [1], "not one of each stands", logs=made.logs)
    made.check_ping()


@every_pair
def test_the_gateway_notices_a_killed_client(tunnel: Make, pair: Pair) -> None:
    made = tunnel(pair, agreement(gateway={"dpd": 1.0} | IMPATIENT))
    made.client.connect()
    made.check_ping()
    made.client.kill()
    made.gateway.wait_until_gone(15)


@every_pair
def test_the_client_notices_a_killed_gateway(tunnel: Make, pair: Pair) -> None:
    made = tunnel(pair, agreement(client={"dpd": 1.0} | IMPATIENT))
    made.client.connect()
    made.check_ping()
    made.gateway.kill()
    made.client.wait_until_gone(15)


@every_pair
@each_side
def test_delete(tunnel: Make, pair: Pair, by: str) -> None:
    made = tunnel(pair, agreement())
    made.client.connect()
    made.check_ping()
    closing, other = (made.client, made.gateway) if by == "client" else (made.gateway, made.client)
    closing.close()
    other.wait_until_gone(5)


@pytest.fixture
def home_address(network: Network) -> Iterator[None]:
    """Gives the client its address back."""
    yield
    network.restore_client_addresses()


@every_pair
@pytest.mark.usefixtures("home_address")
def test_the_clients_address_changes_during_a_transfer(tunnel: Make, network: Network, pair: Pair) -> None:
    """MOBIKE: another address on the same link; the first one goes."""
    made = tunnel(pair, agreement())
    made.client.connect()
    running = RunningTransfer(network.client, network.lan, LAN_HOST[4], megabytes=made.megabytes)
    running.wait_for(made.megabytes // 10 * MEGABYTE)
    network.ip(network.client, f"address add {CLIENT_SECOND_ADDRESS}/24 dev wan")
    network.ip(network.client, f"address delete {Way.WAN.client}/24 dev wan")
    running.result()

    def has_moved() -> bool:
        sa = made.sa()
        return Way.WAN.client not in {sa.local_host, sa.remote_host}

    # Where the machine is fast and `ip` slow, all had arrived before the address went.
    wait_until(has_moved, "it has not moved", logs=made.logs)
    made.check_ping()
    assert made.charon.log().count("generating IKE_SA_INIT") + made.charon.log().count("parsed IKE_SA_INIT") == 2, (
        "the client logged in anew"
    )
