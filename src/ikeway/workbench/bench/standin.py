"""Which peer a bench stands in for: credentials out of a gateway's or a profile's file, or out of knobs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NoReturn

from cryptography import x509

from ikeway.auth.certificate import TrustStore
from ikeway.auth.errors import MalformedCertificate
from ikeway.auth.identity import Identity
from ikeway.auth.path import VerifiedPath
from ikeway.client.answers import attach
from ikeway.client.card import ClientCard
from ikeway.client.profile import Profile
from ikeway.client.secrets import ClientSecrets
from ikeway.config.secrets import Prompt
from ikeway.daemon.loop import Driver
from ikeway.dialects import Dialect, for_client, for_gateway, for_responder
from ikeway.eap.relay import PasswordRelay, RelayQuestion
from ikeway.eap.session import EapPeer
from ikeway.errors import AuthenticationFailed, Side
from ikeway.gateway.answers import GatewayAnswers
from ikeway.gateway.config import GatewayConfig
from ikeway.ike import events
from ikeway.ike.proposals import DEFAULT_ESP_PROPOSALS, DEFAULT_IKE_PROPOSALS
from ikeway.ike.questions import AssignAddresses, SelectConnection
from ikeway.ike.selectors import selector
from ikeway.ike.settings import (
    CertificateExpected,
    ChildSettings,
    Connection,
    EapCredential,
    PskCredential,
    PskExpected,
    ResponderSettings,
)
from ikeway.wire.payloads import ConfigurationAttribute, Proposal
from ikeway.wire.registry import ConfigurationAttributeType as Attribute
from ikeway.wire.registry import IdentificationType, NotifyType
from ikeway.workbench.bench.bench import PATIENT_SECONDS

EVERYWHERE = (selector("0.0.0.0/0"), selector("::/0"))
POOL = "192.0.2.1"  # a documentation address (RFC 5737): the stand-in has one client, and carries nothing
# Identities whose octets are what an EAP identity is made of.
_IN_WORDS = (IdentificationType.ID_FQDN, IdentificationType.ID_RFC822_ADDR, IdentificationType.ID_KEY_ID)
_WISHES = (Attribute.INTERNAL_IP4_ADDRESS, Attribute.INTERNAL_IP6_ADDRESS, Attribute.INTERNAL_IP4_DNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """What can be turned on the command line, over what a file says; None and empty leave it as it is."""

    identity: Identity | None = None
    remote_identity: Identity | None = None
    vendor_ids: tuple[bytes, ...] = ()
    ike_proposals: tuple[Proposal, ...] = ()
    send_idr: bool = True
    dialect: Dialect | None = None
    address: str = ""  # of the client of a gateway without a file

    def over(self, connection: Connection, *, serves: bool = False) -> Connection:
        """The connection with these turned; `serves`: it is a gateway's."""
        changes: dict[str, object] = {"send_idr": connection.send_idr and self.send_idr}
        if self.identity is not None:
            changes["local_identity"] = self.identity
        if self.remote_identity is not None:
            from ikeway.auth.identity import IdentityPattern

            changes["remote_identity"] = IdentityPattern.of(self.remote_identity)
        if self.vendor_ids:
            changes["vendor_ids"] = (*connection.vendor_ids, *self.vendor_ids)
        if self.ike_proposals:
            changes["ike_proposals"] = self.ike_proposals
        elif self.dialect is not None and self.dialect.ike_proposals and not serves and _is_usual(connection):
            changes["ike_proposals"] = self.dialect.ike_proposals
            children = [replace(each, proposals=self.dialect.esp_proposals) for each in connection.children]
            changes["children"] = tuple(children)
        turned = replace(connection, **changes)  # type: ignore[arg-type]
        if self.dialect is None:
            return turned
        return for_gateway(self.dialect, turned) if serves else for_client(self.dialect, turned)

    def over_responder(self, responder: ResponderSettings) -> ResponderSettings:
        """The responder with these turned, and patient."""
        if self.dialect is not None:
            responder = for_responder((self.dialect,), responder)
        return replace(
            responder,
            half_open_seconds=PATIENT_SECONDS,
            vendor_ids=(*responder.vendor_ids, *self.vendor_ids),
            ike_proposals=self.ike_proposals or responder.ike_proposals,
        )


def _is_usual(connection: Connection) -> bool:
    """Whether nobody has named other proposals than the usual ones: a vendor's may take their place."""
    children = all(each.proposals == DEFAULT_ESP_PROPOSALS for each in connection.children)
    return children and connection.ike_proposals == DEFAULT_IKE_PROPOSALS


@dataclass(slots=True)
class StandIn:
    """A gateway that takes whoever comes: one connection, any identity, one address for all."""

    connection: Connection
    settings: ResponderSettings
    address: str = POOL

    @property
    def responder(self) -> ResponderSettings:
        """How it answers strangers."""
        return self.settings

    def set_up(self, driver: Driver) -> None:
        """Answer the questions."""
        driver.answer_with(SelectConnection, self.select)
        driver.answer_with(AssignAddresses, self._assign)

    async def select(self, question: SelectConnection) -> Connection:
        """As whom the client looks for, unless we were told who we are."""
        wanted = self.connection.local_identity or question.responder_identity
        return replace(self.connection, local_identity=wanted)

    async def _assign(self, question: AssignAddresses) -> tuple[ConfigurationAttribute, ...]:
        import ipaddress

        asked = {each.type for each in question.requested}
        if Attribute.INTERNAL_IP4_ADDRESS not in asked:
            return ()
        return (ConfigurationAttribute(Attribute.INTERNAL_IP4_ADDRESS, ipaddress.ip_address(self.address).packed),)


