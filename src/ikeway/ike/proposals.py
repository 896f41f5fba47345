"""Choosing from proposals, and checking what was chosen (RFC 7296 sections 2.7 and 3.3).

A `Proposal` is what stands on the wire: for each transform type the algorithms of which one may be chosen. A `Suite` is
what was chosen. Choosing walks through pairs of proposals, in the order of whoever's preference counts, and takes the
first pair that has something in common for every transform type. A type that a proposal lacks counts as NONE where
NONE is a choice: integrity beside an AEAD, key exchange of a child SA, additional key exchanges (RFC 9370, 2.2.2).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import TypeAlias

from ikeway.crypto.algorithms import EncryptionInfo, encryption_info, integrity_info
from ikeway.crypto.names import keyword_of
from ikeway.crypto.support import is_supported
from ikeway.errors import ProtocolViolation
from ikeway.wire.payloads import Proposal, Transform
from ikeway.wire.registry import (
    EncryptionAlgorithm,
    ExtendedSequenceNumbers,
    IntegrityAlgorithm,
    KeyExchangeMethod,
    ProtocolId,
    PseudorandomFunction,
    TransformType,
)

from .proposal_strings import (
    DEFAULT_ESP_PROPOSALS,
    DEFAULT_IKE_PROPOSALS,
    format_proposal,
    parse_proposal,
    parse_proposals,
    unique,
    weaknesses,
)

__all__ = [
    "DEFAULT_ESP_PROPOSALS",
    "DEFAULT_IKE_PROPOSALS",
    "Selection",
    "Suite",
    "explain_mismatch",
    "format_proposal",
    "key_exchange_methods",
    "parse_proposal",
    "parse_proposals",
    "select",
    "verify_selected",
    "weaknesses",
    "with_numbers",
    "without_key_exchange",
]

_T = TransformType
_ADDITIONAL = frozenset(range(_T.ADDKE1, _T.ADDKE7 + 1))
_KEY_EXCHANGES = _ADDITIONAL | {_T.KE}
_MANDATORY = {
    ProtocolId.IKE: (_T.ENCR, _T.PRF, _T.KE),
    ProtocolId.ESP: (_T.ENCR, _T.ESN),
}
_OPTIONAL = {
    ProtocolId.IKE: _ADDITIONAL | {_T.INTEG},
    ProtocolId.ESP: _ADDITIONAL | {_T.INTEG, _T.KE},
}
_UNDERSTOOD = {protocol: _OPTIONAL[protocol].union(kinds) for protocol, kinds in _MANDATORY.items()}

_Choice: TypeAlias = tuple[int, int | None]
"""Transform ID and key length in bits."""
_Choices: TypeAlias = dict[int, list[_Choice]]
"""By transform type, in order of preference."""
_NONE: _Choice = (0, None)
_ONLY_NONE = [_NONE]


@dataclass(frozen=True, slots=True)
class Suite:
    """What was agreed. `integrity` is None with an AEAD, `prf` is None for ESP, `key_exchange` None without one."""

    protocol: ProtocolId
    encryption: EncryptionAlgorithm
    key_bits: int | None
    integrity: IntegrityAlgorithm | None
    prf: PseudorandomFunction | None
    key_exchange: KeyExchangeMethod | None
    esn: bool = False
    additional_key_exchanges: tuple[tuple[TransformType, KeyExchangeMethod], ...] = ()

    @property
    def encryption_info(self) -> EncryptionInfo:
        """Sizes of the encryption transform."""
        return encryption_info(self.encryption, self.key_bits)

    @property
    def encryption_octets(self) -> int:
        """Octets of keying material for encryption, the salt included."""
        return self.encryption_info.keying_octets

    @property
    def integrity_octets(self) -> int:
        """Octets of keying material for integrity; 0 with an AEAD."""
        return 0 if self.integrity is None else integrity_info(self.integrity).key_octets

    def transforms(self) -> tuple[Transform, ...]:
        """One transform of each type, by type."""
        return _transforms(self)

    def to_proposal(self, number: int, spi: bytes) -> Proposal:
        """The suite as a proposal that offers nothing else."""
        return Proposal(number, self.protocol, spi, self.transforms())

    def __str__(self) -> str:
        """Return it as a proposal string."""
        return format_proposal(self.to_proposal(0, b""))


@lru_cache(maxsize=256)
def _transforms(suite: Suite) -> tuple[Transform, ...]:
    transforms = [Transform.of(_T.ENCR, suite.encryption, suite.key_bits)]
    if suite.prf is not None:
        transforms.append(Transform.of(_T.PRF, suite.prf))
    if suite.integrity is not None:
        transforms.append(Transform.of(_T.INTEG, suite.integrity))
    if suite.key_exchange is not None:
        transforms.append(Transform.of(_T.KE, suite.key_exchange))
    if suite.protocol == ProtocolId.ESP:
        transforms.append(Transform.of(_T.ESN, int(suite.esn)))
    transforms += [Transform.of(step, method) for step, method in suite.additional_key_exchanges]
    return tuple(transforms)


@dataclass(frozen=True, slots=True)
class Selection:
    """A suite chosen from the proposal `number` of an offer whose sender listens on `spi`."""

    number: int
    spi: bytes
    suite: Suite
    declined: tuple[TransformType, ...] = ()
    """Types for which the offer had NONE among its choices and NONE was taken; the answer says so."""

    def to_proposal(self, spi: bytes) -> Proposal:
        """The responder's answer, with the SPI on which it listens (RFC 7296 section 3.3.6)."""
        transforms = self.suite.transforms()
        if self.declined:
            nones = tuple(Transform.of(kind, 0) for kind in self.declined)
            transforms = tuple(sorted(transforms + nones, key=lambda transform: transform.type))
        return Proposal(self.number, self.suite.protocol, spi, transforms)


