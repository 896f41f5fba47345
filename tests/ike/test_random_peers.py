"""Peers that send well-sealed nonsense: payloads that make sense one by one, in any company, order and state."""

from __future__ import annotations

import dataclasses
import random

import pytest
from tests.ike.pair import Pair, child, connection, connection_b, mirrored
from tests.ike.stranger import CREATE_CHILD_SA, IKE_AUTH, INFORMATIONAL, Stranger, after_init, impostor

from ikeway.address import Address
from ikeway.crypto import initiate_key_exchange
from ikeway.ike import events
from ikeway.ike.proposals import parse_proposals
from ikeway.ike.sa import IkeState
from ikeway.ike.selectors import selector
from ikeway.wire.payloads import (
    Authentication,
    Certificate,
    CertificateRequest,
    Configuration,
    ConfigurationAttribute,
    Delete,
    Eap,
    IdInitiator,
    IdResponder,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    SecurityAssociation,
    TrafficSelector,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
    VendorId,
)
from ikeway.wire.registry import (
    AuthenticationMethod,
    CertificateEncoding,
    ConfigurationAttributeType,
    ConfigurationType,
    ExchangeType,
    IdentificationType,
    KeyExchangeMethod,
    NotifyType,
    ProtocolId,
    TrafficSelectorType,
)

EXCHANGES = [CREATE_CHILD_SA] * 5 + [INFORMATIONAL] * 4 + [IKE_AUTH] * 2 + [ExchangeType.IKE_SA_INIT, ExchangeType(99)]
KEY = initiate_key_exchange(KeyExchangeMethod.CURVE25519)
ESP = parse_proposals("aes128gcm16-x25519, aes128gcm16, aes256-sha256-ecp256", ProtocolId.ESP)
IKE = parse_proposals("aes128gcm16-prfsha256-x25519, aes256-sha256-ecp256-ke1_x448")


class Source:
    """Makes payloads up."""

    def __init__(self, seed: int, peer: Stranger) -> None:
        self.random = random.Random(seed)
        self.peer = peer

    def octets(self, *sizes: int) -> bytes:
        return self.random.randbytes(self.random.choice(sizes))

    def spi(self) -> bytes:
        known = [
            spi.to_bytes(4, "big")
            for sa in self.peer.host.engine.sas
            for one in sa.children
            for spi in (one.spi_in, one.spi_out)
        ]
        return self.random.choice([*known, *known, bytes(4), self.octets(4)])

    def selectors(self) -> tuple[TrafficSelector, ...]:
        pick = self.random.choice
        some = [selector("10.1.0.0/16"), selector("10.2.0.0/16"), selector("0.0.0.0/0"), selector("::/0")]
        some += [
            TrafficSelector(
                TrafficSelectorType.TS_IPV4_ADDR_RANGE, pick([0, 1, 6, 17]), pick([0, 80, 65535]), pick([0, 80, 65535]),
                self.octets(4), self.octets(4),
            ),
            TrafficSelector(TrafficSelectorType.TS_IPV6_ADDR_RANGE, 0, 0, 65535, self.octets(16), self.octets(16)),
            TrafficSelector(TrafficSelectorType(pick([9, 200])), 0, 0, 0, self.octets(0, 5), b""),
        ]  # fmt: skip
        return tuple(self.random.choices(some, k=pick([0, 1, 1, 1, 2, 5])))

    def security(self) -> SecurityAssociation:
        offered = self.random.choice([ESP, ESP, IKE])
        size = 8 if offered is IKE else 4
        spi = self.random.choice([bytes(size), self.octets(size), self.octets(size)])
        chosen = self.random.sample(offered, self.random.randint(1, len(offered)))
        return SecurityAssociation(
            tuple(dataclasses.replace(one, number=number, spi=spi) for number, one in enumerate(chosen, 1))
        )

    def notify(self) -> Notify:
        pick = self.random.choice
        kind = pick([*NotifyType, NotifyType.REKEY_SA, NotifyType.REKEY_SA, NotifyType.COOKIE2, NotifyType(9999)])
        protocol = pick([0, ProtocolId.ESP, ProtocolId.ESP, ProtocolId.IKE])
        spi = {0: b"", ProtocolId.ESP: self.spi(), ProtocolId.IKE: b""}[protocol]
        return Notify(kind, self.octets(0, 1, 2, 4, 4, 8, 12, 16, 20, 64), protocol, spi)

    def payload(self) -> Payload:
        pick = self.random.choice
        return pick(
            [
                self.security,
                lambda: KeyExchange(pick([KEY.method, KeyExchangeMethod(19)]), pick([KEY.public_value, b""])),
                lambda: Nonce(self.octets(16, 32, 256)),
                lambda: pick([IdInitiator, IdResponder])(
                    IdentificationType(pick([0, 1, 2, 5, 9, 77])), self.octets(0, 4, 9)
                ),
                lambda: Certificate(CertificateEncoding(pick([1, 4, 12])), self.octets(0, 40)),
                lambda: CertificateRequest(CertificateEncoding(pick([4, 12])), self.octets(0, 20, 21)),
                lambda: Authentication(AuthenticationMethod(pick([0, 1, 2, 9, 14])), self.octets(0, 32, 64)),
                self.notify,
                self.notify,
                self.notify,
                lambda: Delete(ProtocolId.ESP, tuple(self.spi() for _ in range(pick([0, 1, 1, 3])))),
                lambda: Delete(ProtocolId.AH, (self.octets(4),)),
                lambda: Delete(pick([ProtocolId.IKE, ProtocolId.ESP])),
                lambda: VendorId(self.octets(0, 16)),
                lambda: TrafficSelectorsInitiator(self.selectors()),
                lambda: TrafficSelectorsResponder(self.selectors()),
                lambda: Configuration(
                    ConfigurationType(pick([1, 2, 3, 4])),
                    tuple(
                        ConfigurationAttribute(ConfigurationAttributeType(pick([1, 2, 3, 8, 13, 99])), self.octets(0, 4, 17))
                        for _ in range(pick([0, 1, 4]))
                    ),
                ),
                lambda: Eap(self.octets(0, 4, 9)),
            ]
        )()  # fmt: skip

    def payloads(self, exchange: ExchangeType) -> list[Payload]:
        """What the exchange needs, more or less, and what it does not."""
        made: list[Payload] = []
        if exchange == CREATE_CHILD_SA:
            made = [
                self.security(),
                Nonce(self.octets(32)),
                TrafficSelectorsInitiator((selector("10.1.0.0/16"),)),
                TrafficSelectorsResponder((selector("10.2.0.0/16"),)),
                KeyExchange(KEY.method, KEY.public_value),
            ]
            if self.random.random() < 0.5:
                made.insert(0, Notify(NotifyType.REKEY_SA, b"", ProtocolId.ESP, self.spi()))
        elif exchange == IKE_AUTH:
            made = [self.peer.identity(), *self.peer.child_offer()]
        made = [one for one in made if self.random.random() < 0.95]
        for _ in range(self.random.choice([0, 0, 0, 1, 1, 2, 4])):
            made.insert(self.random.randint(0, len(made)), self.payload())
        return made


