"""Clients that leave in the middle of EAP, as strongSwan's does when the password was wrong: the gateway's operator is
to hear of the password, not only of somebody who left."""

from __future__ import annotations

from tests.ike.test_connect import eap_pair, pki

from ikeway.eap.mschapv2 import FAILURE, MsChapV2Peer
from ikeway.eap.session import EapPeer
from ikeway.errors import AuthenticationFailed
from ikeway.ike import events
from ikeway.ike.settings import EapCredential
from ikeway.wire.registry import ExchangeType

__all__ = ["pki"]


class Hasty(EapPeer):
    """Does not acknowledge that it failed."""

    async def receive(self, packet: bytes) -> bytes | None:
        if packet[5:6] == bytes([FAILURE]):
            raise AuthenticationFailed("this client does not go on")
        return await super().receive(packet)


def hasty_pair(pki):
    pair = eap_pair(pki)
    peer = EapCredential(lambda ask: Hasty(ask, b"bob", [lambda: MsChapV2Peer(b"bob", "wrong")]))
    object.__setattr__(pair.a.connection, "local_credential", peer)
    return pair


def test_a_client_that_gives_up_over_its_wrong_password(pki):
    pair = hasty_pair(pki)
    pair.connect()
    (refused,) = pair.b.happened(events.Refused)
    assert "wrong password" in str(refused.error)
    assert "bob" in str(refused.error)
    pair.run(200)
    assert not pair.b.engine._shared.table


def test_a_client_that_goes_silent_over_its_wrong_password(pki):
    pair = hasty_pair(pki)
    pair.network = lambda datagram: (
        [] if datagram.local.host == pair.a.address.host and len(pair.sent) > 8 else [pair.latency]
    )
    pair.connect()
    assert not pair.b.happened(events.Refused)
    pair.run(400)
    (refused,) = pair.b.happened(events.Refused)
    assert "wrong password" in str(refused.error)
    assert not pair.b.engine._shared.table


def test_a_client_that_gives_up_before_its_password_was_judged(pki):
    pair = eap_pair(pki)
    pair.a.answers.clear()
    refusal = AuthenticationFailed("nobody types a password")

    class Quitter(EapPeer):
        async def receive(self, packet: bytes) -> bytes | None:
            raise refusal

    object.__setattr__(
        pair.a.connection,
        "local_credential",
        EapCredential(lambda ask: Quitter(ask, b"bob", [lambda: MsChapV2Peer(b"bob", None)])),
    )
    pair.connect()
    (refused,) = pair.b.happened(events.Refused)
    assert "gave up" in str(refused.error)
    assert "password" not in refused.error.reason
    assert pair.a.errors == [refusal]
    assert any(
        event.message.exchange_type == ExchangeType.INFORMATIONAL for event in pair.b.happened(events.MessageReceived)
    )
