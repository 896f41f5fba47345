"""XML of strangers, read safely: UTF-8, no document type, no entities of its own, bounded in size, depth and count.

A document is a tree of `Element`s. What was read remembers its octets, so that an element can go back byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from xml.parsers import expat

from ikeway.eap.errors import EapFailed, MalformedEap
from ikeway.errors import Side

MAX_OCTETS = 32768
MAX_DEPTH = 24
MAX_ELEMENTS = 1024
MAX_ATTRIBUTES = 32  # of one element

_DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>\n'
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 section 2.2
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*")


class MalformedDocument(MalformedEap):
    """Octets that are not XML, or XML of a kind that is not taken."""


@dataclass(frozen=True, slots=True)
class Element:
    """An element: its attributes, the text directly inside it, and its children. `source`: its octets as received."""

    name: str
    attributes: tuple[tuple[str, str], ...] = ()
    children: tuple[Element, ...] = ()
    text: str = ""
    source: bytes = field(default=b"", repr=False, compare=False)

    def get(self, attribute: str, default: str = "") -> str:
        """An attribute's value."""
        return next((value for name, value in self.attributes if name == attribute), default)

    def find(self, name: str) -> Element | None:
        """The first child of that name."""
        return next((child for child in self.children if child.name == name), None)

    def find_all(self, name: str) -> Iterator[Element]:
        """The children of that name."""
        return (child for child in self.children if child.name == name)

    def text_of(self, name: str, default: str = "") -> str:
        """The text of the first child of that name, without space around it."""
        child = self.find(name)
        return child.text.strip() if child is not None else default


def is_name(text: str) -> bool:
    """True for what an element may be called here."""
    return _NAME.fullmatch(text) is not None


def element(name: str, /, *content: Element | str, **attributes: str) -> Element:
    """Make an element; `_` in the name of an attribute stands for `-`."""
    children = tuple(each for each in content if isinstance(each, Element))
    text = "".join(each for each in content if isinstance(each, str))
    return Element(name, tuple((key.replace("_", "-"), value) for key, value in attributes.items()), children, text)


def encode(root: Element) -> bytes:
    """The document around `root`. Elements that were read go out as they came. Raises EapFailed for text that XML
    cannot carry."""
    return _DECLARATION + _encode(root) + b"\n"


def _encode(element: Element) -> bytes:
    if element.source:
        return element.source
    if not is_name(element.name):
        raise ValueError(f"{element.name!r} is no name of an element")
    attributes = "".join(f' {name}="{_escaped(name, value)}"' for name, value in element.attributes)
    inner = _escaped(element.name, element.text).encode()
    inner += b"".join(map(_encode, element.children))
    name = element.name
    if not inner:
        return f"<{name}{attributes}/>".encode()
    return f"<{name}{attributes}>".encode() + inner + f"</{name}>".encode()


def _escaped(what: str, text: str) -> str:
    if _UNFIT.search(text):
        raise EapFailed(
            f"{what} has a character that XML cannot carry",
            expected="no control characters",
            side=Side.LOCAL,
            remedy=f"choose a {what} without control characters",
        )
    # Line ends and tabs would be taken for spaces by who reads them in an attribute (XML 1.0 section 3.3.3).
    return escape(text).translate({13: "&#13;", 10: "&#10;", 9: "&#9;"})


def decode(octets: bytes) -> Element:
    """Read a document. Raises MalformedDocument that says where."""
    if len(octets) > MAX_OCTETS:
        raise MalformedDocument(
            "an XML document that is too long", expected=f"at most {MAX_OCTETS} octets", got=f"{len(octets)}"
        )
    try:
        octets.decode()
    except UnicodeDecodeError as error:
        raise MalformedDocument("XML that is not UTF-8", expected="UTF-8", got=f"octet {error.start}") from None
    return _Reader(octets).read()


@dataclass(slots=True)
class _Open:
    name: str
    attributes: tuple[tuple[str, str], ...]
    start: int
    text: list[str] = field(default_factory=list)
    children: list[Element] = field(default_factory=list)


class _Reader:
    """One reading of one document."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._open: list[_Open] = []
        self._count = 0
        self._root: Element | None = None
        # The declaration's word about the encoding does not count.
        self._parser = parser = expat.ParserCreate("UTF-8")
        parser.buffer_text = True
        parser.ordered_attributes = True
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._doctype
        parser.EntityDeclHandler = self._doctype
        parser.ExternalEntityRefHandler = self._doctype
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)

    def read(self) -> Element:
        try:
            self._parser.Parse(self._octets, True)
        except expat.ExpatError as error:
            raise MalformedDocument(
                f"XML that is not well formed: {expat.ErrorString(error.code)}",
                got=f"line {error.lineno}, column {error.offset + 1}",
            ) from None
        assert self._root is not None, "a well-formed document has a root"
        return self._root

    def _refuse(self, what: str, expected: str) -> MalformedDocument:
        place = f"line {self._parser.CurrentLineNumber}, column {self._parser.CurrentColumnNumber + 1}"
        return MalformedDocument(what, expected=expected, got=place)

    def _doctype(self, *_: object) -> int:
        raise self._refuse("XML with a document type or entities", "elements and text only")

    def _begin(self, name: str, attributes: list[str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS or len(attributes) > 2 * MAX_ATTRIBUTES:
            raise self._refuse("XML with too many elements or attributes", f"{MAX_ELEMENTS} and {MAX_ATTRIBUTES}")
        if len(self._open) >= MAX_DEPTH:
            raise self._refuse("XML that is nested too deeply", f"at most {MAX_DEPTH} levels")
        pairs = tuple(zip(attributes[::2], attributes[1::2], strict=True))
        self._open.append(_Open(name, pairs, self._parser.CurrentByteIndex))

    def _characters(self, text: str) -> None:
        self._open[-1].text.append(text)

    def _end(self, name: str) -> None:
        done = self._open.pop()
        end = _end_of_tag(self._octets, done.start)
        if self._octets[end - 2 : end] != b"/>":
            end = _end_of_tag(self._octets, self._parser.CurrentByteIndex)
        source = self._octets[done.start : end]
        found = Element(done.name, done.attributes, tuple(done.children), "".join(done.text), source)
        if self._open:
            self._open[-1].children.append(found)
        else:
            self._root = found


def _end_of_tag(octets: bytes, start: int) -> int:
    """Where the tag ends that begins at `start`: `>` may stand inside quotes."""
    quote = 0
    for index in range(start, len(octets)):
        octet = octets[index]
        if quote:
            quote = 0 if octet == quote else quote
        elif octet in b"\"'":
            quote = octet
        elif octet == 0x3E:
            return index + 1
    return len(octets)
