import asyncio
import subprocess
import sys
import threading

import pytest

from ikeway.daemon.threads import in_thread


async def test_result_and_error_come_back():
    assert await in_thread(lambda: 6 * 7) == 42
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 / 0)


async def test_who_gives_up_does_not_wait():
    typed, ended = threading.Event(), threading.Event()

    def prompt():
        typed.wait(60)
        ended.set()

    task = asyncio.create_task(in_thread(prompt))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)
    assert not ended.is_set()
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    typed.set()
    assert await asyncio.to_thread(ended.wait, 30)
    await asyncio.sleep(0.05)
    assert complaints == []  # its late end disturbs nobody


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
