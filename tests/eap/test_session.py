"""Negotiation, identifiers, bounds: what the session does whatever the method."""

from collections.abc import AsyncGenerator
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ikeway.eap.errors import EapFailed, MalformedEap, NoCommonMethod
from ikeway.eap.md5 import Md5Authenticator
from ikeway.eap.method import EapAuthenticatorMethod, EapPeerMethod
from ikeway.eap.mschapv2 import MsChapV2Authenticator, MsChapV2Peer
from ikeway.eap.packet import EapCode, EapPacket, EapType, MethodType
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.errors import IkewayError
from ikeway.questions import Ask
from tests.eap.conversations import Asker, finish, log_in

VENDOR = MethodType(32473, 7)


class EchoPeer(EapPeerMethod):
    """Says back what it hears; may succeed at once. Gives no key."""

    type: ClassVar[MethodType] = VENDOR
    name: ClassVar[str] = "echo"

    async def run(self, request: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        self.may_succeed = True
        while True:
            request = yield request


class EchoAuthenticator(EapAuthenticatorMethod):
    """Wants to hear `count` words again."""

    type: ClassVar[MethodType] = VENDOR
    name: ClassVar[str] = "echo"
    count = 3

    async def run(self, identity: bytes, ask: Ask) -> AsyncGenerator[bytes, bytes]:
        for index in range(self.count):
            word = b"%d" % index
            if (yield word) != word:
                raise EapFailed("not an echo")


class EndlessAuthenticator(EchoAuthenticator):
    count = 10**6


def no_questions() -> Asker:
    return Asker(lambda question: "secret")


def peer_with(*methods: type[EapPeerMethod] | object) -> EapPeer:
    return EapPeer(no_questions(), b"alice", methods)  # type: ignore[arg-type]


def mschapv2_peer() -> MsChapV2Peer:
    return MsChapV2Peer(b"alice")


def test_a_vendors_method_in_expanded_types() -> None:
    peer, authenticator = peer_with(EchoPeer), EapAuthenticator(no_questions(), [EchoAuthenticator])
    packets = log_in(peer, authenticator)
    assert peer.succeeded and authenticator.succeeded
    assert packets[2][4:12].hex() == "fe007ed900000007"
    assert peer.msk is None and authenticator.msk is None
    assert not peer.mutual
    assert authenticator.identity == b"alice"


def test_nak_leads_to_the_method_that_the_peer_has() -> None:
    peer = peer_with(mschapv2_peer)
    authenticator = EapAuthenticator(no_questions(), [EchoAuthenticator, MsChapV2Authenticator])
    log_in(peer, authenticator)
    assert peer.method == "EAP-MSCHAPv2"
    assert peer.msk == authenticator.msk is not None


def test_nak_leads_to_a_vendors_method() -> None:
    # A plain NAK can only say "expanded" (RFC 3748 section 5.3.1): the peer then hears an expanded request.
    peer = peer_with(EchoPeer)
    authenticator = EapAuthenticator(no_questions(), [MsChapV2Authenticator, EchoAuthenticator])
    log_in(peer, authenticator)
    assert peer.method == "echo"
    assert authenticator.succeeded


def test_no_common_method_is_said_on_both_sides() -> None:
    peer, authenticator = peer_with(mschapv2_peer), EapAuthenticator(no_questions(), [EchoAuthenticator])
    with pytest.raises(NoCommonMethod) as caught:
        log_in(peer, authenticator)
    assert "MSCHAPV2" in caught.value.expected
    assert "32473" in caught.value.got
    assert isinstance(authenticator.error, NoCommonMethod)
    assert "MSCHAPV2" in authenticator.error.got


def test_a_plain_nak_lists_types_in_order_of_preference() -> None:
    peer = peer_with(mschapv2_peer, EchoPeer)
    answer = finish(peer.receive(EapPacket(EapCode.REQUEST, 5, EapType.MD5_CHALLENGE, b"\x10").encode()))
    assert answer == EapPacket(EapCode.RESPONSE, 5, EapType.NAK, bytes((26, 254))).encode()


def test_an_expanded_request_is_refused_by_an_expanded_nak() -> None:
    """RFC 3748 section 5.3.2: type 254, vendor 0, type 3, then eight octets for each method that is wanted."""
    peer = peer_with(mschapv2_peer, EchoPeer)
    answer = finish(peer.receive(EapPacket.of(EapCode.REQUEST, 9, MethodType(9, 1), b"?").encode()))
    assert answer is not None
    assert answer.hex() == "0209001cfe00000000000003" + "fe0000000000001a" + "fe007ed900000007"
    nothing = EapPeer(no_questions(), b"alice", [])
    answer = finish(nothing.receive(EapPacket.of(EapCode.REQUEST, 9, MethodType(9, 1), b"?").encode()))
    assert answer is not None
    assert answer.hex() == "02090014fe00000000000003" + "fe00000000000000"


def test_a_plain_nak_answers_an_expanded_request_of_peers_that_know_no_others() -> None:
    """RFC 3748 section 5.7: such a peer sends the legacy NAK."""
    authenticator = EapAuthenticator(no_questions(), [EchoAuthenticator, MsChapV2Authenticator], identity=b"alice")
    first = finish(authenticator.start())
    assert first[4] == EapType.EXPANDED
    second = finish(authenticator.receive(EapPacket(EapCode.RESPONSE, first[1], EapType.NAK, b"\x1a").encode()))
    assert second[4] == EapType.MSCHAPV2


def test_an_expanded_nak_to_a_plain_request_leads_to_the_method_too() -> None:
    authenticator = EapAuthenticator(no_questions(), [MsChapV2Authenticator, EchoAuthenticator], identity=b"alice")
    first = finish(authenticator.start())
    wanted = bytes.fromhex("00000000000003" + "fe007ed900000007")
    second = finish(authenticator.receive(EapPacket(EapCode.RESPONSE, first[1], EapType.EXPANDED, wanted).encode()))
    assert second[4:12].hex() == "fe007ed900000007"


def test_no_method_is_proposed_twice_to_one_who_always_says_no() -> None:
    authenticator = EapAuthenticator(no_questions(), [MsChapV2Authenticator, Md5Authenticator], identity=b"alice")
    packet = finish(authenticator.start())
    proposed = []
    while packet[0] == EapCode.REQUEST:
        proposed.append(packet[4])
        nak = EapPacket(EapCode.RESPONSE, packet[1], EapType.NAK, bytes((EapType.MD5_CHALLENGE, EapType.MSCHAPV2)))
        packet = finish(authenticator.receive(nak.encode()))
    assert proposed == [EapType.MSCHAPV2, EapType.MD5_CHALLENGE]
    assert isinstance(authenticator.error, NoCommonMethod)


def test_a_peer_that_changes_the_method_in_the_middle_is_refused() -> None:
    authenticator = EapAuthenticator(no_questions(), [EchoAuthenticator, Md5Authenticator], identity=b"alice")
    first = finish(authenticator.start())
    second = finish(authenticator.receive(EapPacket.of(EapCode.RESPONSE, first[1], VENDOR, b"0").encode()))
    other = EapPacket(EapCode.RESPONSE, second[1], EapType.MD5_CHALLENGE, b"\x10" + bytes(16))
    assert finish(authenticator.receive(other.encode()))[0] == EapCode.FAILURE
    assert "another method" in authenticator.reason
    assert finish(authenticator.receive(other.encode()))[0] == EapCode.FAILURE  # and nothing follows


def test_a_server_that_asks_for_the_identity_for_ever_is_left() -> None:
    peer = EapPeer(no_questions(), b"alice", [EchoPeer], max_rounds=5)
    for number in range(5):
        assert finish(peer.receive(EapPacket(EapCode.REQUEST, number, EapType.IDENTITY).encode())) is not None
    with pytest.raises(EapFailed, match="does not come to an end"):
        finish(peer.receive(EapPacket(EapCode.REQUEST, 6, EapType.IDENTITY).encode()))


def test_a_nak_that_wants_nothing() -> None:
    authenticator = EapAuthenticator(no_questions(), [MsChapV2Authenticator], identity=b"alice")
    first = finish(authenticator.start())
    finish(authenticator.receive(EapPacket(EapCode.RESPONSE, first[1], EapType.NAK, b"\0").encode()))
    assert isinstance(authenticator.error, NoCommonMethod)
    assert authenticator.error.got == "none wanted"


def test_a_nak_in_the_middle_is_refused() -> None:
    authenticator = EapAuthenticator(no_questions(), [EchoAuthenticator, MsChapV2Authenticator], identity=b"alice")
    first = finish(authenticator.start())
    second = finish(authenticator.receive(EapPacket.of(EapCode.RESPONSE, first[1], VENDOR, b"0").encode()))
    assert second[0] == EapCode.REQUEST
    answer = finish(authenticator.receive(EapPacket(EapCode.RESPONSE, second[1], EapType.NAK, b"\x1a").encode()))
    assert answer[0] == EapCode.FAILURE
    assert "middle" in authenticator.reason


def test_a_server_that_changes_the_method_is_refused() -> None:
    peer = peer_with(mschapv2_peer, EchoPeer)
    finish(peer.receive(EapPacket.of(EapCode.REQUEST, 1, VENDOR, b"0").encode()))
    with pytest.raises(EapFailed, match="changed the method"):
        finish(peer.receive(EapPacket(EapCode.REQUEST, 2, EapType.MSCHAPV2, b"").encode()))


def test_notifications_are_acknowledged_and_kept() -> None:
    peer = peer_with(EchoPeer)
    answer = finish(peer.receive(EapPacket(EapCode.REQUEST, 1, EapType.NOTIFICATION, b"closing at 5").encode()))
    assert answer == EapPacket(EapCode.RESPONSE, 1, EapType.NOTIFICATION).encode()
    assert peer.notifications == ["closing at 5"]


def test_success_or_failure_before_any_method() -> None:
    with pytest.raises(EapFailed, match="success before"):
        finish(peer_with(EchoPeer).receive(EapPacket(EapCode.SUCCESS, 1).encode()))
    with pytest.raises(EapFailed, match="before it began"):
        finish(peer_with(EchoPeer).receive(EapPacket(EapCode.FAILURE, 1).encode()))


def test_nothing_goes_on_after_the_end() -> None:
    peer, authenticator = peer_with(EchoPeer), EapAuthenticator(no_questions(), [EchoAuthenticator])
    packets = log_in(peer, authenticator)
    with pytest.raises(EapFailed, match="after its end"):
        finish(peer.receive(packets[0]))
    assert finish(authenticator.receive(packets[1]))[0] == EapCode.FAILURE


@pytest.mark.parametrize("endless", ["server", "peer"])
def test_endless_rounds_end(endless: str) -> None:
    limit = {"max_rounds": 10}
    peer = EapPeer(no_questions(), b"alice", [EchoPeer], **(limit if endless == "server" else {"max_rounds": 99}))
    authenticator = EapAuthenticator(
        no_questions(), [EndlessAuthenticator], **(limit if endless == "peer" else {"max_rounds": 99})
    )
    with pytest.raises(EapFailed):
        log_in(peer, authenticator)
    failed = authenticator.reason if endless == "peer" else "does not come to an end"
    assert "does not come to an end" in failed


def test_long_packets_are_refused() -> None:
    packet = EapPacket(EapCode.REQUEST, 1, EapType.IDENTITY, bytes(5000)).encode()
    peer = EapPeer(no_questions(), b"alice", [EchoPeer], max_octets=4096)
    with pytest.raises(MalformedEap, match="too long"):
        finish(peer.receive(packet))
    authenticator = EapAuthenticator(no_questions(), [EchoAuthenticator])
    first = finish(authenticator.start())
    finish(authenticator.receive(EapPacket(EapCode.RESPONSE, first[1], EapType.IDENTITY, bytes(2000) + b"x").encode()))
    assert not authenticator.failed  # what follows a NUL is not part of the identity
    authenticator = EapAuthenticator(no_questions(), [EchoAuthenticator])
    finish(authenticator.start())
    finish(authenticator.receive(EapPacket(EapCode.RESPONSE, 0, EapType.IDENTITY, b"x" * 2000).encode()))
    assert authenticator.failed


@pytest.mark.parametrize(
    "answer",
    [
        EapPacket(EapCode.RESPONSE, 77, EapType.IDENTITY, b"alice"),
        EapPacket(EapCode.REQUEST, 0, EapType.IDENTITY, b"alice"),
        EapPacket(EapCode.RESPONSE, 0, EapType.MSCHAPV2, b"alice"),
        EapPacket(EapCode.SUCCESS, 0),
    ],
)
def test_answers_to_nothing_are_refused(answer: EapPacket) -> None:
    authenticator = EapAuthenticator(no_questions(), [EchoAuthenticator])
    finish(authenticator.start())
    assert finish(authenticator.receive(answer.encode()))[0] == EapCode.FAILURE
    assert isinstance(authenticator.error, MalformedEap)


def test_a_response_sent_to_the_peer_is_refused() -> None:
    with pytest.raises(MalformedEap):
        finish(peer_with(EchoPeer).receive(EapPacket(EapCode.RESPONSE, 0, EapType.IDENTITY, b"alice").encode()))


packets = st.binary(max_size=80) | st.builds(
    lambda code, identifier, kind, data: EapPacket(code, identifier, kind, data).encode(),
    st.sampled_from([EapCode.REQUEST, EapCode.RESPONSE]),
    st.integers(0, 5),
    st.sampled_from([1, 2, 3, 4, 26, 254]),
    st.binary(max_size=60),
)


@given(st.lists(packets, max_size=8))
@settings(max_examples=300, deadline=None)
def test_hostile_octets_never_raise_anything_else(datagrams: list[bytes]) -> None:
    peer = peer_with(mschapv2_peer, EchoPeer)
    authenticator = EapAuthenticator(no_questions(), [MsChapV2Authenticator, EchoAuthenticator])
    last = finish(authenticator.start())
    for octets in datagrams:
        if not peer.failed:
            try:
                finish(peer.receive(octets))
            except IkewayError:
                assert peer.failed
        last = finish(authenticator.receive(octets))
    assert EapPacket.decode(last).encode() == last
    assert peer.msk is None and authenticator.msk is None
    assert not (authenticator.succeeded and authenticator.method == "EAP-MSCHAPv2")


def test_an_authenticator_without_methods_is_a_mistake() -> None:
    with pytest.raises(ValueError):
        EapAuthenticator(no_questions(), [])
