"""What a probe found, as values."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field
from typing import Any

from ikeway.crypto.names import keyword_of, weakness_of
from ikeway.wire.payloads import Transform
from ikeway.wire.registry import (
    EncryptionAlgorithm,
    IntegrityAlgorithm,
    KeyExchangeMethod,
    PseudorandomFunction,
    TransformType,
)

_E, _I, _P = EncryptionAlgorithm, IntegrityAlgorithm, PseudorandomFunction
_K, _T = KeyExchangeMethod, TransformType

# What Ikeway cannot do and so has no word on elsewhere (RFC 8247 sections 2.1 and 2.4, RFC 8221).
_ALSO_WEAK: dict[tuple[int, int], str] = {
    (_T.ENCR, _E.ENCR_DES): "a DES key of 56 bits is found in hours (RFC 8247 forbids it)",
    (_T.ENCR, _E.ENCR_IDEA): "IDEA has blocks of 64 bits (Sweet32), and RFC 8247 does not list it any more",
    (_T.ENCR, _E.ENCR_CAST): "CAST has blocks of 64 bits (Sweet32), and RFC 8247 does not list it any more",
    (_T.ENCR, _E.ENCR_BLOWFISH): "Blowfish has blocks of 64 bits (Sweet32), and RFC 8247 does not list it any more",
    (_T.PRF, _P.PRF_HMAC_TIGER): "hardly anybody has looked at Tiger since 1996, and RFC 9395 took it out of use",
    (_T.INTEG, _I.AUTH_HMAC_MD5_128): "MD5 has been broken since 2004",
    (_T.INTEG, _I.AUTH_HMAC_SHA1_160): "collisions of SHA-1 can be made",
    (_T.KE, _K.MODP_768): "a prime of 768 bits was broken in public in 2016 (RFC 8247 forbids it)",
    (_T.KE, _K.MODP_1024_160): "a prime of 1024 bits, with a small subgroup (RFC 8247 forbids it)",
    (_T.KE, _K.MODP_2048_224): "a small subgroup whose origin nobody explains (RFC 8247: should not be used)",
    (_T.KE, _K.MODP_2048_256): "a small subgroup whose origin nobody explains (RFC 8247: should not be used)",
    (_T.KE, _K.ECP_192): "a curve of 192 bits gives 96 bits of security, less than the 112 asked for today",
}
MAX_VENDORS = 64
NO_ANSWER = "no answer"
TAKEN_FOR_2 = "takes it for version 2"
KINDS = {
    TransformType.ENCR: "encryption",
    TransformType.PRF: "key derivation",
    TransformType.INTEG: "integrity",
    TransformType.KE: "key exchange",
    TransformType.ADDKE1: "a second one",
}


class State(enum.StrEnum):
    """What the gateway thinks of a transform."""

    TAKEN = "taken"
    REFUSED = "refused"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class TransformAnswer:
    """One transform, and what was said to it."""

    transform: Transform
    state: State
    said: str

    @property
    def keyword(self) -> str:
        """As in a proposal (`aes256gcm16`), or by its registered name where there is no such word."""
        return keyword_of(self._key).partition(":")[2] or keyword_of(self._key)

    @property
    def weakness(self) -> str | None:
        """Why nobody should use it; None when nothing is known against it."""
        return weakness_of(self._key) or _ALSO_WEAK.get((self.transform.type, self.transform.id))

    @property
    def _key(self) -> tuple[TransformType, int, int | None]:
        return self.transform.type, self.transform.id, self.transform.key_length


@dataclass(frozen=True, slots=True)
class Port:
    """Whether IKE is behind a port. `said` is the notation of the answer, or what the network says."""

    number: int
    answers: bool
    said: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Vendor:
    """A vendor ID; `name` None: not in our table."""

    value: bytes
    name: str | None


@dataclass(frozen=True, slots=True)
class Nat:
    """Address translation between us (RFC 7296 section 2.23). `supported` False: the gateway does not say."""

    supported: bool
    we_are_behind: bool
    gateway_is_behind: bool


@dataclass(frozen=True, slots=True)
class Cookie:
    """Cookies (RFC 7296 section 2.6). `demanded`: how many of our questions were answered with one; `octets` its
    length; `unasked`: what it says to a cookie that it never gave."""

    demanded: int
    octets: int
    unasked: str

    @property
    def is_dropped(self) -> bool:
        """True when a cookie that it never gave was not answered."""
        return self.unasked == NO_ANSWER


NO_NAT, NO_COOKIE = Nat(False, False, False), Cookie(0, 0, "")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate, or a key in its place, that the gateway shows before we are authenticated; `weaknesses`: what is
    wrong with it."""

    facts: dict[str, str | list[str]]
    der: bytes = field(repr=False)
    weaknesses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Authentication:
    """What IKE_AUTH without a proof of ours brings out (RFC 7296 section 2.16)."""

    answered: str  # the notation of the first response; what went wrong when there is none
    identity: str = ""
    certificates: tuple[Certificate, ...] = ()
    method: str = ""  # of its AUTH payload
    eap: str = ""  # what it wants to know first
    eap_method: str = ""  # the method that it begins with, once it was told a name
    refusal: str = ""  # the notify, when it refuses


