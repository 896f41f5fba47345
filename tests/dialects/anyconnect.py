"""Clients and gateways of AnyConnect-EAP in memory, for tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from ikeway.auth.certificate import CertificateCredential, TrustStore
from ikeway.auth.identity import IdentityPattern
from ikeway.auth.path import Role
from ikeway.dialects import for_client, for_gateway, for_responder
from ikeway.dialects.anyconnect import dialect
from ikeway.dialects.anyconnect.options import ClientOptions, GatewayOptions
from ikeway.dialects.anyconnect.peer import AnyConnectPeer
from ikeway.eap.questions import (
    Granted,
    PasswordCheck,
    PasswordQuestion,
    Prompt,
    Refused,
    Wanted,
)
from ikeway.eap.session import EapPeer
from ikeway.ike.questions import AssignAddresses
from ikeway.ike.settings import CertificateExpected, EapCredential, EapExpected, ResponderSettings
from ikeway.questions import CurrentTime
from ikeway.wire.payloads import ConfigurationAttribute
from ikeway.wire.registry import ConfigurationAttributeType as Attribute
from tests.auth.pki import NOW, root, rsa_key
from tests.ike.pair import IKE, Pair, connection, connection_b

REQUEST = (ConfigurationAttribute(Attribute.INTERNAL_IP4_ADDRESS),)
REPLY = (ConfigurationAttribute(Attribute.INTERNAL_IP4_ADDRESS, b"\x0a\x00\x00\x07"),)
USERS = {b"alice": b"wonderland", b"bob": b"builder"}
CODE = b"123456"


@dataclass(frozen=True)
class Pki:
    """A CA, the gateway's certificate, and alice's."""

    trust: TrustStore
    gateway: CertificateCredential
    alice: CertificateCredential
    stranger: CertificateCredential


@cache
def pki() -> Pki:
    ca, other = root(), root("Other")
    gateway = ca.issue("b.example", key=rsa_key(), alternatives=("dns:b.example",))
    alice = ca.issue("alice", key=rsa_key(), alternatives=("email:alice@example.com",))
    stranger = other.issue("alice", key=rsa_key(), alternatives=("email:alice@example.com",))
    return Pki(
        TrustStore((ca.certificate,)),
        CertificateCredential((gateway.certificate,), gateway.key),
        CertificateCredential((alice.certificate, ca.certificate), alice.key),
        CertificateCredential((stranger.certificate,), stranger.key),
    )


class ClientTrust:
    """Judges clients' certificates."""

    def __init__(self, store: TrustStore) -> None:
        self._store = store
        self.anchors = store.anchors

    def judge(self, chain, when) -> None:
        self._store.verify(chain, None, when, Role.INITIATOR)

    def name(self, certificate, claimed: bytes) -> bytes:
        return claimed if claimed in (b"alice", b"alice@example.com") else b"alice@example.com"


def answer_user(password: str = "wonderland", code: str = "123456"):
    """Who types at the client."""

    def answer(question: PasswordQuestion) -> str | None:
        return {Wanted.PASSWORD: password, Wanted.CODE: code, Wanted.NEW_PASSWORD: "a new one"}[question.wanted]

    return answer


def check(question: PasswordCheck):
    """What the gateway knows: passwords, and that CODE is right; carol has a second factor."""
    if question.wanted is Wanted.CODE:
        return Granted() if question.answer == CODE else Refused("a wrong code")
    if question.identity == b"carol" and question.answer == b"second":
        return Prompt("Code: ", state="proven")
    return Granted() if USERS.get(question.identity) == question.answer else Refused("another password")


def pair(
    client: ClientOptions | None = None,
    gateway: GatewayOptions | None = None,
    *,
    username: str = "alice",
    credential: CertificateCredential | None = None,
    password: str = "wonderland",
    code: str = "123456",
    fragment_size: int = 1280,
    standard_fragments: bool = True,
    peer: Any = None,
    proposals: Any = IKE,
    **changes: Any,
) -> Pair:
    """Our client and our gateway, with everything around them in memory."""
    ours, theirs = pki(), gateway or GatewayOptions()
    mine = client or ClientOptions()
    make = peer or (lambda: AnyConnectPeer(mine, username, credential))
    spoken, heard = dialect.client(mine), dialect.gateway(theirs)
    a = for_client(
        spoken,
        connection(
            local_identity=None,
            local_credential=EapCredential(lambda ask: EapPeer(ask, username.encode(), [make])),
            remote_expectation=CertificateExpected(ours.trust),
            request_configuration=REQUEST,
            fragment_size=fragment_size,
            ike_proposals=proposals,
        ),
    )
    source: list[Any] = []
    b = for_gateway(
        heard,
        connection_b(
            local_credential=ours.gateway,
            remote_identity=None,
            remote_expectation=EapExpected(
                dialect.new_authenticator(theirs, lambda n: source[0](n), ClientTrust(ours.trust))
            ),
            fragment_size=fragment_size,
            ike_proposals=proposals,
        ),
    )
    responder = for_responder(
        [heard],
        ResponderSettings(ike_proposals=proposals, cookie_threshold=1000, fragmentation=standard_fragments),
    )
    made = Pair(a, b, responder=responder, epoch=NOW, **changes)
    source.append(made.source.randbytes)
    made.a.answers[PasswordQuestion] = answer_user(password, code)
    made.b.answers |= {PasswordCheck: check, CurrentTime: lambda question: NOW, AssignAddresses: lambda question: REPLY}
    return made


def without_dialect(made: Pair) -> Pair:
    """The client without what its dialect adds."""
    made.a.connection = replace(made.a.connection, interception=None, own_fragmentation=None)
    return made


ANYBODY = IdentityPattern.ANY
