"""One direction of a child SA as the kernel's state (RFC 4301 section 4.4.2; <linux/xfrm.h>)."""

from __future__ import annotations

import dataclasses

from ikeway.errors import HostError
from ikeway.esp.parameters import Encapsulation, EspLimits, EspSa, EspTransforms, Mode
from ikeway.esp.sequence import LAST_SHORT, MARGIN
from ikeway.host.linux.xfrm_structures import (
    FLAG_AF_UNSPEC,
    FLAG_ESN,
    LARGEST_REPLAY_WINDOW,
    MODE_TRANSPORT,
    MODE_TUNNEL,
    OFFLOAD_INBOUND,
    OFFLOAD_IPV6,
    UNLIMITED,
    Algorithm,
    Limits,
    Replay,
    State,
    StateId,
    UdpPorts,
)
from ikeway.wire.registry import EncryptionAlgorithm as E
from ikeway.wire.registry import IntegrityAlgorithm as I

_SMALLEST_WINDOW = 32  # ESN needs one, in both directions
_AEADS = {
    E.ENCR_AES_GCM_16: ("rfc4106(gcm(aes))", 128),
    E.ENCR_AES_GCM_12: ("rfc4106(gcm(aes))", 96),
    E.ENCR_AES_GCM_8: ("rfc4106(gcm(aes))", 64),
    E.ENCR_AES_CCM_16: ("rfc4309(ccm(aes))", 128),
    E.ENCR_AES_CCM_12: ("rfc4309(ccm(aes))", 96),
    E.ENCR_AES_CCM_8: ("rfc4309(ccm(aes))", 64),
    E.ENCR_CHACHA20_POLY1305: ("rfc7539esp(chacha20,poly1305)", 128),
}
_CIPHERS = {
    E.ENCR_AES_CBC: "cbc(aes)",
    E.ENCR_AES_CTR: "rfc3686(ctr(aes))",
    E.ENCR_3DES: "cbc(des3_ede)",
    E.ENCR_NULL: "ecb(cipher_null)",
}
_MACS = {
    I.AUTH_HMAC_SHA2_256_128: ("hmac(sha256)", 128),
    I.AUTH_HMAC_SHA2_384_192: ("hmac(sha384)", 192),
    I.AUTH_HMAC_SHA2_512_256: ("hmac(sha512)", 256),
    I.AUTH_HMAC_SHA1_96: ("hmac(sha1)", 96),
    I.AUTH_HMAC_MD5_96: ("hmac(md5)", 96),
    I.AUTH_AES_XCBC_96: ("xcbc(aes)", 96),
    I.AUTH_AES_CMAC_96: ("cmac(aes)", 96),
}


def algorithms(transforms: EspTransforms, encryption_key: bytes, integrity_key: bytes) -> tuple[Algorithm, ...]:
    """The kernel's names, with the keys. Raises HostError for what the kernel has no name for."""
    if transforms.encryption in _AEADS:
        name, bits = _AEADS[transforms.encryption]
        return (Algorithm(name=name, key=encryption_key, icv_bits=bits, is_aead=True),)
    cipher = _CIPHERS.get(transforms.encryption)
    mac = _MACS.get(transforms.integrity) if transforms.integrity else None
    if cipher is None or (transforms.integrity and mac is None):
        raise HostError(
            f"the kernel does not have {transforms.encryption.name} with {transforms.integrity}",
            remedy='propose others, or use `data_plane = "userspace"`',
        )
    found = (Algorithm(name=cipher, key=encryption_key),)
    return (*found, Algorithm(name=mac[0], key=integrity_key, icv_bits=mac[1])) if mac else found


def state(sa: EspSa, *, inbound: bool, reqid: int, nat_port: int, interface_id: int = 0, mark: int = 0) -> State:
    """The state for `sa`. `nat_port` is the port that our socket for ESP in UDP really has: the engine calls it 4500."""
    source, destination = (sa.remote, sa.local) if inbound else (sa.local, sa.remote)
    extended = sa.transforms.extended_sequence_numbers
    udp = None
    if sa.encapsulation is Encapsulation.UDP:
        ports = (sa.remote.port, nat_port) if inbound else (nat_port, sa.remote.port)
        udp = UdpPorts(source=ports[0], destination=ports[1])
    flags = (FLAG_ESN if extended else 0) | (FLAG_AF_UNSPEC if sa.mode is Mode.TUNNEL else 0)
    return State(
        source=source.host,
        destination=destination.host,
        spi=sa.spi,
        reqid=reqid,
        mode=MODE_TUNNEL if sa.mode is Mode.TUNNEL else MODE_TRANSPORT,
        flags=flags,
        algorithms=algorithms(sa.transforms, sa.encryption_key, sa.integrity_key),
        udp=udp,
        replay=_replay(sa, inbound),
        limits=_limits(sa.limits, sequence_ends=not inbound and not extended),
        # In transport mode there is no interface that a packet could be routed into before.
        interface_id=interface_id if sa.mode is Mode.TUNNEL else 0,
        output_mark=mark if not inbound else 0,
    )


def state_id(sa: EspSa, *, inbound: bool) -> StateId:
    """What the kernel knows the state for `sa` by."""
    return StateId(destination=(sa.local if inbound else sa.remote).host, spi=sa.spi)


def continued(new: State, old: State, *, soft_told: bool) -> State:
    """`new` with the sequence numbers, the replay window and the counters that `old` had at its end. A soft limit that
    was told of is not told of again."""
    limits = dataclasses.replace(new.limits, soft_octets=UNLIMITED, soft_packets=UNLIMITED) if soft_told else new.limits
    return dataclasses.replace(new, replay=old.replay or new.replay, usage=old.usage, limits=limits)


def offloaded(one: State, device: int, *, inbound: bool) -> State:
    """The same state, in the network card with this index."""
    flags = (OFFLOAD_INBOUND if inbound else 0) | (OFFLOAD_IPV6 if ":" in one.destination else 0)
    return dataclasses.replace(one, offload=device, offload_flags=flags)


def _replay(sa: EspSa, inbound: bool) -> Replay | None:
    """The window of an outbound SA is never looked at, but ESN wants one."""
    window = min(sa.replay_window, LARGEST_REPLAY_WINDOW) if inbound else _SMALLEST_WINDOW
    if not window and not sa.transforms.extended_sequence_numbers:
        return None
    return Replay(window=max(window, _SMALLEST_WINDOW))


def _limits(limits: EspLimits, *, sequence_ends: bool) -> Limits:
    """The kernel stops by itself where the sequence numbers end, but without a word before."""
    soft_packets, hard_packets = limits.soft_packets, limits.hard_packets
    if sequence_ends:
        soft_packets = min(soft_packets or UNLIMITED, LAST_SHORT - MARGIN)
        hard_packets = min(hard_packets or UNLIMITED, LAST_SHORT)
    return Limits(
        soft_octets=limits.soft_bytes or UNLIMITED,
        hard_octets=limits.hard_bytes or UNLIMITED,
        soft_packets=soft_packets or UNLIMITED,
        hard_packets=hard_packets or UNLIMITED,
    )
