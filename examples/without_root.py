"""Fetch a page from behind a VPN, without root: only this program's connection goes through the tunnel.

python examples/without_root.py work intranet.example.com        (a profile, or the path of one; and a web server)
"""

import asyncio
import getpass
import sys

import ikeway
from ikeway.errors import IkewayError


async def main(profile: str, host: str) -> None:
    """Connect in a namespace of our own, ask for a page, and run a command there."""
    async with ikeway.connect(profile, prompt=getpass.getpass, namespace=True) as tunnel:
        print("addresses:", *(address.ip for address in tunnel.assigned.addresses))

        reader, writer = await tunnel.inside.open_connection(host, 80)
        writer.write(f"HEAD / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        print("the server says:", (await reader.readline()).decode().strip())
        writer.close()

        command = await tunnel.inside.start_command("ip", "-brief", "address")
        print("the command ended with", await command.wait())


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2]))
    except IkewayError as error:
        sys.exit(f"error: {error}")
