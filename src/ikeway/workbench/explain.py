"""A plaintext message in lines for the engineer: what it is in the protocol's words, its payloads, and what is unknown.

Secrets are hidden unless they are asked for: passwords and codes in EAP, AUTH values, key exchange values. What a method
that nobody here knows carries is shown, because to see it is what the workbench is for; only what calls itself a password
is blanked in it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ikeway.dialects.fortigate_eap import BEFORE_GTC, names_another_method
from ikeway.eap.errors import MalformedEap
from ikeway.eap.packet import EapCode, EapPacket, EapType, MethodType
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    Authentication,
    Configuration,
    Delete,
    Eap,
    IdInitiator,
    KeyExchange,
    Notify,
    Payload,
    SecurityAssociation,
    UnknownPayload,
)
from ikeway.wire.registry import ExchangeType, NotifyType
from ikeway.wire.render import render_payload

_HEX_WIDTH = 16
_NO_NAME = "UNKNOWN_"  # what a number that is in no registry is called
_MAX_LENGTH_OCTETS = 4
_MAX_DUMP = 8192  # octets shown of one payload
_MAX_LINES = 2000  # of one message: to draw one takes longer than for a stranger to send it
_TEXT = re.compile(rb"[\t\r\n\x20-\x7e]{32,}")  # inside octets: long enough to be meant
_TLS = frozenset({EapType.TLS, EapType.TTLS, EapType.PEAP, EapType.TEAP, 43})
KNOWN_EAP = frozenset({*(int(each) for each in EapType if each is not EapType.EXPANDED)})
# In octets of any kind: elements of XML, and NAME=VALUE. Strangers choose the octets, so nothing here goes back and tries
# another way (`+` behind a quantifier): the time grows with their number, and not with its cube.
_ELEMENT = re.compile(rb"<(?P<name>[\w:.-]++)[^<>]*+>(?P<value>[^<]*+)</(?P=name)>", re.I)
_SECRET_NAME = re.compile(rb"password|passcode|token|secret", re.I)
_SETTING = re.compile(rb"(?:password|passwd|pwd|passcode|secret|pin)\s*+[=:]\s*+(?P<value>[^\s&;,<>\"'\x00]++)", re.I)
HIDDEN = "(hidden)"


class Kind(enum.Enum):
    """What a line is, for its colour."""

    HEAD = "head"
    MEANING = "meaning"
    PAYLOAD = "payload"
    DETAIL = "detail"
    UNKNOWN = "unknown"
    UNKNOWN_DETAIL = "unknown detail"
    SECRET = "secret"  # noqa: S105 - a kind of line


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text, harmless to a terminal."""

    kind: Kind
    text: str


def explain(message: Message, *, secrets: bool = False) -> list[Line]:
    """The whole message; the first line is its head."""
    direction = "response" if message.is_response else "request"
    sender = "initiator" if message.is_initiator else "responder"
    head = f"{message.exchange_type} {direction} {message.message_id} from the original {sender}"
    lines = [Line(Kind.HEAD, head)]
    meaning = meaning_of(message)
    if meaning:
        lines.append(Line(Kind.MEANING, meaning))
    for payload in message.payloads:
        lines += _payload(payload, secrets=secrets)
    if not message.payloads:
        lines.append(Line(Kind.PAYLOAD, "no payloads"))
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [Line(Kind.DETAIL, f"... and {len(lines) - _MAX_LINES} lines more")]
    return lines


def _is_usual(method: MethodType) -> bool:
    return method.vendor == 0 and method.type in KNOWN_EAP


def unknowns(message: Message, knows: Callable[[MethodType], bool] = _is_usual) -> list[str]:
    """What in this message the engine has no answer to, in words; empty for an ordinary one. `knows` says which EAP
    methods it has an answer to."""
    found = [] if message.exchange_type.is_known else [f"exchange type {int(message.exchange_type)}"]
    for payload in message.payloads:
        if isinstance(payload, UnknownPayload):
            critical = "critical " if payload.critical else ""
            found.append(f"{critical}payload of type {int(payload.type)}, {len(payload.value)} octets")
        elif isinstance(payload, Eap) and (method := _unknown_method(payload.packet, knows)):
            found.append(f"EAP {method}")
        elif isinstance(payload, Notify) and not payload.type.is_known and payload.type.is_error:
            found.append(f"error notify {int(payload.type)}")
    return found


def meaning_of(message: Message) -> str:
    """The message's place in the protocol, with the RFC's section; empty where there is nothing to say."""
    failure = next((each for each in message.find_all(Notify) if each.type.is_error), None)
    if failure is not None and message.find(SecurityAssociation) is None and message.find(Authentication) is None:
        return f"it refuses: {failure.type}"
    rules = _RESPONSES if message.is_response else _REQUESTS
    for exchange, fits, text in rules:
        if exchange == message.exchange_type and fits(message):
            return text
    return ""


def _rekeys(message: Message) -> bool:
    return message.notify(NotifyType.REKEY_SA) is not None


