"""What a peer with keys but without honesty can try, against both roles: each attack fails and costs little."""

from __future__ import annotations

from tests.ike.pair import Pair, connection, connection_b
from tests.ike.stranger import CREATE_CHILD_SA, IKE_AUTH, INFORMATIONAL, after_init, impostor, kinds

from ikeway.ike import events
from ikeway.ike.questions import AssignAddresses, SelectConnection
from ikeway.ike.sa import IkeState
from ikeway.wire.payloads import (
    Authentication,
    Configuration,
    ConfigurationAttribute,
    Delete,
    IdInitiator,
    Nonce,
    Notify,
)
from ikeway.wire.registry import (
    AuthenticationMethod,
    ConfigurationAttributeType,
    ConfigurationType,
    ExchangeType,
    NotifyType,
    ProtocolId,
)

CFG_REQUEST = Configuration(
    ConfigurationType.CFG_REQUEST, (ConfigurationAttribute(ConfigurationAttributeType.INTERNAL_IP4_ADDRESS),)
)


def logged_in(pair: Pair | None = None):
    """A stranger that is none any more: authenticated by its pre-shared key, free to misbehave."""
    peer = after_init(pair)
    identity = peer.identity()
    answer = peer.ask(IKE_AUTH, identity, peer.psk_auth(identity), *peer.child_offer())
    assert "Authentication" in kinds(answer), kinds(answer)
    return peer


# --- IKE_AUTH at a responder ------------------------------------------------------------------------------------------


def test_a_second_conversation_beside_the_first_cannot_lend_its_identity():
    """The first request proves an identity; a second one, while we still look up the first, must not replace it."""
    peer = after_init(Pair(b=connection_b(remote_identity=None)))
    asked = []
    peer.host.answers[AssignAddresses] = lambda question: asked.append(question.identity) or ()
    mallory, admin = peer.identity("mallory.example"), peer.identity("admin.example")
    peer.answers()
    peer.deliver(peer.seal(IKE_AUTH, mallory, peer.psk_auth(mallory), CFG_REQUEST, *peer.child_offer()))
    peer.deliver(peer.seal(IKE_AUTH, admin, message_id=2))
    answers = peer.answers()
    assert [answer.message_id for answer in answers] == [1]
    assert len(peer.host.happened(events.Asked)) == 2  # for the connection and the addresses
    assert [str(identity) for identity in asked] == ["mallory.example"]
    assert str(peer.there.remote_identity) == "mallory.example"


def test_a_peer_cannot_begin_more_than_its_window():
    peer = after_init(Pair(b=connection_b(window=4)))
    identity = peer.identity()
    peer.answers()
    for message_id in range(1, 50):
        peer.deliver(peer.seal(IKE_AUTH, identity, message_id=message_id))
    assert len(peer.there.driver._all) == 1
    assert len([event for event in peer.host.engine.events() if isinstance(event, events.Asked)]) == 1
