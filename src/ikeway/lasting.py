"""Work that is carried to its end, also when who asked for it waits no longer: cut off in the middle, nobody would know what
stands."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Lasting:
    """The work of one owner, on one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """How much is under way."""
        return len(self._tasks)

    async def carry_out(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do it and give what it comes to. Who is cancelled meanwhile leaves it at work."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def settle(self) -> None:
        """Wait for what is under way, however it ends."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
