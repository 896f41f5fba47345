"""Messages for people: names for numbers (RFC 7296 section 3).

What a peer sent is shown escaped and cut to a bounded length, so that it can go to a log or a terminal. EAP packets
and AUTH values are never shown: the first may hold a password, the second is of use only to who wants to guess one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, Final

from ikeway.wire.message import Message
from ikeway.wire.names import certificate_subject, distinguished_name
from ikeway.wire.payloads import (
    Authentication,
    Certificate,
    CertificateRequest,
    Configuration,
    ConfigurationAttribute,
    Delete,
    Eap,
    Encrypted,
    EncryptedFragment,
    Identification,
    IdInitiator,
    IdResponder,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    Proposal,
    SecurityAssociation,
    TrafficSelector,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
    Transform,
    UnknownPayload,
    VendorId,
)
from ikeway.wire.registry import (
    CertificateEncoding,
    ConfigurationAttributeType,
    ExchangeType,
    GatewayIdentityType,
    HashAlgorithm,
    IdentificationType,
    IpcompTransform,
    KeyExchangeMethod,
    NotifyType,
    PayloadType,
    PpkIdentityType,
    ProtocolId,
    Registry,
    SecurePasswordMethod,
    TrafficSelectorType,
    TransformAttributeType,
    TransformType,
)
from ikeway.wire.vendors import private_attribute, private_notify, vendor_name

_SHOWN_OCTETS = 40
_SHOWN_CHARACTERS = 200
_SHOWN_ITEMS = 64
_INDENT = "  "
KEY_HASH_OCTETS = 20  # an authority in CERTREQ: SHA-1 of its public key

_NAMES: dict[PayloadType, str] = {
    PayloadType.IDI: "IDi",
    PayloadType.IDR: "IDr",
    PayloadType.NOTIFY: "N",
    PayloadType.DELETE: "D",
    PayloadType.VENDOR_ID: "V",
    PayloadType.TSI: "TSi",
    PayloadType.TSR: "TSr",
    PayloadType.IDG: "IDg",
}
_IP_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmpv6", 132: "sctp"}
_EAP_CODES = {1: "request", 2: "response", 3: "success", 4: "failure"}
_EAP_TYPES = {
    1: "Identity",
    2: "Notification",
    3: "Nak",
    4: "MD5-Challenge",
    5: "One-Time Password",
    6: "GTC",
    13: "TLS",
    18: "SIM",
    21: "TTLS",
    23: "AKA",
    25: "PEAP",
    26: "MSCHAPv2",
    43: "FAST",
    50: "AKA'",
    52: "PWD",
    55: "TEAP",
    254: "expanded",
}


def render(message: Message) -> str:
    """The message in several lines, one or more for each payload. Total: any `Message` gives text."""
    direction = "response" if message.is_response else "request"
    sender = "initiator" if message.is_initiator else "responder"
    lines = [
        f"{message.exchange_type} {direction} {message.message_id} from the original {sender}, "
        f"SPIs {message.initiator_spi.hex()} {message.responder_spi.hex()}"
    ]
    for payload in message.payloads:
        lines += [_INDENT + line for line in _render_lines(payload)]
    return "\n".join(lines)


def render_payload(payload: Payload) -> str:
    """One payload, in several lines where it is a list."""
    return "\n".join(_render_lines(payload))


def summary(message: Message) -> str:
    """The message in one line in the RFC's notation: `IKE_AUTH request 1 { IDi, AUTH, SAi2, TSi, TSr }`."""
    direction = "response" if message.is_response else "request"
    payloads = ", ".join(_notation(payload, message) for payload in message.payloads[:_SHOWN_ITEMS])
    more = ", ..." if len(message.payloads) > _SHOWN_ITEMS else ""
    return f"{message.exchange_type} {direction} {message.message_id} {{ {payloads}{more} }}".replace("{  }", "{ }")


def _notation(payload: Payload, message: Message) -> str:
    """The payload as the RFC's diagrams write it."""
    role = "r" if message.is_response else "i"
    match payload:
        case SecurityAssociation():
            number = {ExchangeType.IKE_SA_INIT: f"{role}1", ExchangeType.IKE_AUTH: f"{role}2"}
            return "SA" + number.get(message.exchange_type, "")
        case KeyExchange():
            return f"KE{role}"
        case Nonce():
            return f"N{role}"
        case Notify():
            return f"N({payload.type})"
        case Configuration():
            return f"CP({payload.type})"
        case EncryptedFragment():
            return f"SKF {payload.fragment_number}/{payload.total_fragments}"
        case _:
            return _name_of(payload)


