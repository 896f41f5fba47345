"""`ikeway up`: a signal ends it, whenever it comes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import cast

import pytest

from ikeway.cli.attended import start_client
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


class HungUp:
    """A client whose terminal goes away while it starts."""

    async def start(self) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.1)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(("before", "stays"), [(signal.SIG_IGN, True), (signal.SIG_DFL, False)], ids=["nohup", "plain"])
def test_the_end_of_the_terminal_ends_it_unless_nohup_has_started_it(before: signal.Handlers, stays: bool) -> None:
    kept = signal.signal(signal.SIGHUP, before)
    try:
        assert asyncio.run(start_client(cast(Client, HungUp()))) is stays
    finally:
        signal.signal(signal.SIGHUP, kept)


def test_a_reader_of_the_steps_that_goes_away_does_not_end_it() -> None:
    """`ikeway up work | head`, or a terminal that was closed."""
    steps = "show('sent', 'one'); input(); show('sent', 'two'); show('sent', 'three'); print('on', file=sys.stderr)"
    code = f"import sys; from ikeway.cli.progress import terminal_show; show = terminal_show(); {steps}"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stdin and process.stderr
        assert process.stdout.readline().split() == ["sent", "one"]
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr.read() == "on\n"
        assert process.wait(10) == 0
