"""XML of strangers: read as it is, or refused with the place; never expanded, never unbounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.dialects.anyconnect.document import (
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    MAX_ELEMENTS,
    MAX_OCTETS,
    MalformedDocument,
    decode,
    element,
    encode,
)
from ikeway.eap.errors import EapFailed

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"))


def test_a_tree_of_elements():
    root = decode(b'<?xml version="1.0"?>\n<a x="1" y="&lt;2"><b>one</b> <b>t&#119;o</b><c/></a>')
    assert root.name == "a"
    assert (root.get("x"), root.get("y"), root.get("z", "none")) == ("1", "<2", "none")
    assert [child.text for child in root.find_all("b")] == ["one", "two"]
    assert root.text_of("b") == "one"
    assert root.find("c").children == ()
    assert root.find("d") is None


@pytest.mark.parametrize(
    "opaque",
    [
        b'<opaque is-for="sg">\n <t  a = "1>2"\t>&lt;x&gt;</t ><!-- > --><![CDATA[<>]]></opaque >',
        b"<opaque/>",
        b"<opaque a='>' b=\"'/>'\" />",
        b"<opaque></opaque>",
    ],
)
def test_an_element_goes_back_octet_for_octet(opaque):
    read = decode(b'<?xml version="1.0" encoding="UTF-8"?><r><x/>' + opaque + b"<y>z</y></r>").find("opaque")
    assert read.source == opaque
    assert encode(element("reply", read)).endswith(b"<reply>" + opaque + b"</reply>\n")


@given(TEXT, TEXT)
def test_text_and_attributes_survive(text, value):
    root = decode(encode(element("a", text, some_name=value)))
    assert (root.text, root.get("some-name")) == (text, value)


@given(st.text(st.characters(categories=("Cc",)), min_size=1))
def test_control_characters_survive_or_are_refused(text):
    try:
        octets = encode(element("password", text))
    except EapFailed as error:
        assert "XML cannot carry" in error.reason
        assert text not in str(error)
    else:
        assert decode(octets).text == text


BOMB = b"""<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><l>&b;</l>"""


@pytest.mark.parametrize(
    "octets,place",
    [
        (BOMB, "line 1"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "line 1"),
        (b"<!DOCTYPE a><a/>", "line 1"),
        (b"<a>&undefined;</a>", "line 1"),
        (b"<a>\n<b></a>", "line 2"),
        (b"<a/><b/>", "line 1"),
        (b"", "line 1"),
        (b"\x00\x01", "line 1"),
        (b"<a>\xff</a>", "octet 3"),
        ("<a>ü</a>".encode("utf-16"), "octet 0"),
        (b"<a" + b" a" * 10 + b"/>", "line 1"),
    ],
)
def test_what_is_no_document_is_refused_with_its_place(octets, place):
    with pytest.raises(MalformedDocument) as caught:
        decode(octets)
    assert place in caught.value.got


@pytest.mark.parametrize(
    "octets",
    [
        b"<a>" + b"<b/>" * MAX_ELEMENTS + b"</a>",
        b"<a>" * (MAX_DEPTH + 1) + b"</a>" * (MAX_DEPTH + 1),
        b"<a " + b" ".join(b'a%d="1"' % n for n in range(MAX_ATTRIBUTES + 1)) + b"/>",
        b"<a>" + b"x" * MAX_OCTETS + b"</a>",
    ],
)
def test_bounds(octets):
    with pytest.raises(MalformedDocument):
        decode(octets)


def test_within_the_bounds():
    assert len(decode(b"<a>" + b"<b/>" * (MAX_ELEMENTS - 1) + b"</a>").children) == MAX_ELEMENTS - 1
    decode(b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH)


@given(st.binary(max_size=200))
def test_any_octets(octets):
    try:
        decode(octets)
    except MalformedDocument:
        pass


MARKUP = [b"<a>", b"</a>", b"<b x='1'>", b"</b>", b"<c/>", b"&amp;", b"&x;", b"<![CDATA[", b"]]>", b"<!--", b"-->"]


@given(st.lists(st.sampled_from([*MARKUP, b"<?p?>", b"text", b"<!DOCTYPE a>", b">", b"'"]), max_size=30))
def test_any_markup(pieces):
    try:
        root = decode(b"".join(pieces))
    except MalformedDocument:
        return
    assert decode(root.source) == root
