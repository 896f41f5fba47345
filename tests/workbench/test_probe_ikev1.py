"""IKEv1 as far as a probe goes: what is sent is what others read, and what comes back is not believed to be well-formed."""

from __future__ import annotations

import os
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.isakmp import ISAKMP, ISAKMP_payload_SA, ISAKMP_payload_Transform

from ikeway.errors import PeerUnreachable, WireError
from ikeway.workbench.probe import ProbeReport, probe
from ikeway.workbench.probe.isakmp import Exchange, Kind, Method, Suite, first_message, identification, parse
from tests.workbench.udp import QUICK, gateway

COOKIE = bytes(range(8))
SUITE = Suite(7, 256, 4, 14, Method.PSK)
ASKED = replace(QUICK, ikev1=True)
HEADER = struct.Struct("!8s8sBBBBII")


def message(exchange: int, cookie: bytes, *payloads: tuple[int, bytes], flags: int = 0) -> bytes:
    """A response; `first_message` makes requests only."""
    kinds = [kind for kind, _ in payloads] + [0]
    body = b"".join(
        struct.pack("!BxH", following, 4 + len(each)) + each
        for (_, each), following in zip(payloads, kinds[1:], strict=True)
    )
    return HEADER.pack(cookie, os.urandom(8), kinds[0], 0x10, exchange, flags, 0, HEADER.size + len(body)) + body


def chosen(suite: Suite) -> bytes:
    """The SA payload of an answer: that of a request with this one suite."""
    return first_message(Exchange.MAIN_MODE, COOKIE, [suite])[HEADER.size + 4 :]


def test_scapy_reads_what_we_send() -> None:
    suites = [SUITE, Suite(5, 0, 2, 2, Method.XAUTH_RSA)]
    octets = first_message(Exchange.AGGRESSIVE_MODE, COOKIE, suites, [(Kind.VENDOR_ID, b"vendor")])
    read = ISAKMP(octets)
    assert (read.init_cookie, read.exch_type, read.length) == (COOKIE, 4, len(octets))
    transforms = read[ISAKMP_payload_SA].prop.trans
    found = []
    while isinstance(transforms, ISAKMP_payload_Transform):
        found.append(dict(transforms.transforms))
        transforms = transforms.payload
    assert [each["Authentication"] for each in found] == ["PSK", "XAUTHInitRSA"]
    assert [each["Encryption"] for each in found] == ["AES-CBC", "3DES-CBC"]
    assert [each["GroupDesc"] for each in found] == ["2048MODPgr", "1024MODPgr"]
    assert found[0]["KeyLength"] == 256 and "KeyLength" not in found[1]


def test_the_choice_is_read_back() -> None:
    for suite in (SUITE, Suite(5, 0, 1, 2, Method.XAUTH_PSK)):
        reply = parse(message(2, COOKIE, (Kind.SA, chosen(suite))), COOKIE)
        assert reply is not None and reply.chosen == suite
    assert str(SUITE) == "aes256-sha256-modp2048, pre-shared key"


def test_what_is_no_answer_to_us_is_none() -> None:
    octets = message(2, COOKIE, (Kind.SA, chosen(SUITE)))
    assert parse(octets, bytes(8)) is None
    assert parse(octets[:27], COOKIE) is None
    assert parse(octets[:17] + b"\x20" + octets[18:], COOKIE) is None


@given(st.binary(max_size=300), st.sampled_from([0, 1, 4, 5, 8, 11, 13, 255]), st.integers(0, 3))
def test_anything_is_an_answer_or_an_error(body: bytes, first: int, flags: int) -> None:
    octets = HEADER.pack(COOKIE, bytes(8), first, 0x10, 2, flags, 0, HEADER.size + len(body)) + body
    try:
        parse(octets, COOKIE)
    except WireError:
        pass


@given(st.integers(0, 200), st.binary(min_size=1, max_size=8))
def test_a_damaged_answer_is_an_answer_or_an_error(at: int, damage: bytes) -> None:
    octets = bytearray(
        message(4, COOKIE, (Kind.SA, chosen(SUITE)), (Kind.ID, b"\x02\0\0\0vpn"), (Kind.NOTIFY, bytes(12)))
    )
    at %= len(octets)
    octets[at : at + len(damage)] = damage[: len(octets) - at]
    try:
        parse(bytes(octets), COOKIE)
    except WireError:
        pass


