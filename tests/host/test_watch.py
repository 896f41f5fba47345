import asyncio
import time

import pytest

from ikeway.host import ChangeKind, NetworkChanged
from ikeway.host.linux import watch
from ikeway.host.linux.links import find_link
from ikeway.host.linux.netlink import Netlink
from ikeway.host.linux.watch import watch_network
from ikeway.host.namespaces import Namespace
from tests.netlab import inside, two_hosts

pytestmark = pytest.mark.root


async def seen_after(namespace: Namespace, *commands: str, own: int = 0, silent: bool = False) -> list[NetworkChanged]:
    """What the watch tells of the commands, up to a second after the first news. `silent`: there is to be none."""
    found = []

    async def listen() -> None:
        async for change in watch_network(lambda index: index == own):
            found.append(change)

    task = asyncio.create_task(listen())
    await asyncio.sleep(0.1)
    namespace.run(["sh", "-c", ";".join(commands)])
    end = time.monotonic() + (0.0 if silent else 20.0)
    while not found and time.monotonic() < end:
        await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return found


def test_a_burst_comes_as_one() -> None:
    with two_hosts() as lab:
        commands = ("ip addr add 192.168.7.1/24 dev eth0", "ip route add 10.9.0.0/16 via 192.168.7.9")
        (change,) = inside(lab.client, lambda: seen_after(lab.client, *commands))
        assert change.kinds == {ChangeKind.ADDRESSES, ChangeKind.ROUTES}
        (change,) = inside(lab.client, lambda: seen_after(lab.client, "ip link set eth0 down"))
        assert ChangeKind.LINKS in change.kinds


def test_our_own_changes_are_not_told() -> None:
    with two_hosts() as lab:

        def index() -> int:
            with Netlink() as nl:
                link = find_link(nl, "eth0")
                assert link is not None
                return link.index

        own = lab.client.call(index)
        commands = (
            "ip addr add 10.60.0.7/32 dev eth0 noprefixroute",
            "ip link set eth0 mtu 1400",
            "ip route add 10.9.0.0/16 dev eth0 table 77",
            "ip route add throw 10.8.0.0/16 table 77 proto 105",
        )
        assert inside(lab.client, lambda: seen_after(lab.client, *commands, own=own, silent=True)) == []
        assert inside(lab.client, lambda: seen_after(lab.client, "ip link add name d0 type veth", own=own)) != []


def test_resuming_from_sleep_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks that tell are played: the boot-time clock jumps ahead by ten minutes."""
    looked: list[float] = []

    def clock(which: int) -> float:
        looked.append(time.monotonic())
        jump = 600.0 if which == time.CLOCK_BOOTTIME and looked[-1] > looked[0] + 0.3 else 0.0
        return looked[-1] + jump

    monkeypatch.setattr(watch.time, "clock_gettime", clock)
    monkeypatch.setattr(watch, "_SLEEP_CHECK", 0.1)

    async def work() -> list[NetworkChanged]:
        return await seen_after(namespace, "true")

    with Namespace() as namespace:
        (change,) = inside(namespace, work)
    assert change.kinds == {ChangeKind.RESUMED}
    assert change.slept == pytest.approx(600.0, abs=20.0)
