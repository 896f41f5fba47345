"""X.509 paths: the good ones, and every bad case by its own error."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ikeway.auth import path as path_module
from ikeway.auth.certificate import CertificatePolicy, Role, TrustStore
from ikeway.auth.errors import (
    CertificateError,
    CertificateExpired,
    CertificateNotYetValid,
    IdentityMismatch,
    MalformedCertificate,
    NameConstraintViolated,
    PathTooLong,
    UnknownCriticalExtension,
    UnsuitableCertificate,
    UntrustedCertificate,
    WeakAlgorithm,
)
from ikeway.auth.identity import Identity
from ikeway.auth.parse import load_certificate
from tests.auth.pki import DAY, NOW, Node, name, new_key, resigned, root

SERVER_AUTH, CLIENT_AUTH = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"
CODE_SIGNING, ANY_USAGE = "1.3.6.1.5.5.7.3.3", "2.5.29.37.0"
IPSEC_IKE, IKE_INTERMEDIATE, IPSEC_USER = "1.3.6.1.5.5.7.3.17", "1.3.6.1.5.5.8.2.2", "1.3.6.1.5.5.7.3.7"
VPN = Identity.parse("vpn.example.org")


def trust(*anchors: Node, intermediates: tuple[Node, ...] = (), **policy: Any) -> TrustStore:
    return TrustStore(
        tuple(node.certificate for node in anchors),
        (),
        tuple(node.certificate for node in intermediates),
        CertificatePolicy(**policy),
    )


def verify(
    store: TrustStore,
    *chain: Node,
    identity: Identity | None = None,
    when: datetime = NOW,
    role: Role = Role.RESPONDER,
) -> path_module.VerifiedPath:
    return store.verify([node.certificate for node in chain], identity, when, role)


def refused(kind: type[CertificateError], store: TrustStore, *chain: Node, **options: Any) -> CertificateError:
    """Verify, expect exactly that error, and see that it says all a person needs."""
    with pytest.raises(CertificateError) as caught:
        verify(store, *chain, **options)
    error = caught.value
    assert type(error) is kind, error
    assert (error.reason and error.expected and error.got) or kind is MalformedCertificate
    assert error.notify == 24
    return error


@pytest.fixture(scope="module")
def ca() -> Node:
    return root()


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521", "bp256", "ed25519", "ed448"])
def test_a_certificate_of_a_trusted_ca(kind: str) -> None:
    authority = root(key=new_key(kind))
    leaf = authority.issue("vpn", key=new_key(kind), alternatives=("dns:vpn.example.org",))
    path = verify(trust(authority), leaf, identity=VPN)
    assert path.certificates == (leaf.certificate, authority.certificate)
    assert path.anchor == authority.certificate
    assert path.public_key == leaf.key.public_key()


def test_several_intermediates_in_any_order(ca: Node) -> None:
    first = ca.issue("first", ca=True)
    second = first.issue("second", ca=True)
    third = second.issue("third", ca=True)
    leaf = third.issue("vpn", alternatives=("dns:vpn.example.org",))
    stranger = root("stranger")
    path = verify(trust(ca), leaf, second, stranger, first, third, leaf, identity=VPN)
    assert [certificate.subject for certificate in path.certificates] == [
        name(common_name) for common_name in ("vpn", "third", "second", "first", "Root")
    ]
    # Also when the peer sends none, but we have them.
    verify(trust(ca, intermediates=(first, second, third)), leaf, identity=VPN)
    error = refused(UntrustedCertificate, trust(ca), leaf, third, first)
    assert "CN=second" in error.got
    assert "intermediate" in error.remedy


def test_an_anchor_may_be_an_intermediate_ca(ca: Node) -> None:
    sub = ca.issue("sub", ca=True)
    leaf = sub.issue("vpn")
    path = verify(trust(sub), leaf, sub)
    assert path.anchor == sub.certificate


def test_an_anchor_may_be_the_peers_own_certificate() -> None:
    alone = root("alone", ca=None, alternatives=("dns:vpn.example.org",))
    assert verify(trust(alone), alone, identity=VPN).certificates == (alone.certificate,)
    refused(CertificateExpired, trust(alone), alone, when=NOW + 60 * DAY)
    refused(IdentityMismatch, trust(alone), alone, identity=Identity.parse("other.example.org"))


def test_cross_signed_by_two_roots_finds_the_trusted_one(ca: Node) -> None:
    old = root("Old", end=NOW - DAY)
    key = new_key()
    by_old, by_new = old.issue("sub", key=key, ca=True), ca.issue("sub", key=key, ca=True)
    leaf = by_new.issue("vpn")
    path = verify(trust(old, ca), leaf, by_old, by_new)
    assert path.anchor == ca.certificate


def test_an_unknown_ca(ca: Node) -> None:
    other = root("Other")
    leaf = other.issue("vpn")
    error = refused(UntrustedCertificate, trust(ca), leaf, other)
    assert "CN=Root" in error.expected
    assert "CN=Other" in error.got
    assert error.subject == "O=Example, CN=vpn"
    refused(UntrustedCertificate, trust(ca), root("self", ca=None))


def test_no_anchors_at_all(ca: Node) -> None:
    with pytest.raises(UntrustedCertificate, match="no CA is trusted"):
        verify(trust(), ca.issue("vpn"))


def test_a_ca_of_the_same_name_with_another_key(ca: Node) -> None:
    impostor = root("Root")
    leaf = impostor.issue("vpn", alternatives=("dns:vpn.example.org",))
    error = refused(UntrustedCertificate, trust(ca), leaf, impostor, identity=VPN)
    assert "another key" in error.got
    # Both are trusted: after a renewal of the CA, say.
    assert verify(trust(ca, impostor), leaf).anchor == impostor.certificate


def test_a_changed_certificate(ca: Node) -> None:
    leaf = ca.issue("vpn")
    der = bytearray(leaf.certificate.public_bytes(Encoding.DER))
    der[-1] ^= 1
    changed = x509.load_der_x509_certificate(bytes(der))
    refused(UntrustedCertificate, trust(ca), Node(changed, leaf.key))


def test_time(ca: Node) -> None:
    leaf = ca.issue("vpn", start=NOW - DAY, end=NOW + DAY)
    store = trust(ca)
    for when in (NOW - DAY, NOW, NOW + DAY):
        verify(store, leaf, when=when)
    error = refused(CertificateExpired, store, leaf, when=NOW + DAY + timedelta(seconds=1))
    assert "2026-06-02" in error.reason
    assert error.remedy == "renew the certificate"
    error = refused(CertificateNotYetValid, store, leaf, when=NOW - DAY - timedelta(seconds=1))
    assert "clock" in error.got


def test_time_of_the_cas_counts(ca: Node) -> None:
    sub = ca.issue("sub", ca=True, end=NOW - DAY)
    leaf = sub.issue("vpn")
    error = refused(CertificateExpired, trust(ca), leaf, sub)
    assert error.subject == "O=Example, CN=sub"
    expired = root(end=NOW - DAY)
    refused(CertificateExpired, trust(expired), expired.issue("vpn"))


@pytest.mark.parametrize("ca_mark", [None, False])
def test_who_is_no_ca_must_not_issue(ca: Node, ca_mark: bool | None) -> None:
    pretender = ca.issue("alice", ca=ca_mark)
    leaf = pretender.issue("vpn")
    error = refused(UnsuitableCertificate, trust(ca), leaf, pretender)
    assert "basicConstraints" in error.reason
    assert error.subject == "O=Example, CN=alice"
    # Nor an anchor: whoever trusts a peer's certificate does not trust what it signs.
    refused(UnsuitableCertificate, trust(pretender), leaf)


def test_a_ca_without_key_cert_sign(ca: Node) -> None:
    sub = ca.issue("sub", ca=True, uses=("digital_signature", "crl_sign"))
    assert "keyCertSign" in refused(UnsuitableCertificate, trust(ca), sub.issue("vpn"), sub).reason
    good = ca.issue("sub", ca=True, uses=("key_cert_sign",))
    verify(trust(ca), good.issue("vpn"), good)


def test_path_length() -> None:
    top = root(path_length=1)
    first = top.issue("first", ca=True)
    second = first.issue("second", ca=True)
    verify(trust(top), first.issue("vpn"), first)
    error = refused(PathTooLong, trust(top), second.issue("vpn"), first, second)
    assert error.subject == "O=Example, CN=second"
    zero = top.issue("zero", ca=True, path_length=0)
    verify(trust(top), zero.issue("vpn"), zero)
    below = zero.issue("below", ca=True)
    refused(PathTooLong, trust(zero), below.issue("vpn"), below)


def test_self_issued_certificates_do_not_count_for_the_path_length() -> None:
    top = root(path_length=0)
    renewed = top.issue("Root", ca=True, path_length=0)
    verify(trust(top), renewed.issue("vpn"), renewed)


def test_a_path_longer_than_we_walk(ca: Node) -> None:
    chain = [ca]
    for index in range(9):
        chain.append(chain[-1].issue(f"sub {index}", ca=True))
    verify(trust(ca), chain[-2].issue("vpn"), *chain[1:])
    refused(UntrustedCertificate, trust(ca), chain[-1].issue("vpn"), *chain[1:])


def test_loops_end(ca: Node) -> None:
    """Two CAs that sign each other, in many copies."""
    one, two = root("one"), root("two")
    ring = [two.issue("one", key=one.key, ca=True), one.issue("two", key=two.key, ca=True)] * 5
    leaf = one.issue("vpn")
    refused(UntrustedCertificate, trust(ca), leaf, *ring)


def test_work_is_bounded(ca: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bag of CAs which all sign each other would be a walk through all permutations."""
    keys = [new_key() for _ in range(8)]
    names = [f"ca {index}" for index in range(8)]
    bag = [
        Node(root(names[j], key=keys[j]).issue(names[i], key=keys[i], ca=True).certificate, keys[i])
        for i in range(8)
        for j in range(8)
        if i != j
    ]
    checked = 0
    real = path_module._check_signature_algorithm

    def counted(*arguments: Any) -> None:
        nonlocal checked
        checked += 1
        real(*arguments)

    monkeypatch.setattr(path_module, "_check_signature_algorithm", counted)
    leaf = Node(bag[0].issue("vpn").certificate, None)
    refused(UntrustedCertificate, trust(ca), leaf, *bag)
    assert checked <= path_module.MAX_SIGNATURES


