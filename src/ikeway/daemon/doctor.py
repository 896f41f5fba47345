"""Looks at this host: what a client, a gateway and a fast data plane need, and how to get what is missing."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass

from cryptography.hazmat.backends.openssl import backend

from ikeway import native
from ikeway.dataplane.choice import kernel_support
from ikeway.host import abilities, userns
from ikeway.host.checks import Check, Use

_LIBRARIES = ("ikeway", "cryptography", "numpy", "pydantic")
_PORTS = (500, 4500)


@dataclass(frozen=True, slots=True)
class Examination:
    """All checks, and what they come to."""

    checks: tuple[Check, ...]

    def possible(self, use: Use) -> bool:
        """True when nothing that this use needs is missing."""
        return all(check.ok for check in self.checks if use in check.uses)

    @property
    def client(self) -> bool:
        """True when one can connect from here, for the whole host or for a program."""
        return self.possible(Use.CLIENT) or self.possible(Use.ROOTLESS)


async def examine() -> Examination:
    """Look at everything. Takes some tenths of a second, leaves nothing behind. For a program with one thread."""
    support = userns.probe()
    return Examination(
        (
            abilities.system(),
            _software(),
            abilities.rights(),
            abilities.tun_device(),
            abilities.user_namespaces(support),
            abilities.clock(),
            abilities.randomness(),
            await abilities.name_servers(),
            abilities.ipv6(),
            *map(abilities.port, _PORTS),
            abilities.forwarding(),
            abilities.firewall(),
            abilities.processor(),
            _native_core(),
            abilities.tun_offloads(),
            abilities.udp_offloads(),
            _kernel_esp(),
        )
    )


def _software() -> Check:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES]
    return Check(
        "software", True, f"Python {platform.python_version()}, {backend.openssl_version_text()}, {', '.join(versions)}"
    )


def _native_core() -> Check:
    status = native.status()
    detail, _, remedy = status.detail.partition(": ") if not status.used else (status.detail, "", "")
    return Check("native core", status.used, detail, remedy, (Use.SPEED,))


def _kernel_esp() -> Check:
    support = kernel_support()
    if support.isolated:
        return Check("kernel ESP", True, 'with xfrm interfaces: taken for `data_plane = "auto"`', uses=(Use.SPEED,))
    remedy = "\n".join(dict.fromkeys(each.remedy for each in support.missing))
    wholly = "" if not support.available else ' (`data_plane = "kernel"` works, for the whole host)'
    return Check(
        "kernel ESP",
        False,
        f"{support}{wholly}",
        f"{remedy}\nor do without: ESP in userspace needs none of it",
        (Use.SPEED,),
    )
