"""Agreeing on a child SA: what both IKE_AUTH and CREATE_CHILD_SA carry (RFC 7296 sections 1.3.1, 2.9, 2.17, 3.13)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ikeway.crypto import PrivateKeyExchange, derive_child_keys, respond_key_exchange
from ikeway.errors import InvalidPublicValue, NegotiationFailed, ProtocolViolation
from ikeway.esp.parameters import Mode
from ikeway.ike import events, selectors
from ikeway.ike.child import ChildSa, esp_pair
from ikeway.ike.keying import require_single_exchange
from ikeway.ike.notifies import error_from, failure_of
from ikeway.ike.proposals import (
    Selection,
    Suite,
    explain_mismatch,
    select,
    verify_selected,
    with_numbers,
    without_key_exchange,
)
from ikeway.ike.protection import key_octets
from ikeway.ike.questions import ReserveSpi
from ikeway.ike.sa import IkeSa
from ikeway.ike.selectors import Selectors
from ikeway.ike.settings import ChildSettings
from ikeway.ike.transport import as_seen_here, outer_selectors
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    KeyExchange,
    Notify,
    Payload,
    Proposal,
    SecurityAssociation,
    TrafficSelectorsInitiator,
    TrafficSelectorsResponder,
)
from ikeway.wire.registry import ConfigurationAttributeType, KeyExchangeMethod, NotifyType

MAX_CHILDREN = 256  # that a peer may make of one IKE SA; rekeying may go beyond, for the old ones linger
EVERYWHERE: Selectors = (selectors.selector("0.0.0.0/0"), selectors.selector("::/0"))


@dataclass(frozen=True, slots=True)
class Nonces:
    """Ni and Nr of the exchange that makes the child SA."""

    initiator: bytes
    responder: bytes

    @property
    def lowest(self) -> bytes:
        """What decides a collision (RFC 7296 section 2.8.1)."""
        return min(self.initiator, self.responder)


@dataclass(frozen=True, slots=True)
class ChildOffer:
    """What we offer as the initiator of an exchange."""

    settings: ChildSettings
    proposals: tuple[Proposal, ...]
    spi_in: int
    local_selectors: Selectors
    remote_selectors: Selectors
    exchange: PrivateKeyExchange | None = None

    def payloads(self) -> tuple[Payload, ...]:
        """SA, [KE], TSi, TSr, [N(USE_TRANSPORT_MODE)]; the nonce goes between SA and KE and is the caller's."""
        key: tuple[Payload, ...] = ()
        if self.exchange is not None:
            key = (KeyExchange(self.exchange.method, self.exchange.public_value),)
        mode: tuple[Payload, ...] = ()
        if self.settings.mode is Mode.TRANSPORT:
            mode = (Notify(NotifyType.USE_TRANSPORT_MODE),)
        return (
            SecurityAssociation(self.proposals),
            *key,
            TrafficSelectorsInitiator(self.local_selectors),
            TrafficSelectorsResponder(self.remote_selectors),
            *mode,
        )


async def reserve_spi(sa: IkeSa) -> int:
    """An inbound SPI, ours or the data plane's."""
    if sa.shared.settings.external_spis:
        return await sa.ask(ReserveSpi(sa.connection_id))
    spi = sa.shared.new_esp_spi(sa)
    sa.reserved_spis.add(spi)
    return spi


def make_offer(
    sa: IkeSa, settings: ChildSettings, spi_in: int, exchange: PrivateKeyExchange | None, old: ChildSa | None = None
) -> ChildOffer:
    """Our offer for a new child SA, or for one that replaces `old`."""
    proposals = settings.proposals if exchange is not None else without_key_exchange(settings.proposals)
    return ChildOffer(
        settings,
        with_numbers(proposals, spi_in.to_bytes(4, "big")),
        spi_in,
        old.local_selectors if old is not None else initiator_local(sa, settings),
        old.remote_selectors if old is not None else initiator_remote(sa, settings),
        exchange,
    )


def initiator_local(sa: IkeSa, settings: ChildSettings) -> Selectors:
    """What we propose for our own side: as configured, else the virtual address to come, else the outer one."""
    if settings.local_selectors:
        return settings.local_selectors
    if settings.mode is Mode.TRANSPORT:
        return outer_selectors(sa)[0]
    if assigned := assigned_selectors(sa):
        return assigned
    return EVERYWHERE if sa.connection.request_configuration else (selectors.selector(sa.local.host),)


