"""FortiGate's second factor: octets as the source has them, both sides in memory, and what must not pass."""

from __future__ import annotations

from asyncio import run
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ikeway.dialects import for_client
from ikeway.dialects.fortigate import FortiGateOptions, client
from ikeway.dialects.fortigate_eap import SecondFactorAuthenticator, SecondFactorPeer, names_another_method
from ikeway.eap.errors import EapFailed, MalformedEap, WrongPassword
from ikeway.eap.gtc import GtcPeer
from ikeway.eap.md5 import Md5Peer
from ikeway.eap.mschapv2 import MsChapV2Authenticator, MsChapV2Peer
from ikeway.eap.questions import Granted, PasswordCheck, PasswordQuestion, Prompt, Refused, SecretQuestion, Wanted
from ikeway.eap.session import EapPeer
from ikeway.ike.authentication import prove_by_eap
from ikeway.ike.events import MessageReceived
from ikeway.ike.settings import CertificateExpected, EapCredential, EapExpected, EapOnlyExpected, ResponderSettings
from ikeway.wire.payloads import Authentication, Eap, IdInitiator
from tests.auth.pki import NOW
from tests.dialects.anyconnect import answer_user, pki
from tests.ike.pair import Pair, connection, connection_b

ODD_SUCCESS = b"\x03\x08\x00\x05\x06"


def check(question: PasswordCheck):
    """alice's code is 123456; another one may be tried once more."""
    if question.identity == b"alice" and question.answer == b"123456":
        return Granted()
    return Prompt("Wrong. Code: ", state="once") if question.state is None else Refused("a wrong code")


def pair(
    *, code: str = "123456", password: str = "wonderland", answer="repeat", key="sk_p", gateway_key="sk_p", hook=None
):
    """Client and gateway in the dialect."""
    ours = pki()

    def new_peer(ask):
        return SecondFactorPeer(ask, b"alice", [lambda: MsChapV2Peer(b"alice")], answer=answer, key=key)

    def new_authenticator(ask):
        return SecondFactorAuthenticator(ask, [lambda: MsChapV2Authenticator(b"gw")], key=gateway_key)

    a = connection(local_credential=EapCredential(new_peer), remote_expectation=CertificateExpected(ours.trust))
    b = connection_b(
        local_credential=ours.gateway,
        remote_identity=None,
        remote_expectation=EapExpected(new_authenticator),
        interception=hook,
    )
    responder = ResponderSettings(ike_proposals=b.ike_proposals, cookie_threshold=1000)
    made = Pair(for_client(client(FortiGateOptions()), a), b, responder=responder, epoch=NOW)
    made.a.answers[PasswordQuestion] = answer_user(password, code)
    made.b.answers |= {
        SecretQuestion: lambda question: {b"alice": "wonderland"}.get(question.identity),
        PasswordCheck: check,
    }
    return made


def said(made: Pair, side: str) -> list[bytes]:
    """The EAP packets that one side received."""
    found = (event.message.find(Eap) for event in getattr(made, side).happened(MessageReceived))
    return [each.packet for each in found if each is not None]


@pytest.mark.parametrize("answer", ["repeat", "identity"])
def test_a_password_and_then_a_code(answer):
    made = pair(answer=answer)
    wanted = []
    made.a.answers[PasswordQuestion] = lambda question: (wanted.append(question.wanted), answer_user()(question))[1]
    made.connect()
    made.agree()
    assert len(made.a.inbound) == 1, made.a.errors + made.b.errors
    from_gateway, from_client = said(made, "a"), said(made, "b")
    at = next(i for i, packet in enumerate(from_gateway) if packet[0] == 3)
    odd = from_gateway[at]
    assert (odd[0], odd[2:]) == (3, b"\x00\x05\x06")
    acknowledged = from_client[at - 1]
    assert acknowledged[4:] == b"\x1a\x03"  # MSCHAPv2, Success: six octets
    repeated = from_client[at]
    assert repeated == (acknowledged if answer == "repeat" else b"\x02" + odd[1:2] + b"\x00\x0a\x01alice")
    assert from_gateway[at + 1][4:] == b"\x06Code: "
    assert from_client[at + 1][4:] == b"\x06123456"
    assert from_gateway[-1][0] == 3 and from_gateway[-1][2:] == b"\x00\x04"
    assert made.b.sa.eap_identity == b"alice"
    assert wanted == [Wanted.PASSWORD, Wanted.CODE]


