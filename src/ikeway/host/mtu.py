"""How large an inner packet may be so that nothing fragments outside (RFC 4303 section 2, RFC 3948 section 2.1)."""

from __future__ import annotations

from collections.abc import Iterable

from ikeway.crypto import encryption_info, integrity_info
from ikeway.esp.parameters import EspTransforms

IPV4_HEADER = 20
IPV6_HEADER = 40
UDP_HEADER = 8
ESP_HEADER = 8  # SPI, sequence number
ESP_TRAILER = 2  # pad length, next header
LEAST_MTU_IPV6 = 1280  # RFC 8200 section 5: the kernel takes IPv6 off an interface below it
LEAST_MTU_IPV4 = 576  # RFC 791: what every host must take


def tunnel_mtu(
    outer_mtu: int, transforms: EspTransforms, *, outer_ipv6: bool, udp: bool, inner_ipv6: bool = True
) -> int:
    """Return the largest inner packet whose ESP packet is no longer than `outer_mtu` octets, IP header included.

    With IPv6 inside the answer is never below 1280, even if the outer packet then has to be fragmented (RFC 8200
    section 5 asks for that); with IPv4 alone never below 576.
    """
    cipher = encryption_info(transforms.encryption, transforms.key_bits)
    icv = integrity_info(transforms.integrity).icv_octets if transforms.integrity else cipher.icv_octets
    fixed = (IPV6_HEADER if outer_ipv6 else IPV4_HEADER) + (UDP_HEADER if udp else 0)
    fixed += ESP_HEADER + cipher.iv_octets + icv
    alignment = max(4, cipher.block_octets)  # RFC 4303 section 2.4: the trailer ends on a 4-octet boundary
    encrypted = (outer_mtu - fixed) // alignment * alignment
    return max(encrypted - ESP_TRAILER, LEAST_MTU_IPV6 if inner_ipv6 else LEAST_MTU_IPV4)


def tunnel_mtu_for_any(
    outer_mtu: int,
    transforms: Iterable[EspTransforms],
    *,
    outer_ipv6: bool,
    udp: bool,
    inner_ipv6: bool = True,
) -> int:
    """The MTU that fits whichever of several transforms is in use (several child SAs share one interface)."""
    return min(
        tunnel_mtu(outer_mtu, each, outer_ipv6=outer_ipv6, udp=udp, inner_ipv6=inner_ipv6) for each in transforms
    )
