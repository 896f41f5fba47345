"""`connect`: a tunnel to a gateway as an async context manager."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ikeway.client.client import Client, Progress, Tell
from ikeway.client.enclave.enclave import Enclave
from ikeway.client.profile import Profile, load_profile
from ikeway.config.secrets import Prompt
from ikeway.daemon.threads import in_thread

__all__ = ["Client", "Progress", "connect"]


@asynccontextmanager
async def connect(
    profile: Profile | str | Path,
    *,
    prompt: Prompt | None = None,
    tell: Tell = lambda progress: None,
    namespace: bool = False,
) -> AsyncIterator[Client]:
    """A tunnel to a gateway while the block runs. `profile` may be its name or the path of its file.

        async with ikeway.connect("work") as tunnel:
            print(tunnel.assigned.addresses)

    It is made anew by itself when it is lost; `tell` hears of that, and of each step. `prompt` asks a person for what
    the profile does not hold (`getpass.getpass`).

    With `namespace`, no root is needed and this host stays as it is: the tunnel stands in a network namespace of its
    own, which `tunnel.inside` leads to (`ikeway.client.enclave.enclave.Enclave`):

        async with ikeway.connect("work", namespace=True) as tunnel:
            reader, writer = await tunnel.inside.open_connection("intranet.example.com", 80)
            command = await tunnel.inside.start_command("ssh", "db1", "uptime")
            print(await command.wait())

    Raises `ConfigError` for a mistake in the profile, `HostError` for what this host refuses, and `PeerError` for what
    the gateway does (`AuthenticationFailed`, `NegotiationFailed`, `PeerUnreachable`).
    """
    if not isinstance(profile, Profile):
        profile = await in_thread(functools.partial(load_profile, profile, prompt))
    enclave = await Enclave.start() if namespace else None
    client = Client(profile, prompt=prompt, tell=tell, enclave=enclave)
    try:
        await client.start()
        yield client
    finally:
        await client.close()
        if enclave is not None:
            await enclave.close()
