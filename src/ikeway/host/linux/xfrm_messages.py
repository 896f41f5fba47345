"""Messages of the kernel's IPsec as octets of <linux/xfrm.h>. `ikeway.host.linux.xfrm` sends them.

Where the kernel wants network order (SPIs, ports) the codec turns the numbers.
"""

from __future__ import annotations

import socket
import struct
import sys
from ipaddress import ip_network

from ikeway.host.linux.netlink import Attributes, decode_attributes
from ikeway.host.linux.xfrm_structures import (
    ALLOW,
    Acquired,
    Algorithm,
    Deleted,
    Dropped,
    Expired,
    Limits,
    Mapped,
    Notification,
    Policy,
    Replay,
    Selector,
    State,
    StateId,
    Template,
    UdpPorts,
    Usage,
)

# Messages (XFRM_MSG_*)
NEW_STATE, DELETE_STATE, GET_STATE = 0x10, 0x11, 0x12
NEW_POLICY, DELETE_POLICY, GET_POLICY = 0x13, 0x14, 0x15
ACQUIRE, EXPIRE, UPDATE_POLICY = 0x17, 0x18, 0x19
MAPPING = 0x26
# Multicast groups (XFRMNLGRP_*)
GROUP_ACQUIRE, GROUP_EXPIRE, GROUP_STATES, GROUP_MAPPING = 1, 2, 3, 8

_ALG_CRYPT, _ENCAP, _TMPL, _SA, _LTIME_VAL, _LASTUSED = 2, 4, 5, 6, 9, 15
_ALG_AEAD, _ALG_AUTH_TRUNC, _REPLAY_ESN_VAL = 18, 20, 23
_OFFLOAD_DEV, _SET_MARK, _SET_MARK_MASK, _IF_ID, _MTIMER_THRESH = 28, 29, 30, 31, 32

_ESPINUDP = 2
_MAPPING_SECONDS = 1  # at most one XFRM_MSG_MAPPING of an SA in that time

_SELECTOR = struct.Struct("=16s16s")  # destination, source; then
_SELECTOR_PORTS = struct.Struct(">HHHH")  # destination port and mask, source port and mask; then
_SELECTOR_REST = struct.Struct("=HBBB3xiI")  # family, prefix lengths of destination and source, protocol, ifindex, user
_ID = struct.Struct("=16s4sB3x")  # destination, SPI, protocol
_USER_ID = struct.Struct("=16s4sHBx")  # destination, SPI, family, protocol
_LIFETIME = struct.Struct("=8Q")  # soft and hard: octets, packets, seconds since made, seconds since used
_USAGE = struct.Struct("=4Q")  # octets, packets, time made, time first used
_STATE_REST = struct.Struct("=IIIIIHBBB7x")  # stats (3), seq, reqid, family, mode, replay window, flags
_POLICY_REST = struct.Struct("=IIBBBB4x")  # priority, index, direction, action, flags, share
_POLICY_ID_REST = struct.Struct("=IB3x")  # index, direction
_TEMPLATE = struct.Struct("=24sH2x16sIBBBxIII")  # id, family, source, reqid, mode, share, optional, algorithms (3)
_ALGORITHM = struct.Struct("=64sI")  # name, bits of key
_ALGORITHM_ICV = struct.Struct("=64sII")  # name, bits of key, bits of ICV
_ENCAPSULATION = struct.Struct(">HHHxx16x")  # (type is in host order), source port, destination port
_REPLAY = struct.Struct("=6I")  # words of the bitmap, oseq, seq, oseq_hi, seq_hi, window
_MAPPED = struct.Struct("=24sI16s16s2s2s")  # id, reqid, old and new source, old and new port

SELECTOR_OCTETS = _SELECTOR.size + _SELECTOR_PORTS.size + _SELECTOR_REST.size
STATE_OCTETS = SELECTOR_OCTETS + _ID.size + 16 + _LIFETIME.size + _USAGE.size + _STATE_REST.size
POLICY_OCTETS = SELECTOR_OCTETS + _LIFETIME.size + _USAGE.size + _POLICY_REST.size
_ESP = socket.IPPROTO_ESP


