"""What others captured: real exchanges decode to what is known of them, broken packets are refused with a reason."""

from __future__ import annotations

import dataclasses

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ikeway.errors import WireError
from ikeway.wire import (
    Authentication,
    Encrypted,
    ExchangeType,
    KeyExchange,
    KeyExchangeMethod,
    Message,
    Nonce,
    Notify,
    NotifyType,
    ProtocolId,
    SecurityAssociation,
    UnsupportedVersion,
    VendorId,
    decode_payloads,
    encode_payloads,
    render,
    summary,
    vendor_name,
)
from tests.vectors import vector
from tests.wire.captures import ike_payloads

TCPDUMP = "pcap/tcpdump"
FRAMES = {
    # name: IKE packets, of which IKEv2 messages
    "ikev2four.pcap": (21, 21),
    "ikev2pI2.pcap": (2, 2),
    "ikev2-id-normal.pcap": (1, 0),
    "ikev2-id-short.pcap": (1, 0),
    "ikev2pI2-segfault.pcapng": (1, 0),
    "isakmp-3948-oobr-2.pcap": (0, 0),
    "isakmp-delete-segfault.pcap": (1, 0),
    "isakmp-identification-segfault.pcap": (1, 0),
    "isakmp-ikev1_n_print-oobr.pcap": (2, 0),
    "isakmp-no-none-np.pcapng": (1, 0),
    "isakmp-pointer-loop.pcap": (1, 0),
    "isakmp-rfc3948-oobr.pcap": (0, 0),
    "isakmp-various-oobr.pcap": (1, 0),
    "isakmp4500.pcap": (15, 0),
    "isakmpv1-attr-oobr.pcap": (1, 0),
}


@pytest.mark.parametrize("name", FRAMES)
def test_every_packet_decodes_or_is_refused(name):
    packets, messages = FRAMES[name]
    found = decoded = 0
    for _, octets in ike_payloads(vector(f"{TCPDUMP}/{name}")):
        found += 1
        try:
            message = Message.decode(octets)
        except WireError as error:
            assert error.reason and 0 <= error.offset <= len(octets)
            continue
        decoded += 1
        assert Message.decode(message.encode()) == message
        assert render(message) and summary(message)
    assert decoded == messages
    assert found == packets


def test_ikev1_is_refused_politely():
    versions = []
    for _, octets in ike_payloads(vector(f"{TCPDUMP}/isakmp4500.pcap")):
        with pytest.raises(UnsupportedVersion, match="use IKEv2") as caught:
            Message.decode(octets)
        versions.append(caught.value.version)
    assert set(versions) == {1}


def test_the_offset_says_where():
    """An IDi of five octets: tcpdump says `payload too short`."""
    ((_, octets),) = ike_payloads(vector(f"{TCPDUMP}/ikev2-id-short.pcap"))
    with pytest.raises(WireError, match="identification payload is cut short") as caught:
        Message.decode(octets)
    assert caught.value.offset == 32


def test_an_offer_as_tcpdump_reads_it():
    """pI2: six proposals of four transforms each, MODP-1536 and a vendor ID."""
    octets = next(octets for _, octets in ike_payloads(vector(f"{TCPDUMP}/ikev2pI2.pcap")))
    message = Message.decode(octets)
    assert message.exchange_type is ExchangeType.IKE_SA_INIT and message.message_id == 0
    assert message.initiator_spi == bytes(range(8)) and message.responder_spi == bytes(8)
    offer = message.find(SecurityAssociation)
    assert [proposal.number for proposal in offer.proposals] == [1, 2, 3, 4, 5, 6]
    read = [[str(transform.id) for transform in proposal.transforms] for proposal in offer.proposals]
    encryption = ["ENCR_AES_CBC"] * 2 + ["ENCR_3DES"] * 4
    prf = ["PRF_HMAC_SHA1", "PRF_HMAC_MD5"] * 3
    group = ["MODP_1536"] * 4 + ["MODP_1024"] * 2
    assert read == [[e, "AUTH_HMAC_SHA1_96", p, g] for e, p, g in zip(encryption, prf, group, strict=True)]
    assert message.find(KeyExchange).method is KeyExchangeMethod.MODP_1536
    assert len(message.find(KeyExchange).public_value) == 1536 // 8
    assert message.find(Nonce).value == bytes.fromhex("b5ce8419095c6e2b6b62d3055305b3c4")
    assert vendor_name(message.find(VendorId).value) == "Openswan or Libreswan"


def test_the_exchange_whose_keys_are_known():
    frames = [Message.decode(octets) for _, octets in ike_payloads(vector("pcap/ikev2-aes192ctr/ikev2.pcap"))]
    assert [summary(frame) for frame in frames] == [
        "IKE_SA_INIT request 0 { SAi1, KEi, Ni, N(NAT_DETECTION_SOURCE_IP), N(NAT_DETECTION_DESTINATION_IP) }",
        "IKE_SA_INIT response 0 { SAr1, KEr, Nr, N(NAT_DETECTION_SOURCE_IP), N(NAT_DETECTION_DESTINATION_IP), "
        "N(MULTIPLE_AUTH_SUPPORTED) }",
        "IKE_AUTH request 1 { SK }",
        "IKE_AUTH response 1 { SK }",
        "INFORMATIONAL request 2 { SK }",
        "INFORMATIONAL response 2 { SK }",
    ]
    (chosen,) = frames[1].find(SecurityAssociation).proposals
    assert chosen.protocol is ProtocolId.IKE
    assert {str(transform.id) for transform in chosen.transforms} >= {"ENCR_AES_CTR", "AUTH_HMAC_SHA2_512_256"}
    assert chosen.transforms[0].key_length == 192
    assert {(frame.initiator_spi.hex(), frame.responder_spi.hex()) for frame in frames[1:]} == {
        ("81f24c0acd8fa55c", "192383172724c706")
    }


