"""What a dialect may put into the engine: an own fragmentation, another hash of method 1, EAP that signs what IKE signs."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from typing import ClassVar

import pytest
from tests.auth.pki import NOW, root, rsa_key
from tests.ike.pair import IKE, Pair, connection, connection_b

from ikeway.auth.certificate import CertificateCredential, TrustStore
from ikeway.crypto.signature import RSA_PKCS1_SHA256, verify
from ikeway.eap.method import EapAuthenticatorMethod, EapPeerMethod
from ikeway.eap.packet import MethodType
from ikeway.eap.questions import IkeBindingQuestion
from ikeway.eap.session import EapAuthenticator, EapPeer
from ikeway.errors import WireError
from ikeway.ike import authentication, events
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.settings import CertificateExpected, EapCredential, EapExpected, ResponderSettings
from ikeway.wire.message import HEADER_OCTETS, Message
from ikeway.wire.payloads import Authentication, IdInitiator, VendorId
from ikeway.wire.registry import AuthenticationMethod, ExchangeType, HashAlgorithm, NotifyType, PseudorandomFunction

VENDOR = b"cuts in halves"


class Halves:
    """Two pieces, each behind a header with next payload 250 and an octet that numbers it."""

    payload_type = 250
    goes_first = True

    def __init__(self) -> None:
        self.pieces: dict[int, bytes] = {}
        self.rooms: list[int] = []

    def split(self, octets, room):
        self.rooms.append(room)
        middle = len(octets) // 2
        header = octets[:16] + bytes((250,)) + octets[17:24]
        return [
            header + (HEADER_OCTETS + 1 + len(piece)).to_bytes(4) + bytes((number,)) + piece
            for number, piece in enumerate((octets[:middle], octets[middle:]))
        ]

    def join(self, header, octets, now):
        if octets[HEADER_OCTETS] > 1:
            raise WireError("no half")
        self.pieces[octets[HEADER_OCTETS]] = octets[HEADER_OCTETS + 1 :]
        if len(self.pieces) < 2:
            return None
        whole = self.pieces[0] + self.pieces[1]
        self.pieces = {}
        return whole


def new_halves(vendor_ids):
    return Halves() if VENDOR in vendor_ids else None


def cutting_pair(*, size=576, standard=True, announce=(VENDOR,), goes_first=True, **changes) -> Pair:
    """Both cut with `Halves`; RFC 7383 is announced too when `standard`."""

    def new(vendor_ids):
        made = new_halves(vendor_ids)
        if made is not None:
            made.goes_first = goes_first
        return made

    own = {"own_fragmentation": new, "vendor_ids": announce, "fragment_size": size}
    filler = VendorId(bytes(900))

    class Large:
        def sending(self, sa, message):
            if message.exchange_type == ExchangeType.IKE_AUTH:
                return dataclasses.replace(message, payloads=(*message.payloads, filler))
            return message

        def received(self, sa, message):
            return message

    responder = ResponderSettings(
        ike_proposals=IKE,
        cookie_threshold=1000,
        fragmentation=standard,
        own_fragmentation=new,
        vendor_ids=announce,
    )
    return Pair(
        connection(interception=Large(), **own | changes),
        connection_b(interception=Large(), **own | changes),
        responder=responder,
    )


def kinds_sent(pair: Pair) -> set[int]:
    return {datagram.octets[16] for datagram in pair.sent if datagram.octets[18] == ExchangeType.IKE_AUTH}


def test_messages_that_are_too_long_are_cut_the_vendor_s_way():
    pair = cutting_pair()
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1
    assert kinds_sent(pair) == {250}
    assert pair.a.sa.channel.own_fragmentation.rooms == [576 - 20 - 8 - 4]


def test_it_also_serves_the_ike_sa_after_a_rekeying_and_answers_duplicates():
    pair = cutting_pair()
    pair.network = lambda datagram: [0.01, 0.03]
    pair.connect()
    before = pair.a.sa
    before.rekey(pair.now)
    pair.run(20)
    pair.agree()
    assert pair.a.sa is not before
    assert pair.a.sa.channel.own_fragmentation is not None


def test_rfc_7383_comes_first_where_the_vendor_s_way_does_not_want_to():
    pair = cutting_pair(goes_first=False)
    pair.connect()
    pair.agree()
    assert kinds_sent(pair) == {53}


def test_without_rfc_7383_the_vendor_s_way_is_there_all_the_same():
    pair = cutting_pair(goes_first=False, standard=False)
    pair.connect()
    pair.agree()
    assert kinds_sent(pair) == {250}


def test_nobody_cuts_for_a_peer_that_has_not_announced_it():
    pair = cutting_pair(announce=(b"another",))
    pair.connect()
    pair.agree()
    assert kinds_sent(pair) == {53}
    assert pair.a.sa.channel.own_fragmentation is None


def test_what_is_no_fragment_is_dropped_and_counted():
    pair = cutting_pair()
    pair.connect()
    datagram = next(each for each in pair.sent if each.octets[16] == 250 and each.remote.host == pair.b.address.host)
    broken = dataclasses.replace(datagram, octets=datagram.octets[:28] + b"\x07" + datagram.octets[29:])
    counters = pair.b.sa.channel.counters
    before = counters.malformed
    pair.deliver(broken)
    assert counters.malformed == before + 1
    pair.agree()


# --- another hash of method 1 -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rsa_pki():
    ca = root()
    node = ca.issue("b.example", key=rsa_key(), alternatives=("dns:b.example",))
    return CertificateCredential((node.certificate,), node.key), TrustStore((ca.certificate,))


class NoHashes:
    """A peer without RFC 7427."""

    def sending(self, sa, message):
        kept = [
            each for each in message.payloads if getattr(each, "type", None) != NotifyType.SIGNATURE_HASH_ALGORITHMS
        ]
        return dataclasses.replace(message, payloads=tuple(kept))

    def received(self, sa, message):
        return message


def by_method_1(pki, rule, **changes) -> Pair:
    credential, trust = pki
    a = connection(remote_expectation=CertificateExpected(trust), interception=NoHashes(), **changes)
    b = connection_b(local_credential=credential, hash_of_method_1=rule, **changes)
    return Pair(a, b, epoch=NOW)


def test_the_hash_of_method_1_may_be_that_of_the_prf(rsa_pki):
    asked: list[PseudorandomFunction] = []

    def rule(prf):
        asked.append(prf)
        return HashAlgorithm.SHA2_256

    pair = by_method_1(rsa_pki, rule)
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1, pair.a.errors
    assert set(asked) == {PseudorandomFunction.PRF_HMAC_SHA2_256}
    (auth,) = [
        payload
        for event in pair.a.happened(events.MessageReceived)
        for payload in event.message.find_all(Authentication)
    ]
    assert auth.method == AuthenticationMethod.RSA_DIGITAL_SIGNATURE
    sa = pair.b.sa
    octets = authentication.own_octets(sa, sa.local_identity.to_payload(initiator=False))
    verify(rsa_pki[0].public_key, RSA_PKCS1_SHA256, auth.value, octets)
    assert not pair.b.happened(events.Weak)


def test_without_a_rule_method_1_is_made_with_sha_1_and_somebody_is_warned(rsa_pki):
    pair = by_method_1(rsa_pki, None)
    pair.connect()
    pair.agree()
    assert len(pair.b.happened(events.Weak)) == 1


# --- what IKE signs ---------------------------------------------------------------------------------------------------


class SignsPeer(EapPeerMethod):
    type, name = MethodType(9, 77), "signs"

    async def run(self, request: bytes, ask) -> AsyncGenerator[bytes, bytes]:
        binding = await ask(IkeBindingQuestion())
        assert "octets" not in repr(binding)
        self.may_succeed = True
        yield bytes((binding.prf,)) + binding.octets


class SignsServer(EapAuthenticatorMethod):
    type, name = MethodType(9, 77), "signs"
    pairs: ClassVar[list[tuple[bytes, object]]] = []

    async def run(self, identity: bytes, ask) -> AsyncGenerator[bytes, bytes]:
        answer = yield b"what do we sign?"
        type(self).pairs.append((answer, await ask(IkeBindingQuestion())))


def test_both_sides_of_an_eap_method_learn_what_auth_of_the_initiator_covers(rsa_pki):
    credential, trust = rsa_pki
    SignsServer.pairs.clear()
    proposals = parse_proposals("aes256gcm16-prfsha384-x25519")
    pair = Pair(
        connection(
            local_credential=EapCredential(lambda ask: EapPeer(ask, b"bob", [SignsPeer])),
            remote_expectation=CertificateExpected(trust),
            ike_proposals=proposals,
        ),
        connection_b(
            local_credential=credential,
            remote_identity=None,
            remote_expectation=EapExpected(
                lambda ask: EapAuthenticator(ask, [SignsServer], identity=b"known", first_identifier=1)
            ),
            ike_proposals=proposals,
        ),
        epoch=NOW,
    )
    pair.connect()
    pair.agree()
    assert len(pair.a.inbound) == 1, pair.a.errors + pair.b.errors
    ((theirs, ours),) = SignsServer.pairs
    assert theirs == bytes((ours.prf,)) + ours.octets
    assert ours.prf == PseudorandomFunction.PRF_HMAC_SHA2_384
    sa = pair.a.sa
    assert ours.octets == authentication.own_octets(sa, IdInitiator(2, b"a.example"))
    assert ours.octets.startswith(sa.init_request)
    first = next(event.message for event in pair.a.happened(events.MessageReceived) if event.message.message_id == 1)
    assert isinstance(first, Message)
    assert (
        first.payloads[-1].packet[:2] == b"\x01\x01"
    )  # no EAP-Identity before, and the identifier that was wished for
    assert not [event for event in pair.b.happened(events.Asked) if isinstance(event.question, IkeBindingQuestion)]
