"""AnyConnect-EAP with an opposite that answers nonsense at any step: a typed error, and an end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ikeway.dialects.anyconnect.authenticator import MAX_FORMS, AnyConnectAuthenticator
from ikeway.dialects.anyconnect.document import element
from ikeway.dialects.anyconnect.messages import (
    MAX_INPUTS,
    Choice,
    FromClient,
    FromGateway,
    HostScan,
    Input,
    Kind,
    decode_client,
    decode_gateway,
    encode_client,
    encode_gateway,
)
from ikeway.dialects.anyconnect.options import METHOD, ClientOptions, GatewayOptions
from ikeway.dialects.anyconnect.packet import Tlv, decode, encode, value_of
from ikeway.dialects.anyconnect.peer import MAX_STEPS, AnyConnectPeer
from ikeway.eap.errors import EapFailed, MalformedEap
from ikeway.eap.packet import EapCode, EapPacket
from ikeway.eap.questions import IkeBinding, IkeBindingQuestion, PasswordCheck, Prompt
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.errors import IkewayError
from ikeway.ike import events
from ikeway.questions import CurrentTime
from ikeway.wire.registry import PseudorandomFunction
from tests.auth.pki import NOW
from tests.dialects.anyconnect import ClientTrust, check, pair, pki

BINDING = IkeBinding(b"what IKE signs", PseudorandomFunction.PRF_HMAC_SHA2_256)


async def ask(question):
    if isinstance(question, IkeBindingQuestion):
        return BINDING
    if isinstance(question, CurrentTime):
        return NOW
    return check(question) if isinstance(question, PasswordCheck) else "wonderland"


def run(coroutine):
    """Nothing here waits for anybody."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def new_peer(options: ClientOptions | None = None, credential=None) -> EapPeer:
    return EapPeer(ask, b"alice", [lambda: AnyConnectPeer(options or ClientOptions(), "alice", credential)])


def new_server(options: GatewayOptions | None = None) -> EapAuthenticator:
    made = [lambda: AnyConnectAuthenticator(options or GatewayOptions(), bytes, ClientTrust(pki().trust))]
    return EapAuthenticator(ask, made, identity=b"x", first_identifier=1)


def packet(code: EapCode, identifier: int, data: bytes) -> bytes:
    return EapPacket.of(code, identifier, METHOD, data).encode()


def xml_packet(code: EapCode, identifier: int, xml: bytes) -> bytes:
    return packet(code, identifier, encode((Tlv(0, xml),)))


def request(identifier: int, said: FromGateway) -> bytes:
    return xml_packet(EapCode.REQUEST, identifier, encode_gateway(said))


def response(identifier: int, said: FromClient) -> bytes:
    return xml_packet(EapCode.RESPONSE, identifier, encode_client(said))


def read_reply(octets: bytes) -> FromClient:
    return decode_client(value_of(decode(EapPacket.decode(octets).method_data), 0))


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), max_size=12)
FIELDS = st.builds(
    Input,
    st.sampled_from(["text", "password", "hidden", "select", "submit", "x"]),
    st.sampled_from(["username", "password", "group_list", "answer", "verify_pin", "secondary_password", "a-b", "1 <"]),
    WORDS,
    WORDS,
    st.lists(st.builds(Choice, WORDS, WORDS, st.booleans()), max_size=3).map(tuple),
)
SAID_BY_GATEWAY = st.builds(
    FromGateway,
    st.sampled_from([Kind.HELLO, Kind.AUTH_REQUEST, Kind.COMPLETE]),
    st.none() | st.builds(lambda text: element("opaque", text, is_for="sg"), WORDS),
    WORDS,
    st.none() | st.lists(FIELDS, max_size=4).map(tuple),
    st.booleans(),
    st.booleans(),
    st.none() | st.builds(HostScan, WORDS, WORDS, WORDS, WORDS),
    WORDS,
    st.just("") | WORDS,
)
SAID_BY_CLIENT = st.builds(
    FromClient,
    st.sampled_from([Kind.INIT, Kind.AUTH_REPLY, Kind.ACK]),
    opaque=st.none() | st.builds(lambda text: element("opaque", text), WORDS),
    group_access=WORDS,
    group_select=WORDS,
    answers=st.lists(
        st.tuples(
            st.sampled_from(["username", "password", "answer", "x"]), st.sampled_from(["alice", "", "wonderland"])
        ),
        max_size=4,
    ).map(tuple),
    host_scan_token=WORDS,
)