def _name_of(payload: Payload) -> str:
    return _NAMES.get(payload.payload_type, str(payload.payload_type))


def _render_lines(payload: Payload) -> list[str]:
    name = _name_of(payload)
    match payload:
        case SecurityAssociation():
            return _listed(name, [_proposal(proposal) for proposal in payload.proposals])
        case TrafficSelectorsInitiator() | TrafficSelectorsResponder():
            return _listed(name, [_selector(selector) for selector in payload.selectors])
        case Configuration():
            return _listed(f"{name} {payload.type}", [_attribute(attribute) for attribute in payload.attributes])
        case Notify():
            return [_notify(payload)]
        case _:
            return [f"{name} {_DETAILS[payload.__class__](payload)}"]


def _listed(head: str, items: list[str]) -> list[str]:
    """A head and its items below it; a single item stands beside it."""
    if len(items) <= 1:
        return [" ".join([head, *items])]
    shown = [_INDENT + item for item in items[:_SHOWN_ITEMS]]
    more = [f"{_INDENT}... and {len(items) - _SHOWN_ITEMS} more"] if len(items) > _SHOWN_ITEMS else []
    return [head, *shown, *more]


def _octets(value: bytes) -> str:
    """Hexadecimal, cut, with the length where it is not obvious."""
    if not value:
        return "empty"
    if len(value) <= _SHOWN_OCTETS:
        return value.hex()
    return f"{value[:_SHOWN_OCTETS].hex()}... ({len(value)} octets)"


