"""`ikeway up`: a client as a process, with its control socket."""

from __future__ import annotations

from collections.abc import Sequence

from ikeway.client.client import Client, Observe, Tell
from ikeway.client.control import ClientControl
from ikeway.client.profile import Profile
from ikeway.config.secrets import Prompt
from ikeway.daemon.control import socket_path
from ikeway.daemon.service import Ready, run_service


async def up(
    profile: Profile,
    *,
    prompt: Prompt | None = None,
    tell: Tell = lambda progress: None,
    observers: Sequence[Observe] = (),
    on_ready: Ready = lambda: None,
) -> None:
    """Connect and stay connected until a signal, `ikeway down` or an error ends it. Raises that error.

    Once connected, the whole process gives up the rights that it does not need any more. To go on in the background,
    run this in `ikeway.daemon.service.run_detached`.
    """
    control = ClientControl()
    client = Client(profile, prompt=prompt, tell=tell, observers=(*observers, control.observe), drop_privileges=True)
    control.attach(client)
    await run_service(client, socket=socket_path("client", profile.name), commands=control.commands, on_ready=on_ready)
