import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.crypto import encryption_info, integrity_info
from ikeway.esp.parameters import EspTransforms
from ikeway.host.mtu import tunnel_mtu, tunnel_mtu_for_any
from ikeway.wire.registry import EncryptionAlgorithm, IntegrityAlgorithm

GCM = EspTransforms(encryption=EncryptionAlgorithm.ENCR_AES_GCM_16, key_bits=256, integrity=None)
CHACHA = EspTransforms(encryption=EncryptionAlgorithm.ENCR_CHACHA20_POLY1305, key_bits=None, integrity=None)
CBC = EspTransforms(
    encryption=EncryptionAlgorithm.ENCR_AES_CBC,
    key_bits=128,
    integrity=IntegrityAlgorithm.AUTH_HMAC_SHA2_256_128,
)
NULL = EspTransforms(
    encryption=EncryptionAlgorithm.ENCR_NULL, key_bits=None, integrity=IntegrityAlgorithm.AUTH_HMAC_SHA1_96
)


def outer_octets(inner: int, transforms: EspTransforms, ipv6: bool, udp: bool) -> int:
    """RFC 4303 section 2, counted from the inside out."""
    cipher = encryption_info(transforms.encryption, transforms.key_bits)
    icv = integrity_info(transforms.integrity).icv_octets if transforms.integrity else cipher.icv_octets
    plaintext = inner + 2
    while plaintext % max(4, cipher.block_octets):
        plaintext += 1
    return (40 if ipv6 else 20) + (8 if udp else 0) + 8 + cipher.iv_octets + plaintext + icv


@pytest.mark.parametrize(
    ("transforms", "ipv6", "udp", "expected"),
    [
        (GCM, False, True, 1438),  # 1500 - 20 - 8 - 8 - 8 - 16 = 1440, minus 2
        (GCM, True, False, 1426),
        (CBC, False, True, 1422),  # 1500 - 20 - 8 - 8 - 16 - 16 = 1432, down to 1424, minus 2
        (NULL, False, False, 1458),  # 1500 - 20 - 8 - 12 = 1460, minus 2
    ],
)
def test_known_sizes(transforms: EspTransforms, ipv6: bool, udp: bool, expected: int) -> None:
    assert tunnel_mtu(1500, transforms, outer_ipv6=ipv6, udp=udp) == expected


@given(st.sampled_from([GCM, CHACHA, CBC, NULL]), st.integers(1400, 9000), st.booleans(), st.booleans())
def test_fits_and_one_more_does_not(transforms: EspTransforms, outer: int, ipv6: bool, udp: bool) -> None:
    mtu = tunnel_mtu(outer, transforms, outer_ipv6=ipv6, udp=udp)
    assert outer_octets(mtu, transforms, ipv6, udp) <= outer < outer_octets(mtu + 1, transforms, ipv6, udp)


def test_never_below_what_ip_needs() -> None:
    assert tunnel_mtu(1280, GCM, outer_ipv6=True, udp=True) == 1280
    assert tunnel_mtu(1280, GCM, outer_ipv6=True, udp=True, inner_ipv6=False) == 1198
    assert tunnel_mtu(400, GCM, outer_ipv6=False, udp=True, inner_ipv6=False) == 576


def test_several_transforms_take_the_smallest() -> None:
    for some in itertools.permutations([GCM, CBC, NULL]):
        assert tunnel_mtu_for_any(1500, some, outer_ipv6=False, udp=True) == 1422
