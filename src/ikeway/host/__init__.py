"""The host: interfaces, addresses, routes, DNS, firewall and namespaces, and undoing all of it.

`open_host_network()` gives the implementation for this operating system; `recover_stale()` undoes what a killed
process has left. Everything else here are values and pure functions.
"""

from __future__ import annotations

import sys

from ikeway.errors import HostError
from ikeway.host.checks import check_rights, user_namespaces_allowed
from ikeway.host.interface import (
    ChangeKind,
    GatewayConfiguration,
    HostNetwork,
    IpAddress,
    IpInterface,
    IpNetwork,
    NetworkChanged,
    TunnelConfiguration,
)
from ikeway.host.journal import Recovered
from ikeway.host.paths import runtime_directory

__all__ = [
    "ChangeKind",
    "GatewayConfiguration",
    "HostNetwork",
    "IpAddress",
    "IpInterface",
    "IpNetwork",
    "NetworkChanged",
    "Recovered",
    "TunnelConfiguration",
    "check_rights",
    "open_host_network",
    "recover_stale",
    "runtime_directory",
    "user_namespaces_allowed",
]


def open_host_network() -> HostNetwork:
    """The host's network settings for one connection or gateway. Nothing is changed yet."""
    if sys.platform != "linux":
        raise HostError(f"tunnels are not supported on {sys.platform} yet", expected="Linux")
    from ikeway.host.linux.network import LinuxHostNetwork

    return LinuxHostNetwork()


async def recover_stale() -> list[Recovered]:
    """Undo what killed processes have left on this host. Call it once at the start, before `open_host_network`."""
    if sys.platform != "linux":
        return []
    from ikeway.host.journal import recover_stale as recover_journals
    from ikeway.host.linux import network, xfrm_changes  # noqa: F401  the kinds of changes, to read them
    from ikeway.host.linux.dns import recover_resolv_conf

    return [*await recover_journals(), *recover_resolv_conf()]
