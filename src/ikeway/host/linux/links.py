"""Interfaces and their addresses, over rtnetlink."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface

from ikeway.errors import HostError
from ikeway.host.interface import IpInterface
from ikeway.host.linux import netlink
from ikeway.host.linux.netlink import Netlink, NetlinkError, decode_attributes, encode_attributes

IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFA_F_NODAD = 0x02
IFA_F_DEPRECATED = 0x20
IFA_F_TENTATIVE = 0x40
IFA_F_NOPREFIXROUTE = 0x200
SCOPE_UNIVERSE = 0
SCOPE_LINK = 253

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index

_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINKINFO = 18
_IFLA_AF_SPEC = 26
_IFLA_NET_NS_FD = 28
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_VETH_INFO_PEER = 1
_IFLA_XFRM_IF_ID = 2
_IFLA_INET6_ADDR_GEN_MODE = 8
_ADDR_GEN_MODE_NONE = 1
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_FLAGS = 8


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. `kind` is "tun", "veth", ... or empty for a physical one."""

    index: int
    name: str
    flags: int
    mtu: int
    kind: str

    @property
    def is_up(self) -> bool:
        """True when it is administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def is_loopback(self) -> bool:
        """True for `lo`."""
        return bool(self.flags & IFF_LOOPBACK)


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """An address on the interface with number `index`."""

    index: int
    address: IpInterface
    scope: int
    flags: int

    @property
    def is_usable(self) -> bool:
        """True for a global address that may be used as a source now."""
        return self.scope == SCOPE_UNIVERSE and not self.flags & (IFA_F_TENTATIVE | IFA_F_DEPRECATED)


def links(nl: Netlink) -> list[Link]:
    """Every interface of the namespace."""
    return [_decode_link(body) for body in nl.dump(netlink.RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0))]


def find_link(nl: Netlink, name: str) -> Link | None:
    """The interface called `name`; None when there is none."""
    try:
        return _decode_link(nl.get(netlink.RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0), {_IFLA_IFNAME: _text(name)}))
    except NetlinkError as error:
        if error.errno in (errno.ENODEV, errno.ENOENT):
            return None
        raise


def require_link(nl: Netlink, name: str) -> Link:
    """The interface called `name` (`HostError` when there is none)."""
    link = find_link(nl, name)
    if link is None:
        raise HostError(
            f"there is no interface {name}", remedy="the data plane has to make it first; is it still running?"
        )
    return link


def set_link(nl: Netlink, name: str, *, up: bool | None = None, mtu: int | None = None) -> None:
    """Set an interface up or down, and its MTU."""
    link = require_link(nl, name)
    flags, change = (IFF_UP if up else 0, IFF_UP) if up is not None else (0, 0)
    attributes = {} if mtu is None else {_IFLA_MTU: struct.pack("=I", mtu)}
    nl.change(netlink.RTM_NEWLINK, _LINK.pack(0, 0, link.index, flags, change), attributes)


def silence_ipv6(nl: Netlink, name: str) -> None:
    """Let the kernel give the interface no link-local IPv6 address: nothing would answer on a tunnel, and router
    solicitations would only be dropped by the selectors. Kernels without IPv6 refuse, which does not matter."""
    mode = encode_attributes({_IFLA_INET6_ADDR_GEN_MODE: bytes([_ADDR_GEN_MODE_NONE])})
    family = encode_attributes({socket.AF_INET6 | netlink.NLA_F_NESTED: mode})
    link = require_link(nl, name)
    try:
        nl.change(
            netlink.RTM_NEWLINK, _LINK.pack(0, 0, link.index, 0, 0), {_IFLA_AF_SPEC | netlink.NLA_F_NESTED: family}
        )
    except NetlinkError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EINVAL):
            raise


def add_veth(nl: Netlink, name: str, peer: str, peer_namespace: int | None = None) -> None:
    """Make a pair of virtual Ethernet interfaces, the peer in the network namespace that descriptor refers to."""
    there = {_IFLA_IFNAME: _text(peer)}
    if peer_namespace is not None:
        there[_IFLA_NET_NS_FD] = struct.pack("=I", peer_namespace)
    peer_octets = _LINK.pack(0, 0, 0, 0, 0) + encode_attributes(there)
    description = encode_attributes({_VETH_INFO_PEER | netlink.NLA_F_NESTED: peer_octets})
    kind = encode_attributes({_IFLA_INFO_KIND: b"veth", _IFLA_INFO_DATA | netlink.NLA_F_NESTED: description})
    nl.change(
        netlink.RTM_NEWLINK,
        _LINK.pack(0, 0, 0, 0, 0),
        {_IFLA_IFNAME: _text(name), _IFLA_LINKINFO | netlink.NLA_F_NESTED: kind},
        netlink.NLM_F_CREATE | netlink.NLM_F_EXCL,
    )


def add_xfrm_link(nl: Netlink, name: str, interface_id: int) -> None:
    """Make an xfrm interface: what is routed into it meets only the IPsec policies of the same number (EOPNOTSUPP: the
    kernel has none; EINVAL for the number 0; EEXIST when the name or the number is taken)."""
    data = encode_attributes({_IFLA_XFRM_IF_ID: struct.pack("=I", interface_id)})
    kind = encode_attributes({_IFLA_INFO_KIND: b"xfrm", _IFLA_INFO_DATA | netlink.NLA_F_NESTED: data})
    nl.change(
        netlink.RTM_NEWLINK,
        _LINK.pack(0, 0, 0, 0, 0),
        {_IFLA_IFNAME: _text(name), _IFLA_LINKINFO | netlink.NLA_F_NESTED: kind},
        netlink.NLM_F_CREATE | netlink.NLM_F_EXCL,
    )


def delete_link(nl: Netlink, name: str) -> bool:
    """Remove an interface; False when there was none."""
    link = find_link(nl, name)
    if link is None:
        return False
    nl.change(netlink.RTM_DELLINK, _LINK.pack(0, 0, link.index, 0, 0))
    return True


def addresses(nl: Netlink) -> list[LinkAddress]:
    """Every address of every interface."""
    return [_decode_address(body) for body in nl.dump(netlink.RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0))]


def add_address(nl: Netlink, interface: str, address: IpInterface, *, prefix_route: bool = False) -> None:
    """Add an address (no error when it is there). IPv6 needs no duplicate detection on what we make ourselves.
    Without `prefix_route` the kernel makes no route to the address's network."""
    flags = IFA_F_NODAD if address.version == 6 else 0
    if not prefix_route:
        flags |= IFA_F_NOPREFIXROUTE
    fixed, attributes = _encode_address(require_link(nl, interface).index, address)
    attributes[_IFA_FLAGS] = struct.pack("=I", flags)
    nl.change(netlink.RTM_NEWADDR, fixed, attributes, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE)