@pytest.mark.parametrize("key", ["sk_p", "msk"])
def test_what_the_last_auth_is_made_with_is_a_setting(key):
    made = pair(key=key, gateway_key=key)
    made.connect()
    made.agree()
    assert len(made.a.inbound) == 1, made.a.errors + made.b.errors
    messages = [event.message for event in made.b.happened(MessageReceived)]
    identification = next(each.find(IdInitiator) for each in messages if each.find(IdInitiator) is not None)
    (auth,) = [each.find(Authentication) for each in messages if each.find(Authentication) is not None]
    assert (prove_by_eap(made.a.sa, None, identification).value == auth.value) is (key == "sk_p")


def test_sides_that_make_auth_with_other_keys_do_not_agree():
    made = pair(key="msk", gateway_key="sk_p")
    made.connect()
    made.run(60)
    assert made.a.errors and made.b.errors
    assert made.a.engine.sas == made.b.engine.sas == []


def test_a_wrong_code_may_be_tried_again_and_is_told_in_words():
    made = pair(code="654321")
    made.connect()
    made.run(60)
    (error,) = made.a.errors
    assert isinstance(error, WrongPassword) and "code" in str(error)
    assert "wrong password, or no such user" in str(made.b.errors[0]) or "code" in str(made.b.errors[0])
    assert made.a.engine.sas == made.b.engine.sas == []


def test_a_wrong_password_asks_for_no_code():
    made = pair(password="builder")
    made.connect()
    made.run(60)
    assert made.a.errors and made.b.errors
    assert not [packet for packet in said(made, "a") if packet[0] == 3 or packet[4:5] == b"\x06"]


def test_it_can_be_switched_off():
    made = pair(answer="off")
    made.connect()
    made.run(60)
    (error,) = made.a.errors
    assert "second factor" in str(error) and "EAP-Success of five octets" in error.got
    assert made.b.errors
    assert made.a.engine.sas == made.b.engine.sas == []


def test_without_the_dialect_such_a_success_is_malformed():
    made = pair()
    strict = EapCredential(lambda ask: EapPeer(ask, b"alice", [lambda: MsChapV2Peer(b"alice")]))
    made.a.connection = replace(made.a.connection, local_credential=strict)
    made.connect()
    made.run(60)
    (error,) = made.a.errors
    assert isinstance(error, MalformedEap) and "Success" in str(error)
    assert not [packet for packet in said(made, "b") if packet[4:5] == b"\x06"]
    assert made.a.engine.sas == made.b.engine.sas == []


def test_eap_alone_has_no_second_factor():
    """RFC 5998: what proves the gateway is one method, and nothing follows it."""
    made = pair()
    made.a.connection = replace(made.a.connection, remote_expectation=EapOnlyExpected())
    made.connect()
    made.run(60)
    assert made.a.errors and not made.a.inbound


# --- the client alone, against octets that no code of ours has made --------------------------------------------------


def talk(packets: list[bytes], methods=None, answer="repeat") -> tuple[SecondFactorPeer, list[bytes | None]]:
    """What the client answers; raises what it refuses."""
    peer: list[SecondFactorPeer] = []

    async def ask(question):
        return answer_user()(question)

    async def conversation():
        chosen = methods or [lambda: Fixed(b"alice")]
        peer.append(SecondFactorPeer(ask, b"alice", chosen, answer=answer))
        return [await peer[0].receive(packet) for packet in packets]

    found = run(conversation())
    return peer[0], found


class Fixed(MsChapV2Peer):
    """The example of RFC 2759 section 9.2 for "User", with its challenge of the peer."""

    def __init__(self, user: bytes) -> None:
        super().__init__(b"User", "clientPass", random=lambda n: bytes.fromhex("21402324255e262a28295f2b3a337c7e")[:n])


IDENTITY = b"\x01\x05\x00\x05\x01"
CHALLENGE = b"\x01\x06\x00\x1b\x1a\x01\x20\x00\x16\x10" + bytes.fromhex("5b5d7c7d7b3f2f3e3c2c602132262628") + b"g"
PROOF = b"S=407A5589115FD0D6209F510FE9C04566932CDA56"
SERVER_PROOF = b"\x01\x07" + (9 + len(PROOF)).to_bytes(2) + b"\x1a\x03\x20" + (4 + len(PROOF)).to_bytes(2) + PROOF
ASKS = b"\x01\x09\x00\x0a\x06Token"
SUCCESS = b"\x03\x0a\x00\x04"
WHOLE = [IDENTITY, CHALLENGE, SERVER_PROOF, ODD_SUCCESS, ASKS, SUCCESS]


