"""Finds the running clients and gateways that a command is about."""

from __future__ import annotations

import time
from pathlib import Path

from ikeway.daemon.control import Instance, Role, running, socket_path
from ikeway.errors import HostError

_GONE_SECONDS = 30.0


def clients(name: str | None, *, everything: bool = False) -> list[Instance]:
    """The client of that name (or path of a profile); without one the only one, or all. Raises `HostError`."""
    if name is not None and not everything:
        name = Path(name).stem if "/" in name or name.endswith(".toml") else name
        return [Instance("client", name, socket_path("client", name))]
    found = running("client")
    return found if everything else [_only(found, "client")]


def gateway(name: str | None) -> Instance:
    """The gateway of that name; without one the only one. Raises `HostError`."""
    if name is not None:
        name = Path(name).stem if "/" in name or name.endswith(".toml") else name
        return Instance("gateway", name, socket_path("gateway", name))
    return _only(running("gateway"), "gateway")


def wait_until_gone(instance: Instance) -> None:
    """Wait until it has ended, which is when its socket goes. Raises `HostError` when it does not."""
    end = time.monotonic() + _GONE_SECONDS
    while instance.path.exists():
        if time.monotonic() > end:
            raise HostError(f"the {instance.role} {instance.name} does not end", remedy="see its log, or kill it")
        time.sleep(0.02)


def _only(found: list[Instance], role: Role) -> Instance:
    if len(found) == 1:
        return found[0]
    if not found:
        start = "ikeway up PROFILE" if role == "client" else "ikeway gateway run"
        raise HostError(f"no {role} runs", remedy=f"start one with `{start}`, or run this as the user who did")
    names = ", ".join(each.name for each in found)
    raise HostError(f"several {role}s run: {names}", remedy="name one of them")