def _text(value: bytes | str) -> str:
    """Text with everything escaped that a terminal or a log line could stumble over."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    cut = text[:_SHOWN_CHARACTERS]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return f"'{shown}'" if len(text) <= _SHOWN_CHARACTERS else f"'{shown}'... ({len(text)} characters)"


def _address(value: bytes) -> str:
    return str(ipaddress.ip_address(value)) if len(value) in (4, 16) else _octets(value)


def _numbers(value: bytes, registry: type[Registry]) -> str:
    """A list of 16-bit registry numbers."""
    shown = [str(registry(int.from_bytes(value[i : i + 2]))) for i in range(0, len(value) - 1, 2)][:_SHOWN_ITEMS]
    return ", ".join(shown)


def _proposal(proposal: Proposal) -> str:
    """Transforms of one type are alternatives, so they stand together."""
    alternatives: dict[TransformType, list[str]] = {}
    for transform in proposal.transforms[:_SHOWN_ITEMS]:
        alternatives.setdefault(transform.type, []).append(_transform(transform))
    choices = "; ".join(f"{kind} {' | '.join(names)}" for kind, names in alternatives.items())
    spi = f" SPI {proposal.spi.hex()}" if proposal.spi else ""
    more = "; ..." if len(proposal.transforms) > _SHOWN_ITEMS else ""
    return f"proposal {proposal.number} {proposal.protocol}{spi}: {choices}{more}"


def _transform(transform: Transform) -> str:
    identifier = str(transform.id) if isinstance(transform.id, Registry) else f"UNKNOWN_{transform.id}"
    parts = [identifier.removeprefix("ENCR_").removeprefix("PRF_").removeprefix("AUTH_")]
    for attribute in transform.attributes:
        if attribute.type == TransformAttributeType.KEY_LENGTH and isinstance(attribute.value, int):
            parts.append(str(attribute.value))
        else:
            value = _octets(attribute.value) if isinstance(attribute.value, bytes) else str(attribute.value)
            parts.append(f"attribute {int(attribute.type)}={value}")
    return "-".join(parts)


def _selector(selector: TrafficSelector) -> str:
    start, end = selector.start_address, selector.end_address
    if selector.type not in (TrafficSelectorType.TS_IPV4_ADDR_RANGE, TrafficSelectorType.TS_IPV6_ADDR_RANGE):
        return f"{selector.type} {_octets(start)}"
    low, high = int.from_bytes(start), int.from_bytes(end)
    size = high - low + 1
    if low == high:
        addresses = _address(start)
    elif size > 0 and size & (size - 1) == 0 and low % size == 0:
        addresses = f"{_address(start)}/{8 * len(start) - (size.bit_length() - 1)}"
    else:
        addresses = f"{_address(start)}-{_address(end)}"
    protocol = _IP_PROTOCOLS.get(selector.protocol, f"protocol {selector.protocol}") if selector.protocol else ""
    ports = (selector.start_port, selector.end_port)
    match ports:
        case (0, 65535):
            port = ""
        case (65535, 0):
            port = "opaque ports"
        case (first, last):
            port = f"port {first}" if first == last else f"ports {first}-{last}"
    return " ".join(part for part in (addresses, protocol, port) if part)


def _identification(payload: Identification) -> str:
    value: Final = payload.value
    match payload.type:
        case IdentificationType.ID_IPV4_ADDR | IdentificationType.ID_IPV6_ADDR:
            shown = _address(value)
        case IdentificationType.ID_FQDN | IdentificationType.ID_RFC822_ADDR:
            shown = _text(value)
        case IdentificationType.ID_DER_ASN1_DN:
            name = distinguished_name(value)
            shown = _octets(value) if name is None else _text(name)
        case _:
            readable = value.isascii() and value.decode("ascii").isprintable()
            shown = _text(value) if value and readable else _octets(value)
    return f"{payload.type} {shown}"


def _certificate(payload: Certificate) -> str:
    subject = certificate_subject(payload.value) if payload.encoding == CertificateEncoding.X509_SIGNATURE else None
    who = "" if subject is None else f" of {_text(subject)}"
    return f"{payload.encoding}{who}, {len(payload.value)} octets"


def _certificate_request(payload: CertificateRequest) -> str:
    count, rest = divmod(len(payload.authorities), KEY_HASH_OCTETS)
    if rest:
        return f"{payload.encoding}, {len(payload.authorities)} octets"
    return f"{payload.encoding}, {count} {'authority' if count == 1 else 'authorities'}"


def _vendor(payload: VendorId) -> str:
    name = vendor_name(payload.value)
    if name is not None:
        return f"{name} ({_octets(payload.value)})"
    readable = bool(payload.value) and payload.value.isascii() and payload.value.decode("ascii").isprintable()
    return _text(payload.value) if readable else _octets(payload.value)


def _delete(payload: Delete) -> str:
    if not payload.spis:
        return str(payload.protocol)
    more = ", ..." if len(payload.spis) > _SHOWN_ITEMS else ""
    return f"{payload.protocol} SPI {', '.join(spi.hex() for spi in payload.spis[:_SHOWN_ITEMS])}{more}"


def _eap(payload: Eap) -> str:
    packet = payload.packet
    if len(packet) < 4:
        return f"malformed, {len(packet)} octets"
    code = _EAP_CODES.get(packet[0], f"code {packet[0]}")
    method = f" {_EAP_TYPES.get(packet[4], f'type {packet[4]}')}" if len(packet) > 4 else ""
    return f"{code} {packet[1]}{method}, {len(packet)} octets"


def _fragment(payload: EncryptedFragment) -> str:
    return f"{payload.fragment_number} of {payload.total_fragments}, {len(payload.body)} octets"


def _unknown(payload: UnknownPayload) -> str:
    return f"{'critical ' if payload.critical else ''}{_octets(payload.value)}"


_DETAILS: dict[type[Any], Callable[[Any], str]] = {
    KeyExchange: lambda p: f"{p.method}, {len(p.public_value)} octets",
    IdInitiator: _identification,
    IdResponder: _identification,
    Certificate: _certificate,
    CertificateRequest: _certificate_request,
    Authentication: lambda p: f"{p.method}, {len(p.value)} octets",
    Nonce: lambda p: _octets(p.value),
    Delete: _delete,
    VendorId: _vendor,
    Eap: _eap,
    Encrypted: lambda p: f"{len(p.body)} octets, first payload {_NAMES.get(p.first_payload, str(p.first_payload))}",
    EncryptedFragment: _fragment,
    UnknownPayload: _unknown,
}


def _notify(payload: Notify) -> str:
    name = private_notify(int(payload.type))
    head = f"N({payload.type}, {name})" if name is not None else f"N({payload.type})"
    if payload.spi:
        protocol = payload.protocol if isinstance(payload.protocol, Registry) else ProtocolId(payload.protocol)
        head += f" {protocol} SPI {payload.spi.hex()}"
    if not payload.value:
        return head
    renderer = _NOTIFY_VALUES.get(payload.type, _octets)
    return f"{head} {renderer(payload.value)}"


def _integer(value: bytes) -> str:
    return str(int.from_bytes(value)) if len(value) <= 8 else _octets(value)


def _ipcomp(value: bytes) -> str:
    return f"CPI {value[:2].hex()} {IpcompTransform(value[2])}" if len(value) == 3 else _octets(value)


def _gateway(value: bytes) -> str:
    """Gateway identity (RFC 5685 section 6); nonce data may follow."""
    if len(value) < 2 or len(value) < 2 + value[1]:
        return _octets(value)
    identity = value[2 : 2 + value[1]]
    return _text(identity) if value[0] == GatewayIdentityType.FQDN else _address(identity)


def _ppk_identity(value: bytes) -> str:
    return f"{PpkIdentityType(value[0])} {_text(value[1:])}"


_NOTIFY_VALUES: dict[NotifyType, Callable[[bytes], str]] = {
    NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD: lambda v: str(PayloadType(v[0])),
    NotifyType.INVALID_MESSAGE_ID: _integer,
    NotifyType.INVALID_KE_PAYLOAD: lambda v: _numbers(v, KeyExchangeMethod),
    NotifyType.SET_WINDOW_SIZE: _integer,
    NotifyType.IPCOMP_SUPPORTED: _ipcomp,
    NotifyType.ADDITIONAL_IP4_ADDRESS: _address,
    NotifyType.ADDITIONAL_IP6_ADDRESS: _address,
    NotifyType.AUTH_LIFETIME: lambda v: f"{_integer(v)} s",
    NotifyType.REDIRECT: _gateway,
    NotifyType.REDIRECTED_FROM: _gateway,
    NotifyType.SECURE_PASSWORD_METHODS: lambda v: _numbers(v, SecurePasswordMethod),
    NotifyType.SIGNATURE_HASH_ALGORITHMS: lambda v: _numbers(v, HashAlgorithm),
    NotifyType.PPK_IDENTITY: _ppk_identity,
    NotifyType.TICKET_OPAQUE: lambda v: f"{len(v)} octets",
    NotifyType.TICKET_LT_OPAQUE: lambda v: f"{_integer(v[:4])} s, {max(len(v) - 4, 0)} octets",
}


def _attribute(attribute: ConfigurationAttribute) -> str:
    name = private_attribute(int(attribute.type))
    head = f"{attribute.type} ({name})" if name is not None else str(attribute.type)
    if not attribute.value:
        return head
    return f"{head} {_ATTRIBUTE_VALUES.get(attribute.type, _octets)(attribute.value)}"


def _subnet4(value: bytes) -> str:
    return f"{_address(value[:4])}/{_address(value[4:])}" if len(value) == 8 else _octets(value)


def _prefix6(value: bytes) -> str:
    return f"{_address(value[:16])}/{value[16]}" if len(value) == 17 else _octets(value)


_Attributes = ConfigurationAttributeType
_ATTRIBUTE_VALUES: dict[ConfigurationAttributeType, Callable[[bytes], str]] = {
    _Attributes.INTERNAL_IP4_ADDRESS: _address,
    _Attributes.INTERNAL_IP4_NETMASK: _address,
    _Attributes.INTERNAL_IP4_DNS: _address,
    _Attributes.INTERNAL_IP4_NBNS: _address,
    _Attributes.INTERNAL_IP4_DHCP: _address,
    _Attributes.INTERNAL_IP6_DNS: _address,
    _Attributes.INTERNAL_IP6_DHCP: _address,
    _Attributes.P_CSCF_IP4_ADDRESS: _address,
    _Attributes.P_CSCF_IP6_ADDRESS: _address,
    _Attributes.APPLICATION_VERSION: _text,
    _Attributes.INTERNAL_DNS_DOMAIN: _text,
    _Attributes.INTERNAL_IP4_SUBNET: _subnet4,
    _Attributes.INTERNAL_IP6_ADDRESS: _prefix6,
    _Attributes.INTERNAL_IP6_SUBNET: _prefix6,
    _Attributes.INTERNAL_IP6_PREFIX: _prefix6,
    _Attributes.SUPPORTED_ATTRIBUTES: lambda v: _numbers(v, ConfigurationAttributeType),
}
