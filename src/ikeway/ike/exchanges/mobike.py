"""MOBIKE (RFC 4555): the outer addresses change, the SAs stay.

    HDR, SK {N(UPDATE_SA_ADDRESSES), N(NAT_DETECTION_*), [N(NO_NATS_ALLOWED),] [N(COOKIE2)]}  -->    (from the new address)
                                                                    <--  HDR, SK {N(NAT_DETECTION_*), [N(COOKIE2)]}

Only the initiator of the first IKE SA decides on a path; the responder follows, after it has made sure that the new address
answers (COOKIE2, section 3.7).
"""

from __future__ import annotations

import hmac
import ipaddress

from ikeway.address import Address
from ikeway.errors import NegotiationFailed, PeerError
from ikeway.ike import events, lifetimes, nat
from ikeway.ike.driver import Task
from ikeway.ike.sa import IkeSa, IkeState
from ikeway.wire.message import Message
from ikeway.wire.payloads import Notify, Payload
from ikeway.wire.registry import ExchangeType, NotifyType

INFORMATIONAL = ExchangeType.INFORMATIONAL
COOKIE2_OCTETS = 16
MAX_PEER_ADDRESSES = 16


# --- at IKE_AUTH ------------------------------------------------------------------------------------------------------


def learn(sa: IkeSa, message: Message) -> None:
    """From the peer's last IKE_AUTH message: does it do MOBIKE, and at which other addresses is it?"""
    sa.mobike = sa.connection.mobike and message.notify(NotifyType.MOBIKE_SUPPORTED) is not None
    if sa.mobike:
        _learn_addresses(sa, message)


def announce(sa: IkeSa, request: Message) -> tuple[Payload, ...]:
    """Responder: our own notify, when both do MOBIKE."""
    if sa.mobike and request.notify(NotifyType.MOBIKE_SUPPORTED) is not None:
        return (Notify(NotifyType.MOBIKE_SUPPORTED), *_own_addresses(sa))
    return ()


def _own_addresses(sa: IkeSa) -> tuple[Payload, ...]:
    notifies = []
    for host in sa.connection.additional_addresses:
        address = ipaddress.ip_address(host)
        kind = NotifyType.ADDITIONAL_IP4_ADDRESS if address.version == 4 else NotifyType.ADDITIONAL_IP6_ADDRESS
        if host != sa.local.host:
            notifies.append(Notify(kind, address.packed))
    return tuple(notifies)


def _learn_addresses(sa: IkeSa, message: Message) -> None:
    notifies = [
        *message.notifies(NotifyType.ADDITIONAL_IP4_ADDRESS),
        *message.notifies(NotifyType.ADDITIONAL_IP6_ADDRESS),
    ]
    if notifies or message.notify(NotifyType.NO_ADDITIONAL_ADDRESSES) is not None:
        found = (str(ipaddress.ip_address(one.value)) for one in notifies if len(one.value) in (4, 16))
        sa.peer_addresses = tuple(dict.fromkeys(found))[:MAX_PEER_ADDRESSES]
        sa.untried_addresses = list(sa.peer_addresses)


# --- initiator --------------------------------------------------------------------------------------------------------


def move(sa: IkeSa, local: Address, remote: Address) -> None:
    """Go over to another path: what is outstanding goes there too, then the peer is told."""
    sa.channel.local, sa.channel.remote = local, remote
    sa.channel.resend_all(sa.now)
    sa.driver.enqueue(Task("update-addresses", update_addresses, again=True), first=True)


async def update_addresses(sa: IkeSa, *, moved: bool = True) -> None:
    """Tell the peer the path that is in use now; the child SAs follow when it agrees."""
    path, encapsulated = (sa.local, sa.remote), sa.udp_encapsulation
    payloads: tuple[Payload, ...] = (Notify(NotifyType.UPDATE_SA_ADDRESSES), *_detection(sa))
    if sa.connection.no_nats:
        payloads += (_no_nats(sa),)
    cookie = Notify(NotifyType.COOKIE2, sa.shared.random(COOKIE2_OCTETS))
    reply = await sa.request(INFORMATIONAL, (*payloads, cookie))
    returned = reply.notify(NotifyType.COOKIE2)
    if returned is None or not hmac.compare_digest(returned.value, cookie.value):
        sa.terminate(PeerError("the peer did not return COOKIE2: somebody answers in its place"))
        return
    refusal = reply.notify(NotifyType.UNACCEPTABLE_ADDRESSES) or reply.notify(NotifyType.UNEXPECTED_NAT_DETECTED)
    if refusal is not None:
        sa.report(
            events.Refused(
                sa.local,
                sa.remote,
                NegotiationFailed(
                    f"the peer does not accept our new address {sa.local.host} ({refusal.type.name})",
                    notify=int(refusal.type),
                    remedy="use another network, or allow this address on the gateway",
                ),
            )
        )
        return
    if (sa.local, sa.remote) != path:
        sa.driver.enqueue(Task("update-addresses", update_addresses_again, again=True), first=True)
        return
    adopt_findings(sa, nat.find_nat(reply, sa.local, sa.remote))
    if moved or sa.udp_encapsulation != encapsulated:
        sa.set_path(sa.local, sa.remote)


async def update_mapping(sa: IkeSa) -> None:
    """Only a NAT's mapping is another: the peer has to send elsewhere, and nothing changes for us."""
    await update_addresses(sa, moved=False)