def test_what_is_inside_the_exchange_whose_keys_are_known():
    row = next(
        line
        for line in vector("pcap/ikev2-aes192ctr/ikev2_decryption_table").read_text().splitlines()
        if not line.startswith("#")
    )
    keys = {True: bytes.fromhex(row.split(",")[2]), False: bytes.fromhex(row.split(",")[3])}
    inside = []
    for _, octets in ike_payloads(vector("pcap/ikev2-aes192ctr/ikev2.pcap")):
        message = Message.decode(octets)
        sealed = message.find(Encrypted)
        if sealed is None:
            continue
        key, salt = keys[message.is_initiator][:24], keys[message.is_initiator][24:]
        start = salt + sealed.body[:8] + (1).to_bytes(4, "big")  # RFC 5930 section 2.3; the ICV has 32 octets
        plain = Cipher(algorithms.AES(key), modes.CTR(start)).decryptor().update(sealed.body[8:-32])
        plain = plain[: len(plain) - 1 - plain[-1]]
        payloads = decode_payloads(sealed.first_payload, plain)
        assert encode_payloads(payloads)[1] == plain
        inside.append(dataclasses.replace(message, payloads=payloads))
    assert [summary(message) for message in inside] == [
        "IKE_AUTH request 1 { IDi, N(INITIAL_CONTACT), IDr, AUTH, SAi2, TSi, TSr, N(MULTIPLE_AUTH_SUPPORTED), "
        "N(EAP_ONLY_AUTHENTICATION) }",
        "IKE_AUTH response 1 { IDr, AUTH, SAr2, TSi, TSr, N(AUTH_LIFETIME) }",
        "INFORMATIONAL request 2 { D }",
        "INFORMATIONAL response 2 { }",
    ]
    assert inside[0].find(Authentication).value.hex().startswith("3ec23dcf9348485638407c754547aeb3")


def test_frames_that_were_encoded_by_others_encode_to_the_same_octets():
    """Nothing is lost: what strongSwan and others put there in the way of the RFC comes out octet by octet."""
    for name in (f"{TCPDUMP}/ikev2four.pcap", f"{TCPDUMP}/ikev2pI2.pcap", "pcap/ikev2-aes192ctr/ikev2.pcap"):
        for number, octets in ike_payloads(vector(name)):
            first = Message.decode(octets)
            again = first.encode()
            # Critical bits of known payloads are ignored and not kept.
            assert len(again) == len(octets), (name, number)
            assert Message.decode(again) == first
            if first.find(Encrypted) is None or name.endswith("aes192ctr/ikev2.pcap"):
                differing = [i for i, (a, b) in enumerate(zip(again, octets, strict=True)) if a != b]
                assert all(octets[i] ^ again[i] == 0x80 for i in differing), (name, number, differing)


@pytest.mark.parametrize(
    ("name", "payloads"),
    [
        ("pkt-ikev2.dat", ["SA", "KE", "NONCE"]),
        ("pkt-v2-notify-response.dat", ["NOTIFY"]),
        ("pkt-v2-sainit-response.dat", ["SA", "KE", "NONCE"]),
    ],
)
def test_packets_of_ike_scan(name, payloads):
    octets = vector(f"pcap/ike-scan/packets/{name}").read_bytes()
    message = Message.decode(octets)
    assert [payload.payload_type.name for payload in message.payloads] == payloads
    if "notify" in name:
        assert message.find(Notify).type is NotifyType.NO_PROPOSAL_CHOSEN


def test_other_packets_of_ike_scan_are_another_version():
    others = [path for path in vector("pcap/ike-scan/packets").iterdir() if "v2" not in path.name]
    assert len(others) > 8
    for path in others:
        octets = path.read_bytes()
        with pytest.raises(UnsupportedVersion) as caught:
            Message.decode(octets.removeprefix(bytes(4)))
        assert caught.value.version != 2, path.name


def test_vendor_ids_as_ike_scan_knows_them():
    """Names differ, but whose they are does not."""
    makers = {
        "strongSwan": "strongSwan",
        "Windows": "Microsoft",
        "Cisco Unity": "Cisco",
        "Firewall-1": "Check Point",
        "IKE Fragmentation": "IKE fragmentation",
        "SonicWall": "SonicWall",
        "FortiGate": "Fortinet",
        "RFC 3947": "NAT traversal",
        "MS-Negotiation": "Microsoft",
        "XAUTH": "XAUTH",
    }
    seen = set()
    for line in vector("pcap/ike-scan/ike-vendor-ids").read_text().splitlines():
        name, _, pattern = line.partition("\t")
        octets = pattern.strip().removeprefix("^").replace(".", "0")
        ours = None if line.startswith("#") or not octets.isalnum() else vendor_name(bytes.fromhex(octets))
        for theirs, maker in makers.items():
            if ours is not None and name.startswith(theirs):
                assert maker in ours, name
                seen.add(theirs)
    assert seen == set(makers)
