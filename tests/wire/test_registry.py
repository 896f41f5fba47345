from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.wire import (
    ConfigurationAttributeType,
    EncryptionAlgorithm,
    ExchangeType,
    KeyExchangeMethod,
    NotifyType,
    PayloadType,
    Registry,
    TransformType,
    registry,
)
from ikeway.wire.registry import Numbers

REGISTRIES = [
    cls for cls in vars(registry).values() if isinstance(cls, type) and issubclass(cls, Registry) and list(cls)
]


@pytest.mark.parametrize(
    ("member", "number"),
    [
        # RFC 7296, and one of each document that the registries took numbers from.
        (ExchangeType.IKE_SA_INIT, 34),
        (ExchangeType.IKE_INTERMEDIATE, 43),
        (ExchangeType.IKE_FOLLOWUP_KE, 44),
        (PayloadType.SKF, 53),
        (TransformType.ADDKE1, 6),
        (TransformType.ADDKE7, 12),
        (EncryptionAlgorithm.ENCR_AES_GCM_16, 20),
        (EncryptionAlgorithm.ENCR_CHACHA20_POLY1305, 28),
        (KeyExchangeMethod.CURVE25519, 31),
        (KeyExchangeMethod.ML_KEM_512, 35),
        (KeyExchangeMethod.ML_KEM_768, 36),
        (KeyExchangeMethod.ML_KEM_1024, 37),
        (NotifyType.NO_PROPOSAL_CHOSEN, 14),
        (NotifyType.UNACCEPTABLE_ADDRESSES, 40),  # RFC 4555
        (NotifyType.STATE_NOT_FOUND, 47),  # RFC 9370
        (NotifyType.TS_MAX_QUEUE, 48),  # RFC 9611
        (NotifyType.MOBIKE_SUPPORTED, 16396),  # RFC 4555
        (NotifyType.NO_NATS_ALLOWED, 16402),
        (NotifyType.REDIRECT_SUPPORTED, 16406),  # RFC 5685
        (NotifyType.TICKET_OPAQUE, 16413),  # RFC 5723
        (NotifyType.USE_WESP_MODE, 16415),  # RFC 5840
        (NotifyType.EAP_ONLY_AUTHENTICATION, 16417),  # RFC 5998
        (NotifyType.CHILDLESS_IKEV2_SUPPORTED, 16418),  # RFC 6023
        (NotifyType.QUICK_CRASH_DETECTION, 16419),  # RFC 6290
        (NotifyType.IKEV2_MESSAGE_ID_SYNC, 16422),  # RFC 6311
        (NotifyType.IKEV2_FRAGMENTATION_SUPPORTED, 16430),  # RFC 7383
        (NotifyType.SIGNATURE_HASH_ALGORITHMS, 16431),  # RFC 7427
        (NotifyType.USE_PPK, 16435),  # RFC 8784
        (NotifyType.INTERMEDIATE_EXCHANGE_SUPPORTED, 16438),  # RFC 9242
        (NotifyType.ADDITIONAL_KEY_EXCHANGE, 16441),  # RFC 9370
        (NotifyType.SUPPORTED_AUTH_METHODS, 16443),  # RFC 9593
        (NotifyType.SA_RESOURCE_INFO, 16444),  # RFC 9611
        (ConfigurationAttributeType.INTERNAL_DNS_DOMAIN, 25),  # RFC 8598
        (ConfigurationAttributeType.ENCDNS_DIGEST_INFO, 29),  # RFC 9464
    ],
)
def test_numbers_are_those_of_iana(member, number):
    assert member == number


def test_the_second_opinion_agrees():
    """Every number that scapy names too has the same name, but for the spelling."""
    from scapy.contrib import ikev2

    def plain(name: str) -> str:
        name = name.removeprefix("IV2_NOTIFY_").removeprefix("NOTIFY_")
        return {"SENDER_REQUEST_ID": "GROUP_SENDER"}.get(name, name)

    for number, name in ikev2.IKEv2NotifyMessageTypes.items():
        assert NotifyType(number).name == plain(name)
    for number, name in ikev2.IKEv2ConfigurationAttributeTypes.items():
        assert ConfigurationAttributeType(number).name == name
    for number, name in ikev2.IKEv2ExchangeTypes.items():
        assert ExchangeType(number).name == name


@pytest.mark.parametrize("cls", REGISTRIES)
@given(st.integers(0, 0xFFFF))
def test_any_number_is_a_value_of_its_class(cls, number):
    value = cls(number)
    assert type(value) is cls
    assert value == number and hash(value) == hash(number)
    assert value.is_known == (number in set(cls))
    if not value.is_known:
        assert value.name == str(value) == f"{value}" == f"UNKNOWN_{number}"
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value


@pytest.mark.parametrize("wrong", [-1, 0x10000, 1.0, "1", None, b"\x01", True])
def test_what_no_registry_can_hold_is_refused(wrong):
    with pytest.raises(ValueError):
        PayloadType(wrong)


def test_unknown_numbers_are_not_kept():
    known = len(NotifyType._value2member_map_)
    table = Numbers(NotifyType)
    for number in range(0xFFFF):
        assert table[number] == number
    assert len(NotifyType._value2member_map_) == known == len(table)


def test_a_number_of_another_registry_is_a_number():
    value = PayloadType(NotifyType(200))
    assert type(value) is PayloadType and value.name == "UNKNOWN_200" and type(value.value) is int


def test_formatting():
    assert f"{NotifyType.COOKIE} {NotifyType.COOKIE:d} {NotifyType.COOKIE:04x}" == "COOKIE 16390 4006"
    assert f"{NotifyType.COOKIE:>8}" == "  COOKIE"


def test_errors_and_status():
    assert NotifyType.TEMPORARY_FAILURE.is_error and NotifyType(16383).is_error
    assert not NotifyType.INITIAL_CONTACT.is_error and not NotifyType(50000).is_error