def harass(peer: Stranger, seed: int, first_id: int, messages: int = 12) -> None:
    """Requests and responses, wanted and unwanted, from here and there."""
    source = Source(seed, peer)
    message_id = first_id
    for _ in range(messages):
        there = peer.there
        channel = there.channel
        if source.random.random() < 0.25 and there.is_alive and there.children:
            # Let it want something, so that there is a request to answer.
            match source.random.choice(["ike", "child", "liveness"]):
                case "ike":
                    there.rekey(peer.pair.now)
                case "child":
                    there.rekey_child(there.children[0], peer.pair.now)
                case _:
                    there.check_liveness(peer.pair.now)
            peer.answers()
        exchange = source.random.choice(EXCHANGES)
        awaited = list(channel._outstanding.values())
        if awaited and source.random.random() < 0.6:
            asked = awaited[0].message
            octets = peer.seal(
                asked.exchange_type,
                *source.payloads(asked.exchange_type),
                message_id=asked.message_id,
                is_response=True,
            )
        else:
            octets = peer.seal(exchange, *source.payloads(exchange), message_id=message_id)
            message_id += 1
        address = Address(source.random.choice([peer.own.host, peer.own.host, "203.0.113.9"]), 4500)
        peer.deliver(octets, address)
        if source.random.random() < 0.8:
            peer.answers()
        peer.pair.run(source.random.choice([0.0, 0.1, 3.0]))


def settled(peer: Stranger) -> None:
    """The data plane holds what the engine believes in, and in the end nothing is left behind."""
    peer.answers()
    host, engine = peer.host, peer.host.engine
    peer.pair.network = lambda datagram: []
    peer.pair.run(300)
    for sa in engine.sas:
        sa.close(peer.pair.now)
    peer.pair.run(400)
    assert not engine.sas and not engine._shared.table
    assert not host.inbound and not host.outbound and not engine._shared.esp_spis
    assert not engine._half_open and not engine._half_open._sources


@pytest.mark.parametrize("start", range(0, 200, 20))
def test_strangers_at_a_gateway_are_never_let_in(start):
    for seed in range(start, start + 20):
        peer = after_init()
        harass(peer, seed, 1, messages=6)
        assert not peer.host.happened(events.IkeEstablished) and not peer.host.inbound
        settled(peer)


@pytest.mark.parametrize("start", range(0, 200, 20))
def test_strangers_in_the_gateways_place_are_never_believed(start):
    for seed in range(start, start + 20):
        peer = impostor()
        harass(peer, seed, 0, messages=6)
        assert not peer.host.happened(events.IkeEstablished) and not peer.host.inbound
        settled(peer)


@pytest.mark.parametrize("start", range(0, 300, 20))
def test_clients_gone_mad_harm_nobody_but_themselves(start):
    for seed in range(start, start + 20):
        proposals = parse_proposals("aes128gcm16-x25519, aes128gcm16", ProtocolId.ESP)
        pair = Pair(
            connection(), connection_b(children=(mirrored(child(proposals=proposals)),), window=1 + seed % 3), seed=seed
        )
        peer = after_init(pair)
        identity = peer.identity()
        mobike = (Notify(NotifyType.MOBIKE_SUPPORTED),) if seed % 2 else ()
        peer.ask(IKE_AUTH, identity, peer.psk_auth(identity), *peer.child_offer(), *mobike)
        assert peer.there.state is IkeState.ESTABLISHED
        harass(peer, seed, 2)
        settled(peer)