@settings(max_examples=60)
@given(SAID_BY_GATEWAY)
def test_what_the_gateway_says_survives(said):
    octets = encode_gateway(said)
    sent = [each for each in said.form or () if said.kind is Kind.AUTH_REQUEST]
    if any(each.name == "1 <" and each.type != "submit" for each in sent):
        with pytest.raises(MalformedEap):
            decode_gateway(octets)
        return
    assert decode_gateway(octets).kind is said.kind
    assert encode_gateway(decode_gateway(octets))


@settings(max_examples=60)
@given(SAID_BY_CLIENT)
def test_what_the_client_says_survives(said):
    read = decode_client(encode_client(said))
    assert read.kind is said.kind
    if said.kind is Kind.AUTH_REPLY:
        assert read.answers == said.answers


@settings(max_examples=120)
@given(st.lists(SAID_BY_GATEWAY, max_size=8), st.sampled_from(["", "echo"]))
def test_a_gateway_that_says_anything_in_any_order(said, host_scan):
    peer = new_peer(ClientOptions(host_scan=host_scan), pki().alice)
    completed = False
    for identifier, each in enumerate(said):
        try:
            run(peer.receive(request(identifier, each)))
        except IkewayError:
            break
        completed = completed or each.kind is Kind.COMPLETE
    else:
        if not completed:
            with pytest.raises(EapFailed):  # a success that nothing has earned
                run(peer.receive(EapPacket(EapCode.SUCCESS, 9).encode()))
    assert peer.succeeded is False


@settings(max_examples=120)
@given(st.lists(SAID_BY_CLIENT, max_size=8), st.booleans())
def test_a_client_that_says_anything_in_any_order(said, certificate):
    server = new_server(GatewayOptions(certificate=certificate))
    run(server.start())
    for identifier, each in enumerate(said, 1):
        answer = EapPacket.decode(run(server.receive(response(identifier, each))))
        if answer.code is not EapCode.REQUEST:
            break
    if server.succeeded:
        assert not certificate
        assert ("password", "wonderland") in [pair for each in said for pair in each.answers]


@settings(max_examples=80)
@given(st.binary(max_size=80))
def test_any_octets_at_either_side(octets):
    peer, server = new_peer(), new_server()
    run(server.start())
    try:
        run(peer.receive(packet(EapCode.REQUEST, 1, octets)))
    except IkewayError:
        assert peer.failed
    answer = EapPacket.decode(run(server.receive(packet(EapCode.RESPONSE, 1, octets))))
    assert answer.code is EapCode.FAILURE
    assert isinstance(server.error, IkewayError)


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE c [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
    b'<config-auth type="hello">&b;</config-auth>'
)
DUMMY = bytes.fromhex(
    "302d06092a864886f70d010702a020301e0201013100300f06092a864886f70d010701a0020400a004300205003100"
)  # fmt: skip


@pytest.mark.parametrize(
    "xml",
    [
        BOMB,
        b"<config-auth type='hello'>",
        b"<config-auth type='nonsense'/>",
        b"<other type='hello'/>",
        b"<config-auth type='init'/>",
        b"<config-auth type='auth-request'><auth><form>"
        + b"<input/>" * (MAX_INPUTS + 1)
        + b"</form></auth></config-auth>",
        b"<config-auth type='auth-request'><auth><form><input name='1 &lt;'/></form></auth></config-auth>",
        b"<config-auth type='auth-request'><auth><form><input type='hidden'/></form></auth></config-auth>",
        b"",
    ],
)
def test_documents_that_the_client_refuses(xml):
    peer = new_peer()
    with pytest.raises(MalformedEap):
        run(peer.receive(xml_packet(EapCode.REQUEST, 1, xml)))
    assert peer.failed


