"""Engine, sockets and data plane together. Devices are made by the test, as an enclave makes them."""

import asyncio
import os
import signal
import socket

import pytest

from ikeway.daemon import runner as runners
from ikeway.daemon.runner import Runner, RunnerSettings
from ikeway.daemon.sockets import Listen
from ikeway.dataplane.userspace import plane
from ikeway.dataplane.userspace.sharded import ShardedDataPlane
from ikeway.errors import HostError
from ikeway.host.tun import TunDevice

SETTINGS = RunnerSettings(
    listen=Listen(hosts=("127.0.0.1",), ike_port=0, nat_port=0), interface="vpn", esp_protocol=False
)


def device(insides):
    inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    inside.setblocking(False)
    outside.setblocking(False)
    insides.append(inside)
    return TunDevice(outside.detach(), "vpn")


async def test_a_device_elsewhere_is_made_anew_when_nobody_holds_the_old_one(monkeypatch):
    """A name of the profile's can be had only once. The first try fails, as it may."""
    monkeypatch.setattr(plane, "_MOST_DEATHS", 1)
    insides, refusals = [], [HostError("the enclave is busy")]

    async def open_device(name):
        if insides:
            assert insides[-1].recv(1) == b"", "the old device is held still"
            if refusals:
                raise refusals.pop()
        return device(insides)

    runner = Runner(SETTINGS, open_device)
    died = asyncio.Event()
    runner.on_dataplane_died = lambda event: died.set()
    await runner.start()
    try:
        pid = runner.worker_states()[0].pid
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(died.wait(), 20)
        with pytest.raises(HostError, match="busy"):
            await runner.restart_dataplane()
        assert await runner.restart_dataplane()
        assert runner.worker_states()[0].pid not in {None, pid}
        assert await runner.counters()
    finally:
        await runner.stop()
        for each in insides:
            each.close()


async def test_a_new_device_is_told_of_though_the_first_worker_on_it_cannot_start(monkeypatch):
    """Else nobody would give it its routes."""
    insides, there, restart = [], [], ShardedDataPlane.restart
    monkeypatch.setattr(runners, "open_tun", lambda name: device(insides))
    monkeypatch.setattr(socket, "if_nameindex", lambda: there)

    async def restart_at_the_second_try(self, worker, tun=None):
        if not there:
            there.append((1, "vpn"))
            tun.close()
            raise HostError("no descriptors are left")
        await restart(self, worker, tun)

    monkeypatch.setattr(ShardedDataPlane, "restart", restart_at_the_second_try)
    runner = Runner(SETTINGS)
    await runner.start()
    try:
        with pytest.raises(HostError, match="no descriptors"):
            await runner.restart_dataplane()
        runner.dataplane._planes[0]._tun = runners._duplicate(runner._tuns[0])  # as the real one has kept it
        assert await runner.restart_dataplane()
        assert not await runner.restart_dataplane()
    finally:
        await runner.stop()
        for each in insides:
            each.close()
