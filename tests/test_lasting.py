"""Work that outlives who asked for it."""

from __future__ import annotations

import asyncio

import pytest

from ikeway.lasting import Lasting


async def test_work_goes_on_when_nobody_waits_for_it_any_longer() -> None:
    lasting, may_end, done = Lasting(), asyncio.Event(), []

    async def work() -> None:
        await may_end.wait()
        done.append(True)

    asking = asyncio.create_task(lasting.carry_out(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert len(lasting) == 1 and not done
    may_end.set()
    await lasting.settle()
    assert done and len(lasting) == 0


async def test_who_waits_has_the_result_or_the_error() -> None:
    async def divide(by: int) -> int:
        return 6 // by

    lasting = Lasting()
    assert await lasting.carry_out(divide(3)) == 2
    with pytest.raises(ZeroDivisionError):
        await lasting.carry_out(divide(0))
