"""A gateway with two workers and a client of ours, as they are run."""

import os
import signal

import pytest

from tests.client.live import INNER, INNER6, SECRET, live, wait_until
from tests.netlab import GATEWAY, GATEWAY6

pytestmark = pytest.mark.root

TWO = 'workers = 2\ndata_plane = "userspace"'


@pytest.fixture
def stage(tmp_path):
    with live(tmp_path) as stage:
        yield stage


def workers(gateway):
    return gateway.call("status")["workers"]


@pytest.mark.parametrize("address", [GATEWAY, GATEWAY6])
@pytest.mark.parametrize("udp", ["true", "false"])
def test_every_way_of_carrying(stage, address, udp):
    """Protocol 50 and UDP, over IPv4 and IPv6, on both workers: the users' own addresses lie in both slices."""
    gateway = stage.gateway(network=TWO, users=("ann", "bob"))
    with (stage.folder / "users.toml").open("a") as file:
        for user, address_inside in (("cleo", "10.99.0.7"), ("dora", "10.99.0.207")):
            file.write(f'\n[users."{user}@test"]\npsk = "{SECRET}"\nipv4 = "{address_inside}"\n')
    gateway.call("reload")
    for number, user in enumerate(("cleo", "dora")):
        client = stage.client(address=address, user=user, ike=f"force_udp_encapsulation = {udp}")
        (session,) = client.call("status")["sessions"]
        assert session["children"][0]["encapsulation"] == ("udp" if udp == "true" else "esp")
        stage.ping(INNER)
        stage.ping(INNER6)
        assert [worker["sas"] for worker in workers(gateway)] == [2 * (number == 0), 2 * (number == 1)]
        client.end()
        wait_until(lambda: not sum(worker["sas"] for worker in workers(gateway)), "SAs are left", logs=stage.logs)


def test_with_names_for_the_interfaces(stage):
    gateway = stage.gateway(network=TWO + '\ninterface = "vpn"')
    stage.client()
    stage.ping(INNER)
    assert [worker["interface"] for worker in workers(gateway)] == ["vpn", "vpn-1"]


def test_one_of_two_workers_is_given_up(stage):
    """Its clients log in anew; the other worker does not notice."""
    gateway, client = stage.gateway(network=TWO), stage.client()
    number = [worker["sas"] for worker in workers(gateway)].index(2)
    other = workers(gateway)[1 - number]
    for _ in range(5):
        wait_until(lambda: workers(gateway)[number]["pid"], "a worker", logs=stage.logs)
        pid = workers(gateway)[number]["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: workers(gateway)[number]["pid"] != pid, "it is gone", logs=stage.logs)
    gateway.wait_for("it died 5 times within a minute")
    wait_until(lambda: client.logins() == 2, "connected anew", logs=stage.logs)
    wait_until(stage.ping_arrives, "traffic passes", logs=stage.logs)
    assert workers(gateway)[1 - number]["pid"] == other["pid"]
    wait_until(lambda: len(gateway.call("status")["sessions"]) == 1, "one session", logs=stage.logs)


def test_a_removed_interface_comes_back_with_its_routes(stage):
    gateway, client = stage.gateway(network=TWO), stage.client()
    number = [worker["sas"] for worker in workers(gateway)].index(2)
    other = workers(gateway)[1 - number]
    routes = stage.hosts.gateway.run(["sh", "-c", "ip route; ip -6 route | grep ikeway"])
    stage.hosts.gateway.run(["ip", "link", "delete", other["interface"]])
    gateway.wait_for("The data plane runs again")
    wait_until(
        lambda: stage.hosts.gateway.run(["sh", "-c", "ip route; ip -6 route | grep ikeway"]) == routes,
        "the routes are not back",
        logs=stage.logs,
    )
    wait_until(stage.ping_arrives, "traffic passes", logs=stage.logs)
    assert client.logins() == 1


def test_the_number_of_workers_takes_effect_with_a_restart(stage):
    gateway = stage.gateway(network=TWO)
    stage.write_gateway(network=TWO.replace("2", "3"))
    assert gateway.call("reload")["said"] == ["`workers` has changed, and takes effect with a restart"]
    assert len(workers(gateway)) == 2
