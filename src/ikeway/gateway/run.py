"""`ikeway gateway run`: a gateway as a process, with its control socket."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from ikeway.config.errors import all_errors
from ikeway.config.secrets import Prompt
from ikeway.daemon.control import Broadcast, Command, socket_path
from ikeway.daemon.service import Ready, rekey_sa, run_service
from ikeway.errors import ConfigError, HostError, IkewayError
from ikeway.gateway.config import GatewayConfig
from ikeway.gateway.server import Gateway, Observe, user_of
from ikeway.ike import events as ike

log = logging.getLogger("ikeway.gateway")

Arguments = Mapping[str, Any]


async def run_gateway(
    config: GatewayConfig,
    *,
    prompt: Prompt | None = None,
    observers: Sequence[Observe] = (),
    on_ready: Ready = lambda: None,
) -> None:
    """Serve until a signal or an error ends it; raises that error. SIGHUP reads the configuration anew.

    Once it serves, the whole process gives up the rights that it does not need any more.
    """
    broadcast = Broadcast()
    gateway = Gateway(config, prompt=prompt, observers=observers, drop_privileges=True)

    async def reload() -> None:
        try:
            for line in await gateway.reload():
                log.warning("%s", line)
        except ConfigError as error:
            for each in all_errors(error):
                log.error("The configuration was not read anew: %s", each)
        except IkewayError as error:
            log.error("The new configuration could not be carried out: %s", error)
        else:
            log.info("The configuration was read anew")

    def begin() -> None:
        gateway.runner.driver.listen(lambda event: _publish(broadcast, event))
        on_ready()

    await run_service(
        gateway,
        socket=socket_path("gateway", config.path.stem),
        commands=gateway_commands(gateway, broadcast),
        on_ready=begin,
        on_hangup=reload,
    )


def gateway_commands(gateway: Gateway, broadcast: Broadcast) -> dict[str, Command]:
    """What the control socket of a gateway understands.

    `status`; `stop`; `reload`: lines for people; `disconnect` and `rekey` with `id` of a session, or `user`; `rekey`
    also with `what`: "child" (default) or "ike"; `watch`: a stream of who comes and goes.
    """

    async def status(arguments: Arguments) -> dict[str, Any]:
        return (await gateway.status()).to_json()

    async def stop(arguments: Arguments) -> None:
        await gateway.close()

    async def reload(arguments: Arguments) -> list[str]:
        return await gateway.reload()

    async def disconnect(arguments: Arguments) -> int:
        wanted = _wanted(gateway, arguments)
        for number in wanted:
            gateway.disconnect(number)
        return len(wanted)

    async def rekey(arguments: Arguments) -> int:
        wanted = _wanted(gateway, arguments)
        for sa in [sa for sa in gateway.established() if sa.connection_id in wanted]:
            rekey_sa(gateway.runner.driver, sa, str(arguments.get("what", "child")))
        return len(wanted)

    def watch(arguments: Arguments) -> AsyncGenerator[Any, None]:
        return broadcast.listen()

    return {
        "status": status,
        "stop": stop,
        "reload": reload,
        "disconnect": disconnect,
        "rekey": rekey,
        "watch": watch,
    }


def _wanted(gateway: Gateway, arguments: Arguments) -> list[int]:
    """The sessions that a command is about. Raises `HostError` when there are none."""
    number, user = arguments.get("id"), arguments.get("user")
    if number is None and user is None:
        raise IkewayError("it is not said which session", expected="`id` or `user`")
    found = [
        sa.connection_id
        for sa in gateway.established()
        if sa.connection_id == number or (user is not None and user_of(sa) == user)
    ]
    if not found:
        which = f"number {number}" if user is None else f"user {user}"
        raise HostError(f"there is no session of {which}", remedy="see `ikeway gateway status`")
    return found


def _publish(broadcast: Broadcast, event: ike.Event) -> None:
    match event:
        case ike.IkeEstablished(sa=sa):
            broadcast.publish({"event": "up", "id": sa.connection_id, "user": user_of(sa), "remote": str(sa.remote)})
        case ike.IkeClosed(sa=sa, error=error, established=True):
            text = str(error) if error is not None else ""
            broadcast.publish({"event": "down", "id": sa.connection_id, "user": user_of(sa), "text": text})
        case ike.Refused(remote=remote, error=error):
            broadcast.publish({"event": "refused", "remote": str(remote), "text": str(error)})