def encode_state(state: State) -> tuple[bytes, Attributes]:
    """The body of a request to make a state."""
    family = family_of(state.destination)
    fixed = b"".join(
        (
            _encode_selector(state.selector) if state.selector else bytes(SELECTOR_OCTETS),
            _ID.pack(pack_address(state.destination), state.spi.to_bytes(4, "big"), _ESP),
            pack_address(state.source),
            _encode_limits(state.limits),
            _encode_usage(Usage()),
            _STATE_REST.pack(0, 0, 0, 0, state.reqid, family, state.mode, 0, state.flags),
        )
    )
    attributes: Attributes = dict(_encode_algorithm(each) for each in state.algorithms)
    if state.udp is not None:
        ports = _ENCAPSULATION.pack(0, state.udp.source, state.udp.destination)
        attributes[_ENCAP] = struct.pack("=H", _ESPINUDP) + ports[2:]
        attributes[_MTIMER_THRESH] = struct.pack("=I", _MAPPING_SECONDS)
    if state.replay is not None:
        attributes[_REPLAY_ESN_VAL] = _encode_replay(state.replay)
    if state.usage != Usage():
        attributes[_LTIME_VAL] = _encode_usage(state.usage)
    if state.output_mark:
        attributes[_SET_MARK] = struct.pack("=I", state.output_mark)
        attributes[_SET_MARK_MASK] = struct.pack("=I", 0xFFFFFFFF)
    if state.interface_id:
        attributes[_IF_ID] = struct.pack("=I", state.interface_id)
    if state.offload:
        attributes[_OFFLOAD_DEV] = struct.pack("=iB3x", state.offload, state.offload_flags)
    return fixed, attributes


def decode_state(body: bytes) -> State:
    """A state as the kernel tells of it."""
    destination, spi, _ = _ID.unpack_from(body, SELECTOR_OCTETS)
    offset = SELECTOR_OCTETS + _ID.size
    source = body[offset : offset + 16]
    limits = _LIFETIME.unpack_from(body, offset + 16)
    octets, packets, made, first_used = _USAGE.unpack_from(body, offset + 16 + _LIFETIME.size)
    rest = _STATE_REST.unpack_from(body, offset + 16 + _LIFETIME.size + _USAGE.size)
    too_old, replayed, integrity, _, reqid, family, mode, _, flags = rest
    attributes = decode_attributes(body[STATE_OCTETS:])
    device, device_flags = struct.unpack_from("=iB", attributes.get(_OFFLOAD_DEV, bytes(8)))
    return State(
        source=unpack_address(source, family),
        destination=unpack_address(destination, family),
        spi=int.from_bytes(spi, "big"),
        reqid=reqid,
        mode=mode,
        flags=flags,
        selector=_decode_selector(body),
        algorithms=_decode_algorithms(attributes),
        udp=_decode_ports(attributes),
        replay=_decode_replay(attributes),
        limits=Limits(soft_octets=limits[0], hard_octets=limits[1], soft_packets=limits[2], hard_packets=limits[3]),
        usage=Usage(octets=octets, packets=packets, made=made, first_used=first_used),
        dropped=Dropped(too_old=too_old, replayed=replayed, integrity=integrity),
        interface_id=_number(attributes, _IF_ID),
        output_mark=_number(attributes, _SET_MARK),
        last_used=_number(attributes, _LASTUSED),
        offload=device,
        offload_flags=device_flags,
    )


def encode_state_id(id: StateId) -> bytes:
    """The body of a request that names a state."""
    spi = id.spi.to_bytes(4, "big")
    return _USER_ID.pack(pack_address(id.destination), spi, family_of(id.destination), _ESP)


def encode_policy(policy: Policy) -> tuple[bytes, Attributes]:
    """The body of a request to make or replace a policy."""
    fixed = b"".join(
        (
            _encode_selector(policy.selector),
            _encode_limits(Limits()),
            _encode_usage(Usage()),
            _POLICY_REST.pack(policy.priority, policy.index, policy.direction, policy.action, 0, 0),
        )
    )
    attributes: Attributes = {}
    if policy.template is not None:
        attributes[_TMPL] = _encode_template(policy.template)
    if policy.interface_id:
        attributes[_IF_ID] = struct.pack("=I", policy.interface_id)
    return fixed, attributes