@pytest.mark.parametrize(
    ("extended", "as_responder", "as_initiator", "required"),
    [
        ((), True, True, False),
        ((SERVER_AUTH,), True, True, True),
        ((CLIENT_AUTH,), False, True, False),
        ((IPSEC_IKE,), True, True, True),
        ((IKE_INTERMEDIATE,), True, True, True),
        ((CLIENT_AUTH, SERVER_AUTH), True, True, True),
        ((ANY_USAGE,), True, True, True),
        ((IPSEC_USER,), False, True, False),
        ((CODE_SIGNING,), False, False, False),
    ],
)
def test_extended_key_usage(
    ca: Node, extended: tuple[str, ...], as_responder: bool, as_initiator: bool, required: bool
) -> None:
    leaf = ca.issue("vpn", extended=extended)
    cases = [
        (trust(ca), Role.RESPONDER, as_responder),
        (trust(ca), Role.INITIATOR, as_initiator),
        (trust(ca, require_server_eku=True), Role.RESPONDER, required),
        (trust(ca, require_server_eku=True), Role.INITIATOR, as_initiator),
        (trust(ca, ignore_eku=True), Role.RESPONDER, True),
        (trust(ca, ignore_eku=True), Role.INITIATOR, True),
    ]
    for store, role, good in cases:
        if good:
            verify(store, leaf, role=role)
        else:
            error = refused(UnsuitableCertificate, store, leaf, role=role)
            assert "ipsecIKE" in error.expected


