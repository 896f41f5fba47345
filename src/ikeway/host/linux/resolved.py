"""DNS by systemd-resolved over D-Bus (org.freedesktop.resolve1(5)): servers and domains belong to one interface.

resolved forgets them with the interface, so a killed process leaves nothing behind here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ikeway.errors import HostError
from ikeway.host.journal import Change
from ikeway.host.linux.links import find_link, require_link
from ikeway.host.linux.netlink import Netlink
from ikeway.host.processes import namespace_name, network_namespace

if TYPE_CHECKING:
    from dbus_fast.aio import MessageBus

_SOCKET = Path("/run/dbus/system_bus_socket")
_NAME = "org.freedesktop.resolve1"
_PATH = "/org/freedesktop/resolve1"
_MANAGER = "org.freedesktop.resolve1.Manager"
_RUNTIME = Path("/run/systemd/resolve")
# For the bus, and for resolved: what else is to be done or undone does not wait for one that hangs.
_ANSWER_SECONDS = 5.0
_STUBS = ("nameserver 127.0.0.53", "nameserver 127.0.0.54")


@dataclass(frozen=True, slots=True)
class LinkDnsSet(Change):
    """DNS servers and domains of an interface. A domain that begins with "~" routes queries without being searched;
    "~." stands for all names."""

    interface: str
    servers: tuple[str, ...]
    domains: tuple[str, ...]

    async def make(self, others: tuple[Change, ...]) -> None:
        """Tell resolved."""
        with Netlink() as nl:
            index = require_link(nl, self.interface).index
        servers = [[_family(server), ip_address(server).packed] for server in self.servers]
        domains = [[domain.removeprefix("~"), domain.startswith("~")] for domain in self.domains]
        async with _bus() as bus:
            await _call(bus, "SetLinkDNS", "ia(iay)", [index, servers])
            await _call(bus, "SetLinkDomains", "ia(sb)", [index, domains])
            await _call(bus, "SetLinkDefaultRoute", "ib", [index, "~." in self.domains])
            await _call(bus, "FlushCaches", "", [])

    async def undo(self, others: tuple[Change, ...]) -> None:
        """Have resolved forget it, unless the interface is gone and resolved has forgotten already."""
        with Netlink() as nl:
            link = find_link(nl, self.interface)
        if link is None:
            return
        async with _bus() as bus:
            await _call(bus, "RevertLink", "i", [link.index])
            await _call(bus, "FlushCaches", "", [])

    def __str__(self) -> str:
        """Say what it does."""
        return f"set DNS of {self.interface} to {', '.join(self.servers)} (systemd-resolved)"


async def is_in_charge(
    resolv_conf: Path = Path("/etc/resolv.conf"), nsswitch: Path = Path("/etc/nsswitch.conf")
) -> bool:
    """True when systemd-resolved runs, programs ask it, and it sees our interfaces (same network namespace)."""
    if not _has_bus() or namespace_name() or network_namespace(1) not in (None, network_namespace()):
        return False
    if not _is_asked(resolv_conf, nsswitch):
        return False
    try:
        async with _bus() as bus:
            return bool(await _call(bus, "NameHasOwner", "s", [_NAME], to_bus=True))
    except HostError:
        return False


def _is_asked(resolv_conf: Path, nsswitch: Path) -> bool:
    """resolv.conf leads to resolved, or the C library asks it directly (nss-resolve)."""
    with contextlib.suppress(OSError):
        if resolv_conf.resolve().is_relative_to(_RUNTIME):
            return True
        if any(line.strip() in _STUBS for line in resolv_conf.read_text(errors="replace").splitlines()):
            return True
    with contextlib.suppress(OSError):
        for line in nsswitch.read_text(errors="replace").splitlines():
            if line.startswith("hosts:") and "resolve" in line.split():
                return True
    return False


@contextlib.asynccontextmanager
async def _bus() -> AsyncIterator[MessageBus]:
    from dbus_fast import BusType  # a tenth of a second to import, and only needed with resolved
    from dbus_fast.aio import MessageBus

    bus = MessageBus(bus_address=_address(), bus_type=BusType.SYSTEM)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await bus.connect()
    except TimeoutError as error:
        bus.disconnect()
        raise HostError("the system bus does not answer", remedy="check that dbus runs") from error
    except Exception as error:
        raise HostError(f"cannot reach the system bus: {error}", remedy="check that dbus runs") from error
    try:
        yield bus
    finally:
        bus.disconnect()


async def _call(bus: MessageBus, member: str, signature: str, body: list[Any], *, to_bus: bool = False) -> Any:  # noqa: ANN401
    """Call a method of resolved, or of the bus itself; return its first result."""
    from dbus_fast import Message, MessageType

    target = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
    destination, path, interface = target if to_bus else (_NAME, _PATH, _MANAGER)
    message = Message(
        destination=destination, path=path, interface=interface, member=member, signature=signature, body=body
    )
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            reply = await bus.call(message)
    except TimeoutError as error:
        raise HostError(
            f"systemd-resolved does not answer {member}", remedy="see journalctl -u systemd-resolved"
        ) from error
    if reply is None or reply.message_type is MessageType.ERROR:
        reason = str(reply.body[0]) if reply is not None and reply.body else "no reply"
        raise HostError(f"systemd-resolved refused {member}: {reason}", remedy="see journalctl -u systemd-resolved")
    return reply.body[0] if reply.body else None


def _has_bus() -> bool:
    return bool(_address()) or _SOCKET.exists()


def _address() -> str | None:
    return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")


def _family(address: str) -> int:
    return socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
