"""What this host can do for a tunnel, tried where trying leaves nothing behind. For `ikeway doctor`, and for programs.

Each function looks at one thing and returns a `Check`; none raises.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ikeway.errors import HostError
from ikeway.host import userns
from ikeway.host.checks import Check, Use, check_device, held_rights
from ikeway.host.linux import resolvconf, resolved
from ikeway.host.tun import DEVICE, TunOffloads, probe_offloads
from ikeway.host.userns import UserNamespaceSupport

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_UDP_SEGMENT, _UDP_GRO = 103, 104
_PROC = Path("/proc")
_TIME_ERROR = 5  # what adjtimex(2) returns while nobody has set the clock
_ADJTIMEX_OCTETS = 1024  # more than struct timex has
_ENTROPY = 32
_IPV6_REMEDY = "sysctl -w net.ipv6.conf.all.disable_ipv6=0; on the kernel's command line, remove ipv6.disable=1"


def rights() -> Check:
    """May this process set up a tunnel for the whole host?"""
    held = held_rights()
    missing = [name for name, there in held.items() if not there]
    if not missing:
        return Check("rights", True, ", ".join(held), uses=(Use.CLIENT, Use.GATEWAY))
    return Check(
        "rights",
        False,
        f"no {', no '.join(missing)}",
        "run it as root (sudo); without root there are `ikeway run` and `ikeway proxy`",
        (Use.CLIENT, Use.GATEWAY),
    )


def tun_device() -> Check:
    """Can a TUN device be opened?"""
    uses = (Use.CLIENT, Use.ROOTLESS, Use.GATEWAY)
    try:
        check_device()
    except HostError as error:
        return Check("TUN device", False, error.reason, error.remedy, uses)
    return Check("TUN device", True, str(DEVICE), uses=uses)


def user_namespaces(support: UserNamespaceSupport) -> Check:
    """Can a user without rights have a network of their own? `support` is what `userns.probe` found."""
    if support.failed is None:
        detail = "user and network namespaces with a TUN device inside"
        return Check("user namespaces", True, detail, uses=(Use.ROOTLESS,))
    what = f"{support.failed.value}: {support.got}"
    remedy = "; ".join(support.remedies) or "see why the kernel refuses it; or use root"
    return Check("user namespaces", False, what, remedy, (Use.ROOTLESS,))


def tun_offloads() -> Check:
    """Does the kernel hand over and take segments of up to 64 KiB?"""
    found = _in_a_namespace(lambda: list(probe_offloads()))
    if found is None:
        remedy = "run it as root, or where user namespaces are allowed, to have it tried"
        return Check("TUN offloads", False, "no device can be made to try it", remedy, (Use.SPEED,))
    offloads = TunOffloads(*found)
    names = {"TSO4": offloads.tso4, "TSO6": offloads.tso6, "USO": offloads.uso}
    missing = [name for name, there in names.items() if not there]
    if not missing:
        return Check("TUN offloads", True, ", ".join(names), uses=(Use.SPEED,))
    have = ", ".join(name for name, there in names.items() if there) or "none"
    return Check(
        "TUN offloads",
        False,
        f"no {', no '.join(missing)} (there is: {have})",
        "USO takes Linux 6.2, TSO any that is in use; without, packets are carried one by one",
        (Use.SPEED,),
    )


def udp_offloads() -> Check:
    """Does the kernel send and receive many datagrams at once?"""
    missing = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for name, option, value in (("UDP_SEGMENT", _UDP_SEGMENT, 1400), ("UDP_GRO", _UDP_GRO, 1)):
            try:
                sock.setsockopt(socket.IPPROTO_UDP, option, value)
            except OSError:
                missing.append(name)
    if missing:
        remedy = "UDP_SEGMENT takes Linux 4.18, UDP_GRO 5.0; without, datagrams go one by one"
        return Check("UDP offloads", False, f"no {', no '.join(missing)}", remedy, (Use.SPEED,))
    return Check("UDP offloads", True, "UDP_SEGMENT, UDP_GRO", uses=(Use.SPEED,))


def processor() -> Check:
    """Has it instructions for AES?"""
    cores = len(os.sched_getaffinity(0))
    words = _read(_PROC / "cpuinfo").split()
    detail = f"{cores} cores, {platform.machine()}"
    if "aes" in words:
        return Check("processor", True, f"{detail}, with AES instructions", uses=(Use.SPEED,))
    remedy = "choose chacha20poly1305 for ESP, which is faster here; in a virtual machine, pass the CPU's flags on"
    return Check("processor", False, f"{detail}, without AES instructions", remedy, (Use.SPEED,))


def port(number: int) -> Check:
    """Is a UDP port of IKE's free, in both address families? A client can do without."""
    name = f"UDP port {number}"
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((host, number))
        except OSError as error:
            if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                continue  # no IPv6 here, which another check tells
            if error.errno == errno.EADDRINUSE:
                holder = _holder_of(number)
                remedy = f"stop {holder or 'what holds it (ss -ulpn)'}, if it is another IKE daemon"
                return Check(name, False, f"held by {holder or 'another process'}", remedy, (Use.GATEWAY,))
            remedy = "run it as root, or: sysctl -w net.ipv4.ip_unprivileged_port_start=500"
            return Check(name, False, f"this process may not listen there: {error.strerror}", remedy, (Use.GATEWAY,))
    return Check(name, True, "free", uses=(Use.GATEWAY,))


