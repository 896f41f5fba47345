"""A client as the commands run it: steered through its control socket, watched, and ended by a signal."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ikeway.client.client import Client
from ikeway.client.control import ClientControl
from ikeway.daemon.control import ControlServer, socket_path
from ikeway.errors import HostError

if TYPE_CHECKING:
    from ikeway.cli.progress import Steps
    from ikeway.client.enclave.enclave import Enclave
    from ikeway.client.profile import Profile
    from ikeway.config.secrets import Prompt
    from ikeway.daemon.trace import Trace
    from ikeway.dataplane.userspace.launch import Launched

_MOST_OF_A_PROFILE = 64  # that run at the same time in enclaves; on the host, one


@contextlib.asynccontextmanager
async def attended(
    profile: Profile,
    steps: Steps,
    trace: Trace,
    prompt: Prompt | None,
    *,
    enclave: Enclave | None = None,
    launched: Launched | None = None,
) -> AsyncIterator[Client]:
    """A client that `start_client` is yet to start; closed at the end, and its control socket with it."""
    control = ClientControl()
    server = await _serve_control(profile.name, control, most=1 if enclave is None else _MOST_OF_A_PROFILE)
    try:
        client = Client(
            dataclasses.replace(profile, name=server.name),  # what `ikeway status` shows and `ikeway down` takes
            prompt=prompt,
            tell=steps.tell,
            observers=[trace.observe, steps.observe, control.observe],
            drop_privileges=True,
            enclave=enclave,
            launched=launched,
        )
        control.attach(client)
        try:
            yield client
        finally:
            await client.close()
    finally:
        await server.close()


async def _serve_control(name: str, control: ClientControl, most: int) -> ControlServer:
    """A control socket named after the profile; a number is added when another one of it runs."""
    for number in range(1, most + 1):
        server = ControlServer(socket_path("client", name if number == 1 else f"{name}-{number}"), control.commands)
        try:
            await server.start()
        except HostError:
            if number == most or not server.path.exists():
                raise
        else:
            return server
    raise AssertionError("the last try returns or raises")


async def start_client(client: Client) -> bool:
    """Start, and end it when a signal says so. False when that was before it was up."""
    starting = asyncio.create_task(client.start())
    interrupted = False
    closing: list[asyncio.Task[None]] = []

    def stop() -> None:
        nonlocal interrupted
        interrupted = not starting.done()
        if interrupted:
            starting.cancel()
        elif not closing:
            closing.append(asyncio.create_task(client.close()))

    survives_its_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup(1)
    for number in (signal.SIGINT, signal.SIGTERM, *(() if survives_its_terminal else (signal.SIGHUP,))):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await starting
    except asyncio.CancelledError:
        if not interrupted:
            raise
        return False
    if interrupted:  # it came up all the same: something below has swallowed the cancellation
        await client.close()
    return not interrupted


def describe(client: Client) -> str:
    """What is up, in one line."""
    configuration = client.configuration
    addresses = ", ".join(str(each.ip) for each in configuration.addresses) if configuration is not None else ""
    routes = ", ".join(map(str, configuration.routes)) if configuration is not None else ""
    return (
        f"{client.profile.name} is up: {addresses or 'no address'} on {client.interface}, for {routes or 'no networks'}"
    )