def ask(*answers: tuple[int, tuple[tuple[int, bytes], ...]]) -> ProbeReport:
    """Probe somebody who answers messages of IKEv1 only, by their exchange."""
    by_exchange = dict(answers)

    def behave(octets: bytes) -> list[bytes]:
        exchange = octets[18]
        if octets[17] != 0x10 or exchange not in by_exchange:
            return []
        return [message(exchange, octets[:8], *by_exchange[exchange])]

    with gateway(behave) as port:
        return probe("127.0.0.1", replace(ASKED, port=port, nat_port=1))


def test_a_gateway_that_speaks_only_ikev1_is_told_so() -> None:
    report = ask((Exchange.MAIN_MODE, ((Kind.SA, chosen(SUITE)), (Kind.VENDOR_ID, b"\x1b[2J"))))
    assert not report.answers_ikev2 and report.ikev1 is not None
    assert report.ikev1.main_mode == str(SUITE) and not report.ikev1.aggressive_mode
    assert [each.what for each in report.weaknesses] == ["IKEv1"]
    text = report.to_text()
    assert text.startswith("127.0.0.1 speaks IKEv1, and answers nothing in IKEv2\n") and "\x1b" not in text


def test_a_hash_made_with_the_key_is_a_weakness() -> None:
    proven = ((Kind.SA, chosen(SUITE)), (Kind.ID, identification(2, b"vpn\x1b[2J")), (Kind.HASH, bytes(32)))
    report = ask((Exchange.AGGRESSIVE_MODE, proven))
    assert report.ikev1 is not None and report.ikev1.aggressive_mode == str(SUITE)
    assert "Aggressive Mode with a pre-shared key" in [each.what for each in report.weaknesses]
    assert "vpn" in report.ikev1.identity and "\x1b" not in report.to_text()
    assert bytes(32).hex() not in str(report.to_json())  # of use only to who wants to guess the key


def test_a_refusal_is_no_proof_of_ikev1() -> None:
    no_proposal = bytes.fromhex("000000010100") + (14).to_bytes(2)
    report = ask((Exchange.MAIN_MODE, ((Kind.NOTIFY, no_proposal),)))
    assert report.ikev1 is not None and not report.ikev1.spoken
    assert (report.ikev1.refusal, report.weaknesses) == ("NO-PROPOSAL-CHOSEN", ())
    assert "answers in IKEv1, and nothing in IKEv2" in report.to_text()


def test_who_refuses_our_name_alone_has_aggressive_mode() -> None:
    invalid = bytes.fromhex("000000010100") + (18).to_bytes(2)
    report = ask((Exchange.AGGRESSIVE_MODE, ((Kind.NOTIFY, invalid),)))
    assert report.ikev1 is not None and report.ikev1.not_for_us
    assert len(report.weaknesses) == 2 and "--identity" in report.to_text()


def test_choices_of_groups_that_were_not_offered_are_not_computed() -> None:
    """It would name the dearest one."""
    report = ask((Exchange.MAIN_MODE, ((Kind.SA, chosen(replace(SUITE, group=18))),)))
    assert report.ikev1 is not None and report.ikev1.spoken


def test_a_flood_of_broken_answers_ends() -> None:
    def behave(octets: bytes) -> list[bytes]:
        return [octets[:8] + os.urandom(8) + b"\x01\x10\x02\0" + bytes(4) + (29).to_bytes(4) + b"\0"] * 100

    with gateway(behave) as port, pytest.raises(PeerUnreachable):
        probe("127.0.0.1", replace(ASKED, port=port, nat_port=1))


def test_without_the_question_nothing_is_sent_in_ikev1() -> None:
    seen: list[int] = []

    def behave(octets: bytes) -> list[bytes]:
        seen.append(octets.removeprefix(bytes(4))[17])
        return []

    with gateway(behave) as port, pytest.raises(PeerUnreachable):
        probe("127.0.0.1", replace(QUICK, port=port, nat_port=1))
    assert set(seen) == {0x20}