async def update_addresses_again(sa: IkeSa) -> None:
    """The path changed once more while the peer answered (section 3.5)."""
    await update_addresses(sa)


def try_another_path(sa: IkeSa) -> bool:
    """Nobody answers: is there another address of the peer's to try (section 3.6)? True when one is tried."""
    if not (sa.mobike and sa.is_mobike_initiator and sa.untried_addresses and sa.state is not IkeState.DELETING):
        return False
    host = sa.untried_addresses.pop(0)
    if (":" in host) != sa.local.is_ipv6:
        return try_another_path(sa)
    move(sa, sa.local, Address(host, sa.remote.port))
    return True


def probe(sa: IkeSa) -> tuple[Payload, ...]:
    """What a liveness check of the initiator carries, to notice a new NAT mapping (section 3.8)."""
    return _detection(sa) if sa.mobike and sa.is_mobike_initiator and sa.nat.self_behind_nat else ()


def judge_probe(sa: IkeSa, reply: Message) -> None:
    """The peer sees us elsewhere than before: a NAT has changed its mapping, and ESP to us goes to the old one.

    It seems so on an IKE SA that was rekeyed too, whose SPIs are in the hash: whether it is so cannot be told, and the
    update does no harm."""
    findings = nat.find_nat(reply, sa.local, sa.remote)
    if probe(sa) and findings.supported and findings.destination != sa.nat.destination:
        sa.driver.enqueue(Task("update-addresses", update_mapping, again=True), first=True)


def adopt_findings(sa: IkeSa, findings: nat.NatFindings) -> None:
    """NATs on the new path: with or without UDP encapsulation from now on."""
    if findings.supported:
        sa.nat = findings
        sa.udp_encapsulation = findings.any or sa.pretends_nat
        if sa.is_alive:
            lifetimes.keep_mapping(sa)


# --- responder --------------------------------------------------------------------------------------------------------


async def respond(sa: IkeSa, message: Message) -> tuple[Payload, ...]:
    """Answer the MOBIKE notifies of an INFORMATIONAL request; empty where there are none."""
    payloads: list[Payload] = []
    cookie = message.notify(NotifyType.COOKIE2)
    if sa.mobike:
        _learn_addresses(sa, message)
        refused = _unexpected_nat(sa, message)
        if refused is not None:
            payloads.append(refused)
        else:
            payloads += _follow(sa, message)
    if cookie is not None:
        payloads.append(cookie)
    return tuple(payloads)


def _follow(sa: IkeSa, message: Message) -> tuple[Payload, ...]:
    findings = nat.find_nat(message, *sa.last_path)
    update = message.notify(NotifyType.UPDATE_SA_ADDRESSES) is not None and not sa.is_mobike_initiator
    # In a wide window an older one may come later; the latest one counts (section 3.5).
    if update and message.message_id > sa.latest_update:
        sa.latest_update = message.message_id
        local, remote = sa.last_path
        before = sa.local, sa.remote, sa.udp_encapsulation
        adopt_findings(sa, findings)
        if (local, remote, sa.udp_encapsulation) != before:
            sa.set_path(local, remote)
            sa.driver.enqueue(Task("return-routability", check_return, again=True))
    return _detection(sa, *sa.last_path) if findings.supported else ()


def _unexpected_nat(sa: IkeSa, message: Message) -> Notify | None:
    """NO_NATS_ALLOWED (section 3.9): the addresses within must be those of the datagram."""
    notify = message.notify(NotifyType.NO_NATS_ALLOWED)
    if notify is None:
        return None
    local, remote = sa.last_path
    seen = _packed(remote) + _packed(local)
    ports = remote.port.to_bytes(2, "big") + local.port.to_bytes(2, "big")
    return None if notify.value == seen + ports else Notify(NotifyType.UNEXPECTED_NAT_DETECTED)


def _no_nats(sa: IkeSa) -> Notify:
    ports = sa.local.port.to_bytes(2, "big") + sa.remote.port.to_bytes(2, "big")
    return Notify(NotifyType.NO_NATS_ALLOWED, _packed(sa.local) + _packed(sa.remote) + ports)


async def check_return(sa: IkeSa) -> None:
    """Does the peer answer at its new address (section 3.7)? No answer ends the SA, as any other request's would.

    The notifies of NAT detection are for libreswan, which returns COOKIE2 only beside them.
    """
    cookie = Notify(NotifyType.COOKIE2, sa.shared.random(COOKIE2_OCTETS))
    reply = await sa.request(INFORMATIONAL, (*_detection(sa), cookie))
    returned = reply.notify(NotifyType.COOKIE2)
    if returned is None or not hmac.compare_digest(returned.value, cookie.value):
        sa.terminate(PeerError("the peer did not return COOKIE2 at its new address"))


# --- both -------------------------------------------------------------------------------------------------------------


def _detection(sa: IkeSa, local: Address | None = None, remote: Address | None = None) -> tuple[Payload, ...]:
    return nat.detection_notifies(
        sa.channel.initiator_spi,
        sa.channel.responder_spi,
        local or sa.local,
        remote or sa.remote,
        pretend_nat=sa.shared.random if sa.pretends_nat else None,
    )


def _packed(address: Address) -> bytes:
    return ipaddress.ip_address(address.host).packed