def test_extended_key_usage_of_a_ca_limits_what_it_issues(ca: Node) -> None:
    mail = ca.issue("mail", ca=True, extended=("1.3.6.1.5.5.7.3.4",))
    leaf = mail.issue("vpn", extended=(SERVER_AUTH,))
    refused(UnsuitableCertificate, trust(ca), leaf, mail)
    verify(trust(ca, ignore_eku=True), leaf, mail)


@pytest.mark.parametrize(
    ("uses", "good"),
    [
        (None, True),
        (("digital_signature",), True),
        (("content_commitment",), True),
        (("key_encipherment",), False),
        (("key_cert_sign", "crl_sign"), False),
    ],
)
def test_key_usage(ca: Node, uses: tuple[str, ...] | None, good: bool) -> None:
    leaf = ca.issue("vpn", uses=uses)
    if good:
        verify(trust(ca), leaf)
    else:
        assert "digitalSignature" in refused(UnsuitableCertificate, trust(ca), leaf).expected


@pytest.mark.parametrize(
    ("permitted", "excluded", "alternatives", "good"),
    [
        (("dns:example.org",), None, ("dns:vpn.example.org",), True),
        (("dns:example.org",), None, ("dns:example.org",), True),
        (("dns:example.org",), None, ("dns:VPN.Example.ORG",), True),
        (("dns:example.org",), None, ("dns:vpn.example.com",), False),
        (("dns:example.org",), None, ("dns:badexample.org",), False),
        (("dns:example.org",), None, ("dns:vpn.example.org", "dns:evil.com"), False),
        (("dns:example.org",), None, ("email:alice@evil.com",), True),
        (None, ("dns:example.org",), ("dns:vpn.example.org",), False),
        (None, ("dns:example.org",), ("dns:vpn.example.com",), True),
        (("dns:example.org",), ("dns:secret.example.org",), ("dns:a.secret.example.org",), False),
        (("email:example.org",), None, ("email:alice@example.org",), True),
        (("email:example.org",), None, ("email:alice@sub.example.org",), False),
        (("email:.example.org",), None, ("email:alice@sub.example.org",), True),
        (("email:.example.org",), None, ("email:alice@example.org",), False),
        (("email:alice@example.org",), None, ("email:alice@EXAMPLE.org",), True),
        (("email:alice@example.org",), None, ("email:bob@example.org",), False),
        (("net:10.0.0.0/8",), None, ("ip:10.1.2.3",), True),
        (("net:10.0.0.0/8",), None, ("ip:11.1.2.3",), False),
        (("net:10.0.0.0/8",), None, ("ip:2001:db8::1",), False),
        (None, ("net:2001:db8::/32",), ("ip:2001:db8::1",), False),
        (("uri:.example.org",), None, ("uri:https://a.example.org/x",), True),
        (("uri:example.org",), None, ("uri:https://a.example.org/x",), False),
        (("uri:example.org",), None, ("uri:https://example.org/x",), True),
        (("org:Example",), None, (), True),
        (("org:Other",), None, (), False),
        (None, ("org:Example",), (), False),
        (("org:Example",), None, ("dn:x",), True),
    ],
)
def test_name_constraints(
    ca: Node,
    permitted: tuple[str, ...] | None,
    excluded: tuple[str, ...] | None,
    alternatives: tuple[str, ...],
    good: bool,
) -> None:
    sub = ca.issue("sub", ca=True, permitted=permitted, excluded=excluded)
    leaf = sub.issue("vpn", alternatives=alternatives)
    if good:
        verify(trust(ca), leaf, sub)
    else:
        error = refused(NameConstraintViolated, trust(ca), leaf, sub)
        assert "CN=sub" in error.reason
    # Constraints reach through the CAs below.
    below = sub.issue("below", ca=True)
    deep = below.issue("vpn", alternatives=alternatives)
    if good:
        verify(trust(ca), deep, below, sub)
    else:
        refused(NameConstraintViolated, trust(ca), deep, below, sub)


