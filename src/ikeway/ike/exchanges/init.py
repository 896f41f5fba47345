"""IKE_SA_INIT (RFC 7296 section 1.2): keys before names.

    Initiator                              Responder
    HDR, [N(COOKIE)], SAi1, KEi, Ni  -->
                                     <--   HDR, N(COOKIE) | N(INVALID_KE_PAYLOAD)     (and again from the start)
    HDR, [N(COOKIE)], SAi1, KEi, Ni  -->
                                     <--   HDR, SAr1, KEr, Nr, [CERTREQ]

A responder answers and forgets until a request is good: cookies, other methods and refusals cost it no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ikeway.address import Address
from ikeway.auth.signature import SUPPORTED_HASHES
from ikeway.crypto import PrivateKeyExchange, initiate_key_exchange, respond_key_exchange
from ikeway.errors import InvalidPublicValue, NegotiationFailed, ProtocolViolation
from ikeway.ike import events, nat
from ikeway.ike.abilities import Abilities
from ikeway.ike.interception import install
from ikeway.ike.keying import protect_initial, require_single_exchange
from ikeway.ike.notifies import error_from, failure_of
from ikeway.ike.own_fragments import NewOwnFragmentation
from ikeway.ike.proposals import (
    Selection,
    explain_mismatch,
    key_exchange_methods,
    select,
    verify_selected,
    with_numbers,
)
from ikeway.ike.sa import IkeSa
from ikeway.ike.settings import Connection, ResponderSettings
from ikeway.ike.shared import Shared
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    CertificateRequest,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    Proposal,
    SecurityAssociation,
    VendorId,
)
from ikeway.wire.registry import CertificateEncoding, ExchangeType, KeyExchangeMethod, NotifyType

NONCE_OCTETS = 32
NONCE_RANGE = (16, 256)  # RFC 7296 section 3.9
COOKIE_RANGE = (1, 64)
REFUSAL_SECONDS = 0.3  # from a refusal, which anybody can make, to its being believed
MAX_ROUNDS = 6  # cookies and other key exchange methods before we give up

P = TypeVar("P")


# --- initiator --------------------------------------------------------------------------------------------------------


async def initiate(sa: IkeSa) -> None:
    """Agree on keys with the responder at `sa.remote`; moves to port 4500 where the peers need it."""
    connection = sa.connection
    methods = key_exchange_methods(connection.ike_proposals)
    exchange = initiate_key_exchange(methods[0])
    nonce = sa.shared.random(NONCE_OCTETS)
    cookie: tuple[Payload, ...] = ()
    for _ in range(MAX_ROUNDS):
        payloads = cookie + _initiator_payloads(sa, connection, exchange, nonce)
        reply = await sa.request(ExchangeType.IKE_SA_INIT, payloads, message_id=0)
        if (demanded := _demanded_cookie(reply)) is not None:
            cookie = (Notify(NotifyType.COOKIE, demanded),)
        elif (wanted := reply.notify(NotifyType.INVALID_KE_PAYLOAD)) is not None:
            method = demanded_method(wanted, methods, exchange.method)
            sa.report(events.PeerSeen(sa, f"the gateway wants {method.name} instead of {exchange.method.name}"))
            exchange = initiate_key_exchange(method)
        else:
            _conclude(sa, reply, exchange, nonce)
            return
    raise ProtocolViolation("the responder goes on demanding cookies or other key exchange methods")


def believes(sa: IkeSa, reply: Message) -> bool:
    """Anybody on the way can refuse IKE_SA_INIT: the peer itself gets time to say something better (section 2.21.1)."""
    if _is_refusal(sa, reply):
        if sa.refusal is None:
            sa.refusal = reply
            sa.timers.set("refusal", sa.now + REFUSAL_SECONDS)
        return False
    sa.refusal = None
    sa.timers.cancel("refusal")
    sa.channel.take_response(reply.message_id)
    return True


def believe_refusal(sa: IkeSa) -> None:
    """Nothing better came."""
    refusal, sa.refusal = sa.refusal, None
    if refusal is not None:
        sa.channel.take_response(refusal.message_id)
        sa.driver.on_response(refusal)


def _is_refusal(sa: IkeSa, reply: Message) -> bool:
    """True for a response that would end the attempt."""
    if _demanded_cookie(reply) is not None:
        return False
    wanted = reply.notify(NotifyType.INVALID_KE_PAYLOAD)
    if wanted is not None:
        return int.from_bytes(wanted.value, "big") not in key_exchange_methods(sa.connection.ike_proposals)
    if failure_of(reply) is not None or reply.find(SecurityAssociation) is None or reply.find(Nonce) is None:
        return True
    # The answer to a request before, with another method: we went on because somebody demanded this one.
    request, key = sa.channel.requested(reply.message_id), reply.find(KeyExchange)
    ours = request.find(KeyExchange) if request is not None else None
    return key is None or ours is None or key.method != ours.method


def _demanded_cookie(reply: Message) -> bytes | None:
    """The cookie, unless its size is none that a cookie may have (RFC 7296 section 2.6)."""
    cookie = reply.notify(NotifyType.COOKIE)
    low, high = COOKIE_RANGE
    return cookie.value if cookie is not None and low <= len(cookie.value) <= high else None


def demanded_method(
    notify: Notify, offered: Sequence[KeyExchangeMethod], current: KeyExchangeMethod
) -> KeyExchangeMethod:
    """The method that INVALID_KE_PAYLOAD names; it must be another one that we offered (RFC 7296 section 1.3)."""
    if len(notify.value) != 2:
        raise ProtocolViolation(f"INVALID_KE_PAYLOAD with {len(notify.value)} octets", expected="2 octets")
    method = KeyExchangeMethod(int.from_bytes(notify.value, "big"))
    if method not in offered or method == current:
        names = ", ".join(KeyExchangeMethod(one).name for one in offered)
        raise NegotiationFailed(
            f"the peer wants key exchange method {method.name}",
            notify=NotifyType.INVALID_KE_PAYLOAD,
            expected=f"one of {names}",
            remedy="give both sides a key exchange method in common",
        )
    return method


def _initiator_payloads(
    sa: IkeSa, connection: Connection, exchange: PrivateKeyExchange, nonce: bytes
) -> tuple[Payload, ...]:
    return (
        SecurityAssociation(with_numbers(connection.ike_proposals, b"")),
        KeyExchange(exchange.method, exchange.public_value),
        Nonce(nonce),
        *nat.detection_notifies(
            sa.spi,
            bytes(8),
            sa.local,
            sa.remote,
            pretend_nat=sa.shared.random if connection.force_udp_encapsulation else None,
        ),
        *_capabilities(fragmentation=bool(connection.fragment_size)),
        *(VendorId(octets) for octets in connection.vendor_ids),
    )


def _capabilities(*, fragmentation: bool) -> tuple[Notify, ...]:
    hashes = b"".join(int(algorithm).to_bytes(2, "big") for algorithm in SUPPORTED_HASHES)
    notifies = [Notify(NotifyType.SIGNATURE_HASH_ALGORITHMS, hashes)]
    if fragmentation:
        notifies.append(Notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED))
    return tuple(notifies)


def _conclude(sa: IkeSa, reply: Message, exchange: PrivateKeyExchange, nonce: bytes) -> None:
    if (failure := failure_of(reply)) is not None:
        raise error_from(failure, "the gateway refused IKE_SA_INIT")
    security = _required(reply, SecurityAssociation)
    key = _required(reply, KeyExchange)
    peer_nonce = _checked_nonce(_required(reply, Nonce))
    if len(security.proposals) != 1 or not any(reply.responder_spi):
        raise ProtocolViolation("the responder chose no single proposal, or no SPI")
    suite = verify_selected(security.proposals[0], with_numbers(sa.connection.ike_proposals, b""))
    if suite.key_exchange != exchange.method or key.method != exchange.method:
        raise ProtocolViolation(
            "the responder's key exchange is not the one it chose",
            expected=exchange.method.name,
            got=KeyExchangeMethod(key.method).name,
        )
    require_single_exchange(suite)
    secret = exchange.shared_secret(key.public_value)
    sa.channel.responder_spi = reply.responder_spi
    sa.init_request, sa.init_response = sa.channel.request_octets, sa.channel.response_octets
    sa.nonce_initiator, sa.nonce_responder = nonce, peer_nonce
    learn(sa, reply)
    protect_initial(sa, suite, secret)
    _agree_on_fragments(sa, sa.connection.own_fragmentation, standard=sa.connection.fragment_size > 0)
    if sa.channel.may_fragment:
        sa.channel.fragment_octets = sa.connection.fragment_size
    _choose_ports(sa)
    sa.report(events.PeerSeen(sa, f"agreed on {suite}"))


def _choose_ports(sa: IkeSa) -> None:
    """Move to the NAT traversal ports when there is a NAT, or may be one later (RFC 7296 2.23, RFC 4555 3.3)."""
    settings, connection = sa.shared.settings, sa.connection
    sa.pretends_nat = connection.force_udp_encapsulation
    sa.udp_encapsulation = sa.nat.any or sa.pretends_nat
    moves = sa.udp_encapsulation or (connection.mobike and sa.nat.supported)
    if moves and sa.remote.port == settings.ike_port:
        sa.channel.remote = Address(sa.remote.host, settings.nat_port)
        sa.channel.local = Address(sa.local.host, settings.local_nat_port)


# --- responder --------------------------------------------------------------------------------------------------------


class Turned(Exception):
    """The request is answered with `notify` and forgotten. `remedy` is for our log."""

    def __init__(self, notify: Notify, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.notify = notify
        self.remedy = remedy


def respond(
    shared: Shared,
    settings: ResponderSettings,
    message: Message,
    octets: bytes,
    path: tuple[Address, Address],
    now: float,
) -> IkeSa:
    """Answer a request that passed the cookie check. Raises `Turned` where no state is kept."""
    local, remote = path
    security, key = _required(message, SecurityAssociation), _required(message, KeyExchange)
    nonce = _checked_nonce(_required(message, Nonce))
    selection = _select(settings, security, key)
    try:
        public_value, secret = respond_key_exchange(key.method, key.public_value)
    except InvalidPublicValue as error:
        raise Turned(Notify(NotifyType.INVALID_SYNTAX), str(error)) from None
    sa = IkeSa(
        shared,
        None,
        is_initiator=False,
        spi=shared.new_ike_spi(),
        peer_spi=message.initiator_spi,
        local=local,
        remote=remote,
        now=now,
    )
    install(sa, settings.interception)
    sa.channel.expect_answered(0, octets, local, remote)
    sa.nonce_initiator, sa.nonce_responder = nonce, shared.random(NONCE_OCTETS)
    sa.init_request, sa.chosen_from = octets, settings.ike_proposals
    learn(sa, message)
    _agree_on_fragments(sa, settings.own_fragmentation, standard=settings.fragmentation)
    payloads = _responder_payloads(sa, settings, selection.to_proposal(b""), public_value, key.method)
    sa.init_response = sa.send_response(0, ExchangeType.IKE_SA_INIT, payloads)
    sa.pretends_nat = settings.force_udp_encapsulation
    sa.udp_encapsulation = sa.nat.any or sa.pretends_nat
    protect_initial(sa, selection.suite, secret)
    return sa


def _select(settings: ResponderSettings, security: SecurityAssociation, key: KeyExchange) -> Selection:
    selection = select(security.proposals, settings.ike_proposals, prefer_initiator=settings.prefer_initiator_order)
    if selection is None:
        raise Turned(
            Notify(NotifyType.NO_PROPOSAL_CHOSEN),
            explain_mismatch(security.proposals, settings.ike_proposals),
            remedy="give both sides an IKE proposal in common",
        )
    require_single_exchange(selection.suite)
    method = selection.suite.key_exchange
    assert method is not None
    if method != key.method:
        wanted = Notify(NotifyType.INVALID_KE_PAYLOAD, int(method).to_bytes(2, "big"))
        raise Turned(wanted, f"key exchange by {method.name} instead of {KeyExchangeMethod(key.method).name}")
    return selection


def _responder_payloads(
    sa: IkeSa, settings: ResponderSettings, proposal: Proposal, public_value: bytes, method: KeyExchangeMethod
) -> tuple[Payload, ...]:
    payloads: list[Payload] = [
        SecurityAssociation((proposal,)),
        KeyExchange(method, public_value),
        Nonce(sa.nonce_responder),
    ]
    if sa.nat.supported:
        payloads += nat.detection_notifies(
            sa.channel.initiator_spi,
            sa.spi,
            sa.local,
            sa.remote,
            pretend_nat=sa.shared.random if settings.force_udp_encapsulation else None,
        )
    if settings.certificate_authorities:
        payloads.append(CertificateRequest(CertificateEncoding.X509_SIGNATURE, settings.certificate_authorities))
    payloads += _capabilities(fragmentation=sa.channel.accept_fragments)
    if settings.childless:
        payloads.append(Notify(NotifyType.CHILDLESS_IKEV2_SUPPORTED))
    if settings.multiple_auth:
        payloads.append(Notify(NotifyType.MULTIPLE_AUTH_SUPPORTED))
    payloads += (VendorId(octets) for octets in settings.vendor_ids)
    return tuple(payloads)


# --- both -------------------------------------------------------------------------------------------------------------


def learn(sa: IkeSa, message: Message) -> None:
    """What the peer's message says of what it can do, and of NATs between us."""
    sa.nat = nat.find_nat(message, sa.local, sa.remote)
    sa.peer = Abilities.of(message)


def _agree_on_fragments(sa: IkeSa, own: NewOwnFragmentation | None, *, standard: bool) -> None:
    sa.channel.accept_fragments = standard and sa.peer.fragments
    sa.channel.own_fragmentation = own(sa.peer.vendor_ids) if own is not None else None


def _required(message: Message, kind: type[P]) -> P:
    payload = message.find(kind)  # type: ignore[type-var]
    if payload is None:
        raise ProtocolViolation(f"IKE_SA_INIT without {kind.__name__}", notify=NotifyType.INVALID_SYNTAX)
    return payload


def _checked_nonce(nonce: Nonce) -> bytes:
    low, high = NONCE_RANGE
    if not low <= len(nonce.value) <= high:
        raise ProtocolViolation(
            f"a nonce of {len(nonce.value)} octets",
            notify=NotifyType.INVALID_SYNTAX,
            expected=f"{low} to {high} octets",
        )
    return nonce.value
