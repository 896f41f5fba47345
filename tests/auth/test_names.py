"""Distinguished names, with `cryptography` as the second opinion on DER."""

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from ikeway.auth.der import DerError, decode_oid, encode, encode_oid, read, read_all
from ikeway.auth.names import DistinguishedName, NamePart, decode_name, parse_name

KNOWN = [NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.EMAIL_ADDRESS, NameOID.DOMAIN_COMPONENT]
values = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
oids = st.sampled_from([oid.dotted_string for oid in KNOWN] + ["1.3.6.1.4.1.32473.1.2"])
names = st.builds(
    DistinguishedName,
    st.lists(st.lists(st.builds(NamePart, oids, values), min_size=1, max_size=2).map(tuple), max_size=4).map(tuple),
)


@given(names)
def test_der_round_trip(name: DistinguishedName) -> None:
    assert decode_name(name.encode()).equals(name)


@given(st.lists(st.tuples(st.sampled_from(KNOWN[:2]), values), min_size=1, max_size=4))
def test_der_is_what_cryptography_makes(parts: list[tuple[x509.ObjectIdentifier, str]]) -> None:
    theirs = x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])
    ours = DistinguishedName(tuple((NamePart(oid.dotted_string, value),) for oid, value in parts))
    assert ours.encode() == theirs.public_bytes()
    assert decode_name(theirs.public_bytes()) == ours


@given(names)
def test_text_round_trip(name: DistinguishedName) -> None:
    stripped = all(part.value == part.value.strip() for parts in name.relative_names for part in parts)  # type: ignore[union-attr]
    if name.relative_names and stripped:
        assert parse_name(str(name)) == name


@given(st.binary(max_size=60))
def test_any_octets_decode_or_raise(octets: bytes) -> None:
    for function in (decode_name, read, read_all, decode_oid):
        try:
            function(octets)
        except DerError:
            pass


@given(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 2**70), max_size=5))
def test_object_identifiers(first: int, second: int, rest: list[int]) -> None:
    dotted = ".".join(map(str, [first, second, *rest]))
    encoded = encode_oid(dotted)
    if len(encoded) <= 66:
        assert decode_oid(encoded[2:]) == dotted


def test_long_lengths() -> None:
    for size in (0, 127, 128, 255, 256, 70000):
        element = encode(4, bytes(size))
        assert read(element) == (4, bytes(size), len(element))
        with pytest.raises(DerError):
            read(element[:-1])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('O="Example, Inc.", CN=x', "O=Example\\, Inc., CN=x"),
        ("O=Example\\, Inc.,CN=x", "O=Example\\, Inc., CN=x"),
        ("/C=CH/O=A B/CN=vpn", "C=CH, O=A B, CN=vpn"),
        ("emailAddress=a@b", "E=a@b"),
        ("2.5.4.3=x", "CN=x"),
        ("1.2.3.4=x", "1.2.3.4=x"),
        ("CN=#0c0161", "CN=#0c0161"),
        ("CN=a\\c3\\bc", "CN=aü"),
        ("CN=a+OU=b", "CN=a+OU=b"),
    ],
)
def test_text_forms(text: str, shown: str) -> None:
    assert str(parse_name(text)) == shown


@pytest.mark.parametrize("text", ["", "CN", "=x", "CN=", "1..2=x", "9.9.9=x", 'CN="x', "CN=x,", "CN=#zz"])
def test_texts_that_are_no_name(text: str) -> None:
    with pytest.raises(ValueError):
        parse_name(text)


def test_log_lines_stay_lines() -> None:
    assert str(DistinguishedName(((NamePart("2.5.4.3", "a\nb\x1b"),),))) == "CN=a\\0ab\\1b"


def test_subtrees() -> None:
    base = parse_name("C=CH, O=Example")
    assert parse_name("c=ch, o=example, CN=x").is_within(base)
    assert base.is_within(base)
    assert not parse_name("C=CH").is_within(base)
    assert not parse_name("C=CH, O=Other, CN=x").is_within(base)


def test_a_name_of_endless_parts_is_refused() -> None:
    part = parse_name("CN=x").encode()[2:]
    with pytest.raises(DerError):
        decode_name(encode(0x30, part * 65))
