"""Proposals in text, as strongSwan users write them: `aes256gcm16-prfsha384-x25519`; and our defaults."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ikeway.crypto.algorithms import encryption_info
from ikeway.crypto.names import (
    BY_KEYWORD,
    KNOWN_ELSEWHERE,
    TransformKey,
    keyword_of,
    prf_of_integrity,
    weakness_of,
)
from ikeway.crypto.support import is_supported
from ikeway.errors import ConfigError
from ikeway.wire.payloads import Proposal, Transform
from ikeway.wire.registry import (
    EncryptionAlgorithm,
    ExtendedSequenceNumbers,
    IntegrityAlgorithm,
    ProtocolId,
    TransformType,
)

_T = TransformType
_ADDITIONAL = frozenset(range(_T.ADDKE1, _T.ADDKE7 + 1))
_ORDER_IN_TEXT = {_T.ENCR: 0, _T.INTEG: 1, _T.PRF: 2, _T.KE: 3}  # then the others by number

_ByType = dict[TransformType, list[TransformKey]]


def parse_proposal(text: str, protocol: ProtocolId = ProtocolId.IKE) -> Proposal:
    """Read `aes256gcm16-prfsha384-x25519` or `aes128-sha256-esn`. Raises `ConfigError`.

    Like strongSwan: without a PRF, IKE derives keys with that of each integrity algorithm named; integrity beside an
    AEAD serves only for that; ESP without `esn` or `noesn` has no extended sequence numbers.
    """
    by_type: _ByType = {}
    for word in text.strip().lower().split("-"):
        key = _lookup(word.strip(), text)
        same_type = by_type.setdefault(key[0], [])
        if key not in same_type:
            same_type.append(key)
    if protocol == ProtocolId.IKE:
        _complete_ike(by_type, text)
    elif protocol == ProtocolId.ESP:
        _complete_esp(by_type, text)
    else:
        raise _mistake(text, f"is for {protocol.name}, which is not supported", expected="IKE or ESP", remedy="use ESP")
    transforms = (Transform.of(*key) for kind in sorted(by_type) for key in by_type[kind])
    return Proposal(0, protocol, b"", tuple(transforms))


def parse_proposals(text: str, protocol: ProtocolId = ProtocolId.IKE) -> tuple[Proposal, ...]:
    """Read proposals separated by commas, the preferred one first. `default` stands for ours.

    A `!` at the end (strongSwan's strict flag) is understood: here a list is always strict.
    """
    proposals: list[Proposal] = []
    for part in text.strip().removesuffix("!").split(","):
        if part.strip().lower() == "default":
            proposals += DEFAULT_IKE_PROPOSALS if protocol == ProtocolId.IKE else DEFAULT_ESP_PROPOSALS
        else:
            proposals.append(parse_proposal(part, protocol))
    return unique(proposals)


def format_proposal(proposal: Proposal) -> str:
    """The proposal as a string that `parse_proposal` reads (unless it has transforms that have no keyword)."""
    words: dict[TransformType, list[str]] = {}
    for transform in proposal.transforms:
        words.setdefault(transform.type, []).append(keyword_of(_key(transform)))
    if words.get(_T.PRF) == _derived_prf_words(proposal):
        del words[_T.PRF]
    if words.get(_T.ESN) == ["noesn"]:
        del words[_T.ESN]
    kinds = sorted(words, key=lambda kind: _ORDER_IN_TEXT.get(kind, kind))
    return "-".join(word for kind in kinds for word in words[kind])


def weaknesses(proposal: Proposal) -> list[str]:
    """What is weak in a proposal: a sentence for each such transform, with what to use instead. Empty when nothing."""
    reasons = ((transform, weakness_of(_key(transform))) for transform in proposal.transforms)
    return [f"{keyword_of(_key(transform))}: {reason}" for transform, reason in reasons if reason is not None]


def unique(proposals: Iterable[Proposal]) -> tuple[Proposal, ...]:
    """The proposals without repetitions, in order."""
    return tuple(dict.fromkeys(proposals))


def _key(transform: Transform) -> TransformKey:
    return transform.type, transform.id, transform.key_length


def _lookup(word: str, text: str) -> TransformKey:
    key = BY_KEYWORD.get(word)
    if key is not None and is_supported(*key):
        return key
    if not word:
        raise _mistake(text, "has an empty part", expected="algorithms joined by single hyphens")
    if key is not None or word in KNOWN_ELSEWHERE:
        remedy = "leave it out; the documentation lists what is supported"
        raise _mistake(text, f'names "{word}", which Ikeway does not have', remedy=remedy)
    near = difflib.get_close_matches(word, BY_KEYWORD, n=3)
    expected = "one of " + ", ".join(near) if near else "an algorithm like aes128gcm16, sha256 or x25519"
    raise _mistake(text, f'names "{word}", which is no algorithm', expected=expected)


def _complete_ike(by_type: _ByType, text: str) -> None:
    """Derive the PRF, drop integrity beside an AEAD, and refuse what cannot protect an IKE SA (RFC 7296, 3.3.3)."""
    if _T.ESN in by_type:
        raise _mistake(text, "names sequence numbers, which IKE does not have", remedy="remove esn and noesn")
    if (_T.ENCR, EncryptionAlgorithm.ENCR_NULL, None) in by_type.get(_T.ENCR, ()):
        raise _mistake(text, "leaves IKE unencrypted", remedy="replace null, for instance by aes128gcm16")
    if _T.PRF not in by_type:
        derived = (prf_of_integrity(IntegrityAlgorithm(identifier)) for _, identifier, _ in by_type.get(_T.INTEG, ()))
        by_type[_T.PRF] = [(_T.PRF, prf, None) for prf in derived if prf is not None]
    _check_encryption(by_type, text)
    if not by_type[_T.PRF]:
        raise _mistake(text, "names no pseudorandom function", remedy="add one, for instance prfsha256")
    if not any(identifier for _, identifier, _ in by_type.get(_T.KE, ())):
        raise _mistake(text, "names no key exchange, which IKE must have", remedy="add one, for instance x25519")
    if any(identifier == 0 for _, identifier, _ in by_type[_T.KE]):
        raise _mistake(text, "lets the key exchange be left out, which IKE must have", remedy="remove none")


def _complete_esp(by_type: _ByType, text: str) -> None:
    """Add the sequence numbers and refuse what does not belong to ESP."""
    if _T.PRF in by_type:
        remedy = "remove the prf...; child SAs take the PRF of their IKE SA"
        raise _mistake(text, "names a pseudorandom function, which ESP does not have", remedy=remedy)
    _check_encryption(by_type, text)
    by_type.setdefault(_T.ESN, [(_T.ESN, ExtendedSequenceNumbers.NO, None)])
    if _T.KE not in by_type and any(kind in _ADDITIONAL for kind in by_type):
        raise _mistake(text, "names an additional key exchange and no first one", remedy="add one, for instance x25519")


def _check_encryption(by_type: _ByType, text: str) -> None:
    """Either AEADs alone, or ciphers with integrity (RFC 5282 section 8): never both in one proposal."""
    ciphers = by_type.get(_T.ENCR)
    if not ciphers:
        raise _mistake(text, "names no encryption", remedy="add one, for instance aes128gcm16")
    aead = {encryption_info(EncryptionAlgorithm(identifier), bits).is_aead for _, identifier, bits in ciphers}
    if len(aead) > 1:
        remedy = "write two proposals with a comma between them"
        raise _mistake(text, "mixes ciphers with and without integrity of their own", remedy=remedy)
    if True in aead:
        by_type.pop(_T.INTEG, None)
    elif _T.INTEG not in by_type:
        raise _mistake(text, "encrypts without integrity", remedy="add an integrity algorithm, for instance sha256")


def _derived_prf_words(proposal: Proposal) -> list[str]:
    """The PRFs that `parse_proposal` would add to the integrity algorithms of this proposal."""
    integrity = (IntegrityAlgorithm(item.id) for item in proposal.transforms if item.type == _T.INTEG)
    derived = (prf_of_integrity(algorithm) for algorithm in integrity)
    return [keyword_of((_T.PRF, prf, None)) for prf in derived if prf is not None]


def _mistake(text: str, what: str, *, expected: str = "", remedy: str = "") -> ConfigError:
    return ConfigError(f'the proposal "{text.strip()}" {what}', expected=expected, remedy=remedy)


# Large groups (modp6144, modp8192) are not offered unasked: a gateway would spend milliseconds on every stranger.
_KE = "x25519-ecp256-ecp384-modp2048-modp3072-modp4096-ecp521"
_AEAD = "aes128gcm16-aes256gcm16-chacha20poly1305"
_CBC = "aes128-aes256-sha256-sha384-sha512"

DEFAULT_IKE_PROPOSALS: tuple[Proposal, ...] = parse_proposals(
    f"{_AEAD}-prfsha256-prfsha384-prfsha512-{_KE}, {_CBC}-{_KE}", ProtocolId.IKE
)
"""AEADs first, then CBC with SHA-2; 128 bits before 256, as they are enough and faster."""

DEFAULT_ESP_PROPOSALS: tuple[Proposal, ...] = parse_proposals(
    f"{_AEAD}-{_KE}-esn-noesn, {_CBC}-{_KE}-esn-noesn, {_AEAD}-esn-noesn, {_CBC}-esn-noesn", ProtocolId.ESP
)
"""With a key exchange of their own (PFS) first, then without. Two kinds of proposals rather than the choice NONE within
one, which not every peer understands. A child SA made in IKE_AUTH has no key exchange: see `without_key_exchange`."""
