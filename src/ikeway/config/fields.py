"""Kinds of values that configuration files have: durations, sizes, networks, identities, proposals, paths.

Each is `Annotated` with a validator and a `Kind`, the words that the error messages and the reference use for it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.config.pkcs11.uri import EXAMPLE as PKCS11_EXAMPLE
from ikeway.config.pkcs11.uri import Pkcs11Uri, parse_uri
from ikeway.errors import ConfigError, IkewayError
from ikeway.ike.proposals import parse_proposal
from ikeway.ike.selectors import parse_selector
from ikeway.wire.payloads import Proposal, TrafficSelector
from ikeway.wire.registry import ProtocolId

if TYPE_CHECKING:
    from ikeway.config.reading import Context

REFUSED = "ikeway_refused"

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field wants, in words; `secret` values are never shown."""

    text: str
    secret: bool = False


class Section(BaseModel):
    """A table of a configuration file: unknown keys are mistakes, nothing is converted silently."""

    model_config = ConfigDict(defer_build=True, extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)


def refuse(reason: str, *, expected: str = "", got: str = "", remedy: str = "") -> NoReturn:
    """Refuse a value from within a validator."""
    facts = {"reason": reason, "expected": expected, "got": got, "remedy": remedy}
    raise PydanticCustomError(REFUSED, "{reason}", facts)


def refuse_error(error: IkewayError) -> NoReturn:
    """Refuse a value with an error of a lower layer."""
    refuse(error.reason, expected=error.expected, got=error.got, remedy=error.remedy)


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|min|m|h|d|w))+")
_PREFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(Ki|Mi|Gi|Ti|k|M|G|T|)B?")
DURATION_TEXT = 'a duration such as "90s", "1h30m", "7d", or "never"'
SIZE_TEXT = 'a size such as "500MB", "10GB", "4GiB", or a number of octets'


def parse_duration(value: object) -> float:
    """Seconds: of "1h30m", of a number of seconds; 0 for "never"."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    if isinstance(value, str):
        text = value.strip()
        if text == "never":
            return 0.0
        compact = text.replace(" ", "")
        if _DURATION.fullmatch(compact):
            parts = re.findall(r"(\d+(?:\.\d+)?)([a-z]+)", compact)
            return sum(float(number) * _UNITS[unit] for number, unit in parts)
    refuse("this is no duration", expected=DURATION_TEXT, got=_show(value))


def parse_size(value: object) -> int:
    """Octets: of "10GB" (powers of ten), "4GiB" (powers of two), or a number; 0 for "never"."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        if value.strip() == "never":
            return 0
        match = _SIZE.fullmatch(value.strip())
        if match:
            return int(float(match[1]) * _PREFIXES[match[2]])
    refuse("this is no size", expected=SIZE_TEXT, got=_show(value))


def listed(value: object) -> object:
    """Let one value stand for a list of it."""
    if isinstance(value, list):
        return tuple(value)
    return value if isinstance(value, tuple) else (value,)


def _parse_address(value: object) -> IpAddress:
    try:
        return ipaddress.ip_address(_text(value))
    except ValueError:
        refuse("this is no IP address", expected='an address such as "192.0.2.1" or "2001:db8::1"', got=_show(value))


def _parse_interface(value: object) -> IpInterface:
    try:
        return ipaddress.ip_interface(_text(value))
    except ValueError:
        refuse(
            "this is no IP address with prefix length", expected='an address such as "10.0.0.2/24"', got=_show(value)
        )


def parse_network(value: object) -> IpNetwork:
    """A network; host bits set are refused, with the network that was probably meant."""
    expected = 'a network such as "10.1.0.0/16" or "2001:db8::/32"'
    text = _text(value)
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            refuse("this is no network", expected=expected, got=_show(value))
        refuse(f"{text} is an address within a network", expected=expected, got=_show(value), remedy=f'write "{meant}"')


def _parse_identity(value: object) -> Identity:
    try:
        return Identity.parse(_text(value))
    except (IkewayError, ValueError) as error:
        _refuse_any(error, IDENTITY_TEXT, value)


def _parse_pkcs11(value: object) -> Pkcs11Uri:
    try:
        return parse_uri(_text(value))
    except ConfigError as error:
        refuse(error.reason, expected=error.expected, got=error.got, remedy=error.remedy)


def _parse_pattern(value: object) -> IdentityPattern:
    try:
        return IdentityPattern.parse(_text(value))
    except (IkewayError, ValueError) as error:
        _refuse_any(error, PATTERN_TEXT, value)


def _parse_selector(value: object) -> TrafficSelector:
    text = _text(value)
    network = text.partition("[")[0]
    if "/" in network:
        parse_network(network)
    try:
        return parse_selector(text)
    except (IkewayError, ValueError) as error:
        _refuse_any(error, SELECTOR_TEXT, value)


