"""`ikeway up`: a client as a process, with its control socket."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from ikeway.client.client import Client, Observe, Progress, Tell
from ikeway.client.profile import Profile
from ikeway.config.secrets import Prompt
from ikeway.daemon.control import Broadcast, Command, socket_path
from ikeway.daemon.service import Ready, rekey_sa, run_service
from ikeway.errors import HostError

Arguments = Mapping[str, Any]


async def up(
    profile: Profile,
    *,
    prompt: Prompt | None = None,
    tell: Tell = lambda progress: None,
    observers: Sequence[Observe] = (),
    on_ready: Ready = lambda: None,
) -> None:
    """Connect and stay connected until a signal, `ikeway down` or an error ends it. Raises that error.

    Once connected, the whole process gives up the rights that it does not need any more.
    """
    broadcast = Broadcast()

    def tell_all(progress: Progress) -> None:
        tell(progress)
        broadcast.publish({"event": progress.step, "text": progress.text})

    client = Client(profile, prompt=prompt, tell=tell_all, observers=observers, drop_privileges=True)
    await run_service(
        client,
        socket=socket_path("client", profile.name),
        commands=client_commands(client, broadcast),
        on_ready=on_ready,
    )


def client_commands(client: Client, broadcast: Broadcast) -> dict[str, Command]:
    """What the control socket of a client understands.

    `status`; `down`; `reconnect`; `rekey` with `what`: "child" (default), "ike" or "login" (reauthenticate);
    `watch`: a stream of progress.
    """

    async def status(arguments: Arguments) -> dict[str, Any]:
        return (await client.status()).to_json()

    async def down(arguments: Arguments) -> None:
        await client.close()

    async def reconnect(arguments: Arguments) -> None:
        client.reconnect()

    async def rekey(arguments: Arguments) -> None:
        if client.link is None:
            raise HostError("there is no connection at the moment", remedy="wait until it is up again")
        rekey_sa(client.runner.driver, client.link.sa, str(arguments.get("what", "child")))

    def watch(arguments: Arguments) -> AsyncGenerator[Any, None]:
        return broadcast.listen()

    return {"status": status, "down": down, "reconnect": reconnect, "rekey": rekey, "watch": watch}