def decode_policy(body: bytes) -> Policy | None:
    """A policy as the kernel tells of it; None for one of no address family (of a socket), none of ours."""
    selector = _decode_selector(body)
    if selector is None:
        return None
    offset = SELECTOR_OCTETS + _LIFETIME.size + _USAGE.size
    priority, index, direction, action, _, _ = _POLICY_REST.unpack_from(body, offset)
    attributes = decode_attributes(body[POLICY_OCTETS:])
    template = attributes.get(_TMPL, b"")
    return Policy(
        direction=direction,
        selector=selector,
        template=_decode_template(template) if len(template) >= _TEMPLATE.size else None,
        priority=priority,
        action=action,
        interface_id=_number(attributes, _IF_ID),
        index=index,
    )


def encode_policy_id(policy: Policy) -> tuple[bytes, Attributes]:
    """The body of a request that names a policy: by its index where that is known, else by its selector."""
    fixed = _encode_selector(policy.selector) + _POLICY_ID_REST.pack(policy.index, policy.direction)
    return fixed, {_IF_ID: struct.pack("=I", policy.interface_id)} if policy.interface_id else {}


def encode_bypass(family: int, direction: int) -> bytes:
    """What IP_XFRM_POLICY takes to let a socket's own packets pass outside of IPsec."""
    selector = bytes(SELECTOR_OCTETS - _SELECTOR_REST.size) + _SELECTOR_REST.pack(family, 0, 0, 0, 0, 0)
    rest = _POLICY_REST.pack(0, 0, direction, ALLOW, 0, 0)
    return selector + _encode_limits(Limits()) + _encode_usage(Usage()) + rest


def decode_notification(kind: int, body: bytes) -> Notification | None:
    """What the kernel tells on its own; None for what we do not listen to."""
    if kind == EXPIRE:
        return Expired(state=decode_state(body[:STATE_OCTETS]), hard=bool(body[STATE_OCTETS]))
    if kind == MAPPING:
        name, reqid, _, source, _, port = _MAPPED.unpack_from(body)
        destination, spi, family, _ = _USER_ID.unpack(name)
        return Mapped(
            id=StateId(destination=unpack_address(destination, family), spi=int.from_bytes(spi, "big")),
            reqid=reqid,
            source=unpack_address(source, family),
            port=int.from_bytes(port, "big"),
        )
    if kind == ACQUIRE:
        return _decode_acquire(body)
    if kind == DELETE_STATE:
        state = decode_attributes(body[_USER_ID.size :]).get(_SA)
        return Deleted(state=decode_state(state + body[_USER_ID.size + 4 + len(state) :])) if state else None
    return None


def _decode_acquire(body: bytes) -> Acquired | None:
    """id, source, selector, policy, algorithms (3), sequence number; then attributes, the template among them."""
    selector = _decode_selector(body[_ID.size + 16 :])
    attributes = decode_attributes(body[_ID.size + 16 + SELECTOR_OCTETS + POLICY_OCTETS + 16 :])
    template = attributes.get(_TMPL, b"")
    if selector is None or len(template) < _TEMPLATE.size:
        return None
    return Acquired(template=_decode_template(template), selector=selector)