def initiator_remote(sa: IkeSa, settings: ChildSettings) -> Selectors:
    """What we propose for the peer's side: as configured, else its outer address in transport mode (where libreswan does
    not narrow a wider offer), else whatever it grants."""
    if settings.remote_selectors:
        return settings.remote_selectors
    return outer_selectors(sa)[1] if settings.mode is Mode.TRANSPORT else EVERYWHERE


def assigned_selectors(sa: IkeSa) -> Selectors:
    """Selectors of the addresses that a configuration payload assigned."""
    found = []
    for attribute in sa.configuration:
        if attribute.type == ConfigurationAttributeType.INTERNAL_IP4_ADDRESS and len(attribute.value) == 4:
            found.append(selectors.selector(str(ipaddress.IPv4Address(attribute.value))))
        elif attribute.type == ConfigurationAttributeType.INTERNAL_IP6_ADDRESS and len(attribute.value) == 17:
            found.append(selectors.selector(str(ipaddress.IPv6Address(attribute.value[:16]))))
    return tuple(found)


def _with_assigned(sa: IkeSa, remote: Selectors) -> Selectors:
    """The peer's side. OpenIKED's clients say 0.0.0.0, as one address, for the one that they are given (`from dynamic`)."""
    if sa.connection.request_configuration:
        return remote
    assigned = {one.type: one.start_address for one in assigned_selectors(sa)}
    return tuple(
        replace(ts, start_address=assigned[ts.type], end_address=assigned[ts.type])
        if ts.type in assigned and not any(ts.end_address)
        else ts
        for ts in remote
    )


# --- initiator: what came back ----------------------------------------------------------------------------------------


def conclude(sa: IkeSa, offer: ChildOffer, reply: Message, nonces: Nonces, old: ChildSa | None = None) -> ChildSa:
    """Check the responder's choice against our offer, make the child SA. Raises `PeerError`."""
    if (failure := failure_of(reply)) is not None:
        raise error_from(failure, f"the peer refused child SA {offer.settings.name}")
    security = reply.find(SecurityAssociation)
    ts_initiator, ts_responder = reply.find(TrafficSelectorsInitiator), reply.find(TrafficSelectorsResponder)
    if security is None or ts_initiator is None or ts_responder is None or len(security.proposals) != 1:
        raise ProtocolViolation("a response without exactly one proposal and both traffic selectors")
    chosen = security.proposals[0]
    suite = verify_selected(chosen, offer.proposals)
    local, remote = ts_initiator.selectors, _with_assigned(sa, ts_responder.selectors)
    if offer.settings.mode is Mode.TRANSPORT:
        local, remote = as_seen_here(sa, local, remote)
    if not selectors.is_subset(local, offer.local_selectors) or not selectors.is_subset(remote, offer.remote_selectors):
        raise ProtocolViolation(
            "the peer widened the traffic selectors",
            notify=NotifyType.TS_UNACCEPTABLE,
            expected=_show(offer.local_selectors, offer.remote_selectors),
            got=_show(local, remote),
        )
    local = _own_part(sa, offer, local)
    agreed = Mode.TRANSPORT if reply.notify(NotifyType.USE_TRANSPORT_MODE) is not None else Mode.TUNNEL
    if agreed is not offer.settings.mode:
        raise NegotiationFailed(
            f"the peer chose {agreed.value} mode",
            expected=f"{offer.settings.mode.value} mode",
            remedy="set the same mode on both sides",
        )
    spi_out = _usable_spi(sa, suite, chosen.spi)
    secret = b""
    if suite.key_exchange:
        secret = _finish_exchange(offer, suite, reply)
    return _make(
        sa,
        offer.settings,
        spis=(offer.spi_in, spi_out),
        suite=suite,
        nonces=nonces,
        secret=secret,
        selectors_=(local, remote),
        is_initiator=True,
        old=old,
    )


def _own_part(sa: IkeSa, offer: ChildOffer, local: Selectors) -> Selectors:
    """We asked for an address and offered everything: what is ours of what came back is that address, and no more."""
    is_outer = bool(offer.settings.local_selectors) or offer.settings.mode is Mode.TRANSPORT
    assigned = () if is_outer else assigned_selectors(sa)
    if not assigned:
        return local
    own = selectors.narrow(local, assigned)
    if not own:
        raise ProtocolViolation(
            "the peer's traffic selectors leave out the address that it assigned",
            notify=NotifyType.TS_UNACCEPTABLE,
            expected=_show(assigned, ()),
            got=_show(local, ()),
        )
    return own