def _of_ike(message: Message) -> bool:
    security = message.find(SecurityAssociation)
    return security is not None and bool(security.proposals) and security.proposals[0].protocol == 1


def _always(message: Message) -> bool:
    return True


_Rule = tuple[ExchangeType, Callable[[Message], bool], str]
_REQUESTS: tuple[_Rule, ...] = (
    (ExchangeType.IKE_SA_INIT, lambda m: m.notify(NotifyType.COOKIE) is not None, "the offer again, with the cookie"),
    (ExchangeType.IKE_SA_INIT, _always, "it offers algorithms and its half of the key exchange (RFC 7296, 1.2)"),
    (
        ExchangeType.IKE_AUTH,
        lambda m: m.find(IdInitiator) is not None and m.find(Authentication) is None,
        "it says who it is and proves nothing yet: it wants to log in by EAP (2.16)",
    ),
    (ExchangeType.IKE_AUTH, lambda m: m.find(IdInitiator) is not None, "it says who it is and proves it (1.2)"),
    (ExchangeType.IKE_AUTH, lambda m: m.find(Eap) is not None, "its answer in EAP (2.16)"),
    (ExchangeType.IKE_AUTH, lambda m: m.find(Authentication) is not None, "it binds the EAP log-in to this SA (2.16)"),
    (ExchangeType.CREATE_CHILD_SA, _rekeys, "it rekeys a child SA (1.3.3)"),
    (ExchangeType.CREATE_CHILD_SA, _of_ike, "it rekeys the IKE SA (1.3.2)"),
    (ExchangeType.CREATE_CHILD_SA, _always, "it wants another child SA (1.3.1)"),
    (ExchangeType.INFORMATIONAL, lambda m: not m.payloads, "it asks whether we are alive (2.4)"),
    (ExchangeType.INFORMATIONAL, lambda m: m.find(Delete) is not None, "it deletes SAs (1.4.1)"),
    (
        ExchangeType.INFORMATIONAL,
        lambda m: m.notify(NotifyType.UPDATE_SA_ADDRESSES) is not None,
        "it has moved (RFC 4555)",
    ),
)
_RESPONSES: tuple[_Rule, ...] = (
    (ExchangeType.IKE_SA_INIT, lambda m: m.notify(NotifyType.COOKIE) is not None, "it demands a cookie first (2.6)"),
    (ExchangeType.IKE_SA_INIT, lambda m: m.notify(NotifyType.REDIRECT) is not None, "it sends us elsewhere (RFC 5685)"),
    (ExchangeType.IKE_SA_INIT, _always, "it has chosen; from here on everything is encrypted (1.2)"),
    (
        ExchangeType.IKE_AUTH,
        lambda m: m.find(Authentication) is not None and m.find(Eap) is not None,
        "it proves who it is, and begins EAP (2.16)",
    ),
    (ExchangeType.IKE_AUTH, lambda m: m.find(Eap) is not None, "the next packet of EAP (2.16)"),
    (
        ExchangeType.IKE_AUTH,
        lambda m: m.find(Configuration) is not None,
        "the log-in is done; addresses and the first child SA (1.2, 2.19)",
    ),
    (ExchangeType.IKE_AUTH, lambda m: m.find(Authentication) is not None, "the log-in is done (1.2)"),
    (ExchangeType.CREATE_CHILD_SA, _of_ike, "the IKE SA has new keys (1.3.2)"),
    (ExchangeType.CREATE_CHILD_SA, _always, "the child SA is agreed on (1.3.1)"),
    (ExchangeType.INFORMATIONAL, lambda m: not m.payloads, "received"),
)


def _payload(payload: Payload, *, secrets: bool) -> Iterator[Line]:
    first, *others = render_payload(payload).split("\n")
    yield Line(Kind.UNKNOWN if _NO_NAME in first else Kind.PAYLOAD, first)
    yield from (Line(Kind.UNKNOWN_DETAIL if _NO_NAME in line else Kind.DETAIL, line) for line in others)
    match payload:
        case Eap(packet=packet):
            yield from _eap(packet, secrets=secrets)
        case UnknownPayload(value=value):
            yield from _dump(value, secrets=secrets)
        case Authentication(value=value) | KeyExchange(public_value=value) if secrets:
            yield Line(Kind.SECRET, value.hex())
        case Notify(type=type, value=value) if not type.is_known and len(value) > _HEX_WIDTH:
            yield from _dump(value, secrets=secrets)