def family_of(host: str) -> int:
    """The address family of an address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def pack_address(host: str) -> bytes:
    """An address as the kernel has it: 16 octets, of which IPv4 uses the first four."""
    return socket.inet_pton(family_of(host), host).ljust(16, b"\0")


def unpack_address(octets: bytes, family: int) -> str:
    """The text of an address."""
    return socket.inet_ntop(family, octets[: 4 if family == socket.AF_INET else 16])


def _encode_selector(selector: Selector) -> bytes:
    source, destination = selector.source, selector.destination
    return b"".join(
        (
            _SELECTOR.pack(destination.network_address.packed, source.network_address.packed),
            _SELECTOR_PORTS.pack(
                selector.destination_port,
                selector.destination_port_mask,
                selector.source_port,
                selector.source_port_mask,
            ),
            _SELECTOR_REST.pack(
                socket.AF_INET if source.version == 4 else socket.AF_INET6,
                destination.prefixlen,
                source.prefixlen,
                selector.protocol,
                0,
                0,
            ),
        )
    )


def _decode_selector(octets: bytes) -> Selector | None:
    destination, source = _SELECTOR.unpack_from(octets)
    ports = _SELECTOR_PORTS.unpack_from(octets, _SELECTOR.size)
    family, length_to, length_from, protocol, _, _ = _SELECTOR_REST.unpack_from(octets, _SELECTOR.size + 8)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    return Selector(
        source=ip_network((unpack_address(source, family), length_from), strict=False),
        destination=ip_network((unpack_address(destination, family), length_to), strict=False),
        protocol=protocol,
        destination_port=ports[0],
        destination_port_mask=ports[1],
        source_port=ports[2],
        source_port_mask=ports[3],
    )


def _encode_limits(limits: Limits) -> bytes:
    return _LIFETIME.pack(limits.soft_octets, limits.hard_octets, limits.soft_packets, limits.hard_packets, 0, 0, 0, 0)


def _encode_usage(usage: Usage) -> bytes:
    return _USAGE.pack(usage.octets, usage.packets, usage.made, usage.first_used)


def _encode_algorithm(algorithm: Algorithm) -> tuple[int, bytes]:
    name, bits = algorithm.name.encode(), len(algorithm.key) * 8
    if not algorithm.icv_bits:
        return _ALG_CRYPT, _ALGORITHM.pack(name, bits) + algorithm.key
    kind = _ALG_AEAD if algorithm.is_aead else _ALG_AUTH_TRUNC
    return kind, _ALGORITHM_ICV.pack(name, bits, algorithm.icv_bits) + algorithm.key


def _decode_algorithms(attributes: Attributes) -> tuple[Algorithm, ...]:
    found = []
    if octets := attributes.get(_ALG_CRYPT):
        name, bits = _ALGORITHM.unpack_from(octets)
        key = octets[_ALGORITHM.size : _ALGORITHM.size + bits // 8]
        found.append(Algorithm(name=_text(name), key=key))
    for kind in (_ALG_AUTH_TRUNC, _ALG_AEAD):
        if octets := attributes.get(kind):
            name, bits, icv_bits = _ALGORITHM_ICV.unpack_from(octets)
            key = octets[_ALGORITHM_ICV.size : _ALGORITHM_ICV.size + bits // 8]
            found.append(Algorithm(name=_text(name), key=key, icv_bits=icv_bits, is_aead=kind == _ALG_AEAD))
    return tuple(found)


def _decode_ports(attributes: Attributes) -> UdpPorts | None:
    octets = attributes.get(_ENCAP)
    if octets is None:
        return None
    _, source, destination = _ENCAPSULATION.unpack_from(octets)
    return UdpPorts(source=source, destination=destination)


def _encode_replay(replay: Replay) -> bytes:
    words = max(1, (replay.window + 31) // 32)
    return (
        _REPLAY.pack(
            words,
            replay.sent & 0xFFFFFFFF,
            replay.received & 0xFFFFFFFF,
            replay.sent >> 32,
            replay.received >> 32,
            replay.window,
        )
        + replay.bitmap.ljust(4 * words, b"\0")[: 4 * words]
    )


def _decode_replay(attributes: Attributes) -> Replay | None:
    octets = attributes.get(_REPLAY_ESN_VAL)
    if octets is None:
        return None
    words, sent, received, sent_high, received_high, window = _REPLAY.unpack_from(octets)
    return Replay(
        sent=sent_high << 32 | sent,
        received=received_high << 32 | received,
        window=window,
        bitmap=octets[_REPLAY.size : _REPLAY.size + 4 * words],
    )


def _encode_template(template: Template) -> bytes:
    spi = template.spi.to_bytes(4, "big")
    return _TEMPLATE.pack(
        _ID.pack(pack_address(template.destination), spi, _ESP),
        family_of(template.destination),
        pack_address(template.source),
        template.reqid,
        template.mode,
        0,
        0,
        0xFFFFFFFF,
        0xFFFFFFFF,
        0xFFFFFFFF,
    )


def _decode_template(octets: bytes) -> Template:
    name, family, source, reqid, mode, *_ = _TEMPLATE.unpack_from(octets)
    destination, spi, _ = _ID.unpack(name)
    return Template(
        source=unpack_address(source, family),
        destination=unpack_address(destination, family),
        reqid=reqid,
        mode=mode,
        spi=int.from_bytes(spi, "big"),
    )


def _number(attributes: Attributes, number: int) -> int:
    return int.from_bytes(attributes.get(number, b""), sys.byteorder)


def _text(name: bytes) -> str:
    return name.split(b"\0")[0].decode(errors="replace")
