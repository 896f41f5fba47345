"""An IKE_SA_INIT that is never followed up: what a gateway sees of an attack, or of a client that lost its network."""

from __future__ import annotations

import os
import socket

from ikeway.crypto import initiate_key_exchange
from ikeway.ike.proposals import parse_proposals, with_numbers
from ikeway.wire import ExchangeType, KeyExchange, KeyExchangeMethod, Message, Nonce, NotifyType, SecurityAssociation
from tests.interop.agreement import MODERN_IKE
from tests.interop.network import Network, Way, socket_in


def leave_half_open(network: Network, way: Way) -> None:
    """Begin an IKE SA from the client's namespace, and leave it at that."""
    exchange = initiate_key_exchange(KeyExchangeMethod.CURVE25519)
    request = Message(
        os.urandom(8),
        bytes(8),
        ExchangeType.IKE_SA_INIT,
        True,
        False,
        0,
        (
            SecurityAssociation(with_numbers(parse_proposals(MODERN_IKE), b"")),
            KeyExchange(exchange.method, exchange.public_value),
            Nonce(os.urandom(32)),
        ),
    )
    with socket_in(network.client, socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.settimeout(5)
        opened.sendto(request.encode(), (way.gateway, 500))
        answer = Message.decode(opened.recv(65535))
    # A COOKIE says that another case has left one already, and that the gateway has not forgotten it.
    begun = answer.find(KeyExchange) is not None or answer.notify(NotifyType.COOKIE) is not None
    assert begun, f"the gateway began no IKE SA: {answer}"
