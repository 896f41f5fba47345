"""`ikeway gateway run`: a gateway as a process, with its control socket."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ikeway.config.errors import all_errors
from ikeway.config.secrets import Prompt
from ikeway.daemon.control import socket_path
from ikeway.daemon.service import Ready, run_service
from ikeway.errors import ConfigError, IkewayError
from ikeway.gateway.config import GatewayConfig
from ikeway.gateway.control import GatewayControl
from ikeway.gateway.server import Gateway, Observe

log = logging.getLogger("ikeway.gateway")


async def run_gateway(
    config: GatewayConfig,
    *,
    prompt: Prompt | None = None,
    observers: Sequence[Observe] = (),
    on_ready: Ready = lambda: None,
) -> None:
    """Serve until a signal or an error ends it; raises that error. SIGHUP reads the configuration anew.

    Once it serves, the whole process gives up the rights that it does not need any more. To go on in the background,
    run this in `ikeway.daemon.service.run_detached`.
    """
    control = GatewayControl()
    gateway = Gateway(config, prompt=prompt, observers=(*observers, control.observe), drop_privileges=True)
    control.attach(gateway)
    await run_service(
        gateway,
        socket=socket_path("gateway", config.path.stem),
        commands=control.commands,
        on_ready=on_ready,
        on_hangup=lambda: _reload(gateway),
    )


async def _reload(gateway: Gateway) -> None:
    try:
        said = await gateway.reload()
    except ConfigError as error:
        for each in all_errors(error):
            log.error("The configuration was not read anew: %s", each)
    except IkewayError as error:
        log.error("The new configuration could not be carried out: %s", error)
    else:
        log.info("The configuration was read anew")
        for line in said:
            log.warning("%s", line)