def _eap(octets: bytes, *, secrets: bool) -> Iterator[Line]:
    if names_another_method(octets):
        yield Line(Kind.DETAIL, f"FortiGate's way: no end, but {MethodType(0, octets[4])} comes next")
        return
    try:
        packet = EapPacket.decode(octets)
        if packet.type is None:
            return
        method = packet.method
    except MalformedEap as error:
        yield Line(Kind.UNKNOWN, error.reason)
        yield from _dump(octets, secrets=secrets)
        return
    data, is_response = packet.method_data, packet.code == EapCode.RESPONSE
    if method.vendor == 0 and method.type in (EapType.IDENTITY, EapType.NOTIFICATION):
        yield Line(Kind.DETAIL, _quoted(data))
    elif method.vendor == 0 and method.type == EapType.NAK:
        wanted = ", ".join(str(MethodType(0, each)) for each in data)
        yield Line(Kind.DETAIL, f"it would rather have: {wanted or 'nothing'}")
    elif method.vendor == 0 and method.type in (EapType.GTC, EapType.OTP):
        yield from _hidable("its answer" if is_response else "it asks", data, hide=is_response and not secrets)
    elif method.vendor == 0 and method.type == EapType.MSCHAPV2:
        yield from _mschapv2(data, secrets=secrets)
    elif method.vendor == 0 and method.type in _TLS:
        yield Line(Kind.DETAIL, f"{len(data)} octets of TLS, which only its two ends can read")
    elif method.vendor == 0 and method.type in KNOWN_EAP:
        if secrets:
            yield from _dump(data, secrets=True)
    else:
        yield Line(Kind.UNKNOWN, f"method {method}, {len(data)} octets")
        yield from _dump(data, secrets=secrets)


_OPCODES = {1: "Challenge", 2: "Response", 3: "Success", 4: "Failure", 7: "Change-Password"}


def _mschapv2(data: bytes, *, secrets: bool) -> Iterator[Line]:
    if not data:
        return
    words = _OPCODES.get(data[0], f"operation {data[0]}")
    if data[0] == 1 and len(data) > 21:
        words += f" from {_quoted(data[21:])}"
    elif data[0] == 2 and len(data) > 54:
        words += f" for {_quoted(data[54:])}"
    elif data[0] in (3, 4) and len(data) > 4:
        words += f": {_quoted(data[4:])}"
    yield Line(Kind.DETAIL, f"MSCHAPv2 {words}")
    if secrets:
        yield from (Line(Kind.SECRET, line.text) for line in _dump(data, secrets=True))


def _hidable(label: str, data: bytes, *, hide: bool) -> Iterator[Line]:
    yield Line(Kind.SECRET if hide else Kind.DETAIL, f"{label}: {HIDDEN if hide else _quoted(data)}")


def _unknown_method(octets: bytes, knows: Callable[[MethodType], bool]) -> str:
    if names_another_method(octets):
        return "" if octets[4] == EapType.GTC and knows(BEFORE_GTC) else "Success that names another method"
    try:
        packet = EapPacket.decode(octets)
        if packet.type is None:
            return ""
        method = packet.method
    except MalformedEap as error:
        return error.reason
    return "" if knows(method) else f"method {method}"


def _quoted(value: bytes) -> str:
    text = value.decode("utf-8", "backslashreplace")
    return "'" + "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text) + "'"


def _dump(value: bytes, *, secrets: bool) -> Iterator[Line]:
    """Text as text, XML an element a line, with secrets blanked; anything else as octets and characters."""
    shown = (value if secrets else _blanked(value))[:_MAX_DUMP]
    text = _as_text(shown)
    if text is not None:
        yield from _text(text)
    else:
        at = 0
        for found in _TEXT.finditer(shown):
            start = found.start() + _before_xml(found[0])
            yield from _octets(shown, at, start)
            yield from _text(shown[start : found.end()].decode("ascii"))
            at = found.end()
        yield from _octets(shown, at, len(shown))
    if len(value) > _MAX_DUMP:
        yield Line(Kind.DETAIL, f"... and {len(value) - _MAX_DUMP} octets more")


def _before_xml(text: bytes) -> int:
    """Of a length that stands before XML the last octet may look like a character."""
    start = text.find(b"<")
    return start if 0 < start <= _MAX_LENGTH_OCTETS else 0


def _text(text: str) -> Iterator[Line]:
    for line in text.replace("><", ">\n<").splitlines():
        yield Line(Kind.DETAIL, "".join(each if each.isprintable() else " " for each in line))


def _octets(value: bytes, start: int, end: int) -> Iterator[Line]:
    for at in range(start, end, _HEX_WIDTH):
        row = value[at : min(at + _HEX_WIDTH, end)]
        characters = "".join(chr(each) if 32 <= each < 127 else "." for each in row)
        yield Line(Kind.DETAIL, f"{at:04x}  {row.hex(' '):<{3 * _HEX_WIDTH}} {characters}")


def _blanked(value: bytes) -> bytes:
    """The same octets, with stars in place of what calls itself a password."""
    blanked = bytearray(value)
    elements = (found for found in _ELEMENT.finditer(value) if _SECRET_NAME.search(found["name"]))
    for found in (*elements, *_SETTING.finditer(value)):
        start, end = found.span("value")
        blanked[start:end] = b"*" * (end - start)
    return bytes(blanked)


def _as_text(value: bytes) -> str | None:
    try:
        text = value.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return None
    return text if text and all(each.isprintable() or each in "\r\n\t" for each in text) else None