def _finish_exchange(offer: ChildOffer, suite: Suite, reply: Message) -> bytes:
    key = reply.find(KeyExchange)
    if key is None or offer.exchange is None or key.method != offer.exchange.method or key.method != suite.key_exchange:
        raise ProtocolViolation("the key exchange of the response is not the one that was chosen")
    try:
        return offer.exchange.shared_secret(key.public_value)
    except InvalidPublicValue as error:
        raise ProtocolViolation(f"the key exchange of the response is worthless: {error}") from None


# --- responder --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grant:
    """What we grant as responder: the SA (nothing installed yet) and the payloads that say so."""

    child: ChildSa
    payloads: tuple[Payload, ...]


async def grant(
    sa: IkeSa, message: Message, nonces: Nonces, *, old: ChildSa | None = None, in_auth: bool = False
) -> Grant:
    """Answer an offer. Raises `NegotiationFailed` with the notify that is due (RFC 7296 section 2.9)."""
    security = message.find(SecurityAssociation)
    ts_initiator, ts_responder = message.find(TrafficSelectorsInitiator), message.find(TrafficSelectorsResponder)
    if security is None or ts_initiator is None or ts_responder is None:
        raise ProtocolViolation("a child SA request without SA, TSi or TSr", notify=NotifyType.INVALID_SYNTAX)
    if len(sa.children) >= MAX_CHILDREN * (1 if old is None else 2):
        raise NegotiationFailed(f"there are {len(sa.children)} child SAs", notify=NotifyType.NO_ADDITIONAL_SAS)
    wants_transport = message.notify(NotifyType.USE_TRANSPORT_MODE) is not None
    offered = ts_responder.selectors, _with_assigned(sa, ts_initiator.selectors)
    if wants_transport:
        offered = as_seen_here(sa, *offered)
    settings, local, remote = _choose_settings(sa, offered, wants_transport, old)
    selection = _choose_suite(settings, security.proposals, in_auth=in_auth)
    suite = selection.suite
    spi_out = _usable_spi(sa, suite, selection.spi)
    key_payload, secret = _answer_exchange(suite, message.find(KeyExchange))
    spi_in = await reserve_spi(sa)
    child = _make(
        sa,
        settings,
        spis=(spi_in, spi_out),
        suite=suite,
        nonces=nonces,
        secret=secret,
        selectors_=(local, remote),
        is_initiator=False,
        old=old,
    )
    mode: tuple[Payload, ...] = (Notify(NotifyType.USE_TRANSPORT_MODE),) if child.mode is Mode.TRANSPORT else ()
    payloads: tuple[Payload, ...] = (
        SecurityAssociation((selection.to_proposal(child.spi_in_octets),)),
        *key_payload,
        TrafficSelectorsInitiator(remote),
        TrafficSelectorsResponder(local),
        *mode,
    )
    return Grant(child, payloads)


def _choose_settings(
    sa: IkeSa, offered: tuple[Selectors, Selectors], wants_transport: bool, old: ChildSa | None
) -> tuple[ChildSettings, Selectors, Selectors]:
    candidates = (old.settings,) if old is not None else sa.connection.children
    single_pair = False
    for settings in candidates:
        if wants_transport != (settings.mode is Mode.TRANSPORT):
            continue
        most_local, most_remote = _most(sa, settings, old)
        local, remote = selectors.narrow(offered[0], most_local), selectors.narrow(offered[1], most_remote)
        if not local or not remote:
            continue
        if settings.single_pair and not (_is_single(local) and _is_single(remote)):
            single_pair = True
            continue
        return settings, local, remote
    if single_pair:
        raise NegotiationFailed(
            "only single pairs of addresses are allowed here", notify=NotifyType.SINGLE_PAIR_REQUIRED
        )
    modes = "transport" if wants_transport else "tunnel"
    raise NegotiationFailed(
        f"no child SA in {modes} mode for the peer's traffic selectors",
        notify=NotifyType.TS_UNACCEPTABLE,
        expected="; ".join(_show(*_most(sa, one, old)) for one in candidates),
        got=_show(*offered),
        remedy="make the subnets (traffic selectors) of both sides overlap, and set the same mode",
    )