def test_name_constraints_of_an_anchor_count() -> None:
    top = root(permitted=("dns:example.org",))
    verify(trust(top), top.issue("vpn", alternatives=("dns:vpn.example.org",)))
    refused(NameConstraintViolated, trust(top), top.issue("vpn", alternatives=("dns:vpn.example.com",)))


def test_name_constraints_for_mail_in_the_subject(ca: Node) -> None:
    sub = ca.issue("sub", ca=True, permitted=("email:example.org",))
    subject = x509.Name([x509.NameAttribute(NameOID.EMAIL_ADDRESS, "alice@evil.com")])
    refused(NameConstraintViolated, trust(ca), sub.issue("", subject=subject), sub)


def test_name_constraints_for_a_common_name_that_counts(ca: Node) -> None:
    sub = ca.issue("sub", ca=True, permitted=("dns:example.org",))
    leaf = sub.issue("vpn.example.com")
    verify(trust(ca), leaf, sub)
    refused(NameConstraintViolated, trust(ca, allow_common_name=True), leaf, sub)


def test_unsupported_name_constraints(ca: Node) -> None:
    constraint = x509.NameConstraints([x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))], None)
    sub = ca.issue("sub", ca=True, extra=((constraint, True),))
    refused(UnknownCriticalExtension, trust(ca), sub.issue("vpn"), sub)


def test_unknown_extensions(ca: Node) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.1"), b"\x05\x00")
    verify(trust(ca), ca.issue("vpn", extra=((unknown, False),)))
    leaf = ca.issue("vpn", extra=((unknown, True),))
    assert "32473" in refused(UnknownCriticalExtension, trust(ca), leaf).got
    sub = ca.issue("sub", ca=True, extra=((unknown, True),))
    refused(UnknownCriticalExtension, trust(ca), sub.issue("vpn"), sub)
    constraints = x509.PolicyConstraints(0, None)
    refused(UnknownCriticalExtension, trust(ca), ca.issue("vpn", extra=((constraints, True),)))


def test_an_extension_that_cannot_be_read(ca: Node) -> None:
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x05abc")
    leaf = ca.issue("vpn", extra=((broken, False),))
    refused(MalformedCertificate, trust(ca), leaf, identity=VPN)