def firewall() -> Check:
    """Is there nftables' program?"""
    path = shutil.which("nft", path=_SBIN)
    if path is None:
        remedy = "install it (Debian: apt install nftables); a gateway needs it for `masquerade` and `clamp_mss`"
        return Check("nftables", False, "no program `nft`", remedy, (Use.GATEWAY,))
    return Check("nftables", True, path, uses=(Use.GATEWAY,))


async def name_servers() -> Check:
    """Who is told of the tunnel's name servers?"""
    with contextlib.suppress(HostError):
        if await resolved.is_in_charge():
            return Check("name servers", True, "systemd-resolved, which can split by domain", uses=(Use.CLIENT,))
    try:
        path = resolvconf.location()
    except HostError as error:
        return Check("name servers", False, error.reason, error.remedy, (Use.CLIENT,))
    if os.access(path, os.W_OK) or not path.exists():
        return Check("name servers", True, f"{path}: all names go to one place", uses=(Use.CLIENT,))
    remedy = 'run it as root, or set `dns = "off"` in the profile\'s [network]'
    return Check("name servers", False, f"{path} cannot be written", remedy, (Use.CLIENT,))


def ipv6() -> Check:
    """Has this host IPv6?"""
    if not (_PROC / "net/if_inet6").exists():
        return Check("IPv6", False, "the kernel has none", _IPV6_REMEDY)
    if _read(_PROC / "sys/net/ipv6/conf/all/disable_ipv6") == "1":
        return Check("IPv6", False, "switched off", _IPV6_REMEDY)
    return Check("IPv6", True, "there")


def forwarding() -> Check:
    """Does this host forward packets, or can that be switched on?"""
    path = _PROC / "sys/net/ipv4/ip_forward"
    if _read(path) == "1":
        return Check("forwarding", True, "on", uses=(Use.GATEWAY,))
    if os.access(path, os.W_OK):
        return Check("forwarding", True, "off; a gateway switches it on while it runs", uses=(Use.GATEWAY,))
    remedy = "run it as root, or on the host of this container: sysctl -w net.ipv4.ip_forward=1"
    return Check("forwarding", False, "off, and not to be switched on from here", remedy, (Use.GATEWAY,))


def clock() -> Check:
    """Can the clock be right? Certificates are judged by it."""
    uses = (Use.CLIENT, Use.ROOTLESS, Use.GATEWAY)
    installed = Path(__file__).stat().st_mtime
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    if time.time() < installed - 86400:
        return Check("clock", False, f"{now} is before Ikeway was installed", "set it: timedatectl set-ntp true", uses)
    libc = ctypes.CDLL(None)
    kept = libc.adjtimex(ctypes.create_string_buffer(_ADJTIMEX_OCTETS)) != _TIME_ERROR
    return Check("clock", True, now if kept else f"{now}; nobody keeps it right (NTP)", uses=uses)


def randomness() -> Check:
    """Has the kernel's generator been seeded?"""
    uses = (Use.CLIENT, Use.ROOTLESS, Use.GATEWAY)
    try:
        os.getrandom(_ENTROPY, os.GRND_NONBLOCK)
    except BlockingIOError:
        remedy = "give the virtual machine a virtio-rng device, or wait a minute after the start"
        return Check("random numbers", False, "the kernel has no entropy yet", remedy, uses)
    return Check("random numbers", True, "seeded", uses=uses)


def system() -> Check:
    """Which kernel?"""
    return Check("system", True, f"{platform.system()} {platform.release()}")


def _in_a_namespace(action: Callable[[], list[bool]]) -> list[bool] | None:
    """What `action` returns in a child process with a network of its own; None when that cannot be had."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            userns.enter_namespaces(rootless=not userns.may_make_namespaces())
            os.write(writing, json.dumps(action()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if not answer:
        return None
    found: list[bool] = json.loads(answer)
    return found


def _holder_of(number: int) -> str:
    """The process that has a UDP port: `charon (process 812)`; empty when it cannot be seen."""
    inodes = set(_inodes(number))
    for folder in _PROC.glob("[0-9]*"):
        try:
            for fd in (folder / "fd").iterdir():
                if str(fd.readlink()).removeprefix("socket:[").removesuffix("]") in inodes:
                    return f"{_read(folder / 'comm')} (process {folder.name})"
        except OSError:
            continue
    return ""


def _inodes(number: int) -> Iterator[str]:
    for table in ("udp", "udp6"):
        for line in _read(_PROC / "net" / table).splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == number:
                yield fields[9]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
