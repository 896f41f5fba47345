"""The kernel's IPsec over netlink: states, policies, and what it tells of them (NETLINK_XFRM).

Plain functions on a `Netlink` socket, as those of links and routes; each takes some ten microseconds, the first one of
an algorithm longer, as the kernel may load a module. `Notifications` is the socket on which the kernel tells of limits,
moved peers and missing states.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable

from ikeway.host.linux.netlink import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_XFRM,
    NLM_F_CREATE,
    NLM_F_EXCL,
    SOL_NETLINK,
    Netlink,
    NetlinkError,
    split_messages,
)
from ikeway.host.linux.xfrm_messages import (
    DELETE_POLICY,
    DELETE_STATE,
    GET_POLICY,
    GET_STATE,
    GROUP_ACQUIRE,
    GROUP_EXPIRE,
    GROUP_MAPPING,
    GROUP_STATES,
    NEW_POLICY,
    NEW_STATE,
    UPDATE_POLICY,
    decode_notification,
    decode_policy,
    decode_state,
    encode_bypass,
    encode_policy,
    encode_policy_id,
    encode_state,
    encode_state_id,
)
from ikeway.host.linux.xfrm_structures import IN, OUT, Deleted, Notification, Policy, State, StateId

GROUPS = (GROUP_ACQUIRE, GROUP_EXPIRE, GROUP_MAPPING)
_GONE = (errno.ESRCH, errno.ENOENT)
_RECEIVE_SIZE = 1 << 16
_BUFFER_OCTETS = 1 << 20
_IP_XFRM_POLICY, _IPV6_XFRM_POLICY = 17, 35


class Notifications:
    """What the kernel tells of all states in the namespace of the calling thread, ours and others'."""

    def __init__(self, groups: Iterable[int] = GROUPS) -> None:
        """Listen from now on. Raises OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_XFRM)
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)
            self.socket.bind((0, 0))
            for group in groups:
                self.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        except BaseException:
            self.socket.close()
            raise

    def read(self) -> list[Notification]:
        """What has come; nothing when there is none. Raises `OSError` with ENOBUFS when some were lost."""
        while True:
            try:
                octets = self.socket.recv(_RECEIVE_SIZE)
            except BlockingIOError:
                return []
            found = (decode_notification(kind, body) for kind, _, _, body in split_messages(octets))
            if known := [each for each in found if each is not None]:
                return known

    def close(self) -> None:
        """Listen no more. Idempotent."""
        self.socket.close()


def open_xfrm() -> Netlink:
    """A socket to the kernel's IPsec. Raises OSError (EPROTONOSUPPORT: the kernel has none)."""
    return Netlink(NETLINK_XFRM)


def add_state(nl: Netlink, state: State) -> None:
    """Make a state (EEXIST when there is one of this destination and SPI)."""
    nl.change(NEW_STATE, *encode_state(state), NLM_F_CREATE | NLM_F_EXCL)


def get_state(nl: Netlink, id: StateId) -> State | None:
    """A state as it is now; None when it is gone."""
    try:
        return decode_state(nl.get(GET_STATE, encode_state_id(id)))
    except NetlinkError as error:
        if error.errno in _GONE:
            return None
        raise


def states(nl: Netlink) -> list[State]:
    """All ESP states of the namespace, whoever made them."""
    return [decode_state(body) for body in nl.dump(GET_STATE, b"") if _is_esp(body)]


def delete_state(nl: Netlink, id: StateId) -> bool:
    """Remove a state; False when it was gone."""
    return _delete(nl, DELETE_STATE, encode_state_id(id))


def take_state(nl: Netlink, id: StateId) -> State | None:
    """Remove a state and return what it was at last, its sequence numbers included; None when it was gone.

    Reading first and removing then would miss what is sent in between, and a sequence number that is used a second
    time breaks AES-GCM. The kernel's own news of the removal has the numbers after which nothing was sent any more.
    """
    notifications = Notifications((GROUP_STATES,))
    try:
        if not delete_state(nl, id):
            return None
        while found := notifications.read():
            for each in found:
                if isinstance(each, Deleted) and (each.state.spi, each.state.destination) == (id.spi, id.destination):
                    return each.state
    finally:
        notifications.close()
    return None


def add_policy(nl: Netlink, policy: Policy) -> None:
    """Make a policy (EEXIST when there is one of this selector and direction)."""
    nl.change(NEW_POLICY, *encode_policy(policy), NLM_F_CREATE | NLM_F_EXCL)


def replace_policy(nl: Netlink, policy: Policy) -> None:
    """Make a policy, in place of one of the same selector and direction."""
    nl.change(UPDATE_POLICY, *encode_policy(policy))


def policies(nl: Netlink) -> list[Policy]:
    """All policies of the namespace, whoever made them; those of sockets left out."""
    found = (decode_policy(body) for body in nl.dump(GET_POLICY, b""))
    return [each for each in found if each is not None and each.direction < 3]


def delete_policy(nl: Netlink, policy: Policy) -> bool:
    """Remove a policy; False when it was gone."""
    return _delete(nl, DELETE_POLICY, *encode_policy_id(policy))


def remove_all(nl: Netlink, first_reqid: int, last_reqid: int) -> int:
    """Remove all policies and states whose reqid is in the range, both ends included. Returns how many there were."""
    count = 0
    for policy in policies(nl):
        if policy.template is not None and first_reqid <= policy.template.reqid <= last_reqid:
            count += delete_policy(nl, policy)
    for state in states(nl):
        if first_reqid <= state.reqid <= last_reqid:
            count += delete_state(nl, StateId(destination=state.destination, spi=state.spi))
    return count


def bypass(sock: socket.socket) -> None:
    """Let what this socket sends and receives pass outside of all policies, IKE that is. Raises OSError."""
    level, option = (
        (socket.IPPROTO_IPV6, _IPV6_XFRM_POLICY)
        if sock.family == socket.AF_INET6
        else (socket.IPPROTO_IP, _IP_XFRM_POLICY)
    )
    for direction in (IN, OUT):
        sock.setsockopt(level, option, encode_bypass(sock.family, direction))


def explain(error: OSError) -> str:
    """What an error of the kernel's IPsec means, in words."""
    detail = error.detail if isinstance(error, NetlinkError) else ""
    return detail or os.strerror(error.errno or 0)


def _delete(nl: Netlink, kind: int, fixed: bytes, attributes: dict[int, bytes] | None = None) -> bool:
    try:
        nl.change(kind, fixed, attributes)
    except NetlinkError as error:
        if error.errno in _GONE:
            return False
        raise
    return True


def _is_esp(body: bytes) -> bool:
    return body[56 + 20] == socket.IPPROTO_ESP