def serve_psk(secret: bytes | None, knobs: Knobs | None = None) -> StandIn:
    """A stand-in gateway with a pre-shared key; without one it can only look at what comes."""
    turned = knobs or Knobs()
    connection = Connection(
        name="stand-in",
        local_identity=None,
        local_credential=PskCredential(secret or os.urandom(32)),
        remote_identity=None,
        remote_expectation=PskExpected(secret or os.urandom(32)),
        children=(ChildSettings(name="net", local_selectors=EVERYWHERE),),
        dpd_seconds=0.0,
        rekey_seconds=0.0,
    )
    return StandIn(
        turned.over(connection, serves=True),
        turned.over_responder(ResponderSettings(ike_proposals=DEFAULT_IKE_PROPOSALS)),
        turned.address or POOL,
    )


class GatewayStandIn:
    """A stand-in for the gateway of a configuration file: its connections, users, pools and dialects."""

    def __init__(self, config: GatewayConfig, knobs: Knobs | None = None) -> None:
        turned = knobs or Knobs()
        self._answers = GatewayAnswers(config)
        self._answers.serve_by(1)
        self._knobs = replace(turned, vendor_ids=())  # those of the responder are enough
        self._responder = turned.over_responder(config.responder)

    @property
    def responder(self) -> ResponderSettings:
        """How it answers strangers."""
        return self._responder

    def set_up(self, driver: Driver) -> None:
        """Answer the questions as the gateway would, but for those that RADIUS answers."""
        self._answers.attach(driver)
        driver.answer_with(RelayQuestion, _no_radius)
        driver.answer_with(PasswordRelay, _no_radius)
        driver.answer_with(SelectConnection, self.select)
        driver.listen(self._on_event)

    def _on_event(self, event: events.Event) -> None:
        match event:
            case events.PathChanged(sa=sa, remote=remote):
                self._answers.move(sa.connection_id, remote)
            case events.IkeClosed(sa=sa):
                self._answers.release(sa.connection_id)  # its address is somebody else's, or its own the next time

    async def select(self, question: SelectConnection) -> Connection:
        """Which connection of the file this client gets."""
        return self._knobs.over(await self._answers.select(question), serves=True)


async def _no_radius(question: RelayQuestion | PasswordRelay) -> NoReturn:
    raise AuthenticationFailed(
        "RADIUS servers judge this log-in, and a stand-in asks none: their records would tell of a session that is none",
        notify=NotifyType.AUTHENTICATION_FAILED,
        expected="a connection without `radius`",
        side=Side.LOCAL,
        remedy="take `radius` out of a copy of the file, and name `users` there; or hold the messages and answer them",
    )


@dataclass(slots=True)
class Caller:
    """A stand-in client; `connection` is what it connects with."""

    connection: Connection
    profile: Profile | None = field(default=None, repr=False)
    prompt: Prompt | None = None

    @property
    def responder(self) -> None:
        """It serves nobody."""
        return

    def set_up(self, driver: Driver) -> None:
        """Answer the questions."""
        if self.profile is not None:
            attach(driver, ClientSecrets(self.profile, self.prompt), ClientCard(self.profile))


def call_with_profile(profile: Profile, prompt: Prompt | None, knobs: Knobs | None = None) -> Caller:
    """A stand-in for the client of a profile, its dialect included."""
    return Caller((knobs or Knobs()).over(profile.connection()), profile, prompt)


def call_with_psk(secret: bytes, identity: Identity, knobs: Knobs | None = None) -> Caller:
    """A stand-in client with a pre-shared key."""
    return Caller(_call(PskCredential(secret), PskExpected(secret), identity, knobs))


def call_with_eap(identity: Identity, knobs: Knobs | None = None) -> Caller:
    """A stand-in client that asks to log in by EAP and knows no method but to say who it is: whatever the gateway wants
    is held. It believes any certificate, which is for looking at a gateway and for nothing else."""
    name = identity.value if identity.type in _IN_WORDS or not identity.type.is_known else str(identity).encode()
    credential = EapCredential(lambda ask: EapPeer(ask, name, ()))
    return Caller(_call(credential, CertificateExpected(_Anybody(())), identity, knobs))


def _call(
    credential: PskCredential | EapCredential,
    expectation: PskExpected | CertificateExpected,
    identity: Identity,
    knobs: Knobs | None,
) -> Connection:
    connection = Connection(
        name="stand-in",
        local_identity=identity,
        local_credential=credential,
        remote_identity=None,
        remote_expectation=expectation,
        request_configuration=tuple(map(ConfigurationAttribute, _WISHES)),
        children=(ChildSettings(name="net", remote_selectors=EVERYWHERE),),
        dpd_seconds=0.0,
        rekey_seconds=0.0,
    )
    return (knobs or Knobs()).over(connection)


class _Anybody(TrustStore):
    """Believes every certificate. What signs is still checked against it."""

    def verify(
        self, chain: Sequence[x509.Certificate], identity: Identity | None, when: datetime, role: object
    ) -> VerifiedPath:
        """Take the first for good, for a day."""
        if not chain:
            raise MalformedCertificate("the peer sent no certificate", remedy="set the peer to send it always")
        key = chain[0].public_key()
        return VerifiedPath(tuple(chain[:1]), key, when - timedelta(days=1), when + timedelta(days=1))  # type: ignore[arg-type]
