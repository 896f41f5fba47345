"""AnyConnect as a dialect: what its client and its gateway add to IKE around the EAP method."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ikeway.dialects.anyconnect import unity
from ikeway.dialects.anyconnect.authenticator import AnyConnectAuthenticator
from ikeway.dialects.anyconnect.binding import hash_for
from ikeway.dialects.anyconnect.fragments import CiscoFragmentation
from ikeway.dialects.anyconnect.options import (
    ANYCONNECT_EAP,
    FRAGMENTATION,
    IDENTITY,
    ClientOptions,
    CommonOptions,
    GatewayOptions,
)
from ikeway.dialects.interface import Dialect, Random
from ikeway.eap.session import EapAuthenticator
from ikeway.eap.tunnel.trust import PeerTrust
from ikeway.questions import Ask
from ikeway.wire.payloads import Payload, VendorId

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

_AUTH_VENDOR_ID_OCTETS = 20
FIRST_IDENTIFIER = 1


def client(options: ClientOptions) -> Dialect:
    """For the initiator."""
    return Dialect(
        name="anyconnect",
        vendor_ids=options.vendor_ids,
        identity=options.identity,
        auth_payloads=_auth_payloads(options),
        requests=unity.REQUESTS,
        read_reply=unity.read_reply,
        fragmentation=lambda: CiscoFragmentation(goes_first=options.fragments == "cisco"),
        fragments_with=lambda vendor_ids: FRAGMENTATION in options.vendor_ids and FRAGMENTATION in vendor_ids,
        sends_idr=False,
        any_certificate_name=True,
    )


def gateway(options: GatewayOptions) -> Dialect:
    """For the responder. It shows its vendor IDs to AnyConnect clients only."""

    def is_spoken_by(vendor_ids: Sequence[bytes]) -> bool:
        return ANYCONNECT_EAP in vendor_ids

    return Dialect(
        name="anyconnect",
        vendor_ids=options.vendor_ids,
        is_spoken_by=is_spoken_by,
        claims=options.are_those_of,
        auth_payloads=_auth_payloads(options),
        replies=unity.encode(
            banner=options.banner,
            default_domain=options.default_domain,
            split_dns=options.split_dns,
            split_include=map(ipaddress.IPv4Network, options.split_include),
        ),
        fragmentation=lambda: CiscoFragmentation(goes_first=options.fragments == "cisco"),
        fragments_with=lambda vendor_ids: (
            FRAGMENTATION in options.vendor_ids and is_spoken_by(vendor_ids) and FRAGMENTATION in vendor_ids
        ),
        hash_of_method_1=lambda prf: hash_for(prf, options.signature_hash),
    )


def new_authenticator(
    options: GatewayOptions, random: Random, trust: PeerTrust | None = None
) -> Callable[[Ask], EapAuthenticator]:
    """Sessions of the gateway's side: without EAP-Identity, and the first request has the identifier 1."""
    return lambda ask: EapAuthenticator(
        ask,
        [lambda: AnyConnectAuthenticator(options, random, trust)],
        identity=IDENTITY,
        first_identifier=FIRST_IDENTIFIER,
    )


def _auth_payloads(options: CommonOptions) -> Callable[[IkeSa], tuple[Payload, ...]]:
    """The Vendor ID of the first IKE_AUTH message, whose meaning nobody has told."""
    octets = options.auth_vendor_id
    if octets is None:
        return lambda sa: ()
    return lambda sa: (VendorId(octets or sa.shared.random(_AUTH_VENDOR_ID_OCTETS)),)
