"""Network cards that do ESP themselves (XFRMA_OFFLOAD_DEV): which one a state would be for, if any."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from ipaddress import ip_address

from ikeway.host.linux.netlink import Netlink
from ikeway.host.linux.routes import path_to
from ikeway.host.linux.xfrm_structures import State

_SIOCETHTOOL = 0x8946
_ETHTOOL_GSTRINGS, _ETHTOOL_GSSET_INFO, _ETHTOOL_GFEATURES = 0x1B, 0x37, 0x3A
_FEATURES = 4  # ETH_SS_FEATURES
_STRING = 32
_WANTED = b"esp-hw-offload"


def offload_device(state: State, *, inbound: bool) -> int:
    """The index of the card that can do this state's work; 0 when there is none. Cards do not do ESP in UDP."""
    if state.udp is not None:
        return 0
    remote = ip_address(state.source if inbound else state.destination)
    with Netlink() as nl:
        path = path_to(nl, remote)
    return path.interface_index if path is not None and has_offload(path.interface_index) else 0


def has_offload(index: int, feature: bytes = _WANTED) -> bool:
    """True when this interface says that it does ESP (or another feature), and it is switched on (`ethtool -k`)."""
    try:
        name = socket.if_indextoname(index)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            number = _feature_number(sock, name, feature)
            return number is not None and _is_active(sock, name, number)
    except OSError:
        return False


def _feature_number(sock: socket.socket, name: str, feature: bytes) -> int | None:
    """The bit of the feature among all that this kernel knows."""
    answer = _ask(sock, name, struct.pack("=IIQI", _ETHTOOL_GSSET_INFO, 0, 1 << _FEATURES, 0))
    (count,) = struct.unpack_from("=I", answer, 16)
    answer = _ask(sock, name, struct.pack("=III", _ETHTOOL_GSTRINGS, _FEATURES, count) + bytes(count * _STRING))
    names = [answer[12 + at * _STRING : 12 + (at + 1) * _STRING].split(b"\0")[0] for at in range(count)]
    return names.index(feature) if feature in names else None


def _is_active(sock: socket.socket, name: str, number: int) -> bool:
    """Whether it is switched on. Of each 32 features there are four words: available, requested, active, fixed."""
    blocks = number // 32 + 1
    answer = _ask(sock, name, struct.pack("=II", _ETHTOOL_GFEATURES, blocks) + bytes(16 * blocks))
    (active,) = struct.unpack_from("=I", answer, 8 + 16 * (number // 32) + 8)
    return bool(active >> number % 32 & 1)


def _ask(sock: socket.socket, name: str, question: bytes) -> bytes:
    """An ethtool request, answered in place."""
    buffer = array.array("B", question)
    fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), buffer.buffer_info()[0]))
    return buffer.tobytes()
