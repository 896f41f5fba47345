"""Proposal strings, choosing from an offer, and checking a choice (RFC 7296 sections 2.7, 3.3)."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.crypto.names import BY_KEYWORD, KNOWN_ELSEWHERE, keyword_of
from ikeway.errors import ConfigError, ProtocolViolation
from ikeway.ike.proposals import (
    DEFAULT_ESP_PROPOSALS,
    DEFAULT_IKE_PROPOSALS,
    Suite,
    explain_mismatch,
    format_proposal,
    key_exchange_methods,
    parse_proposal,
    parse_proposals,
    select,
    verify_selected,
    weaknesses,
    with_numbers,
    without_key_exchange,
)
from ikeway.wire.payloads import Attribute, Proposal, Transform
from ikeway.wire.registry import (
    EncryptionAlgorithm,
    IntegrityAlgorithm,
    KeyExchangeMethod,
    ProtocolId,
    PseudorandomFunction,
    TransformType,
)

IKE, ESP = ProtocolId.IKE, ProtocolId.ESP
T = TransformType


def offer(text, protocol=IKE, spi=b""):
    return with_numbers(parse_proposals(text, protocol), spi)


def ids(proposal, kind):
    return [(item.id, item.key_length) for item in proposal.transforms if item.type == kind]


# -- text --------------------------------------------------------------------------------------------------------------


def test_aead_in_ike():
    proposal = parse_proposal("aes256gcm16-prfsha384-x25519")
    assert proposal == Proposal(
        0,
        IKE,
        b"",
        (
            Transform.of(T.ENCR, EncryptionAlgorithm.ENCR_AES_GCM_16, 256),
            Transform.of(T.PRF, PseudorandomFunction.PRF_HMAC_SHA2_384),
            Transform.of(T.KE, KeyExchangeMethod.CURVE25519),
        ),
    )


@pytest.mark.parametrize(
    ("word", "integrity", "prf"),
    [
        ("md5", "AUTH_HMAC_MD5_96", "PRF_HMAC_MD5"),
        ("sha1", "AUTH_HMAC_SHA1_96", "PRF_HMAC_SHA1"),
        ("sha256", "AUTH_HMAC_SHA2_256_128", "PRF_HMAC_SHA2_256"),
        ("sha2_256", "AUTH_HMAC_SHA2_256_128", "PRF_HMAC_SHA2_256"),
        ("sha384", "AUTH_HMAC_SHA2_384_192", "PRF_HMAC_SHA2_384"),
        ("sha512", "AUTH_HMAC_SHA2_512_256", "PRF_HMAC_SHA2_512"),
        ("aesxcbc", "AUTH_AES_XCBC_96", "PRF_AES128_XCBC"),
        ("aescmac", "AUTH_AES_CMAC_96", "PRF_AES128_CMAC"),
    ],
)
def test_the_prf_of_ike_comes_from_integrity_when_none_is_named(word, integrity, prf):
    derived = parse_proposal(f"aes128-{word}-modp2048")
    assert ids(derived, T.INTEG) == [(IntegrityAlgorithm[integrity], None)]
    assert ids(derived, T.PRF) == [(PseudorandomFunction[prf], None)]
    named = parse_proposal(f"aes128-{word}-prfsha512-modp2048")
    assert ids(named, T.PRF) == [(PseudorandomFunction.PRF_HMAC_SHA2_512, None)]
    beside_aead = parse_proposal(f"aes128gcm16-{word}-modp2048")
    assert ids(beside_aead, T.PRF) == [(PseudorandomFunction[prf], None)]
    assert ids(beside_aead, T.INTEG) == []


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("aes128ccm8-prfsha256-ecp256", T.ENCR, [(EncryptionAlgorithm.ENCR_AES_CCM_8, 128)]),
        ("aes192ccm96-prfsha256-ecp256", T.ENCR, [(EncryptionAlgorithm.ENCR_AES_CCM_12, 192)]),
        ("aes256gcm-prfsha256-ecp256", T.ENCR, [(EncryptionAlgorithm.ENCR_AES_GCM_16, 256)]),
        ("aes256gcm128-prfsha256-ecp256", T.ENCR, [(EncryptionAlgorithm.ENCR_AES_GCM_16, 256)]),
        ("aes128gcm12-prfsha256-ecp256", T.ENCR, [(EncryptionAlgorithm.ENCR_AES_GCM_12, 128)]),
        ("chacha20poly1305-prfsha256-x25519", T.ENCR, [(EncryptionAlgorithm.ENCR_CHACHA20_POLY1305, None)]),
        ("aes-sha256-ecp256", T.ENCR, [(EncryptionAlgorithm.ENCR_AES_CBC, 128)]),
        ("aes128ctr-sha256-ecp256", T.ENCR, [(EncryptionAlgorithm.ENCR_AES_CTR, 128)]),
        ("3des-sha1-modp1024", T.ENCR, [(EncryptionAlgorithm.ENCR_3DES, None)]),
        ("aes128-sha256-curve25519", T.KE, [(KeyExchangeMethod.CURVE25519, None)]),
        ("aes128-sha256-x448", T.KE, [(KeyExchangeMethod.CURVE448, None)]),
        ("aes128-sha256-ecp512bp-modp8192", T.KE, [(30, None), (18, None)]),
        ("AES128-SHA256-MLKEM768", T.KE, [(36, None)]),
        ("aes128-sha256-x25519-ke1_mlkem768-ke1_none-ke2_x448", T.ADDKE1, [(36, None), (0, None)]),
        ("aes128-sha256-x25519-ke1_mlkem768-ke1_none-ke2_x448", T.ADDKE2, [(32, None)]),
        ("aes256-aes128-aes256-sha256-ecp256", T.ENCR, [(12, 256), (12, 128)]),
    ],
)
def test_keywords(text, kind, expected):
    assert ids(parse_proposal(text), kind) == expected


def test_esp():
    assert ids(parse_proposal("aes128gcm16", ESP), T.ESN) == [(0, None)]
    assert ids(parse_proposal("aes128gcm16-esn", ESP), T.ESN) == [(1, None)]
    assert ids(parse_proposal("aes128-sha256-esn-noesn-modp2048-none", ESP), T.ESN) == [(1, None), (0, None)]
    assert ids(parse_proposal("aes128-sha256-modp2048-none", ESP), T.KE) == [(14, None), (0, None)]
    assert ids(parse_proposal("null-sha256", ESP), T.ENCR) == [(11, None)]


@pytest.mark.parametrize(
    ("text", "protocol", "message"),
    [
        ("aes128-sha265-x25519", IKE, 'names "sha265", which is no algorithm.*expected one of .*sha256'),
        ("qqq", IKE, 'names "qqq", which is no algorithm.*an algorithm like'),
        ("camellia128-sha256-modp2048", IKE, 'names "camellia128", which Ikeway does not have'),
        ("aes128--sha256", IKE, "has an empty part"),
        ("", IKE, "has an empty part"),
        ("aes128-sha256", IKE, "names no key exchange"),
        ("aes128-sha256-none", IKE, "names no key exchange"),
        ("aes128-sha256-x25519-none", IKE, "lets the key exchange be left out"),
        ("aes128gcm16-x25519", IKE, "names no pseudorandom function.*prfsha256"),
        ("aes128-x25519-prfsha256", IKE, "encrypts without integrity"),
        ("sha256-x25519", IKE, "names no encryption"),
        ("aes128-aes128gcm16-sha256-x25519", IKE, "mixes ciphers.*two proposals with a comma"),
        ("null-sha256-x25519", IKE, "leaves IKE unencrypted"),
        ("aes128-sha256-x25519-esn", IKE, "sequence numbers, which IKE does not have"),
        ("aes128", ESP, "encrypts without integrity"),
        ("null", ESP, "encrypts without integrity"),
        ("aes128gcm16-prfsha256", ESP, "pseudorandom function, which ESP does not have"),
        ("aes128gcm16-ke1_mlkem768", ESP, "an additional key exchange and no first one"),
        ("sha256", ProtocolId.AH, "is for AH, which is not supported"),
    ],
)
def test_mistakes_are_told(text, protocol, message):
    with pytest.raises(ConfigError, match=message):
        parse_proposal(text, protocol)


def test_what_the_library_lacks_is_told(monkeypatch):
    """ML-KEM is there only with an OpenSSL from 3.5 on."""
    monkeypatch.setattr("ikeway.ike.proposal_strings.is_supported", lambda kind, number, bits: number != 36)
    with pytest.raises(ConfigError, match='names "mlkem768", which Ikeway does not have'):
        parse_proposal("aes128-sha256-mlkem768")


def test_lists():
    assert parse_proposals("aes128-sha1-modp1024 , aes256gcm16-prfsha384-ecp384!") == (
        parse_proposal("aes128-sha1-modp1024"),
        parse_proposal("aes256gcm16-prfsha384-ecp384"),
    )
    mixed = parse_proposals("aes128gcm16, default, aes128gcm16", ESP)
    assert mixed == (parse_proposal("aes128gcm16", ESP), *DEFAULT_ESP_PROPOSALS)
    assert parse_proposals("default") == DEFAULT_IKE_PROPOSALS
    with pytest.raises(ConfigError, match="empty part"):
        parse_proposals("aes128-sha256-x25519,")


@pytest.mark.parametrize(
    ("text", "protocol"),
    [
        ("aes256gcm16-prfsha384-x25519", IKE),
        ("aes128-sha256-modp2048", IKE),
        ("aes128-sha256-prfsha512-modp2048", IKE),
        ("aes128-aes256-sha256-sha384-ecp256-x25519-ke1_mlkem768-ke1_none", IKE),
        ("aes128gcm16", ESP),
        ("aes128gcm16-x25519-modpnone-esn-noesn", ESP),
        ("3des-md5-noesn-esn", ESP),
    ],
)
def test_format(text, protocol):
    assert format_proposal(parse_proposal(text, protocol)) == text


words = {kind: sorted(word for word, key in BY_KEYWORD.items() if key[0] == kind) for kind in TransformType}
AEADS = [word for word in words[T.ENCR] if "gcm" in word or "ccm" in word or "poly" in word]
CIPHERS = [word for word in words[T.ENCR] if word not in AEADS and word != "null"]
KES = [word for word in words[T.KE] if word not in ("none", "modpnone")]


@st.composite
def proposal_texts(draw, protocol):
    def some(options, least=1):
        return draw(st.lists(st.sampled_from(options), min_size=least, max_size=3))

    parts = some(AEADS) if draw(st.booleans()) else some(CIPHERS) + some(words[T.INTEG])
    if protocol == IKE:
        parts += some(words[T.PRF], 1 if parts[-1] in AEADS else 0) + some(KES)
        parts += some(words[T.ADDKE1], 0) + some(words[T.ADDKE7], 0)
    else:
        parts += some(words[T.KE], 0) + some(words[T.ESN], 0)
    return "-".join(draw(st.permutations(parts)))


@pytest.mark.parametrize("protocol", [IKE, ESP])
@given(data=st.data())
def test_text_round_trip_and_self_selection(protocol, data):
    """What is written is read; and an offer can always be accepted by whoever wrote the same."""
    text = data.draw(proposal_texts(protocol))
    proposal = parse_proposal(text, protocol)
    assert parse_proposal(format_proposal(proposal), protocol) == proposal
    offered = with_numbers([proposal], b"spi!")
    selection = select(offered, [proposal])
    assert selection is not None
    chosen = selection.to_proposal(b"ours")
    assert verify_selected(chosen, offered) == selection.suite
    first = {item.type: item for item in reversed(proposal.transforms)}
    picked = {item.type: item for item in chosen.transforms}
    assert picked == first


def test_every_keyword_has_its_transform_and_elsewhere_none():
    assert not KNOWN_ELSEWHERE & BY_KEYWORD.keys()
    for key in BY_KEYWORD.values():
        assert BY_KEYWORD[keyword_of(key)] == key


def test_unknown_transforms_are_rendered():
    proposal = Proposal(1, IKE, b"", (Transform.of(T.ENCR, 23, 128), Transform.of(T.KE, 4711), Transform.of(T.PRF, 5)))
    assert format_proposal(proposal) == "ENCR:ENCR_CAMELLIA_CBC/128-prfsha256-KE:UNKNOWN_4711"


# -- defaults and weaknesses -------------------------------------------------------------------------------------------


def test_defaults_are_todays():
    for proposals in (DEFAULT_IKE_PROPOSALS, DEFAULT_ESP_PROPOSALS):
        assert [reason for proposal in proposals for reason in weaknesses(proposal)] == []
    first = Suite(
        IKE,
        EncryptionAlgorithm.ENCR_AES_GCM_16,
        128,
        None,
        PseudorandomFunction.PRF_HMAC_SHA2_256,
        KeyExchangeMethod.CURVE25519,
    )
    selection = select(with_numbers(DEFAULT_IKE_PROPOSALS, b""), DEFAULT_IKE_PROPOSALS)
    assert selection is not None
    assert selection.suite == first
    methods = key_exchange_methods(DEFAULT_IKE_PROPOSALS)
    assert methods[0] == KeyExchangeMethod.CURVE25519
    assert {KeyExchangeMethod.ECP_256, KeyExchangeMethod.MODP_2048} < set(methods)
    assert not {KeyExchangeMethod.MODP_1024, KeyExchangeMethod.MODP_1536, KeyExchangeMethod.NONE} & set(methods)
    # They fit into one datagram that no path fragments.
    assert sum(len(proposal.transforms) * 12 for proposal in DEFAULT_IKE_PROPOSALS) < 400


@pytest.mark.parametrize(
    ("text", "protocol", "weak"),
    [
        ("3des-sha256-modp2048", IKE, {"3des": "Sweet32"}),
        ("aes128-md5-modp2048", IKE, {"md5": "broken", "prfmd5": "broken"}),
        ("aes128-sha1-modp1024", IKE, {"sha1": "collisions", "prfsha1": "collisions", "modp1024": "Logjam"}),
        ("aes128-sha256-modp1536", IKE, {"modp1536": "90 bits"}),
        ("aes128gcm8-prfsha256-x25519", IKE, {"aes128gcm8": "forgeries"}),
        ("null-sha256", ESP, {"null": "nothing is encrypted"}),
        ("aes128-sha256-modp2048", IKE, {}),
        ("aes128-sha256-x25519-ke1_modp1024", IKE, {}),
    ],
)
def test_weaknesses_say_why_and_what_to_use(text, protocol, weak):
    found = dict(sentence.split(": ", 1) for sentence in weaknesses(parse_proposal(text, protocol)))
    assert found.keys() == weak.keys()
    for word, reason in weak.items():
        assert reason in found[word]
        assert "use " in found[word]


@pytest.mark.parametrize("word", ["3des", "md5", "sha1", "modp1024"])
def test_what_is_weak_works_when_named(word):
    text = "-".join(
        {"3des": ["3des", "sha256", "x25519"], "modp1024": ["aes128", "sha256", "modp1024"]}.get(
            word, ["aes128", word, "x25519"]
        )
    )
    assert select(offer(text), DEFAULT_IKE_PROPOSALS) is None
    assert select(offer(text), parse_proposals(text)) is not None


# -- selection ---------------------------------------------------------------------------------------------------------


def test_whose_order_counts():
    offered = offer("aes256gcm16-prfsha384-ecp256, aes128-sha256-x25519")
    acceptable = parse_proposals("aes128-sha256-x25519, aes256gcm16-prfsha384-ecp256")
    assert select(offered, acceptable).number == 2
    assert select(offered, acceptable, prefer_initiator=True).number == 1
    offered = offer("aes256-aes128-sha512-sha256-modp2048-ecp256")
    acceptable = parse_proposals("aes128-aes256-sha256-sha512-ecp256-modp2048")
    assert str(select(offered, acceptable).suite) == "aes128-sha256-ecp256"
    assert str(select(offered, acceptable, prefer_initiator=True).suite) == "aes256-sha512-modp2048"


def test_key_lengths_match_exactly():
    assert select(offer("aes192-sha256-x25519"), parse_proposals("aes128-aes256-sha256-x25519")) is None
    assert select(offer("aes128-aes192-sha256-x25519"), parse_proposals("aes192-sha256-x25519")).suite.key_bits == 192


def test_the_key_exchange_that_came_can_be_required():
    offered = offer("aes128-sha256-modp2048-x25519")
    acceptable = parse_proposals("aes128-sha256-x25519-modp2048")
    modp = select(offered, acceptable, required_key_exchange=KeyExchangeMethod.MODP_2048)
    assert modp.suite.key_exchange == KeyExchangeMethod.MODP_2048
    assert select(offered, acceptable, required_key_exchange=KeyExchangeMethod.ECP_256) is None
    assert select(offered, acceptable, required_key_exchange=KeyExchangeMethod.NONE) is None
    optional = offer("aes128gcm16-x25519-none", ESP)
    acceptable = parse_proposals("aes128gcm16-x25519, aes128gcm16", ESP)
    assert select(optional, acceptable, required_key_exchange=KeyExchangeMethod.NONE).suite.key_exchange is None
    assert select(optional, acceptable).suite.key_exchange == KeyExchangeMethod.CURVE25519


def test_requiring_a_key_exchange_moves_on_to_another_proposal():
    offered = offer("aes256gcm16-prfsha256-ecp256, aes128gcm16-prfsha256-x25519")
    acceptable = parse_proposals("aes256gcm16-aes128gcm16-prfsha256-ecp256-x25519")
    assert select(offered, acceptable).number == 1
    assert select(offered, acceptable, required_key_exchange=KeyExchangeMethod.CURVE25519).number == 2


def test_an_unknown_transform_type_refuses_the_proposal():
    first, second = offer("aes128-sha256-x25519, aes256-sha256-x25519")
    strange = Proposal(1, IKE, b"", (*first.transforms, Transform.of(TransformType(241), 1)))
    selection = select([strange, second], parse_proposals("aes128-aes256-sha256-x25519"))
    assert selection.number == 2


def test_an_unknown_attribute_or_algorithm_refuses_only_the_transform():
    (good,) = offer("aes128-sha256-x25519")
    strange = Transform(T.ENCR, EncryptionAlgorithm.ENCR_AES_CBC, (Attribute(14, 128), Attribute(99, 1)))
    as_octets = Transform(T.ENCR, EncryptionAlgorithm.ENCR_AES_CBC, (Attribute(14, b"\0\x80"),))
    unknown = Transform.of(T.ENCR, 4711, 128)
    lengthy = Transform(T.PRF, PseudorandomFunction.PRF_HMAC_SHA2_256, (Attribute(14, 256),))
    acceptable = parse_proposals("aes128-aes256-sha256-x25519")
    mixed = Proposal(1, IKE, b"", (strange, as_octets, unknown, lengthy, *good.transforms))
    assert select([mixed], acceptable).suite == select([good], acceptable).suite
    for bad in (strange, as_octets, unknown):
        others = tuple(item for item in good.transforms if item.type != T.ENCR)
        assert select([Proposal(1, IKE, b"", (bad, *others))], acceptable) is None


@pytest.mark.parametrize("kind", [T.ENCR, T.PRF, T.INTEG, T.KE])
def test_ike_needs_all_four(kind):
    (good,) = offer("aes128-sha256-x25519")
    lacking = Proposal(1, IKE, b"", tuple(item for item in good.transforms if item.type != kind))
    assert select([lacking], parse_proposals("aes128-sha256-x25519")) is None


@pytest.mark.parametrize("kind", [T.ENCR, T.INTEG, T.ESN])
def test_esp_needs_all_three(kind):
    (good,) = offer("aes128-sha256", ESP)
    lacking = Proposal(1, ESP, b"", tuple(item for item in good.transforms if item.type != kind))
    assert select([lacking], parse_proposals("aes128-sha256", ESP)) is None


def test_integrity_none_beside_an_aead_is_understood_and_echoed():
    (plain,) = offer("aes128gcm16-prfsha256-x25519")
    (spelled,) = [Proposal(1, IKE, b"", (*plain.transforms, Transform.of(T.INTEG, 0)))]
    selection = select([spelled], parse_proposals("aes128gcm16-prfsha256-x25519"))
    assert selection.suite.integrity is None
    assert Transform.of(T.INTEG, 0) in selection.to_proposal(b"").transforms
    assert Transform.of(T.INTEG, 0) not in select([plain], [plain]).to_proposal(b"").transforms
    assert verify_selected(selection.to_proposal(b""), [spelled]) == selection.suite
    # A cipher that needs integrity does not get along with NONE.
    (cbc,) = offer("aes128-sha256-x25519")
    transforms = tuple(item for item in cbc.transforms if item.type != T.INTEG)
    none_only = Proposal(1, IKE, b"", (*transforms, Transform.of(T.INTEG, 0)))
    assert select([none_only], [cbc]) is None
    assert select([none_only], [none_only]) is None


def test_a_mixed_offer_is_served():
    """RFC 5282 section 8 wants AEADs in proposals of their own; who mixes gets either, each with what belongs to it."""
    aead, cbc = offer("aes256gcm16-sha256-x25519, aes128-sha256-x25519")
    mixed = Proposal(1, IKE, b"", tuple(dict.fromkeys(cbc.transforms + aead.transforms)))
    by_aead = select([mixed], [aead]).suite
    by_cbc = select([mixed], [cbc]).suite
    assert (by_aead.integrity, by_cbc.integrity) == (None, IntegrityAlgorithm.AUTH_HMAC_SHA2_256_128)
    # Without common integrity the AEAD further down is still found.
    assert (
        select([mixed], parse_proposals("aes128-sha512-prfsha256-x25519, aes256gcm16-sha256-x25519")).suite == by_aead
    )


def test_protocols_do_not_mix():
    (esp,) = offer("aes128gcm16", ESP, b"abcd")
    assert select([Proposal(1, ProtocolId.AH, b"abcd", esp.transforms)], [esp]) is None
    assert select([Proposal(1, ProtocolId(99), b"abcd", esp.transforms)], [esp]) is None
    assert select([esp], parse_proposals("aes128gcm16-prfsha256-x25519")) is None
    bundle = offer("aes128-sha256-x25519") + offer("aes128gcm16", ESP, b"wxyz")
    assert select(bundle, [esp]).spi == b"wxyz"


def test_a_prf_in_esp_refuses_the_proposal():
    (esp,) = offer("aes128gcm16", ESP)
    assert select([Proposal(1, ESP, b"", (*esp.transforms, Transform.of(T.PRF, 5)))], [esp]) is None


def test_pfs_in_esp():
    with_ke, without, optional = "aes128gcm16-x25519", "aes128gcm16", "aes128gcm16-x25519-none"

    def method(theirs, ours):
        selection = select(offer(theirs, ESP), parse_proposals(ours, ESP))
        return selection and int(selection.suite.key_exchange or 0)

    assert method(with_ke, with_ke) == 31
    assert method(with_ke, without) is None
    assert method(without, with_ke) is None
    assert method(optional, without) == method(without, optional) == method(without, without) == 0
    assert method(optional, with_ke) == 31
    declined = select(offer(optional, ESP), parse_proposals(without, ESP))
    assert Transform.of(T.KE, 0) in declined.to_proposal(b"").transforms


def test_the_child_of_ike_auth_has_no_key_exchange():
    bare = without_key_exchange(DEFAULT_ESP_PROPOSALS)
    assert bare == DEFAULT_ESP_PROPOSALS[2:]
    assert key_exchange_methods(bare) == ()
    offered = offer("aes128gcm16-modp2048-ke1_mlkem768", ESP)
    assert select(offered, bare) is None
    ignoring = select(offered, parse_proposals("aes128gcm16-x25519", ESP), ignore_key_exchange=True)
    assert ignoring.suite == select(without_key_exchange(offered), bare).suite
    assert ignoring.suite.key_exchange is None


def test_extended_sequence_numbers():
    def esn(theirs, ours):
        selection = select(offer(f"aes128gcm16-{theirs}", ESP), parse_proposals(f"aes128gcm16-{ours}", ESP))
        return selection and selection.suite.esn

    assert esn("esn-noesn", "noesn") is False
    assert esn("noesn-esn", "esn-noesn") is True
    assert esn("noesn", "esn") is None
    assert select(offer("aes128gcm16", ESP), DEFAULT_ESP_PROPOSALS).suite.esn is False


def test_additional_key_exchanges():
    """RFC 9370 section 2.2.2: both must want the same steps; NONE makes a step optional."""
    hybrid, optional, plain = (
        f"aes256gcm16-prfsha384-x25519{tail}" for tail in ("-ke1_mlkem768", "-ke1_mlkem768-ke1_none", "")
    )

    def steps(theirs, ours):
        selection = select(offer(theirs), parse_proposals(ours))
        return selection and selection.suite.additional_key_exchanges

    agreed = ((T.ADDKE1, KeyExchangeMethod.ML_KEM_768),)
    assert steps(hybrid, hybrid) == steps(optional, hybrid) == steps(hybrid, optional) == agreed
    assert steps(hybrid, plain) is None
    assert steps(plain, hybrid) is None
    assert steps(optional, plain) == steps(plain, optional) == ()
    answer = select(offer(optional), parse_proposals(plain)).to_proposal(b"")
    assert Transform.of(T.ADDKE1, 0) in answer.transforms
    assert str(select(offer(hybrid), parse_proposals(hybrid)).suite) == hybrid


def test_a_huge_offer_with_one_match_at_its_end():
    transforms = tuple(Transform.of(T.ENCR, number, 128) for number in range(200, 450))
    huge = [Proposal(number, IKE, b"", transforms) for number in range(1, 26)]
    assert select(huge, DEFAULT_IKE_PROPOSALS) is None
    (good,) = offer("aes128-sha256-x25519")
    assert select([*huge, Proposal(26, IKE, b"", transforms + good.transforms)], DEFAULT_IKE_PROPOSALS).number == 26


# -- what came back ----------------------------------------------------------------------------------------------------


def test_the_choice_must_be_ours():
    offered = offer("aes128gcm16-aes256gcm16-prfsha256-x25519-ecp256, aes128-sha256-x25519")
    good = offer("aes256gcm16-prfsha256-ecp256")[0]
    assert str(verify_selected(good, offered)) == "aes256gcm16-prfsha256-ecp256"

    def chosen(number=1, protocol=IKE, drop=(), add=()):
        kept = tuple(item for item in good.transforms if item.type not in drop)
        return Proposal(number, protocol, b"", kept + tuple(add))

    for wrong, message in (
        (chosen(number=3), "a proposal that was not offered.*expected one of 1 .IKE., 2 .IKE.*got 3"),
        (chosen(number=2), "a transform that was not offered.*got aes256gcm16"),
        (chosen(protocol=ESP), "a proposal that was not offered"),
        (chosen(add=[Transform.of(T.ENCR, 20, 128)]), "several transforms of one type"),
        (chosen(drop=[T.KE]), "left a part of the proposal open"),
        (chosen(drop=[T.PRF]), "left a part of the proposal open"),
        (chosen(drop=[T.KE], add=[Transform.of(T.KE, 0)]), "left a part of the proposal open"),
        (chosen(drop=[T.ENCR], add=[Transform.of(T.ENCR, 20, 192)]), "a transform that was not offered"),
        (chosen(drop=[T.ENCR], add=[Transform.of(T.ENCR, 20)]), "a transform that was not offered"),
        (chosen(add=[Transform.of(T.INTEG, 12)]), "a transform that was not offered"),
        (chosen(add=[Transform.of(TransformType(200), 1)]), "a transform that was not offered"),
    ):
        with pytest.raises(ProtocolViolation, match=message):
            verify_selected(wrong, offered)
    assert verify_selected(chosen(add=[Transform.of(T.INTEG, 0)]), offered).integrity is None


def test_a_cipher_with_integrity_left_out_is_refused():
    offered = offer("aes128-sha256-x25519")
    answer = Proposal(1, IKE, b"", tuple(item for item in offered[0].transforms if item.type != T.INTEG))
    with pytest.raises(ProtocolViolation, match="left a part"):
        verify_selected(answer, offered)


def test_an_optional_key_exchange_may_be_left_out_and_a_demanded_one_not():
    optional, demanded = offer("aes128gcm16-x25519-none", ESP), offer("aes128gcm16-x25519", ESP)
    answer = offer("aes128gcm16", ESP)[0]
    assert verify_selected(answer, optional).key_exchange is None
    with pytest.raises(ProtocolViolation, match="left a part"):
        verify_selected(answer, demanded)


# -- for people --------------------------------------------------------------------------------------------------------


def test_why_nothing_fits():
    theirs = offer("aes256-sha1-modp1024, aes128-sha256-modp1024")
    reason = explain_mismatch(theirs, parse_proposals("aes128-sha256-x25519, aes256gcm16-prfsha384-x25519"))
    assert reason == "nothing in common in key exchange: offered modp1024, accepted x25519"
    reason = explain_mismatch(offer("3des-sha1-modp2048"), parse_proposals("aes128-sha256-modp2048"))
    for fact in ("encryption: offered 3des, accepted aes128", "integrity: offered sha1, accepted sha256"):
        assert fact in reason
    assert "key exchange" not in reason
    aead = explain_mismatch(offer("aes128gcm16-prfsha256-x25519"), parse_proposals("aes256gcm16-prfsha256-x25519"))
    assert aead == "nothing in common in encryption: offered aes128gcm16, accepted aes256gcm16"
    assert "the peer offers AH" in explain_mismatch(
        [Proposal(1, ProtocolId.AH, b"", ())], parse_proposals("aes128gcm16", ESP)
    )
    assert "accepted none" in explain_mismatch(offer("aes128gcm16-x25519", ESP), parse_proposals("aes128gcm16", ESP))


def test_what_strangers_offer_is_explained_in_bounded_time_and_length():
    """As much as fits an IKE_SA_INIT request: nobody has to pay more for its refusal than for reading it."""
    many = [
        (TransformType(kind), 1000 + number) for number in range(20) for kind in (1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12)
    ]
    for proposals, transforms in ((128, 8), (4, 255)):
        offered = tuple(
            Proposal(
                number,
                ProtocolId.IKE,
                b"",
                tuple(Transform.of(*many[(number * transforms + place) % len(many)]) for place in range(transforms)),
            )
            for number in range(proposals)
        )
        calls = 0

        def count(frame, event, argument):
            nonlocal calls
            calls += event == "call"

        sys.setprofile(count)
        try:
            reason = explain_mismatch(offered, DEFAULT_IKE_PROPOSALS)
        finally:
            sys.setprofile(None)

        assert calls < 10000
        assert reason.startswith("nothing in common in ") and len(reason) < 6000


def test_numbers_and_spis():
    numbered = with_numbers(DEFAULT_ESP_PROPOSALS, b"abcd")
    assert [(proposal.number, proposal.spi) for proposal in numbered] == [(n, b"abcd") for n in (1, 2, 3, 4)]
    selection = select(with_numbers(parse_proposals("aes128gcm16", ESP), b"abcd"), DEFAULT_ESP_PROPOSALS)
    assert (selection.number, selection.spi) == (1, b"abcd")
    assert selection.to_proposal(b"wxyz") == Proposal(1, ESP, b"wxyz", selection.suite.transforms())


def test_key_material_of_a_suite():
    (one,) = offer("aes256gcm16-prfsha384-x25519")
    suite = select([one], [one]).suite
    assert (suite.encryption_octets, suite.integrity_octets) == (36, 0)
    (two,) = offer("aes128-sha512-x25519")
    suite = select([two], [two]).suite
    assert (suite.encryption_octets, suite.integrity_octets) == (16, 64)
