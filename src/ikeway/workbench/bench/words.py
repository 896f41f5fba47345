"""Payloads in words, as an engineer types them.

    eap:01020005...                  an EAP packet, whole
    eap-request:26:0102...           code, method (TYPE or VENDOR:TYPE for expanded ones), data; the identifier is filled in
    eap-response:1:"alice"
    eap-success  eap-failure
    notify:AUTHENTICATION_FAILED     by name or number; notify:40001:0102 with data
    vendor:"CISCO-ANYCONNECT-EAP"
    payload:200:0102                 any type; payload:!200:0102 is critical
    delete

Octets are hexadecimal, text in quotes, or pieces of both one behind the other:
00000027"<config-auth client='vpn' type='init'/>".
"""

from __future__ import annotations

import re

from ikeway.eap.errors import MalformedEap
from ikeway.eap.packet import EapCode, EapPacket, MethodType
from ikeway.errors import ConfigError
from ikeway.wire.message import Message, decode_payloads
from ikeway.wire.payloads import Delete, Eap, Notify, Payload, UnknownPayload, VendorId
from ikeway.wire.registry import NotifyType, PayloadType, ProtocolId

_QUOTED = r"\"[^\"]*\"|'[^']*'"
_PIECE = re.compile(rf"{_QUOTED}|[^\"']+|[\"']")
_WORD = re.compile(rf"(?:[^\s\"']|{_QUOTED})+")
_SPACE = re.compile(rf"({_QUOTED})|\s")
_SYNTAX = 'eap:HEX, eap-request:TYPE:HEX, eap-response:TYPE:"text", notify:NAME[:HEX], vendor:"text", payload:TYPE:HEX'


def parse_payloads(text: str, asked: Message | None = None) -> tuple[Payload, ...]:
    """Payloads with spaces between them. `asked` is what they answer: EAP takes its identifier from there. Raises
    `ConfigError`."""
    try:
        words = _split(text)
    except ValueError as error:
        raise _mistake(text, str(error)) from None
    return tuple(_payload(word, asked) for word in words)


def parse_octets(text: str) -> bytes:
    """Hexadecimal, text in quotes, or pieces of both. Raises `ConfigError`."""
    octets = b""
    for piece in _PIECE.findall(text.strip()):
        if piece[0] in "\"'" and len(piece) > 1 and piece[-1] == piece[0]:
            octets += piece[1:-1].encode()
            continue
        try:
            octets += bytes.fromhex(piece.removeprefix("0x"))
        except ValueError:
            raise _mistake(text, "neither hexadecimal nor text in quotes") from None
    return octets


def _split(text: str) -> list[str]:
    """Words at spaces; quotes stay, as they say what is text."""
    found = _WORD.findall(text)
    if "".join(found) != _SPACE.sub(lambda found: found[1] or "", text):
        raise ValueError("a quote is not closed")
    return found


def _payload(word: str, asked: Message | None) -> Payload:
    kind, _, rest = word.partition(":")
    match kind:
        case "eap":
            return Eap(parse_octets(rest))
        case "eap-request" | "eap-response" | "eap-success" | "eap-failure":
            return _eap(kind.removeprefix("eap-"), rest, asked)
        case "notify":
            name, _, octets = rest.partition(":")
            return Notify(notify_type(name), parse_octets(octets) if octets else b"")
        case "vendor":
            return VendorId(parse_octets(rest))
        case "payload":
            return _any(word, rest)
        case "delete":
            return Delete(ProtocolId.IKE)
    raise _mistake(word, "no payload is called so")


def notify_type(name: str) -> NotifyType:
    """By name or number. Raises `ConfigError`."""
    if name.isdecimal() and int(name) <= 65535:
        return NotifyType(int(name))
    found = NotifyType.__members__.get(name.upper().replace("-", "_"))
    if found is None:
        raise _mistake(name, "no notify is called so")
    return found


def _eap(code: str, rest: str, asked: Message | None) -> Eap:
    number = EapCode[code.upper()]
    before = asked.find(Eap) if asked is not None else None
    try:
        last = EapPacket.decode(before.packet).identifier if before is not None else 0
    except MalformedEap:
        last = before.packet[1] if before is not None and len(before.packet) > 1 else 0
    # A response has the identifier of its request; a request one of its own (RFC 3748 section 4.1).
    identifier = (last + 1) & 0xFF if number == EapCode.REQUEST else last
    if number in (EapCode.SUCCESS, EapCode.FAILURE):
        return Eap(EapPacket(number, identifier).encode())
    *method, data = _fields(rest)
    try:
        numbers = [int(each, 0) for each in method]
    except ValueError:
        raise _mistake(rest, "the method is a number, or VENDOR:TYPE") from None
    if len(numbers) not in (1, 2):
        raise _mistake(rest, "the method is a number, or VENDOR:TYPE")
    vendor, type_ = (0, numbers[0]) if len(numbers) == 1 else numbers
    if not (0 <= vendor < 1 << 24 and 0 <= type_ < 1 << 32):
        raise _mistake(rest, "the method's numbers are too large")
    return Eap(EapPacket.of(number, identifier, MethodType(vendor, type_), parse_octets(data)).encode())


def _fields(text: str) -> list[str]:
    """At colons, but those inside quotes."""
    start = min((at for quote in "\"'" if (at := text.find(quote)) >= 0), default=len(text))
    fields = text[:start].split(":")
    fields[-1] += text[start:]
    return fields


def _any(word: str, rest: str) -> Payload:
    name, _, octets = rest.partition(":")
    critical, number = name.startswith("!"), name.removeprefix("!")
    if not number.isdecimal() or not 1 <= int(number) <= 255:
        raise _mistake(word, "a payload's type is a number from 1 to 255")
    value = parse_octets(octets) if octets else b""
    if not PayloadType(int(number)).is_known:
        return UnknownPayload(PayloadType(int(number)), critical, value)
    # A type that is known is decoded, so that it is what it says: the generic header and the value.
    body = bytes([0, 0x80 if critical else 0]) + (4 + len(value)).to_bytes(2) + value
    return decode_payloads(PayloadType(int(number)), body, refuse_critical=False)[0]


def _mistake(word: str, what: str) -> ConfigError:
    return ConfigError(f"{word[:80]!r}: {what}", expected=_SYNTAX, remedy="correct it and try once more")
