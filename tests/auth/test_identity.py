"""Identities and patterns: text, payloads, comparison."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.errors import ConfigError
from ikeway.wire.payloads import IdInitiator, IdResponder
from ikeway.wire.registry import IdentificationType as T

DN = "C=CH, O=Linux strongSwan, CN=moon.strongswan.org"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("vpn.example.org", T.ID_FQDN, b"vpn.example.org"),
        ("alice", T.ID_FQDN, b"alice"),
        ("@vpn.example.org", T.ID_FQDN, b"vpn.example.org"),
        ("fqdn:alice@home", T.ID_FQDN, b"alice@home"),
        ("dns:10.0.0.1", T.ID_FQDN, b"10.0.0.1"),
        ("alice@example.org", T.ID_RFC822_ADDR, b"alice@example.org"),
        ("@@alice", T.ID_RFC822_ADDR, b"alice"),
        ("email:alice", T.ID_RFC822_ADDR, b"alice"),
        ("10.1.2.3", T.ID_IPV4_ADDR, bytes((10, 1, 2, 3))),
        ("ipv4:10.1.2.3", T.ID_IPV4_ADDR, bytes((10, 1, 2, 3))),
        ("2001:db8::1", T.ID_IPV6_ADDR, bytes.fromhex("20010db8" + "0" * 22 + "01")),
        ("ipv6:::1", T.ID_IPV6_ADDR, bytes(15) + b"\1"),
        ("@#0a0B", T.ID_KEY_ID, b"\x0a\x0b"),
        ("keyid:my group", T.ID_KEY_ID, b"my group"),
        ("keyid:0x00ff", T.ID_KEY_ID, b"\x00\xff"),
        ("201:0x2a24", 201, b"*$"),
        ("{201}:*$AnyConnectClient$*", 201, b"*$AnyConnectClient$*"),
        ("11:0x01", T.ID_KEY_ID, b"\x01"),
        ("asn1gn:0x8203612e62", T.ID_DER_ASN1_GN, b"\x82\x03a.b"),
        ("CN=a", T.ID_DER_ASN1_DN, bytes.fromhex("300c310a300806035504030c0161")),
        ("/CN=a", T.ID_DER_ASN1_DN, bytes.fromhex("300c310a300806035504030c0161")),
        ("asn1dn:CN=a", T.ID_DER_ASN1_DN, bytes.fromhex("300c310a300806035504030c0161")),
        ("asn1dn:#300c310a300806035504030c0161", T.ID_DER_ASN1_DN, bytes.fromhex("300c310a300806035504030c0161")),
    ],
)
def test_parse(text: str, kind: int, value: bytes) -> None:
    identity = Identity.parse(text)
    assert (identity.type, identity.value) == (kind, value)
    assert Identity.parse(str(identity)) == identity


@pytest.mark.parametrize(
    "text",
    ["", "  ", "%any", "*.example.org", "a:b", "CN=", "C=", "XYZ=1", "300:0x00", "1:0x0", "keyid:", "fqdn:", "@#0",
     "asn1gn:text", "ipv4:::1", "ipv6:1.2.3.4", "ipv4:300.1.1.1", "two words", "CN=a, CN", "CN=\"a"],
)  # fmt: skip
def test_what_is_no_identity_says_what_is_expected(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Identity.parse(text)
    assert "user@host" in caught.value.expected


@given(st.integers(0, 255), st.binary(max_size=40))
def test_every_identity_has_a_text_form_that_reads_back(kind: int, value: bytes) -> None:
    identity = Identity(T(kind), value)
    text = str(identity)
    assert text.isprintable()
    if value:
        assert Identity.parse(text) == identity


@given(st.sampled_from([T.ID_FQDN, T.ID_RFC822_ADDR, T.ID_KEY_ID]), st.text(min_size=1, max_size=20))
def test_texts_read_back(kind: T, text: str) -> None:
    identity = Identity(kind, text.encode())
    assert Identity.parse(str(identity)) == identity
    assert str(identity).isprintable()


def test_payloads() -> None:
    identity = Identity.parse("vpn.example.org")
    assert identity.to_payload(initiator=True) == IdInitiator(T.ID_FQDN, b"vpn.example.org")
    assert identity.to_payload(initiator=False) == IdResponder(T.ID_FQDN, b"vpn.example.org")
    assert Identity.from_payload(IdResponder(T(201), b"x")) == Identity(T(201), b"x")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("VPN.example.org", "vpn.EXAMPLE.org", True),
        ("Alice@Example.org", "alice@example.ORG", True),
        ("alice@example.org", "fqdn:alice@example.org", False),
        ("keyid:Group", "keyid:group", False),
        (DN, "c=ch,o=linux  STRONGSWAN , cn=Moon.strongSwan.org", True),
        (DN, "CN=moon.strongswan.org, O=Linux strongSwan, C=CH", False),
        (DN, "C=CH, O=Linux strongSwan", False),
        ("CN=a+O=b", "O=b+CN=a", True),
        ("CN=a, O=b", "CN=a+O=b", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "dns:10.0.0.1", False),
    ],
)
def test_matching(one: str, other: str, same: bool) -> None:
    assert Identity.parse(one).matches(Identity.parse(other)) is same
    assert Identity.parse(other).matches(Identity.parse(one)) is same


def test_string_types_of_a_name_do_not_count() -> None:
    utf8 = Identity(T.ID_DER_ASN1_DN, bytes.fromhex("300c310a300806035504030c0161"))
    printable = Identity(T.ID_DER_ASN1_DN, bytes.fromhex("300c310a30080603550403130161"))
    assert utf8 != printable
    assert utf8.matches(printable)
    assert Identity.parse(str(printable)) == printable  # which takes the hexadecimal form
    broken = Identity(T.ID_DER_ASN1_DN, b"\x30\x05abc")
    assert not broken.matches(utf8)
    assert str(broken) == "asn1dn:0x3005616263"


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("%any", ["a", "a@b", DN, "1.2.3.4", "201:0x00"], []),
        ("*", ["a", "201:0x00"], []),
        ("*@example.org", ["alice@example.org", "ALICE@EXAMPLE.ORG"], ["alice@example.com", "fqdn:alice@example.org"]),
        ("*.example.org", ["vpn.example.org", "a.b.Example.org"], ["example.org", "vpn.example.org.evil.com"]),
        ("vpn-*.example.org", ["vpn-1.example.org"], ["vpn.example.org", "xvpn-1.example.org"]),
        ("a*b*c", ["abc", "a1b2c", "abbcc"], ["acb", "ab", "bac"]),
        ("ab*ba", ["abba", "abxba"], ["aba"]),
        ("vpn.example.org", ["VPN.example.org"], ["vpn2.example.org"]),
        ("10.0.0.0/8", ["10.1.2.3"], ["11.1.2.3", "dns:10.1.2.3"]),
        ("2001:db8::/32", ["2001:db8::5"], ["2001:db9::5", "10.0.0.1"]),
        ("C=CH, O=Example, CN=*", ["C=CH, O=Example, CN=x"], ["C=CH, O=Other, CN=x", "C=CH, O=Example", "CN=x"]),
        ("C=CH, O=*, OU=Research, CN=*", ["C=CH, O=A, OU=research, CN=b"], ["C=CH, O=A, OU=Sales, CN=b"]),
        ("keyid:group-*", ["keyid:group-1"], ["group-1", "keyid:Group-1"]),
        ("{201}:*$AnyConnectClient$*", ["201:0x" + b"*$AnyConnectClient$*".hex()], ["201:0x00"]),
        ("@#0a0b", ["keyid:0x0a0b"], ["keyid:0x0a0c"]),
    ],
)
def test_patterns(pattern: str, good: list[str], bad: list[str]) -> None:
    parsed = IdentityPattern.parse(pattern)
    for text in good:
        assert parsed.matches(Identity.parse(text)), text
    for text in bad:
        assert not parsed.matches(Identity.parse(text)), text
    assert IdentityPattern.parse(str(parsed)) == parsed


def test_exact_patterns() -> None:
    identity = Identity.parse(DN)
    assert IdentityPattern.parse(DN).exact == identity
    assert IdentityPattern.of(identity).exact == identity
    assert IdentityPattern.parse("*.example.org").exact is None
    assert IdentityPattern.ANY.exact is None
    assert IdentityPattern.ANY.matches(identity)


@pytest.mark.parametrize("text", ["", "*" * 20 + "a", "10.0.0.0/33", "two words*", "CN=*, X", "a:b*"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ConfigError):
        IdentityPattern.parse(text)


@given(st.text("ab*", min_size=1, max_size=12), st.text("ab", max_size=12))
def test_globs_match_as_a_regular_expression_would(glob: str, text: str) -> None:
    import re

    from ikeway.auth.identity import _glob_matches

    if "*" in glob:
        expected = re.fullmatch(".*".join(map(re.escape, re.sub(r"\*+", "*", glob).split("*"))), text) is not None
        assert _glob_matches(glob, text) is expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"alice@example.com", T.ID_RFC822_ADDR),
        (b"alice", T.ID_FQDN),
        (b"CORP\\alice", T.ID_KEY_ID),
        (b"Alice Liddell", T.ID_KEY_ID),
        (b"foo=bar", T.ID_KEY_ID),
        (b"\xff", T.ID_KEY_ID),
        (b"", T.ID_KEY_ID),
    ],
)
def test_every_user_of_eap_is_somebody(name: bytes, kind: T) -> None:
    identity = Identity.of_user(name)
    assert identity.type == kind
    assert identity.value == name
    assert IdentityPattern.ANY.matches(identity)


def test_a_pattern_of_users_of_a_domain() -> None:
    pattern = IdentityPattern.parse("keyid:CORP\\*")
    assert pattern.matches(Identity.of_user(b"CORP\\alice"))
    assert not pattern.matches(Identity.of_user(b"OTHER\\alice"))
    assert not pattern.matches(Identity.of_user(b"alice"))
