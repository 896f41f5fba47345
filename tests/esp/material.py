"""SAs for tests."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import replace

from ikeway.address import Address
from ikeway.crypto import encryption_info, integrity_info
from ikeway.esp.parameters import Encapsulation, EspSa, EspTransforms, Mode
from ikeway.wire.payloads import TrafficSelector
from ikeway.wire.registry import EncryptionAlgorithm as Encr
from ikeway.wire.registry import IntegrityAlgorithm as Integ
from ikeway.wire.registry import TrafficSelectorType

SUITES = {
    "aes128gcm16": (Encr.ENCR_AES_GCM_16, 128, None),
    "aes256gcm16": (Encr.ENCR_AES_GCM_16, 256, None),
    "aes192gcm8": (Encr.ENCR_AES_GCM_8, 192, None),
    "aes128ccm12": (Encr.ENCR_AES_CCM_12, 128, None),
    "chacha20poly1305": (Encr.ENCR_CHACHA20_POLY1305, None, None),
    "aes256-sha256": (Encr.ENCR_AES_CBC, 256, Integ.AUTH_HMAC_SHA2_256_128),
    "aes128ctr-sha512": (Encr.ENCR_AES_CTR, 128, Integ.AUTH_HMAC_SHA2_512_256),
    "3des-sha1": (Encr.ENCR_3DES, None, Integ.AUTH_HMAC_SHA1_96),
    "null-sha384": (Encr.ENCR_NULL, None, Integ.AUTH_HMAC_SHA2_384_192),
    "aes128-xcbc": (Encr.ENCR_AES_CBC, 128, Integ.AUTH_AES_XCBC_96),
}


def transforms(suite: str, esn: bool = False) -> EspTransforms:
    encryption, key_bits, integrity = SUITES[suite]
    return EspTransforms(encryption=encryption, key_bits=key_bits, integrity=integrity, extended_sequence_numbers=esn)


def network(text: str, protocol: int = 0, ports: tuple[int, int] = (0, 65535)) -> TrafficSelector:
    net = ipaddress.ip_network(text)
    kind = TrafficSelectorType.TS_IPV4_ADDR_RANGE if net.version == 4 else TrafficSelectorType.TS_IPV6_ADDR_RANGE
    return TrafficSelector(kind, protocol, *ports, net[0].packed, net[-1].packed)


ANY = (network("0.0.0.0/0"), network("::/0"))


def esp_sa(suite: str = "aes128gcm16", *, esn: bool = False, **changes: object) -> EspSa:
    """An SA with random keys that lets everything through."""
    chosen = changes.pop("transforms", None) or transforms(suite, esn)
    assert isinstance(chosen, EspTransforms)
    integrity_octets = integrity_info(chosen.integrity).key_octets if chosen.integrity else 0
    sa = EspSa(
        spi=0x12345678,
        child_id=1,
        connection_id=1,
        transforms=chosen,
        encryption_key=os.urandom(encryption_info(chosen.encryption, chosen.key_bits).keying_octets),
        integrity_key=os.urandom(integrity_octets),
        mode=Mode.TUNNEL,
        encapsulation=Encapsulation.UDP,
        local=Address("192.0.2.1", 4500),
        remote=Address("198.51.100.1", 4500),
        local_selectors=ANY,
        remote_selectors=ANY,
    )
    return replace(sa, **changes)
