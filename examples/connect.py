"""Connect with a profile, say what the gateway gave us, and leave again.

sudo python examples/connect.py work            (or the path of a profile; see `ikeway reference profile`)
"""

import asyncio
import getpass
import sys

import ikeway
from ikeway.errors import IkewayError


async def main(profile: str) -> None:
    """Connect, look around, leave."""
    async with ikeway.connect(profile, prompt=getpass.getpass, tell=lambda step: print(f"  {step.text}")) as tunnel:
        print("addresses:", *(address.ip for address in tunnel.assigned.addresses))
        print("networks: ", *(tunnel.configuration.routes if tunnel.configuration else ()))
        # Here every program of this host uses the tunnel. When the connection is lost, it is made anew by itself.
        await asyncio.sleep(3)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1]))
    except IkewayError as error:
        sys.exit(f"error: {error}")