@dataclass(frozen=True, slots=True)
class Ikev1:
    """What it says to the first messages of IKEv1. A refusal is an answer too, and needs no IKEv1 to be configured."""

    answers: bool
    main_mode: str  # what it chose of what we offered; empty when nothing. Some look at the log-in only later
    aggressive_mode: str  # what it chose, and sent a hash made with its pre-shared key for
    not_for_us: bool  # Aggressive Mode is there for others: it refuses our identity only
    identity: str  # who it said it is in Aggressive Mode
    refusal: str  # the notification, or what the network says; empty when nothing came
    vendors: tuple[Vendor, ...]

    @property
    def spoken(self) -> bool:
        """True when it took an offer, or would have taken that of somebody else."""
        return bool(self.main_mode or self.aggressive_mode) or self.not_for_us


class Confidence(enum.StrEnum):
    """How sure a guess is."""

    HIGH = "high"  # it says so itself
    MEDIUM = "medium"  # several things that it does are this product's and none is against it
    LOW = "low"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Product:
    """Who made it, as far as that shows. A guess, with its reasons."""

    name: str
    confidence: Confidence
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Weakness:
    """Something that nobody should rely on, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """All of it. Octets are hexadecimal in `to_json`. What IKEv2 was asked is empty when nothing answered in it."""

    host: str
    address: str
    other_addresses: tuple[str, ...]
    ports: tuple[Port, ...]
    product: Product
    questions: int
    seconds: float
    first_answer: str = ""  # to everything that we have at once; empty when it gave none
    chosen: str = ""  # the proposal that it chose out of that; empty when it chose none
    announced: tuple[str, ...] = ()  # notifies of its first answer
    signature_hashes: tuple[str, ...] = ()  # which it takes signatures over (RFC 7427)
    vendors: tuple[Vendor, ...] = ()
    authorities: tuple[str, ...] = ()  # SHA-1 of the keys of the CAs that it names in CERTREQ
    asks_certificate: bool = False
    fragmentation: bool = False
    nat: Nat = NO_NAT
    cookie: Cookie = NO_COOKIE
    wrong_group: str = ""  # what it says to a KE payload of a method that was not offered
    version: str = ""  # what it says to IKE version 3
    redirect: str = ""
    transforms: tuple[TransformAnswer, ...] = ()
    authentication: Authentication | None = None
    ikev1: Ikev1 | None = None  # None: not asked
    weaknesses: tuple[Weakness, ...] = ()  # all of them, the transforms' too
    remarks: tuple[str, ...] = ()

    @property
    def answers_ikev2(self) -> bool:
        """Whether anything came back in IKEv2."""
        return any(each.answers for each in self.ports)

    def taken(self, kind: TransformType) -> tuple[TransformAnswer, ...]:
        """The transforms of a type that the gateway takes."""
        return tuple(each for each in self.transforms if each.state is State.TAKEN and each.transform.type == kind)

    @property
    def weak(self) -> tuple[TransformAnswer, ...]:
        """What it takes and should not."""
        return tuple(each for each in self.transforms if each.state is State.TAKEN and each.weakness)

    def to_json(self) -> dict[str, Any]:
        """Objects, lists, text, numbers and truth values only."""
        found: dict[str, Any] = {
            each.name: _plain(getattr(self, each.name))
            for each in dataclasses.fields(self)
            if each.name != "transforms"
        }
        found["transforms"] = [
            {
                "type": each.transform.type.name,
                "name": str(each.transform.id),
                "number": int(each.transform.id),
                "key_bits": each.transform.key_length,
                "keyword": each.keyword,
                "state": each.state.value,
                "said": each.said,
                "weakness": each.weakness,
            }
            for each in self.transforms
        ]
        return found

    def to_text(self) -> str:
        """For people."""
        from ikeway.workbench.probe.text import to_text

        return to_text(self)


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value of the above
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return value