def _parse_ike_proposal(value: object) -> Proposal:
    try:
        return parse_proposal(_text(value), ProtocolId.IKE)
    except (IkewayError, ValueError) as error:
        _refuse_any(error, IKE_PROPOSAL_TEXT, value)


def _parse_esp_proposal(value: object) -> Proposal:
    try:
        return parse_proposal(_text(value), ProtocolId.ESP)
    except (IkewayError, ValueError) as error:
        _refuse_any(error, ESP_PROPOSAL_TEXT, value)


def _parse_path(value: object, info: ValidationInfo) -> Path:
    """A path; a relative one starts at the folder of the configuration file."""
    context: Context | None = info.context
    path = Path(_text(value)).expanduser()
    return context.file.parent / path if context is not None else path


def parse_octets(value: object) -> bytes:
    """Octets written in hexadecimal, or a text taken as it is."""
    text = _text(value)
    if not text.startswith("0x"):
        return text.encode()
    try:
        return bytes.fromhex(text[2:])
    except ValueError:
        refuse("this is not hexadecimal", expected='"0x" and an even number of digits', got=_show(value))


def _parse_domain(value: object) -> str:
    """A domain name; the dot at either end is dropped."""
    text = _text(value).strip(".").lower()
    labels = text.split(".")
    if (
        not text
        or len(text) > 253
        or not all(re.fullmatch(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", part) for part in labels)
    ):
        refuse("this is no domain name", expected='a name such as "corp.example.com"', got=_show(value))
    return text


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        refuse("a text is needed", expected="a text in quotes", got=_show(value))
    return value.strip()


def _refuse_any(error: Exception, expected: str, value: object) -> NoReturn:
    if isinstance(error, IkewayError):
        refuse(error.reason, expected=error.expected or expected, got=error.got, remedy=error.remedy)
    refuse(str(error), expected=expected, got=_show(value))


def _show(value: object) -> str:
    from ikeway.config.explain import shorten

    return shorten(value)


IDENTITY_TEXT = 'an identity: "vpn.example.com", "alice@example.com", "192.0.2.1", "CN=alice, O=Example", "keyid:text"'
PATTERN_TEXT = 'an identity, a pattern such as "*@example.com" or "CN=*, O=Example", or "%any"'
SELECTOR_TEXT = 'a network, with protocol and port where needed: "10.1.0.0/16", "10.1.0.5/32[tcp/443]"'
IKE_PROPOSAL_TEXT = 'a proposal such as "aes256gcm16-prfsha384-x25519"'
ESP_PROPOSAL_TEXT = 'a proposal such as "aes256gcm16" or, with forward secrecy at rekeying, "aes256gcm16-x25519"'

Duration = Annotated[float, PlainValidator(parse_duration), Kind(DURATION_TEXT)]
Size = Annotated[int, PlainValidator(parse_size), Kind(SIZE_TEXT)]
Address = Annotated[IpAddress, PlainValidator(_parse_address), Kind("an IP address")]
Interface = Annotated[IpInterface, PlainValidator(_parse_interface), Kind('an address with prefix, "10.0.0.2/24"')]
Network = Annotated[IpNetwork, PlainValidator(parse_network), Kind('a network such as "10.1.0.0/16"')]
IdentityText = Annotated[Identity, PlainValidator(_parse_identity), Kind(IDENTITY_TEXT)]
PatternText = Annotated[IdentityPattern, PlainValidator(_parse_pattern), Kind(PATTERN_TEXT)]
Selector = Annotated[TrafficSelector, PlainValidator(_parse_selector), Kind(SELECTOR_TEXT)]
IkeProposal = Annotated[Proposal, PlainValidator(_parse_ike_proposal), Kind(IKE_PROPOSAL_TEXT)]
EspProposal = Annotated[Proposal, PlainValidator(_parse_esp_proposal), Kind(ESP_PROPOSAL_TEXT)]
Pkcs11 = Annotated[Pkcs11Uri, PlainValidator(_parse_pkcs11), Kind(f'a PKCS#11 URI such as "{PKCS11_EXAMPLE}"')]
FilePath = Annotated[Path, PlainValidator(_parse_path), Kind("a path, from the folder of this file")]
Octets = Annotated[bytes, PlainValidator(parse_octets), Kind('a text, or octets as "0x..."')]
Domain = Annotated[str, PlainValidator(_parse_domain), Kind("a domain name")]
Listed = Annotated[tuple[T, ...], BeforeValidator(listed)]


def between(low: float, high: float) -> AfterValidator:
    """A check that a number lies within bounds."""

    def check(value: float) -> float:
        if not low <= value <= high:
            refuse("the number is out of range", expected=f"{low:.12g} to {high:.12g}", got=_show(value))
        return value

    return AfterValidator(check)
