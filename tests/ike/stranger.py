"""Peers that send what no engine of ours would: they have the keys of IKE_SA_INIT, and whatever payloads a test likes."""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.ike.pair import Pair

from ikeway.address import Address
from ikeway.auth.octets import psk_mac
from ikeway.ike import authentication
from ikeway.ike.sa import IkeSa
from ikeway.ike.selectors import selector
from ikeway.wire.message import Header, Message, decode_payloads
from ikeway.wire.payloads import (
    Authentication,
    Encrypted,
    EncryptedFragment,
    IdInitiator,
    IdResponder,
    Nonce,
    Notify,
    Payload,
    SecurityAssociation,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
)
from ikeway.wire.registry import AuthenticationMethod, ExchangeType, IdentificationType, PayloadType

IKE_AUTH, INFORMATIONAL = ExchangeType.IKE_AUTH, ExchangeType.INFORMATIONAL
CREATE_CHILD_SA = ExchangeType.CREATE_CHILD_SA


def after_init(pair: Pair | None = None) -> Stranger:
    """A stranger before a responder: IKE_SA_INIT is done, IKE_AUTH is not begun."""
    pair = pair or Pair()
    sa = pair.a.engine.connect(pair.a.connection, pair.a.address, pair.b.address, pair.now)
    # The real initiator goes no further.
    pair.network = lambda datagram: [] if datagram.octets[18] != ExchangeType.IKE_SA_INIT else [0.01]
    pair.run(0.1)
    assert sa.channel.protection is not None
    (there,) = (found for found in pair.b.engine.sas if found.channel.initiator_spi == sa.spi)
    return Stranger(pair, sa, there, acts_as_initiator=True)


def impostor(pair: Pair | None = None) -> Stranger:
    """A stranger in the gateway's place: the initiator has sent IKE_AUTH and waits."""
    found = after_init(pair)
    return Stranger(found.pair, found.there, found.sa, acts_as_initiator=False)


class Stranger:
    """Has the keys of `sa` and speaks to `there`, which belongs to the engine under test."""

    def __init__(self, pair: Pair, sa: IkeSa, there: IkeSa, *, acts_as_initiator: bool) -> None:
        self.pair, self.sa, self.there = pair, sa, there
        self.host = pair.b if acts_as_initiator else pair.a
        self.acts_as_initiator = acts_as_initiator
        self.own = Address((pair.a if acts_as_initiator else pair.b).address.host, 4500)

    def seal(
        self, exchange: ExchangeType, *payloads: Payload, message_id: int = 1, is_response: bool = False, **header: Any
    ) -> bytes:
        """A message as a whole datagram."""
        channel = self.sa.channel
        values: dict[str, Any] = {
            "initiator_spi": channel.initiator_spi,
            "responder_spi": channel.responder_spi,
            "exchange_type": exchange,
            "is_initiator": channel.is_initiator,
            "is_response": is_response,
            "message_id": message_id,
            "payloads": payloads,
        }
        assert channel.protection is not None
        return channel.protection.seal(Message(**(values | header)))

    def deliver(self, octets: bytes, source: Address | None = None) -> None:
        """Hand it to the engine, and no more: its questions are not answered yet."""
        local = Address(self.host.address.host, 4500)
        self.host.engine.receive(octets, local, source or self.own, self.pair.now)

    def answers(self) -> list[Message]:
        """Let the questions be answered; everything that the engine sends on this SA from now on, in the clear."""
        self.host.take_events(self.pair.now)
        protection = self.sa.channel.protection
        assert protection is not None
        found, plaintext, first = [], b"", PayloadType.NONE
        for datagram in self.host.engine.outgoing():
            header = Header.decode(datagram.octets)
            if (header.initiator_spi, header.responder_spi) != (
                self.sa.channel.initiator_spi,
                self.sa.channel.responder_spi,
            ):
                continue
            sealed = Message.decode(datagram.octets).payloads[-1]
            if not isinstance(sealed, Encrypted | EncryptedFragment):
                continue
            if isinstance(sealed, Encrypted) or sealed.fragment_number == 1:
                first = PayloadType(sealed.first_payload)
            plaintext += protection.open(datagram.octets, sealed)
            if isinstance(sealed, EncryptedFragment) and sealed.fragment_number < sealed.total_fragments:
                continue
            payloads, plaintext = decode_payloads(first, plaintext), b""
            found.append(
                Message(
                    header.initiator_spi,
                    header.responder_spi,
                    header.exchange_type,
                    header.is_initiator,
                    header.is_response,
                    header.message_id,
                    payloads,
                )
            )
        return found

    def ask(self, exchange: ExchangeType, *payloads: Payload, message_id: int = 1) -> Message:
        """Send a request, return the one answer."""
        self.answers()
        self.deliver(self.seal(exchange, *payloads, message_id=message_id))
        (answer,) = [found for found in self.answers() if found.is_response]
        assert answer.message_id == message_id
        return answer

    def identity(self, name: str = "") -> IdInitiator | IdResponder:
        """An ID payload of type FQDN."""
        kind = IdInitiator if self.acts_as_initiator else IdResponder
        default = "a.example" if self.acts_as_initiator else "b.example"
        return kind(IdentificationType.ID_FQDN, (name or default).encode())

    def psk_auth(self, identification: IdInitiator | IdResponder, secret: bytes = b"a secret") -> Authentication:
        """AUTH by pre-shared key."""
        octets = authentication.own_octets(self.sa, identification)
        return Authentication(AuthenticationMethod.SHARED_KEY_MIC, psk_mac(self.sa.prf, secret, octets))

    def child_offer(self) -> tuple[Payload, ...]:
        """SA, TSi and TSr as side a would offer them."""
        from ikeway.ike import negotiation

        settings = self.pair.a.connection.children[0]
        offer = negotiation.make_offer(self.sa if self.acts_as_initiator else self.there, settings, 0xABCD1234, None)
        return offer.payloads()


def kinds(message: Message) -> list[str]:
    """The names of a message's payloads; notifies by their own."""
    return [
        payload.type.name if isinstance(payload, Notify) else type(payload).__name__ for payload in message.payloads
    ]


def offer(peer: Stranger, spi: bytes = b"\x11\x22\x33\x44", tsi: Any = None, tsr: Any = None) -> tuple[Payload, ...]:
    """The payloads of CREATE_CHILD_SA without a key exchange."""
    proposals = tuple(dataclasses.replace(one, spi=spi) for one in peer.child_offer()[0].proposals)
    return (
        SecurityAssociation(proposals),
        Nonce(bytes(32)),
        TrafficSelectorsInitiator(tsi if tsi is not None else (selector("10.1.0.0/16"),)),
        TrafficSelectorsResponder(tsr if tsr is not None else (selector("10.2.0.0/16"),)),
    )


__all__ = [
    "CREATE_CHILD_SA",
    "IKE_AUTH",
    "INFORMATIONAL",
    "SecurityAssociation",
    "Stranger",
    "TrafficSelectorsInitiator",
    "TrafficSelectorsResponder",
    "after_init",
    "impostor",
    "kinds",
    "offer",
]
