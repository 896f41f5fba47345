"""The inside of an enclave: network and mount namespaces in which a tunnel is the only way out.

All functions here are called by the process inside (`ikeway.client.enclave.keeper`). What they make is the
namespaces', and goes with them; nothing is journalled.

Names are a way out as well: the C library asks /etc/resolv.conf's servers, but before that whatever
/etc/nsswitch.conf says, and nscd. resolved, nscd and Avahi listen on Unix sockets, which network namespaces do not
separate, and would ask outside. So these files are private ones here, and the folders of those sockets are empty.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ikeway.errors import HostError
from ikeway.host.interface import IpAddress, IpInterface, IpNetwork
from ikeway.host.linux import sysctl
from ikeway.host.linux.links import add_address, delete_address, set_link, silence_ipv6
from ikeway.host.linux.netlink import Netlink
from ikeway.host.linux.routes import MAIN_TABLE, Route, RouteKind, add_route, delete_route
from ikeway.host.namespaces import mount
from ikeway.host.paths import runtime_directory
from ikeway.host.userns import enter_namespaces

RESOLV_CONF = Path("/etc/resolv.conf")
NSSWITCH = Path("/etc/nsswitch.conf")
_MASKED = ("/run/nscd", "/var/run/nscd", "/run/systemd/resolve", "/run/avahi-daemon", "/var/run/avahi-daemon")
_SERVICES = ("files", "myhostname", "dns")  # of the hosts database: what stays within this process and resolv.conf

_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18
_MOST_SERVERS = 3  # MAXNS of resolv.conf(5)

Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What the network inside is to look like. `refused` networks answer "unreachable" although a route covers them."""

    interface: str
    mtu: int
    addresses: tuple[IpInterface, ...] = ()
    routes: tuple[IpNetwork, ...] = ()
    refused: tuple[IpNetwork, ...] = ()
    dns_servers: tuple[IpAddress, ...] = ()
    search_domains: tuple[str, ...] = ()


class Furniture:
    """What stands inside, and how it is changed."""

    def __init__(self) -> None:
        """Nothing stands yet; see `enter`."""
        self._standing: Inside | None = None
        self._resolv_conf: int | None = None

    def enter(self, *, rootless: bool) -> None:
        """Go inside, and furnish it: loopback up, no name servers (`HostError`)."""
        enter_namespaces(rootless=rootless)
        mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
        with Netlink() as nl:
            set_link(nl, "lo", up=True)
        groups = f"{os.getegid()} {os.getegid()}" if rootless else "0 2147483647"
        for path, value in (
            ("net/ipv4/ping_group_range", groups),  # ping without rights
            ("net/ipv4/ip_unprivileged_port_start", "0"),  # its ports are the command's own
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
        ):
            with contextlib.suppress(OSError):  # /proc/sys is read-only in some containers
                (sysctl.ROOT / path).write_text(value)
        self._close_sockets_of_names()
        self._resolv_conf = _private_file(RESOLV_CONF, _resolv_conf((), ()))
        if NSSWITCH.exists():
            os.close(_private_file(NSSWITCH, _nsswitch(NSSWITCH.read_text(errors="surrogateescape"))))

    @property
    def has_resolv_conf(self) -> bool:
        """False where this host has no /etc/resolv.conf that could be replaced: names lead nowhere then."""
        return self._resolv_conf is not None and self._resolv_conf >= 0

    def forget_device(self) -> None:
        """The device has gone, and its addresses and routes with it."""
        self._standing = None

    def apply(self, wanted: Inside) -> None:
        """Make it look like `wanted`, changing only what differs: connections inside live through it (`OSError`)."""
        before = self._standing or Inside(interface=wanted.interface, mtu=0)
        with Netlink() as nl:
            if wanted.mtu != before.mtu:
                if any(each.version == 6 for each in wanted.addresses):
                    with contextlib.suppress(OSError):
                        sysctl.write(f"net/ipv6/conf/{wanted.interface}/disable_ipv6", "0")
                silence_ipv6(nl, wanted.interface)
                set_link(nl, wanted.interface, up=True, mtu=wanted.mtu)
            for address in _missing(wanted.addresses, before.addresses):
                add_address(nl, wanted.interface, address)
            old, new = _routes(before), _routes(wanted)
            for route in _missing(old, new):
                delete_route(nl, route)
            for route in _missing(new, old):
                with contextlib.suppress(FileExistsError):
                    add_route(nl, route)
            for address in _missing(before.addresses, wanted.addresses):
                delete_address(nl, wanted.interface, address)
        self._standing = wanted
        if self._resolv_conf is not None and self._resolv_conf >= 0:
            text = _resolv_conf(wanted.dns_servers, wanted.search_domains)
            os.pwrite(self._resolv_conf, text, 0)
            os.ftruncate(self._resolv_conf, len(text))

    @staticmethod
    def _close_sockets_of_names() -> None:
        for path in dict.fromkeys(Path(each).resolve() for each in _MASKED):
            if path.is_dir():
                # resolv.conf may be a link into one of them, and has to lead somewhere.
                mount("ikeway", str(path), "tmpfs", options="mode=0755,size=64k")
                target = RESOLV_CONF.resolve()
                if target.is_relative_to(path):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.touch()


