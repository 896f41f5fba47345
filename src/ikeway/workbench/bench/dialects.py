"""A vendor's dialect as a knob: with what is usual for it. What is not certain about it is set in a profile's or a gateway's
file, which bring their dialects along."""

from __future__ import annotations

from ikeway.config import dialects
from ikeway.dialects import Dialect
from ikeway.errors import ConfigError

CLIENTS = ("anyconnect", "fortigate", "windows", "azure")
GATEWAYS = ("anyconnect",)


def client_dialect(name: str) -> Dialect:
    """What a client of this vendor says. Raises `ConfigError`."""
    match name:
        case "anyconnect":
            options = dialects.client_options(dialects.AnyConnectClientSection(), "workbench")
            return dialects.anyconnect_client(options)
        case "fortigate":
            return dialects.fortigate_client(dialects.fortigate_options(dialects.FortiGateSection(), "workbench", ""))
        case "windows" | "azure":
            return dialects.microsoft_client(name)
    raise _unknown(name, CLIENTS)


def gateway_dialect(name: str) -> Dialect:
    """What a gateway of this vendor says. Raises `ConfigError`."""
    if name == "anyconnect":
        return dialects.gateway_dialect(dialects.gateway_options(dialects.AnyConnectGatewaySection(), (), (), None))
    raise _unknown(name, GATEWAYS)


def _unknown(name: str, known: tuple[str, ...]) -> ConfigError:
    return ConfigError(
        f"no dialect is called {name[:40]!r}", expected=" or ".join(known), remedy="see docs/dialects.md"
    )
