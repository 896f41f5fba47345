"""Opening a Linux TUN device (Documentation/networking/tuntap.rst): the file descriptor and what it can do.

Addresses, MTU and link state are not set here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ikeway.errors import HostError
from ikeway.host.linux.netlink import RTM_NEWLINK, Netlink

DEVICE = Path("/dev/net/tun")

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_TUN_F_CSUM, _TUN_F_TSO4, _TUN_F_TSO6, _TUN_F_USO4, _TUN_F_USO6 = 0x01, 0x02, 0x04, 0x20, 0x40
_NAME_LENGTH = 15

VNET_HEADER_OCTETS = 10

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFLA_TXQLEN, _IFLA_GSO_MAX_SIZE = 13, 41
_QUEUE = struct.pack("=I", 2000)
_SUPER_PACKET = struct.pack("=I", 60000)


@dataclass(slots=True)
class TunDevice:
    """An open TUN. With `vnet_header` each read and write begins with a `virtio_net_hdr` of 10 octets.

    Any other descriptor that keeps packet boundaries serves as well, without `vnet_header`.
    """

    fd: int
    name: str
    vnet_header: bool = False

    def close(self) -> None:
        """Give the device back; it disappears with its last descriptor. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def open_tun(name: str = "", *, vnet_header: bool = True) -> TunDevice:
    """Make a TUN device; an empty name or one with `%d` lets the kernel choose. Raises `HostError`.

    `vnet_header` asks for segments of up to 64 KiB with unfinished checksums, as network cards get them.
    """
    if len(name.encode()) > _NAME_LENGTH:
        raise HostError(
            f"the interface name {name!r} is too long", expected=f"at most {_NAME_LENGTH} octets", remedy="shorten it"
        )
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot_open(error) from error
    try:
        flags = _IFF_TUN | _IFF_NO_PI | (_IFF_VNET_HDR if vnet_header else 0)
        answer = fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        if vnet_header:
            fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_OCTETS))
            _offer_offloads(fd)
    except OSError as error:
        os.close(fd)
        raise _cannot_create(name, error) from error
    device = TunDevice(fd, answer[:16].split(b"\0")[0].decode(), vnet_header)
    _size_queue(device)
    return device


class TunOffloads(NamedTuple):
    """Which super-packets the kernel hands over and takes: TCP over IPv4 and IPv6, UDP over both."""

    tso4: bool
    tso6: bool
    uso: bool


def probe_offloads() -> TunOffloads:
    """Make a device and ask. To be called where a device may appear for a moment. Raises `HostError`."""
    device = open_tun(vnet_header=True)
    try:
        return TunOffloads(
            *(_takes(device.fd, flags) for flags in (_TUN_F_TSO4, _TUN_F_TSO6, _TUN_F_USO4 | _TUN_F_USO6))
        )
    finally:
        device.close()


def _takes(fd: int, flags: int) -> bool:
    try:
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM | flags)
    except OSError:
        return False
    return True


def _size_queue(device: TunDevice) -> None:
    """Let the device hold what comes while its reader is not scheduled: Linux has 500 packets, 4 ms of a fast flow.

    A super-packet is kept so short that what ESP makes of it fits the 64 KiB of one UDP_SEGMENT send. Neither is
    needed, so what cannot be set is left.
    """
    attributes = {_IFLA_TXQLEN: _QUEUE} | ({_IFLA_GSO_MAX_SIZE: _SUPER_PACKET} if device.vnet_header else {})
    with contextlib.suppress(OSError, HostError), Netlink() as nl:
        nl.change(RTM_NEWLINK, _LINK.pack(0, 0, socket.if_nametoindex(device.name), 0, 0), attributes)


def _offer_offloads(fd: int) -> None:
    """Take TCP segments unsplit. UDP ones (USO, Linux 6.2) come only with both families; without them it works too."""
    tcp = _TUN_F_CSUM | _TUN_F_TSO4 | _TUN_F_TSO6
    try:
        fcntl.ioctl(fd, _TUNSETOFFLOAD, tcp | _TUN_F_USO4 | _TUN_F_USO6)
    except OSError:
        fcntl.ioctl(fd, _TUNSETOFFLOAD, tcp)


def _cannot_open(error: OSError) -> HostError:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return HostError(
            f"{DEVICE} is not there",
            remedy="load the module (modprobe tun); in a container, add the device (docker: --device /dev/net/tun)",
        )
    return HostError(f"cannot open {DEVICE}: {error.strerror}", remedy=f"give this user access to {DEVICE}")


def _cannot_create(name: str, error: OSError) -> HostError:
    what = f"cannot make the TUN device {name!r}" if name else "cannot make a TUN device"
    if error.errno == errno.EPERM:
        return HostError(
            f"{what}: not permitted",
            expected="CAP_NET_ADMIN",
            remedy="run as root, or use `ikeway run`, which needs no root where user namespaces are allowed",
        )
    if error.errno == errno.EBUSY:
        return HostError(f"{what}: it is in use", remedy="choose another name, or end the program that holds it")
    return HostError(f"{what}: {error.strerror}")