def _choose_suite(settings: ChildSettings, offered: Sequence[Proposal], *, in_auth: bool) -> Selection:
    selection = select(offered, settings.proposals, ignore_key_exchange=in_auth)
    if selection is None:
        raise NegotiationFailed(
            f"no proposal in common for child SA {settings.name}: {explain_mismatch(offered, settings.proposals)}",
            notify=NotifyType.NO_PROPOSAL_CHOSEN,
            remedy="give both sides an ESP proposal in common (and the same choice of PFS)",
        )
    return selection


def _answer_exchange(suite: Suite, key: KeyExchange | None) -> tuple[tuple[Payload, ...], bytes]:
    method = suite.key_exchange
    if not method:
        return (), b""
    if key is None or key.method != method:
        raise NegotiationFailed(
            f"key exchange by {KeyExchangeMethod(method).name} is wanted", notify=NotifyType.INVALID_KE_PAYLOAD
        ).with_octets(int(method).to_bytes(2, "big"))
    try:
        public_value, secret = respond_key_exchange(method, key.public_value)
    except InvalidPublicValue as error:
        raise ProtocolViolation(str(error), notify=NotifyType.INVALID_SYNTAX) from None
    return (KeyExchange(method, public_value),), secret


def _most(sa: IkeSa, settings: ChildSettings, old: ChildSa | None) -> tuple[Selectors, Selectors]:
    """The most that we grant of our side and the peer's: when rekeying, what is in use (section 2.9.2), else what is
    configured. What is not configured is the address that was assigned to that side, or its outer one."""
    if old is not None:
        return old.local_selectors, old.remote_selectors
    assigned = assigned_selectors(sa) if settings.mode is Mode.TUNNEL else ()
    ours, theirs = (assigned, ()) if sa.connection.request_configuration else ((), assigned)
    outer = outer_selectors(sa)
    return settings.local_selectors or ours or outer[0], settings.remote_selectors or theirs or outer[1]


def _is_single(found: Selectors) -> bool:
    return len(found) == 1 and found[0].start_address == found[0].end_address


# --- both -------------------------------------------------------------------------------------------------------------


def _make(
    sa: IkeSa,
    settings: ChildSettings,
    *,
    spis: tuple[int, int],
    suite: Suite,
    nonces: Nonces,
    secret: bytes,
    selectors_: tuple[Selectors, Selectors],
    is_initiator: bool,
    old: ChildSa | None,
) -> ChildSa:
    assert sa.keys is not None
    keys = derive_child_keys(sa.prf, sa.keys.sk_d, nonces.initiator, nonces.responder, *key_octets(suite), secret)
    child_id = old.child_id if old is not None else sa.shared.new_child_id()
    esp_in, esp_out = esp_pair(
        sa,
        settings,
        child_id=child_id,
        spis=spis,
        suite=suite,
        mode=settings.mode,
        keys=keys,
        selectors=selectors_,
        is_initiator=is_initiator,
    )
    sa.report(events.ChildKeysDerived(esp_in, esp_out, keys))
    return ChildSa(
        sa=sa,
        settings=settings,
        child_id=child_id,
        spi_in=spis[0],
        spi_out=spis[1],
        suite=suite,
        mode=settings.mode,
        local_selectors=selectors_[0],
        remote_selectors=selectors_[1],
        esp_in=esp_in,
        esp_out=esp_out,
        created=sa.now,
        is_initiator=is_initiator,
    )


def _usable_spi(sa: IkeSa, suite: Suite, octets: bytes) -> int:
    """The peer's SPI. Zero is none (RFC 4303 section 2.1), and two child SAs of one peer cannot share one."""
    require_single_exchange(suite)
    spi = int.from_bytes(octets, "big")
    if not spi or sa.find_child(spi_out=spi) is not None:
        raise ProtocolViolation(
            f"the peer wants to receive a child SA on SPI {spi:08x}",
            notify=NotifyType.INVALID_SYNTAX,
            expected="one of its own that no other child SA has",
        )
    return spi


def _show(local: Selectors, remote: Selectors) -> str:
    def text(found: Selectors) -> str:
        return ", ".join(selectors.format_selector(ts) for ts in found) or "none"

    return f"{text(local)} === {text(remote)}"
