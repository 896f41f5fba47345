import asyncio
import os

from ikeway.daemon import clock


async def test_timer_rings_once_at_its_time():
    rung = []
    first = asyncio.Event()
    timer = clock.BoottimeTimer(lambda: (rung.append(clock.now()), first.set()))
    at = clock.now() + 0.05
    timer.set(at)
    await asyncio.wait_for(first.wait(), 10)
    await asyncio.sleep(0.1)
    timer.close()
    assert len(rung) == 1
    assert at <= rung[0]


async def test_timer_in_the_past_rings_at_once():
    rung = asyncio.Event()
    timer = clock.BoottimeTimer(rung.set)
    timer.set(0.0)
    await asyncio.wait_for(rung.wait(), 10)
    timer.close()


async def test_timer_can_be_set_again_and_called_off():
    rung = []
    timer = clock.BoottimeTimer(lambda: rung.append(1))
    timer.set(clock.now() + 0.02)
    timer.set(None)
    await asyncio.sleep(0.06)
    assert not rung
    timer.set(clock.now() + 0.02)
    await asyncio.sleep(0.06)
    assert rung == [1]
    timer.set(clock.now() + 0.02)  # the same machinery again after it rang
    await asyncio.sleep(0.06)
    assert rung == [1, 1]
    timer.close()
    timer.close()


async def test_timer_leaks_no_descriptor():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        clock.BoottimeTimer(lambda: None).close()
    assert len(os.listdir("/proc/self/fd")) == before
