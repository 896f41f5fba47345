"""Scapy's SecurityAssociation as a second opinion, packet by packet and in both directions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ikeway.esp.drops import Drop
from ikeway.esp.inbound import InboundSa, Opened
from ikeway.esp.outbound import OutboundSa
from ikeway.esp.parameters import Mode
from ikeway.esp.tunnel import Unwrapper, wrap
from tests.esp.material import esp_sa, transforms

layers = pytest.importorskip("scapy.layers.ipsec")
inet = pytest.importorskip("scapy.layers.inet")
inet6 = pytest.importorskip("scapy.layers.inet6")

# Our suite: scapy's names.
NAMES = {
    "aes128gcm16": ("AES-GCM", "NULL"),
    "aes256gcm16": ("AES-GCM", "NULL"),
    "aes128ccm12": ("AES-CCM", "NULL"),
    "chacha20poly1305": ("CHACHA20-POLY1305", "NULL"),
    "aes256-sha256": ("AES-CBC", "SHA2-256-128"),
    "aes128ctr-sha512": ("AES-CTR", "SHA2-512-256"),
    "3des-sha1": ("3DES", "HMAC-SHA1-96"),
    "null-sha384": ("NULL", "SHA2-384-192"),
}


def both(suite: str, esn: bool, high: int, **changes: object):
    sa = esp_sa(suite, esn=esn, **changes)
    crypt, auth = NAMES[suite]
    extra = {"crypt_icv_size": 12} if suite.endswith("ccm12") else {}
    theirs = layers.SecurityAssociation(
        layers.ESP,
        spi=sa.spi,
        crypt_algo=crypt,
        crypt_key=sa.encryption_key or None,
        auth_algo=auth,
        auth_key=sa.integrity_key or None,
        tunnel_header=inet.IP(src="192.0.2.1", dst="198.51.100.1") if sa.mode is Mode.TUNNEL else None,
        esn_en=esn,
        esn=high,
        **extra,
    )
    return sa, theirs


def inner_packet(payload: bytes, ipv6: bool) -> bytes:
    head = inet6.IPv6(src="2001:db8::1", dst="2001:db8::2") if ipv6 else inet.IP(src="10.0.0.1", dst="10.0.0.2")
    return bytes(head / inet.UDP(sport=1111, dport=2222) / payload)


@given(suite=st.sampled_from(sorted(NAMES)), payload=st.binary(max_size=300), ipv6=st.booleans(), esn=st.booleans())
@settings(max_examples=120, deadline=None)
def test_scapy_opens_ours_in_tunnel_mode(suite: str, payload: bytes, ipv6: bool, esn: bool) -> None:
    sa, theirs = both(suite, esn, 1)
    sender = OutboundSa(sa)
    sender.sequence = (1 << 32) + 6 if esn else 6
    packet = inner_packet(payload, ipv6)
    sealed = sender.seal(*wrap(packet, Mode.TUNNEL))
    outer = inet.IP(src="192.0.2.1", dst="198.51.100.1", proto=50) / layers.ESP(sealed)
    assert bytes(theirs.decrypt(inet.IP(bytes(outer)))) == packet


@given(suite=st.sampled_from(sorted(NAMES)), payload=st.binary(max_size=300), ipv6=st.booleans(), esn=st.booleans())
@settings(max_examples=120, deadline=None)
def test_we_open_scapys_in_tunnel_mode(suite: str, payload: bytes, ipv6: bool, esn: bool) -> None:
    sa, theirs = both(suite, esn, 1)
    packet = inner_packet(payload, ipv6)
    scapys = inet6.IPv6(packet) if ipv6 else inet.IP(packet)
    sealed = bytes(theirs.encrypt(scapys, seq_num=7, esn=1))[20:]
    receiver = InboundSa(sa)
    receiver.window.highest = (1 << 32) + 3 if esn else 3
    opened = receiver.open(sealed)
    assert isinstance(opened, Opened)
    assert bytes(Unwrapper(receiver).unwrap(opened, 0)) == packet
    assert receiver.open(sealed) == Drop.REPLAYED


@pytest.mark.parametrize("suite", sorted(NAMES))
def test_transport_mode_with_scapy(suite: str) -> None:
    sa, theirs = both(suite, False, 0, mode=Mode.TRANSPORT)
    packet = bytes(inet.IP(src="192.0.2.1", dst="198.51.100.1") / inet.TCP(sport=5, dport=6) / b"transport")
    sealed = OutboundSa(sa).seal(*wrap(packet, Mode.TRANSPORT))
    outer = inet.IP(src="192.0.2.1", dst="198.51.100.1", proto=50) / layers.ESP(sealed)
    assert bytes(theirs.decrypt(inet.IP(bytes(outer)))[inet.TCP]) == packet[20:]


def test_every_suite_of_ours_but_two_has_scapys_opinion() -> None:
    from tests.esp.material import SUITES

    assert set(SUITES) - set(NAMES) == {"aes192gcm8", "aes128-xcbc"}
    assert transforms("aes128gcm16").integrity is None
