"""NAT detection (RFC 7296 section 2.23)."""

from __future__ import annotations

import hashlib

import pytest

from ikeway.address import Address
from ikeway.ike.nat import NatFindings, detection_hash, detection_notifies, find_nat
from ikeway.wire.message import Message
from ikeway.wire.payloads import Notify, Payload
from ikeway.wire.registry import ExchangeType, NotifyType

SPI_I, SPI_R = b"initiate", b"responds"
CLIENT, GATEWAY = Address("192.0.2.1", 500), Address("198.51.100.1", 500)
OUTSIDE = Address("203.0.113.9", 61234)


def message(*payloads: Payload) -> Message:
    return Message(SPI_I, SPI_R, ExchangeType.IKE_SA_INIT, True, False, 0, payloads)


def sent(local: Address = CLIENT, remote: Address = GATEWAY, **keywords) -> Message:
    return message(*detection_notifies(SPI_I, SPI_R, local, remote, **keywords))


def test_the_hash_covers_spis_address_and_port():
    expected = hashlib.sha1(SPI_I + SPI_R + bytes([192, 0, 2, 1]) + (500).to_bytes(2, "big")).digest()
    assert detection_hash(SPI_I, SPI_R, CLIENT) == expected
    ipv6 = bytes.fromhex("20010db8000000000000000000000001")
    expected = hashlib.sha1(SPI_I + bytes(8) + ipv6 + (4500).to_bytes(2, "big")).digest()
    assert detection_hash(SPI_I, bytes(8), Address("2001:db8::1", 4500)) == expected


@pytest.mark.parametrize(
    ("local", "remote", "peer", "here"),
    [
        (GATEWAY, CLIENT, False, False),
        (GATEWAY, OUTSIDE, True, False),
        (GATEWAY, Address(CLIENT.host, 501), True, False),
        (Address("10.0.0.1", 500), CLIENT, False, True),
        (Address("10.0.0.1", 500), OUTSIDE, True, True),
        (GATEWAY, Address("2001:db8::9", 500), True, False),
    ],
)
def test_who_is_behind_a_nat(local, remote, peer, here):
    findings = find_nat(sent(), local, remote)
    assert findings == NatFindings(True, peer, here)
    assert findings.any == (peer or here)


def test_without_notifies_nothing_is_found():
    source, destination = detection_notifies(SPI_I, SPI_R, CLIENT, GATEWAY)
    for incomplete in (message(), message(source), message(destination)):
        assert find_nat(incomplete, GATEWAY, OUTSIDE) == NatFindings()
    assert not NatFindings().any


def test_one_of_several_sources_is_enough():
    """A sender with several addresses names them all."""
    source, destination = detection_notifies(SPI_I, SPI_R, CLIENT, GATEWAY)
    other = Notify(NotifyType.NAT_DETECTION_SOURCE_IP, bytes(20))
    assert not find_nat(message(other, source, destination), GATEWAY, CLIENT).peer_behind_nat
    assert find_nat(message(other, other, destination), GATEWAY, CLIENT).peer_behind_nat


def test_a_nat_can_be_pretended():
    pretending = sent(pretend_nat=lambda size: b"\x55" * size)
    assert find_nat(pretending, GATEWAY, CLIENT) == NatFindings(True, True, False)
    assert [len(notify.value) for notify in pretending.find_all(Notify)] == [20, 20]


def test_spis_may_be_others_than_the_headers():
    assert find_nat(sent(), GATEWAY, CLIENT, (b"another!", SPI_R)) == NatFindings(True, True, True)
    assert find_nat(sent(), GATEWAY, CLIENT, (SPI_I, SPI_R)) == NatFindings(True, False, False)


def test_hashes_of_a_wrong_size_match_nothing():
    source, destination = (
        Notify(NotifyType.NAT_DETECTION_SOURCE_IP, b""),
        Notify(NotifyType.NAT_DETECTION_DESTINATION_IP, bytes(300)),
    )
    assert find_nat(message(source, destination), GATEWAY, CLIENT) == NatFindings(True, True, True)