def select(
    offered: Sequence[Proposal],
    acceptable: Sequence[Proposal],
    *,
    prefer_initiator: bool = False,
    required_key_exchange: KeyExchangeMethod | None = None,
    ignore_key_exchange: bool = False,
) -> Selection | None:
    """Choose a suite from what the peer offers, or None when nothing fits (NO_PROPOSAL_CHOSEN).

    The order of `acceptable` counts, proposals and transforms alike, or with `prefer_initiator` that of `offered`.
    `required_key_exchange` admits only suites with that method: the one for which a KE payload came, or NONE.
    `ignore_key_exchange` is for IKE_AUTH, whose child SA has none (RFC 7296 section 1.2): it looks at the proposals of
    both sides as if they were `without_key_exchange`.
    """
    outer, inner = (offered, acceptable) if prefer_initiator else (acceptable, offered)
    looked_at: list[_Choices | None] = []  # of `inner`, as far as we have come: most often the first will do
    for first_proposal in outer:
        first = _choices(first_proposal, ignore_key_exchange)
        if first is None:
            continue
        for index, second_proposal in enumerate(inner):
            if index == len(looked_at):
                looked_at.append(_choices(second_proposal, ignore_key_exchange))
            second = looked_at[index]
            if second is None or first_proposal.protocol != second_proposal.protocol:
                continue
            suite = _agree(first_proposal.protocol, first, second, required_key_exchange)
            if suite is not None:
                their, choices = (first_proposal, first) if prefer_initiator else (second_proposal, second)
                return Selection(their.number, their.spi, suite, _declined(suite, choices))
    return None


def verify_selected(chosen: Proposal, offered: Sequence[Proposal]) -> Suite:
    """The suite that the responder chose from our offer. Raises `ProtocolViolation` unless it is one of what we
    offered: the number of one of our proposals, and one transform of each of its types (RFC 7296 section 3.3.6)."""
    offer = next((proposal for proposal in offered if proposal.number == chosen.number), None)
    if offer is None or offer.protocol != chosen.protocol:
        numbers = ", ".join(f"{proposal.number} ({proposal.protocol.name})" for proposal in offered)
        got = f"{chosen.number} ({chosen.protocol.name})"
        raise _violation("chose a proposal that was not offered", expected=f"one of {numbers}", got=got)
    kinds = [transform.type for transform in chosen.transforms]
    if len(set(kinds)) != len(kinds):
        raise _violation("chose several transforms of one type", expected="one", got=format_proposal(chosen))
    for transform in chosen.transforms:
        if transform not in offer.transforms and not _is_none(transform):
            got = keyword_of((transform.type, transform.id, transform.key_length))
            raise _violation("chose a transform that was not offered", expected=format_proposal(offer), got=got)
    picked, possible = _choices(chosen), _choices(offer)
    suite = None if picked is None or possible is None else _agree(offer.protocol, picked, possible, None)
    if suite is None:
        expected = f"one transform of each type of {format_proposal(offer)}"
        raise _violation("left a part of the proposal open", expected=expected, got=format_proposal(chosen))
    return suite


