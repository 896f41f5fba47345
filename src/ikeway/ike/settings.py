"""What a connection is allowed and expected to do: values, given to the engine from outside.

`Connection` is one whole agreement with a peer. The initiator starts from one; the responder chooses one when it
knows who is calling (the `SelectConnection` question).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ikeway.auth.certificate import CertificateCredential, TrustStore
from ikeway.auth.identity import Identity, IdentityPattern
from ikeway.eap.authenticator import Authenticator
from ikeway.eap.session import EapPeer
from ikeway.esp.parameters import EspLimits, Mode
from ikeway.ike.interception import Interception
from ikeway.ike.own_fragments import NewOwnFragmentation
from ikeway.ike.proposals import DEFAULT_ESP_PROPOSALS, DEFAULT_IKE_PROPOSALS
from ikeway.questions import Ask
from ikeway.wire.payloads import ConfigurationAttribute, Proposal, TrafficSelector
from ikeway.wire.registry import HashAlgorithm, PseudorandomFunction

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa


@dataclass(frozen=True, slots=True)
class PskCredential:
    """Authentication by a shared secret (RFC 7296 section 2.15). None: asked for with `PskQuestion`."""

    secret: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class EapCredential:
    """Authenticate ourselves by EAP (RFC 7296 section 2.16). `new_peer` makes the session for one log-in."""

    new_peer: Callable[[Ask], EapPeer]


@dataclass(frozen=True, slots=True)
class PskExpected:
    """The peer must prove that it knows the shared secret. None: asked for with `PskQuestion`."""

    secret: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CertificateExpected:
    """The peer must sign with a certificate that `trust` accepts and that carries its identity."""

    trust: TrustStore


@dataclass(frozen=True, slots=True)
class EapExpected:
    """The peer must pass EAP (responder only). `new_authenticator` makes the session for one log-in. `settles`: once it
    has passed, `SettleConnection` is asked, as who it is decides what it gets."""

    new_authenticator: Callable[[Ask], Authenticator]
    settles: bool = False


@dataclass(frozen=True, slots=True)
class EapOnlyExpected:
    """The responder need not authenticate but through a mutual EAP method (initiator only, RFC 5998)."""


LocalCredential = PskCredential | CertificateCredential | EapCredential
PeerExpectation = PskExpected | CertificateExpected | EapExpected | EapOnlyExpected


@dataclass(frozen=True, slots=True)
class FurtherCredential:
    """How we prove ourselves once more after the first time (RFC 4739). `identity` None: the certificate's, else the
    one of before."""

    credential: LocalCredential
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class FurtherExpectation:
    """What the peer must prove once more after the first time (RFC 4739). `identity` None: any that the proof is for.

    EAP after EAP must be of the same user: else two people's factors would make one log-in.
    """

    expectation: PeerExpectation
    identity: IdentityPattern | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retransmission:
    """First time-out in seconds, its growth, and tries after the first; 4 s * 1.8, 5 tries end after about 165 s."""

    first: float = 4.0
    factor: float = 1.8
    tries: int = 5
    limit: float = 90.0  # no single time-out is longer

    def timeout(self, sent: int) -> float | None:
        """Seconds to wait after sending for the `sent`-th time (1-based); None when the last wait is over."""
        return min(self.first * self.factor ** (sent - 1), self.limit) if sent <= self.tries + 1 else None

    @property
    def total(self) -> float:
        """Seconds from the first time it is sent to giving up."""
        return sum(self.timeout(sent) or 0.0 for sent in range(1, self.tries + 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSettings:
    """One child SA to be. Selectors: what we propose as initiator, the most we grant as responder.

    An empty `local_selectors` stands for the virtual address that the peer assigns to us (initiator) and an empty
    `remote_selectors` for the one we assign to the peer (responder).
    """

    name: str
    local_selectors: tuple[TrafficSelector, ...] = ()
    remote_selectors: tuple[TrafficSelector, ...] = ()
    proposals: tuple[Proposal, ...] = DEFAULT_ESP_PROPOSALS
    mode: Mode = Mode.TUNNEL
    single_pair: bool = False  # responder: grant one pair of addresses at a time only (SINGLE_PAIR_REQUIRED)
    rekey_seconds: float = 3600.0  # 0: never by time
    life_seconds: float = 0.0  # hard; 0: 1.1 times rekey_seconds, and a minute
    jitter: float = 0.1  # share of rekey_seconds taken off at random
    limits: EspLimits = EspLimits()
    replay_window: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """All that may be agreed with one peer."""

    name: str
    local_identity: Identity | None  # None: our outer address (or, with a certificate, its subject)
    local_credential: LocalCredential
    # None: any identity that the certificate or key proves is right. Initiator: also sent as IDr unless send_idr is off.
    remote_identity: IdentityPattern | None
    remote_expectation: PeerExpectation
    # RFC 4739: what follows the first of each side. All of it is demanded; the responder proves itself at most twice.
    further_credentials: tuple[FurtherCredential, ...] = ()
    further_expectations: tuple[FurtherExpectation, ...] = ()
    send_idr: bool = True
    any_certificate_name: bool = (
        False  # initiator: `remote_identity` may be another name of the certificate than IDr is
    )
    ike_proposals: tuple[Proposal, ...] = DEFAULT_IKE_PROPOSALS
    prefer_initiator_order: bool = False  # responder: walk through the initiator's proposals, not ours
    children: tuple[ChildSettings, ...] = ()
    childless: bool = False  # RFC 6023: no child SA in IKE_AUTH (responder: none is accepted there)
    # Initiator: configuration attributes to request (empty: no CFG_REQUEST).
    request_configuration: tuple[ConfigurationAttribute, ...] = ()
    # Responder: a CP request is required (FAILED_CP_REQUIRED); what to assign is the AssignAddress question.
    require_configuration_request: bool = False
    vendor_ids: tuple[bytes, ...] = ()
    fragment_size: int = 1280  # octets of an IP packet with an IKE fragment; 0: no RFC 7383
    own_fragmentation: NewOwnFragmentation | None = None  # a vendor's, beside RFC 7383 or in place of it
    mobike: bool = True
    additional_addresses: tuple[str, ...] = ()  # responder: our other outer addresses, for MOBIKE (RFC 4555, 3.6)
    no_nats: bool = False  # initiator: insist that no NAT changes our addresses (RFC 4555, 3.9)
    # ESP in UDP even without a NAT, by pretending one (a wrong NAT_DETECTION_SOURCE_IP). Off: IP protocol 50 there.
    force_udp_encapsulation: bool = False
    send_certificate_requests: bool = True
    # Of RSA signatures by method 1, which the RFC makes with SHA-1 (section 3.8); None: SHA-1.
    hash_of_method_1: Callable[[PseudorandomFunction], HashAlgorithm] | None = None
    always_send_certificate: bool = True  # even when no CERTREQ asked for it
    initial_contact: bool = True
    dpd_seconds: float = 30.0  # 0: off
    nat_keepalive_seconds: float = 20.0
    rekey_seconds: float = 14400.0  # IKE SA; 0: never
    life_seconds: float = 0.0  # hard; 0: 1.1 times rekey_seconds, and a minute
    reauthenticate_seconds: float = 0.0  # make-before-break; 0: never. Responder: what the initiator is asked for
    jitter: float = 0.1
    window: int = 1  # SET_WINDOW_SIZE that we announce
    retransmission: Retransmission = Retransmission()
    eap_max_rounds: int = 60
    interception: Interception | None = None  # sees every message of the IKE SA


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponderSettings:
    """What an engine needs before it knows who is calling (IKE_SA_INIT)."""

    ike_proposals: tuple[Proposal, ...] = DEFAULT_IKE_PROPOSALS
    prefer_initiator_order: bool = False
    vendor_ids: tuple[bytes, ...] = ()
    fragmentation: bool = True
    own_fragmentation: NewOwnFragmentation | None = None
    force_udp_encapsulation: bool = False
    childless: bool = True  # announce CHILDLESS_IKEV2_SUPPORTED
    multiple_auth: bool = False  # announce MULTIPLE_AUTH_SUPPORTED (RFC 4739): some connection needs it
    # CAs announced in CERTREQ: their SHA-1 key identifiers, concatenated.
    certificate_authorities: bytes = b""
    cookie_threshold: int = 32  # half-open SAs from which on a COOKIE is demanded; 0: always
    half_open_limit: int = 2000  # from then on requests are dropped
    half_open_per_address: int = 64  # the same for one address, or IPv6 /64; from half of it on a COOKIE is demanded
    half_open_seconds: float = 30.0
    interception: Interception | None = None  # until the connection is known, which has its own


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What does not depend on the peer. `responder` None: IKE_SA_INIT requests are dropped.

    `epoch` is the wall-clock time at `now == 0.0`; certificates are judged by it.
    """

    responder: ResponderSettings | None = None
    epoch: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    login_seconds: float = 150.0  # responder: for a log-in that has begun (people type passwords)
    reassembly_limit: int = 65536  # octets of one reassembled message
    ike_port: int = 500
    nat_port: int = 4500  # the peer's
    local_nat_port: int = 4500
    external_spis: bool = False  # ask `ReserveSpi` instead of choosing ESP SPIs at random
    # Bits of the ESP SPIs that we choose for an IKE SA, and what they have to be: they say which worker serves it.
    steer: Callable[[IkeSa], tuple[int, int]] = lambda sa: (0, 0)
    interception: Interception | None = None  # of all IKE SAs, next to the wire
    linger_seconds: float = 5.0  # how long a replaced inbound child SA still accepts what is on its way
