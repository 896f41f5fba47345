"""Many clients at once, against a gateway as it is run: real datagrams, no tunnels on the clients' side."""

import asyncio
import dataclasses
import time

import pytest

from ikeway.address import Address
from ikeway.client.profile import load_profile
from ikeway.daemon import clock
from ikeway.daemon.loop import Driver
from ikeway.daemon.sockets import IkeSockets, Listen
from ikeway.ike import events as ike
from ikeway.ike.engine import Engine
from ikeway.ike.settings import EngineSettings, PskCredential, PskExpected
from tests.client.live import SECRET, descriptors, live, wait_until
from tests.daemon.fakes import FakeDataPlane
from tests.netlab import CLIENT, GATEWAY, inside

pytestmark = pytest.mark.root

CLIENTS = 100


async def crowd(connection, *, then_vanish):
    """Connect many times and wait until all are up; then say goodbye, or not."""
    sockets = IkeSockets(Listen(hosts=("0.0.0.0",), ike_port=0, nat_port=0))
    sockets.open()
    local = Address(CLIENT, sockets.local_port(CLIENT, nat=False))
    settings = EngineSettings(epoch=clock.epoch(), local_nat_port=sockets.local_port(CLIENT, nat=True))
    engine = Engine(settings)
    driver = Driver(engine, sockets, FakeDataPlane())
    sockets.on_datagram = driver.receive
    sockets.start()
    up, everybody, nobody = set(), asyncio.Event(), asyncio.Event()

    def on_event(event):
        if isinstance(event, ike.ChildUp):
            up.add(event.sa)
            if len(up) == CLIENTS:
                everybody.set()
        if isinstance(event, ike.IkeClosed):
            up.discard(event.sa)
            if not up:
                nobody.set()

    driver.listen(on_event)
    for _ in range(CLIENTS):
        driver.command(lambda now: engine.connect(connection, local, Address(GATEWAY, 500), now))
    async with asyncio.timeout(60):
        await everybody.wait()
        if not then_vanish:
            driver.command(engine.close_all)
            await nobody.wait()
    await driver.stop()
    sockets.close()


def test_a_hundred_logins_at_once_come_and_go(tmp_path):
    with live(tmp_path) as stage:
        # All of them share one address here; and a hundred at once have to show that it is theirs (COOKIE).
        gateway = stage.gateway(dpd="2s", network="[limits]\nhalf_open_per_address = 200")
        before = descriptors(gateway)
        profile = load_profile(stage.write_profile())
        connection = dataclasses.replace(
            profile.connection(),
            local_credential=PskCredential(SECRET.encode()),
            remote_expectation=PskExpected(SECRET.encode()),
            initial_contact=False,
            force_udp_encapsulation=True,
        )
        for then_vanish in (False, True):
            started = time.monotonic()
            inside(stage.hosts.client, lambda v=then_vanish: crowd(connection, then_vanish=v))
            print(f"{CLIENTS} clients in {time.monotonic() - started:.1f} s")
            wait_until(lambda: gateway.call("status")["sessions"] == [], "all are gone", timeout=40, logs=stage.logs)
        # An address is free again when the data plane has let go of it.
        wait_until(lambda: gateway.call("status")["pools"][0]["used"] == 0, "all addresses are free")
        assert gateway.call("status")["half_open"] == 0
        wait_until(lambda: descriptors(gateway) == before, "no descriptor is left over")