def explain_mismatch(offered: Sequence[Proposal], acceptable: Sequence[Proposal]) -> str:
    """Why `select` found nothing, for a log: the nearest pair of proposals and what they have not in common.

    Strangers may offer a hundred proposals with a thousand transforms: only the first proposals are looked at, and only
    what the nearest pair has is put in words.
    """
    ours = [(our.protocol, _by_type(our)) for our in acceptable]
    best: tuple[list[TransformType], _ByType, _ByType] | None = None
    for proposal in offered[:_MOST_EXPLAINED]:
        their = _by_type(proposal)
        for protocol, our in ours:
            if protocol == proposal.protocol:
                gaps = _gaps(protocol, their, our)
                if best is None or len(gaps) < len(best[0]):
                    best = gaps, their, our
    if best is None:
        protocols = ", ".join(sorted({proposal.protocol.name for proposal in offered})) or "nothing"
        return f"the peer offers {protocols}, for which nothing is configured here"
    kinds, their, our = best
    if not kinds:
        return "nothing in common in the combination of their transforms"
    return "nothing in common in " + "; ".join(
        f"{_TYPE_NAMES.get(kind, kind.name)}: offered {_words(their.get(kind))}, accepted {_words(our.get(kind))}"
        for kind in kinds
    )


def with_numbers(proposals: Iterable[Proposal], spi: bytes) -> tuple[Proposal, ...]:
    """The proposals as they are sent: numbered from 1, with our SPI."""
    return tuple(replace(proposal, number=number, spi=spi) for number, proposal in enumerate(proposals, 1))


def without_key_exchange(proposals: Iterable[Proposal]) -> tuple[Proposal, ...]:
    """The proposals without their key exchanges, and without those that are then the same.

    For the child SA that IKE_AUTH makes: it has the key exchange of its IKE SA (RFC 7296 section 1.2).
    """
    return unique(
        replace(proposal, transforms=tuple(item for item in proposal.transforms if item.type not in _KEY_EXCHANGES))
        for proposal in proposals
    )


def key_exchange_methods(proposals: Iterable[Proposal]) -> tuple[KeyExchangeMethod, ...]:
    """The methods of the (first) key exchange, in order of preference and without NONE."""
    methods = (item.id for proposal in proposals for item in proposal.transforms if item.type == _T.KE and item.id)
    return tuple(KeyExchangeMethod(method) for method in dict.fromkeys(methods))


# -- how two proposals meet ----------------------------------------------------------------------------------------


def _choices(proposal: Proposal, ignore_key_exchange: bool = False) -> _Choices | None:
    """What may be chosen, by type; None when the proposal has a transform type that we do not understand, or lacks one
    that it must have: it is refused as a whole (RFC 7296 section 3.3.6). A transform with an attribute that we do not
    understand, or an algorithm that we do not have, is no choice."""
    mandatory = _MANDATORY.get(proposal.protocol)
    if mandatory is None:
        return None
    understood = _UNDERSTOOD[proposal.protocol]
    choices: _Choices = {}
    for transform in proposal.transforms:
        kind, attributes = transform.type, transform.attributes
        if kind not in understood:
            return None
        if ignore_key_exchange and kind in _KEY_EXCHANGES:
            continue
        same_type = choices.setdefault(kind, [])
        key_bits: int | None = None
        if attributes and (len(attributes) > 1 or (key_bits := transform.key_length) is None):
            continue
        if is_supported(kind, transform.id, key_bits):
            same_type.append((transform.id, key_bits))
    return choices if all(kind in choices for kind in mandatory) else None


def _agree(protocol: ProtocolId, first: _Choices, second: _Choices, required: KeyExchangeMethod | None) -> Suite | None:
    """The suite of two proposals of one protocol, as `first` prefers; None when they have none in common."""
    key_exchange = _common_key_exchange(protocol, first, second, required)
    cipher = _common_cipher(protocol, first, second)
    if key_exchange is None or cipher is None:
        return None
    (encryption, key_bits), integrity = cipher
    additional = []
    for kind in sorted(_ADDITIONAL & (first.keys() | second.keys())):
        method = _first_common(first.get(kind, _ONLY_NONE), second.get(kind, _ONLY_NONE))
        if method is None:
            return None
        if method != _NONE:
            additional.append((TransformType(kind), KeyExchangeMethod(method[0])))
    prf = esn = None
    if protocol == ProtocolId.IKE:
        prf = _first_common(first[_T.PRF], second[_T.PRF])
    else:
        esn = _first_common(first[_T.ESN], second[_T.ESN])
    if prf is None and esn is None:
        return None
    return Suite(
        protocol,
        EncryptionAlgorithm(encryption),
        key_bits,
        IntegrityAlgorithm(integrity) if integrity else None,
        None if prf is None else PseudorandomFunction(prf[0]),
        KeyExchangeMethod(key_exchange) if key_exchange else None,
        esn is not None and esn[0] == ExtendedSequenceNumbers.YES,
        tuple(additional),
    )