def _private_file(path: Path, contents: bytes) -> int:
    """Put a file of ours in the place of another, here only. Returns a descriptor to write it with, -1 when there is
    none to replace. The file has no name outside: it was unlinked."""
    if not path.exists():
        return -1
    folder = runtime_directory()
    fd, name = tempfile.mkstemp(prefix="enclave-", dir=folder)
    try:
        if os.write(fd, contents) < len(contents):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fchmod(fd, 0o444)
        mount(name, str(path.resolve()), flags=_MS_BIND)
    except OSError as error:
        os.close(fd)
        remedy = "make room there (df), or set IKEWAY_RUNTIME_DIR to another folder"
        raise HostError(
            f"a private {path} cannot be made in {folder}: {error.strerror}",
            remedy=remedy if error.errno in (errno.ENOSPC, errno.EDQUOT) else "",
        ) from error
    finally:
        Path(name).unlink()
    return fd


def _resolv_conf(servers: Iterable[IpAddress], search: Iterable[str]) -> bytes:
    lines = ["# Private to what runs inside `ikeway run`: only the tunnel's name servers are asked."]
    if domains := " ".join(search):
        lines.append(f"search {domains}")
    # Without a server the C library asks 127.0.0.1, where nobody listens: names fail at once, and do not leak.
    lines += [f"nameserver {server}" for server in list(servers)[:_MOST_SERVERS]]
    return ("\n".join(lines) + "\n").encode()


def _nsswitch(text: str) -> bytes:
    """The same file, but the services that would ask outside left out of the hosts database."""
    lines = []
    for line in text.splitlines():
        database, colon, services = line.partition(":")
        if colon and database.strip() == "hosts":
            kept = [word for word in services.partition("#")[0].split() if word in _SERVICES]
            lines.append(f"hosts: {' '.join(dict.fromkeys([*kept, 'dns']))}")
        else:
            lines.append(line)
    return ("\n".join(lines) + "\n").encode(errors="surrogateescape")


def _routes(inside: Inside) -> list[Route]:
    def source(network: IpNetwork) -> IpAddress | None:
        return next((each.ip for each in inside.addresses if each.version == network.version), None)

    found = [
        Route(table=MAIN_TABLE, destination=each, interface=inside.interface, source=source(each))
        for each in inside.routes
        if each not in inside.refused
    ]
    refused = [Route(table=MAIN_TABLE, destination=each, kind=RouteKind.UNREACHABLE) for each in inside.refused]
    return found + refused


def _missing(wanted: Iterable[Thing], there: Iterable[Thing]) -> list[Thing]:
    known = set(there)
    return [each for each in wanted if each not in known]
