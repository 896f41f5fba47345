"""`ikeway up`: a signal ends it, whenever it comes."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import cast

import pytest

from ikeway.cli.up import start_client
from ikeway.client.client import Client


class Stubborn:
    """A client below which somebody swallows the cancellation."""

    def __init__(self) -> None:
        self.closed = False

    async def start(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(5)

    async def close(self) -> None:
        self.closed = True


def test_a_signal_that_got_lost_on_the_way_still_ends_it() -> None:
    client = Stubborn()
    assert asyncio.run(start_client(cast(Client, client))) is False
    assert client.closed