def test_octet_for_octet():
    peer, answers = talk(WHOLE)
    assert answers[0] == b"\x02\x05\x00\x0a\x01alice"
    assert answers[2] == answers[3] == b"\x02\x07\x00\x06\x1a\x03"
    assert answers[4] == b"\x02\x09\x00\x0b\x06123456"
    assert answers[5] is None
    assert peer.succeeded and peer.msk is None
    assert peer.method == "EAP-MSCHAPv2, then EAP-GTC"


@pytest.mark.parametrize(
    "packets",
    [
        [ODD_SUCCESS],  # before anything
        [IDENTITY, ODD_SUCCESS],
        [IDENTITY, CHALLENGE, ODD_SUCCESS],  # before the gateway has proven itself
        [*WHOLE[:4], SUCCESS],  # the end, without the code
        [*WHOLE[:4], ODD_SUCCESS],  # twice
        [*WHOLE[:5], ODD_SUCCESS],  # once more after the code
        [*WHOLE[:3], b"\x03\x08\x00\x05\x1a"],  # another method
        [*WHOLE[:3], b"\x03\x08\x00\x05\x00"],
        [*WHOLE[:3], b"\x03\x08\x00\x06\x06\x06"],
        [*WHOLE[:3], b"\x03\x08\x00\x05\x06\x06"],
        [*WHOLE[:3], b"\x04\x08\x00\x05\x06"],  # Failure with content
        [*WHOLE[:4], b"\x04\x08\x00\x04"],
        [*WHOLE, ODD_SUCCESS],  # after the end
    ],
    ids=lambda packets: "-".join(packet[:5].hex() for packet in packets[-2:]),
)
def test_what_has_no_place_is_refused(packets):
    with pytest.raises(EapFailed):
        talk(packets)


def test_no_other_method_but_gtc_may_follow():
    """A password in clear, or a challenge that is guessed at, is not a code."""
    md5 = b"\x01\x09\x00\x16\x04\x10" + bytes(16)
    _, answers = talk([*WHOLE[:4], md5], [lambda: Fixed(b""), lambda: Md5Peer(b"alice"), lambda: GtcPeer(b"alice")])
    assert answers[-1] == b"\x02\x09\x00\x06\x03\x06"  # NAK: GTC


def test_it_follows_mschapv2_alone():
    gtc = [b"\x01\x06\x00\x0e\x06Password:", ODD_SUCCESS]
    with pytest.raises(EapFailed):
        talk(gtc, [lambda: GtcPeer(b"alice")])


@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=40), st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_anything_at_any_step(at, octets, odd):
    """Nothing but a whole log-in succeeds; whatever else comes is a typed refusal."""
    packets = [*WHOLE[:at], (b"\x03" + octets[:1] + b"\x00\x05" + octets[1:2]) if odd else octets]
    try:
        peer, _ = talk(packets)
    except EapFailed:
        return
    assert not peer.succeeded or packets[-1] == SUCCESS


# --- the gateway alone -----------------------------------------------------------------------------------------------


@given(st.binary(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_answer_to_the_odd_success(octets):
    """Only the last response, or EAP-Identity, gets the question for the code; all else ends in EAP-Failure."""

    async def answer(question):
        return "clientPass" if isinstance(question, SecretQuestion) else Granted()

    async def conversation():
        random = iter((b"\x20", bytes.fromhex("5b5d7c7d7b3f2f3e3c2c602132262628")))
        gateway = SecondFactorAuthenticator(
            answer, [lambda: MsChapV2Authenticator(b"g", random=lambda n: next(random))]
        )
        peer = EapPeer(answer_alice, b"User", [lambda: Fixed(b"")])
        packet = await gateway.start()
        while packet[0] == 1:
            packet = await gateway.receive(await peer.receive(packet))
        assert names_another_method(packet)
        return gateway, await gateway.receive(octets)

    async def answer_alice(question):
        raise AssertionError("the password is there")

    gateway, packet = run(conversation())
    if octets[4:5] == b"\x01":
        assert packet[0] == 1 and packet[4] == 6
    else:
        assert packet[0] == 4 and gateway.failed and gateway.error is not None
    assert not gateway.succeeded
