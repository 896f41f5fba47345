"""Serve a gateway's configuration, and say all the time who is connected, until Ctrl-C.

sudo python examples/gateway.py gateway.toml    (see `ikeway reference gateway`)
"""

import asyncio
import signal
import sys

import ikeway
from ikeway.errors import IkewayError


async def main(config: str) -> None:
    """Serve until a signal."""
    async with ikeway.Gateway(config) as gateway:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: asyncio.ensure_future(gateway.close()))
        print(f"serving on {gateway.interface}", flush=True)
        reporting = asyncio.create_task(report(gateway))
        await gateway.wait()
        reporting.cancel()


async def report(gateway: ikeway.Gateway) -> None:
    """Print the sessions, again and again."""
    while True:
        for session in await gateway.sessions():
            carried = sum(child.octets_in + child.octets_out for child in session.children)
            print(f"{session.remote_identity} at {session.remote}: {', '.join(session.addresses)}, {carried} octets")
        sys.stdout.flush()
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1]))
    except IkewayError as error:
        sys.exit(f"error: {error}")