@pytest.mark.parametrize("digest", [hashes.SHA1(), hashes.MD5()])
def test_weak_signatures(digest: Any) -> None:
    authority = root(key=new_key("rsa"))
    leaf = resigned(authority.issue("vpn"), authority, digest)
    error = refused(WeakAlgorithm, trust(authority), leaf)
    assert error.got == digest.name.upper()
    assert "SHA-256" in error.expected
    refused(WeakAlgorithm, trust(authority, allow_sha1=digest.name == "md5", allow_md5=digest.name == "sha1"), leaf)
    verify(trust(authority, **{f"allow_{digest.name}": True}), leaf)
    # The anchor's own signature proves nothing anyway.
    old_anchor = resigned(authority, authority, digest)
    verify(trust(old_anchor), authority.issue("vpn"))


def test_short_keys(ca: Node) -> None:
    leaf = ca.issue("vpn", key=new_key("rsa1024"))
    assert refused(WeakAlgorithm, trust(ca), leaf).got == "1024 bits"
    verify(trust(ca, minimum_rsa_bits=1024), leaf)
    verify(trust(ca), ca.issue("vpn", key=new_key("rsa")))
    assert refused(WeakAlgorithm, trust(ca, minimum_rsa_bits=3072), ca.issue("vpn", key=new_key("rsa"))).expected
    refused(WeakAlgorithm, trust(ca), ca.issue("vpn", key=new_key("p192")))
    weak = root("Weak", key=new_key("rsa1024"))
    refused(WeakAlgorithm, trust(weak), weak.issue("vpn"))


def of_unknown_kind(node: Node) -> Node:
    """The certificate with a key algorithm that nobody knows; its signature is broken by that."""
    known, unknown = bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d027f")
    der = node.certificate.public_bytes(Encoding.DER).replace(known, unknown)
    return Node(load_certificate(der), None)


def test_keys_of_an_unknown_kind(ca: Node) -> None:
    """As an anchor they are of no use; from a peer they are refused, whatever name they go by."""
    strange = of_unknown_kind(ca)
    store = trust(ca, strange)
    assert store.authorities == trust(ca).authorities
    for subject in ("vpn", "Root"):
        leaf = of_unknown_kind(ca.issue(subject))
        refused(UntrustedCertificate, store, leaf)
        refused(UntrustedCertificate, store, leaf, leaf, of_unknown_kind(ca.issue("Root")))
    refused(MalformedCertificate, store, strange)
    verify(store, ca.issue("vpn"))


def test_no_certificate_at_all(ca: Node) -> None:
    with pytest.raises(MalformedCertificate, match="no certificate"):
        trust(ca).verify([], VPN, NOW, Role.RESPONDER)


def test_verdicts_are_kept_but_not_beyond_their_time(ca: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = ca.issue("vpn", alternatives=("dns:vpn.example.org",), end=NOW + DAY)
    store = trust(ca)
    searches = 0
    real = path_module._Search.paths

    def counted(self: Any, path: Any) -> Any:
        nonlocal searches
        searches += len(path) == 1
        return real(self, path)

    monkeypatch.setattr(path_module._Search, "paths", counted)
    first = verify(store, leaf, identity=VPN)
    assert verify(store, leaf, identity=VPN, when=NOW + DAY) is first
    assert searches == 1
    # Identity, time and role are judged each time.
    refused(IdentityMismatch, store, leaf, identity=Identity.parse("other.example.org"))
    assert searches == 1
    refused(CertificateExpired, store, leaf, when=NOW + 2 * DAY)
    verify(store, leaf, role=Role.INITIATOR)
    assert searches == 3
    # A certificate that was refused is not remembered as good, and an equal chain is the same chain.
    again = Node(x509.load_pem_x509_certificate(leaf.certificate.public_bytes(Encoding.PEM)), None)
    assert verify(store, again, identity=VPN) is first


def test_superfluous_certificates_do_not_fill_the_store(ca: Node) -> None:
    leaf, store = ca.issue("vpn"), trust(ca)
    for index in range(3):
        verify(store, leaf, root(f"superfluous {index}"))
    assert len(store._good) == 1


def test_the_store_does_not_grow_without_bound(ca: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    from ikeway.auth import certificate

    monkeypatch.setattr(certificate, "_CACHED_PATHS", 3)
    store = trust(ca)
    for index in range(6):
        verify(store, ca.issue(f"client {index}"))
    assert len(store._good) == 3


def test_policy_fields_are_all_used() -> None:
    """Each field changes a verdict somewhere above; a new one must be added there."""
    assert {field.name for field in dataclasses.fields(CertificatePolicy)} == {
        "require_server_eku",
        "ignore_eku",
        "require_crl",
        "allow_wildcards",
        "allow_common_name",
        "allow_sha1",
        "allow_md5",
        "minimum_rsa_bits",
        "max_certificates",
    }
