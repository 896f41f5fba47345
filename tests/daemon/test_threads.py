import asyncio
import subprocess
import sys
import time

import pytest

from ikeway.daemon.threads import in_thread


async def test_result_and_error_come_back():
    assert await in_thread(lambda: 6 * 7) == 42
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 / 0)


async def test_who_gives_up_does_not_wait():
    task = asyncio.create_task(in_thread(lambda: time.sleep(1.5)))
    await asyncio.sleep(0.01)
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 1.2
    await asyncio.sleep(1.6)  # its late end disturbs nobody


def test_program_ends_without_waiting():
    program = """
import asyncio, time
from ikeway.daemon.threads import in_thread
async def main():
    task = asyncio.create_task(in_thread(lambda: time.sleep(60)))
    await asyncio.sleep(0.05)
    task.cancel()
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=20, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