def _common_key_exchange(
    protocol: ProtocolId, first: _Choices, second: _Choices, required: KeyExchangeMethod | None
) -> int | None:
    """The method, 0 for NONE (never in IKE), None for nothing in common."""
    candidates = first.get(_T.KE, _ONLY_NONE)
    others = second.get(_T.KE, _ONLY_NONE)
    for candidate in candidates:
        method = candidate[0]
        if candidate not in others or (required is not None and method != required):
            continue
        if method or protocol != ProtocolId.IKE:
            return method
    return None


def _common_cipher(protocol: ProtocolId, first: _Choices, second: _Choices) -> tuple[_Choice, int] | None:
    """Encryption, and the integrity that goes with it: 0 (NONE) beside an AEAD, whatever is offered there (RFC 5282,
    8); another cipher is passed over when no integrity is common to both."""
    others = second[_T.ENCR]
    integrity: _Choice | None = None
    looked = False
    for candidate in first[_T.ENCR]:
        if candidate not in others:
            continue
        if protocol == ProtocolId.IKE and candidate[0] == EncryptionAlgorithm.ENCR_NULL:
            continue
        if encryption_info(EncryptionAlgorithm(candidate[0]), candidate[1]).is_aead:
            return candidate, 0
        if not looked:
            integrity = _first_common(first.get(_T.INTEG, _ONLY_NONE), second.get(_T.INTEG, _ONLY_NONE), skip_none=True)
            looked = True
        if integrity is not None:
            return candidate, integrity[0]
    return None


def _first_common(first: list[_Choice], second: list[_Choice], *, skip_none: bool = False) -> _Choice | None:
    for choice in first:
        if choice in second and not (skip_none and choice == _NONE):
            return choice
    return None


def _declined(suite: Suite, offered: _Choices) -> tuple[TransformType, ...]:
    taken = {_T.ESN, *(kind for kind, _ in suite.additional_key_exchanges)}  # ESN 0 is "no", not NONE
    if suite.integrity is not None:
        taken.add(_T.INTEG)
    if suite.key_exchange is not None:
        taken.add(_T.KE)
    return tuple(_T(kind) for kind in sorted(offered) if kind not in taken and _NONE in offered[kind])


def _is_none(transform: Transform) -> bool:
    """A transform that says NONE where we offered nothing of its type: the same as leaving it out."""
    return (
        transform.id == 0
        and not transform.attributes
        and (transform.type == _T.INTEG or transform.type in _KEY_EXCHANGES)
    )


_ByType = dict[TransformType, dict[Transform, None]]  # in the order in which they were offered


def _by_type(proposal: Proposal) -> _ByType:
    found: _ByType = {}
    for item in proposal.transforms:
        found.setdefault(item.type, {})[item] = None
    return found


def _gaps(protocol: ProtocolId, their: _ByType, our: _ByType) -> list[TransformType]:
    """The transform types in which two proposals do not meet."""
    return [
        kind
        for kind in sorted(their.keys() | our.keys())
        if their.get(kind, {}).keys().isdisjoint(our.get(kind, {}))
        and not (_may_lack(protocol, their, kind) and _may_lack(protocol, our, kind))
    ]


def _may_lack(protocol: ProtocolId, transforms: _ByType, kind: TransformType) -> bool:
    if kind == _T.INTEG:
        return any(
            is_supported(item.type, item.id, item.key_length)
            and encryption_info(EncryptionAlgorithm(item.id), item.key_length).is_aead
            for item in transforms.get(_T.ENCR, ())
        )
    return kind in _OPTIONAL[protocol] and (kind not in transforms or any(map(_is_none, transforms[kind])))


_TYPE_NAMES = {
    _T.ENCR: "encryption",
    _T.PRF: "pseudorandom function",
    _T.INTEG: "integrity",
    _T.KE: "key exchange",
    _T.ESN: "sequence numbers",
}


_MOST_EXPLAINED = 16  # proposals
_MOST_WORDS = 24  # of one type


def _words(transforms: Collection[Transform] | None) -> str:
    words = [keyword_of((item.type, item.id, item.key_length)) for item in islice(transforms or (), _MOST_WORDS)]
    more = len(transforms or ()) - len(words)
    return " ".join(words) + (f" and {more} more" if more else "") or "none"


def _violation(what: str, *, expected: str, got: str) -> ProtocolViolation:
    return ProtocolViolation(f"the peer {what}", expected=expected, got=got)
