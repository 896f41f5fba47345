"""Which identities a certificate carries."""

from __future__ import annotations

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from ikeway.auth.binding import carried_identities, carries, describe, require_identity, spki_hash
from ikeway.auth.errors import IdentityMismatch
from ikeway.auth.identity import Identity
from tests.auth.pki import Node, name, root

ALTERNATIVES = (
    "dns:vpn.example.org",
    "dns:*.wild.example.org",
    "email:Alice@example.org",
    "ip:192.0.2.1",
    "ip:2001:db8::1",
    "dn:second name",
    "uri:https://example.org/",
)


@pytest.fixture(scope="module")
def node() -> Node:
    identifier = x509.SubjectKeyIdentifier(b"0123456789abcdef")
    return root("Gateway", ca=None, alternatives=ALTERNATIVES, extra=((identifier, False),))


@pytest.mark.parametrize(
    ("identity", "carried"),
    [
        ("vpn.example.org", True),
        ("VPN.Example.Org", True),
        ("vpn.example.com", False),
        ("example.org", False),
        ("Gateway", False),
        ("alice@example.org", True),
        ("bob@example.org", False),
        ("192.0.2.1", True),
        ("192.0.2.2", False),
        ("dns:192.0.2.1", False),
        ("2001:db8::1", True),
        ("2001:db8::2", False),
        ("O=Example, CN=Gateway", True),
        ("O=EXAMPLE, CN=gateway", True),
        ("O=Example, CN=second name", True),
        ("CN=Gateway, O=Example", False),
        ("CN=Gateway", False),
        ("a.wild.example.org", False),
        ("fqdn:*.wild.example.org", False),
        ("keyid:0123456789abcdef", True),
        ("keyid:vpn.example.org", False),
        ("keyid:O=Example, CN=Gateway", False),
        ("asn1gn:0x820f" + b"vpn.example.org".hex(), True),
        ("asn1gn:0x820f" + b"vpn.example.com".hex(), False),
        ("asn1gn:0x8704c0000201", True),
        ("asn1gn:0x8704c0000202", False),
        ("asn1gn:0x8111" + b"alice@example.org".hex(), True),
        ("asn1gn:0xa4", False),
        ("asn1gn:0x8200ff", False),
        ("201:0x" + b"vpn.example.org".hex(), False),
        ("0:0x" + b"vpn.example.org".hex(), False),
    ],
)
def test_carries(node: Node, identity: str, carried: bool) -> None:
    wanted = Identity.parse(identity)
    assert carries(node.certificate, wanted) is carried
    if not carried:
        with pytest.raises(IdentityMismatch) as caught:
            require_identity(node.certificate, wanted)
        assert str(wanted) in caught.value.reason
        assert "vpn.example.org" in caught.value.got
        assert caught.value.remedy


def test_directory_name_as_general_name(node: Node) -> None:
    der = name("Gateway").public_bytes()
    assert carries(node.certificate, Identity.parse(f"asn1gn:0xa4{len(der):02x}{der.hex()}"))


def test_key_hash_as_key_id(node: Node) -> None:
    spki = node.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki_hash(node.certificate) == hashlib.sha1(spki).digest()
    assert carries(node.certificate, Identity.parse(f"keyid:0x{spki_hash(node.certificate).hex()}"))


@pytest.mark.parametrize(
    ("identity", "covered"),
    [
        ("a.wild.example.org", True),
        ("A.Wild.example.org", True),
        ("b.a.wild.example.org", False),
        ("wild.example.org", False),
        ("fqdn:.wild.example.org", False),
        ("a.tame.example.org", False),
        ("fqdn:*.wild.example.org", False),
    ],
)
def test_wildcards_only_when_asked_for(node: Node, identity: str, covered: bool) -> None:
    assert carries(node.certificate, Identity.parse(identity), wildcards=True) is covered
    assert not carries(node.certificate, Identity.parse(identity))


def test_a_wildcard_right_below_the_top_covers_nothing() -> None:
    certificate = root("x", alternatives=("dns:*.org", "dns:*")).certificate
    for identity in ("example.org", "org", "fqdn:*"):
        assert not carries(certificate, Identity.parse(identity), wildcards=True)


def test_remedies_know_the_usual_mistakes() -> None:
    certificate = root("vpn.example.org").certificate
    with pytest.raises(IdentityMismatch) as caught:
        require_identity(certificate, Identity.parse("VPN.example.org"))
    assert "subjectAltName" in caught.value.remedy
    require_identity(certificate, Identity.parse("VPN.example.org"), common_name=True)
    certificate = root("x", alternatives=("dns:*.example.org",)).certificate
    with pytest.raises(IdentityMismatch) as caught:
        require_identity(certificate, Identity.parse("vpn.example.org"))
    assert "wildcard" in caught.value.remedy


def test_the_common_name_never_proves_other_types() -> None:
    certificate = root("alice@example.org").certificate
    assert not carries(certificate, Identity.parse("alice@example.org"), common_name=True)


def test_certificates_without_a_subject() -> None:
    empty = root("", subject=x509.Name([]), alternatives=("dns:vpn.example.org",)).certificate
    assert [str(identity) for identity in carried_identities(empty)] == ["vpn.example.org"]
    assert describe(empty) == "vpn.example.org"
    nameless = root("", subject=x509.Name([])).certificate
    assert carried_identities(nameless) == []
    assert describe(nameless) == f"serial {nameless.serial_number:x}"
    with pytest.raises(IdentityMismatch, match="not one of"):
        require_identity(nameless, Identity.parse("vpn.example.org"))


def test_descriptions_are_short_and_on_one_line() -> None:
    parts = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"unit\n{index}" * 8) for index in range(20)]
    text = describe(root("", subject=x509.Name(parts)).certificate)
    assert len(text) <= 160
    assert text.isprintable()