def delete_address(nl: Netlink, interface: str, address: IpInterface) -> bool:
    """Remove an address; False when it or its interface was gone."""
    link = find_link(nl, interface)
    if link is None:
        return False
    try:
        nl.change(netlink.RTM_DELADDR, *_encode_address(link.index, address))
    except NetlinkError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
            return False
        raise
    return True


def _encode_address(index: int, address: IpInterface) -> tuple[bytes, dict[int, bytes]]:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    fixed = _ADDRESS.pack(family, address.network.prefixlen, 0, SCOPE_UNIVERSE, index)
    return fixed, {_IFA_LOCAL: address.ip.packed, _IFA_ADDRESS: address.ip.packed}


def _decode_address(body: bytes) -> LinkAddress:
    _, length, flags, scope, index = _ADDRESS.unpack_from(body)
    attributes = decode_attributes(body[_ADDRESS.size :])
    local = attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS]
    if _IFA_FLAGS in attributes:
        (flags,) = struct.unpack("=I", attributes[_IFA_FLAGS])
    return LinkAddress(index, ip_interface((ip_address(local), length)), scope, flags)


def _decode_link(body: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    attributes = decode_attributes(body[_LINK.size :])
    kind = decode_attributes(attributes.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")
    (mtu,) = struct.unpack("=I", attributes.get(_IFLA_MTU, bytes(4)))
    name = attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
    return Link(index, name, flags, mtu, kind.rstrip(b"\0").decode(errors="replace"))


def _text(name: str) -> bytes:
    return name.encode() + b"\0"
