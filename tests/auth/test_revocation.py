"""CRLs: what counts, what does not, and what is required."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509

from ikeway.auth.certificate import CertificatePolicy, Role, TrustStore
from ikeway.auth.errors import RevocationUnknown, Revoked
from ikeway.auth.revocation import RevocationLists
from tests.auth.pki import DAY, NOW, Node, new_key, root


@pytest.fixture(scope="module")
def ca() -> Node:
    return root(uses=("key_cert_sign", "crl_sign"))


@pytest.fixture(scope="module")
def leaf(ca: Node) -> Node:
    return ca.issue("vpn")


def check(
    anchor: Node,
    chain: list[Node],
    *crls: x509.CertificateRevocationList,
    required: bool = False,
    when: Any = NOW,
) -> None:
    store = TrustStore((anchor.certificate,), crls, (), CertificatePolicy(require_crl=required))
    store.verify([node.certificate for node in chain], None, when, Role.RESPONDER)


def point(**options: bool) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    fields = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return ((x509.IssuingDistributionPoint(**{**fields, **options}), True),)  # type: ignore[arg-type]


def test_revoked_with_reason(ca: Node, leaf: Node) -> None:
    with pytest.raises(Revoked) as caught:
        check(ca, [leaf], ca.crl(leaf.certificate))
    assert "keyCompromise" in caught.value.reason
    assert "2026-05-31" in caught.value.reason
    assert f"{leaf.certificate.serial_number:x}" in caught.value.got
    assert caught.value.subject == "O=Example, CN=vpn"
    with pytest.raises(Revoked, match="unspecified"):
        check(ca, [leaf], ca.crl(leaf.certificate, reason=None))
    with pytest.raises(Revoked, match="certificateHold"):
        check(ca, [leaf], ca.crl(leaf.certificate, reason=x509.ReasonFlags.certificate_hold))


def test_not_listed_is_not_revoked(ca: Node, leaf: Node) -> None:
    for required in (False, True):
        check(ca, [leaf], ca.crl(), required=required)
        check(ca, [leaf], ca.crl(ca.issue("other").certificate), required=required)


def test_no_crl_is_fine_unless_required(ca: Node, leaf: Node) -> None:
    check(ca, [leaf])
    with pytest.raises(RevocationUnknown) as caught:
        check(ca, [leaf], required=True)
    assert caught.value.got == "none"
    assert "CRL" in caught.value.remedy


def test_a_stale_crl_still_revokes_but_does_not_absolve(ca: Node, leaf: Node) -> None:
    old = {"updated": NOW - 9 * DAY, "next_update": NOW - 8 * DAY}
    check(ca, [leaf], ca.crl(**old))
    with pytest.raises(RevocationUnknown) as caught:
        check(ca, [leaf], ca.crl(**old), required=True)
    assert "2026-05-24" in caught.value.got
    with pytest.raises(Revoked):
        check(ca, [leaf], ca.crl(leaf.certificate, **old))
    future = {"updated": NOW + DAY, "next_update": NOW + 2 * DAY}
    with pytest.raises(RevocationUnknown):
        check(ca, [leaf], ca.crl(**future), required=True)


def test_a_fresh_crl_beside_a_stale_one(ca: Node, leaf: Node) -> None:
    stale = ca.crl(updated=NOW - 9 * DAY, next_update=NOW - 8 * DAY)
    check(ca, [leaf], stale, ca.crl(), required=True)


def test_a_forged_crl_counts_for_nothing(ca: Node, leaf: Node) -> None:
    forged = ca.crl(leaf.certificate, sign_with=new_key())
    check(ca, [leaf], forged)
    with pytest.raises(RevocationUnknown):
        check(ca, [leaf], forged, required=True)


def test_a_ca_that_may_not_sign_crls(leaf: Node) -> None:
    authority = root("No CRLs", uses=("key_cert_sign",))
    victim = authority.issue("vpn")
    check(authority, [victim], authority.crl(victim.certificate))
    with pytest.raises(RevocationUnknown):
        check(authority, [victim], authority.crl(), required=True)


def test_a_crl_of_another_ca_counts_for_nothing(ca: Node, leaf: Node) -> None:
    other = root("Other")
    check(ca, [leaf], other.crl(leaf.certificate))


def test_intermediates_are_checked_too(ca: Node) -> None:
    sub = ca.issue("sub", ca=True, uses=("key_cert_sign", "crl_sign"))
    leaf = sub.issue("vpn")
    with pytest.raises(Revoked) as caught:
        check(ca, [leaf, sub], ca.crl(sub.certificate), sub.crl())
    assert caught.value.subject == "O=Example, CN=sub"
    check(ca, [leaf, sub], ca.crl(), sub.crl(), required=True)
    for crl in (ca.crl(), sub.crl()):
        with pytest.raises(RevocationUnknown):
            check(ca, [leaf, sub], crl, required=True)


def test_scope(ca: Node, leaf: Node) -> None:
    revoked = leaf.certificate
    with pytest.raises(Revoked):
        check(ca, [leaf], ca.crl(revoked, extra=point(only_contains_user_certs=True)))
    check(ca, [leaf], ca.crl(revoked, extra=point(only_contains_ca_certs=True)))
    check(ca, [leaf], ca.crl(extra=point(only_contains_user_certs=True)), required=True)
    for options in ({"only_contains_ca_certs": True}, {"indirect_crl": True}):
        with pytest.raises(RevocationUnknown):
            check(ca, [leaf], ca.crl(extra=point(**options)), required=True)


def test_a_crl_for_some_reasons_only_can_revoke_but_not_absolve(ca: Node, leaf: Node) -> None:
    some: Any = {"only_some_reasons": frozenset({x509.ReasonFlags.key_compromise})}
    with pytest.raises(Revoked):
        check(ca, [leaf], ca.crl(leaf.certificate, extra=point(**some)))
    with pytest.raises(RevocationUnknown):
        check(ca, [leaf], ca.crl(extra=point(**some)), required=True)


def test_delta_crls_are_not_taken_for_whole_ones(ca: Node, leaf: Node) -> None:
    delta = ca.crl(extra=((x509.DeltaCRLIndicator(1), True),))
    with pytest.raises(RevocationUnknown):
        check(ca, [leaf], delta, required=True)


def test_a_verdict_ends_with_the_crl(ca: Node, leaf: Node) -> None:
    store = TrustStore((ca.certificate,), (ca.crl(),), (), CertificatePolicy(require_crl=True))
    path = store.verify([leaf.certificate], None, NOW, Role.RESPONDER)
    assert path.valid_until == NOW + DAY
    with pytest.raises(RevocationUnknown):
        store.verify([leaf.certificate], None, NOW + 2 * DAY, Role.RESPONDER)


def test_signatures_of_crls_are_checked_once(ca: Node, leaf: Node) -> None:
    lists = RevocationLists((ca.crl(),))
    for _ in range(3):
        lists.check(leaf.certificate, ca.certificate, NOW, required=True, name="vpn")
    assert list(lists._checked.values()) == [True]
