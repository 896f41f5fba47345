"""Notifies that say that something of ours went wrong, and that must change nothing (RFC 7296 sections 1.5 and 2.3)."""

from __future__ import annotations

import pytest
from tests.ike.stranger import INFORMATIONAL, kinds
from tests.ike.test_adversary import logged_in

from ikeway.ike import events
from ikeway.ike.sa import IkeState
from ikeway.wire.message import Message
from ikeway.wire.payloads import Notify
from ikeway.wire.registry import NotifyType


@pytest.mark.parametrize("kind", [NotifyType.INVALID_MESSAGE_ID, NotifyType.INVALID_SPI, NotifyType.INVALID_IKE_SPI])
def test_a_protected_complaint_is_acknowledged_and_no_more(kind: NotifyType) -> None:
    peer = logged_in()
    assert kinds(peer.ask(INFORMATIONAL, Notify(kind, b"\0\0\0\7"), message_id=2)) == []
    assert peer.there.state is IkeState.ESTABLISHED
    assert kinds(peer.ask(INFORMATIONAL, message_id=3)) == []  # the numbers go on


@pytest.mark.parametrize("kind", [NotifyType.INVALID_MESSAGE_ID, NotifyType.INVALID_SPI, NotifyType.INVALID_IKE_SPI])
@pytest.mark.parametrize("is_response", [False, True])
def test_a_complaint_in_clear_text_changes_nothing_and_is_not_answered(kind: NotifyType, is_response: bool) -> None:
    """Anybody could have sent it."""
    peer = logged_in()
    channel = peer.sa.channel
    for spis in ((channel.initiator_spi, channel.responder_spi), (b"\1" * 8, b"\2" * 8)):
        message = Message(*spis, INFORMATIONAL, True, is_response, 2, (Notify(kind, b"\0\0\0\7"),))
        peer.deliver(message.encode())
        assert list(peer.host.engine.outgoing()) == []
    assert peer.there.state is IkeState.ESTABLISHED
    assert not peer.host.happened(events.IkeClosed)