def test_a_bomb_in_ike_ends_the_log_in_and_leaves_nothing():
    class Bomber(AnyConnectPeer):
        async def run(self, request, ask):
            yield encode((Tlv(0, BOMB),))

    made = pair(peer=lambda: Bomber(ClientOptions(), "alice"))
    made.connect()
    made.run(60)
    (refused,) = made.b.happened(events.Refused)
    assert "document type" in str(refused.error)
    assert made.a.engine.sas == made.b.engine.sas == []


def test_a_gateway_that_never_ends():
    peer = new_peer()
    with pytest.raises(EapFailed, match="without an end"):
        for identifier in range(MAX_STEPS + 1):
            run(peer.receive(request(identifier, FromGateway(Kind.HELLO))))


def test_a_gateway_that_wants_the_certificate_again_and_again():
    peer = new_peer(credential=pki().alice)
    said = FromGateway(Kind.AUTH_REQUEST, wants_certificate=True)
    run(peer.receive(request(1, said)))
    with pytest.raises(EapFailed, match="did not take ours"):
        run(peer.receive(request(2, said)))


def test_the_gateway_s_error_is_told_without_control_characters():
    peer = new_peer()
    with pytest.raises(EapFailed) as caught:
        run(peer.receive(request(1, FromGateway(Kind.AUTH_REQUEST, error="no\x0aentry\x0d[31m"))))
    assert "no entry [31m" in str(caught.value)


def test_a_form_is_filled_in_as_it_wants_to_be():
    peer = new_peer()
    form = (
        Input("hidden", "csrf", value="a<b"),
        Input("text", "username"),
        Input("password", "password", "Passcode:"),
        Input("password", "verify_password"),
        Input("select", "realm", choices=(Choice("1", "one"), Choice("2", "two", True))),
        Input("submit", "ok"),
    )
    opaque = element("opaque", "x & y", is_for="sg")
    reply = read_reply(run(peer.receive(request(1, FromGateway(Kind.AUTH_REQUEST, opaque, form=form)))))
    assert reply.answers == (("csrf", "a<b"), ("username", "alice"), ("password", "wonderland"), ("realm", "2"))
    assert reply.opaque == opaque


def test_a_choice_of_groups_that_nobody_made():
    groups = (Input("select", "group_list", choices=(Choice("a", "A"), Choice("b", "B"))),)
    with pytest.raises(EapFailed, match="one of its groups"):
        run(new_peer().receive(request(1, FromGateway(Kind.AUTH_REQUEST, form=groups))))


def test_success_before_the_end_is_refused():
    peer = new_peer()
    run(peer.receive(request(1, FromGateway(Kind.HELLO))))
    with pytest.raises(EapFailed, match="before the method was at its end"):
        run(peer.receive(EapPacket(EapCode.SUCCESS, 1).encode()))


def test_a_log_in_that_asks_for_ever():
    async def asking(question):
        return Prompt("Next code: ")

    server = EapAuthenticator(
        asking, [lambda: AnyConnectAuthenticator(GatewayOptions(), bytes)], identity=b"x", first_identifier=1
    )
    run(server.start())
    run(server.receive(response(1, FromClient(Kind.INIT))))
    answers = (("username", "alice"), ("password", "x"))
    for identifier in range(2, MAX_FORMS + 3):
        last = run(server.receive(response(identifier, FromClient(Kind.AUTH_REPLY, answers=answers))))
    assert EapPacket.decode(last).code is EapCode.FAILURE
    assert "without an end" in server.reason


@pytest.mark.parametrize(
    "tlvs",
    [
        (Tlv(3, b"\x30\x00"), Tlv(1, b"x")),
        (Tlv(3, DUMMY), Tlv(1, b"x")),
        (Tlv(1, b"x"),),
        (Tlv(3, b""),),
    ],
)  # fmt: skip
def test_certificates_that_are_none(tlvs):
    server = new_server(GatewayOptions(certificate=True))
    run(server.start())
    run(server.receive(response(1, FromClient(Kind.INIT))))
    init = Tlv(0, encode_client(FromClient(Kind.INIT)))
    answer = run(server.receive(packet(EapCode.RESPONSE, 2, encode((*tlvs, init)))))
    assert EapPacket.decode(answer).code is EapCode.FAILURE
    assert isinstance(server.error, EapFailed)
