"""The plaintext view: what is secret is hidden, what is unknown is named, and nothing can command a terminal."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ikeway.eap.packet import EapCode, EapPacket, MethodType
from ikeway.wire import (
    Authentication,
    AuthenticationMethod,
    Eap,
    ExchangeType,
    IdentificationType,
    IdInitiator,
    Message,
    Notify,
    NotifyType,
    PayloadType,
    UnknownPayload,
)
from ikeway.workbench.explain import Kind, explain, unknowns

PASSWORD = b"Tr0ub4dor & 3"
CISCO = MethodType(9, 0x44425250)


def message(*payloads: object, response: bool = False, exchange: ExchangeType = ExchangeType.IKE_AUTH) -> Message:
    return Message(bytes(8), bytes(8), exchange, not response, response, 1, tuple(payloads))  # type: ignore[arg-type]


def eap(code: EapCode, method: MethodType, data: bytes) -> Eap:
    return Eap(EapPacket.of(code, 7, method, data).encode())


def text(message: Message, *, secrets: bool = False) -> str:
    return "\n".join(line.text for line in explain(message, secrets=secrets))


XML = (
    b"<config-auth type='auth-reply'><auth><username>alice</username><password>"
    + PASSWORD
    + b"</password></auth></config-auth>"
)
HIDDEN = [
    eap(EapCode.RESPONSE, MethodType(0, 6), PASSWORD),
    eap(EapCode.RESPONSE, MethodType(0, 5), PASSWORD),
    eap(EapCode.RESPONSE, CISCO, XML),
    eap(EapCode.RESPONSE, CISCO, b"\x00\x00\x00" + bytes([len(XML)]) + XML),
    eap(EapCode.RESPONSE, MethodType(0, 99), b"user=alice;password=Tr0ub4dor"),
    UnknownPayload(PayloadType(200), False, b"<secondary_password>Tr0ub4dor</secondary_password>"),
]


@pytest.mark.parametrize("payload", HIDDEN, ids=str)
def test_passwords_are_hidden_unless_asked_for(payload: object) -> None:
    flat = lambda shown: "".join(line[-16:] if "  " in line else line for line in shown.split("\n"))  # noqa: E731
    hidden, shown = text(message(payload)), text(message(payload), secrets=True)
    for each in (hidden, flat(hidden)):
        assert "Tr0ub4dor" not in each
        assert PASSWORD.hex() not in each.replace(" ", "") and b"Tr0ub4dor".hex(" ") not in each
    assert "Tr0ub4dor" in shown or "Tr0ub4dor" in flat(shown)


def test_user_names_and_questions_are_shown() -> None:
    assert "'alice'" in text(message(eap(EapCode.RESPONSE, MethodType(0, 1), b"alice")))
    assert "'Your code?'" in text(message(eap(EapCode.REQUEST, MethodType(0, 6), b"Your code?"), response=True))
    assert "MSCHAPV2" in text(message(eap(EapCode.RESPONSE, MethodType(0, 3), bytes([26]))))


def test_auth_is_shown_on_request_only() -> None:
    payload = Authentication(AuthenticationMethod.SHARED_KEY_MIC, b"\xab" * 32)
    assert "ab" * 32 not in text(message(payload))
    assert "ab" * 32 in text(message(payload), secrets=True)


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        (UnknownPayload(PayloadType(200), True, b"x"), "critical payload of type 200"),
        (eap(EapCode.REQUEST, CISCO, b"x"), "expanded type 9:"),
        (eap(EapCode.REQUEST, MethodType(0, 77), b"x"), "type 77"),
        (Eap(b"\x01"), "shorter than its header"),
        (Notify(NotifyType(8192)), "error notify 8192"),
    ],
)
def test_what_is_unknown_is_named(payload: object, word: str) -> None:
    assert word in "; ".join(unknowns(message(payload)))


def test_what_is_usual_is_not() -> None:
    assert unknowns(message(eap(EapCode.REQUEST, MethodType(0, 26), b"x"), Notify(NotifyType(40000)))) == []
    assert unknowns(message(exchange=ExchangeType(250))) == ["exchange type 250"]
    assert unknowns(message(Eap(bytes([3, 1, 0, 4])))) == []


def test_an_eap_log_in_is_explained() -> None:
    asked = message(IdInitiator(IdentificationType.ID_FQDN, b"x"))
    assert "EAP" in text(asked)


@given(
    octets=st.binary(max_size=300),
    kind=st.sampled_from([PayloadType(200), PayloadType.EAP]),
    secrets=st.booleans(),
)
def test_any_octets_give_lines_that_cannot_command_a_terminal(octets: bytes, kind: PayloadType, secrets: bool) -> None:
    payload = Eap(octets) if kind == PayloadType.EAP else UnknownPayload(kind, False, octets)
    lines = explain(message(payload), secrets=secrets)
    assert lines[0].kind is Kind.HEAD
    assert all(line.text.isprintable() for line in lines)
    unknowns(message(payload))


def test_a_length_before_xml_is_not_taken_for_its_first_letter() -> None:
    xml = b"<config-auth client='vpn' type='init'/>"
    octets = EapPacket.of(EapCode.RESPONSE, 1, MethodType(9, 0x44425250), len(xml).to_bytes(4) + xml).encode()
    lines = [line.text for line in explain(message(Eap(octets)))]
    assert any(line.startswith("0000  00 00 00 27 ") for line in lines), lines
    assert xml.decode() in lines


@pytest.mark.parametrize(
    "value",
    [
        b"<" + b"password" * 4000,
        b"<password" * 4000,
        b"<token>" * 4000,
        b"password" + b" " * 40000,
        b"pin=" + b" " * 40000,
    ],
    ids=lambda value: value[:12].decode(),
)
def test_octets_of_strangers_are_searched_for_secrets_in_a_time_that_grows_with_their_number(value: bytes) -> None:
    begun = time.process_time()
    text(message(UnknownPayload(PayloadType(200), False, value)))
    assert time.process_time() - begun < 2


def test_a_message_of_a_stranger_fills_no_more_than_so_many_lines() -> None:
    payloads = [UnknownPayload(PayloadType(200), False, b"\n" * 8000) for _ in range(7)]
    lines = explain(message(*payloads))
    assert len(lines) < 3000 and "lines more" in lines[-1].text
