"""What this process must have before it can carry traffic, asked before anything is begun."""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from pathlib import Path

from ikeway.errors import HostError

_NET_BIND_SERVICE, _NET_ADMIN, _NET_RAW = 10, 12, 13
_NAMES = {_NET_BIND_SERVICE: "CAP_NET_BIND_SERVICE", _NET_ADMIN: "CAP_NET_ADMIN", _NET_RAW: "CAP_NET_RAW"}
_TUN = Path("/dev/net/tun")
_UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_ROOTLESS = "without root: `ikeway run` for one command, `ikeway proxy` for a browser"


class Use(enum.StrEnum):
    """What somebody may want of this host."""

    CLIENT = "client"  # `ikeway up`, for the whole host
    ROOTLESS = "rootless client"  # `ikeway run`, `ikeway proxy`
    GATEWAY = "gateway"
    SPEED = "speed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `uses` go badly, or not at all, without it; `remedy` is what to do then, and on this
    host. A check that is not `ok` says in `detail` what was found instead."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    uses: tuple[Use, ...] = ()


def held_rights() -> dict[str, bool]:
    """The capabilities that matter, by name, and whether this process has them."""
    held = _effective_capabilities()
    return {name: bool(held >> number & 1) for number, name in _NAMES.items()}


def check_rights(*, tun: bool = True, ports: tuple[int, ...] = (), esp_protocol: bool = False) -> None:
    """Raise one `HostError` that names everything that is missing: rights for a TUN with addresses and routes, for
    listening on `ports` (a gateway), and for sending ESP as IP protocol 50."""
    needed = {_NET_ADMIN} if tun else set()
    if any(0 < port < _first_unprivileged_port() for port in ports):
        needed.add(_NET_BIND_SERVICE)
    if esp_protocol:
        needed.add(_NET_RAW)
    held = _effective_capabilities()
    missing = [_NAMES[number] for number in sorted(needed) if not held >> number & 1]
    if missing:
        raise HostError(
            "this process may not set up a tunnel",
            expected=" and ".join(_NAMES[number] for number in sorted(needed)),
            got=f"no {', no '.join(missing)}",
            remedy="run it as root (sudo)" if ports else f"run it as root (sudo); {_ROOTLESS}",
        )
    if tun:
        check_device()


def user_namespaces_allowed() -> bool:
    """True when a user without rights may make a user namespace, as far as settings tell."""
    settings = {
        "kernel/unprivileged_userns_clone": "1",  # Debian's and Ubuntu's
        "kernel/apparmor_restrict_unprivileged_userns": "0",  # Ubuntu 23.10 and later
    }
    for path, wanted in settings.items():
        if _read(Path("/proc/sys") / path) not in ("", wanted):
            return False
    return _read(Path("/proc/sys/user/max_user_namespaces")) not in ("", "0")


def check_device() -> None:
    """Raise a `HostError` when there is no usable /dev/net/tun."""
    if not _TUN.exists():
        raise HostError(
            f"{_TUN} is not there",
            remedy="load the module (modprobe tun); in a container, add the device (docker: --device /dev/net/tun)",
        )
    if not os.access(_TUN, os.R_OK | os.W_OK):
        raise HostError(
            f"this user may not open {_TUN}", remedy=f"chmod 0666 {_TUN} is safe: using it takes CAP_NET_ADMIN"
        )


def _effective_capabilities() -> int:
    for line in _read(Path("/proc/self/status")).splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _first_unprivileged_port() -> int:
    return int(_read(_UNPRIVILEGED) or 1024)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
