"""A CA, a server and a client for TLS in EAP, in memory, and both sides of a log-in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ikeway.auth.certificate import CertificateCredential, CertificatePolicy, TrustStore
from ikeway.auth.identity import IdentityPattern
from ikeway.auth.path import Role
from ikeway.auth.tls_trust import TlsTrust, tls_identity
from ikeway.eap.questions import Granted, PasswordCheck, PasswordQuestion, Refused, ResumptionQuestion, SecretQuestion
from ikeway.eap.tunnel.channel import Endpoint, TlsVersion
from ikeway.questions import CurrentTime
from tests.auth.pki import NOW, Node, root
from tests.eap.conversations import Asker

SERVER, CLIENT = "radius.example.org", "alice@example.org"
TLS_SERVER, TLS_CLIENT = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"
PASSWORD = "correct horse"
VERSIONS = (TlsVersion.TLS_1_2, TlsVersion.TLS_1_3)


@functools.cache
def authority() -> Node:
    return root("EAP Root")


@functools.cache
def server_node() -> Node:
    return authority().issue("server", alternatives=(f"dns:{SERVER}",), extended=(TLS_SERVER,))


@functools.cache
def client_node() -> Node:
    return authority().issue("alice", alternatives=(f"email:{CLIENT}",), extended=(TLS_CLIENT,))


def credential(node: Node, *others: Node) -> CertificateCredential:
    return CertificateCredential((node.certificate, *(other.certificate for other in others)), node.key)


def trust(role: Role, *names: str, anchor: Node | None = None, crls: Any = (), **policy: Any) -> TlsTrust:
    store = TrustStore(((anchor or authority()).certificate,), tuple(crls), policy=CertificatePolicy(**policy))
    return TlsTrust(store, tuple(map(IdentityPattern.parse, names)), role)


def client_end(
    version: TlsVersion | None = None, *, node: Node | None = None, judge: TlsTrust | None = None, **options: Any
) -> Endpoint:
    if version is not None:
        options.update(minimum=version, maximum=version)
    own = tls_identity(credential(node)) if node is not None else None
    return Endpoint(is_server=False, trust=judge or trust(Role.RESPONDER, SERVER), own=own, **options)


def server_end(
    *, node: Node | None = None, judge: TlsTrust | None = None, chain: tuple[Node, ...] = (), **options: Any
) -> Endpoint:
    return Endpoint(is_server=True, trust=judge, own=tls_identity(credential(node or server_node(), *chain)), **options)


def answers(password: str = PASSWORD, now: Any = NOW) -> Callable[[Any], Any]:
    """One set of answers for both sides."""

    def answer(question: Any) -> Any:
        match question:
            case CurrentTime():
                return now
            case PasswordQuestion():
                return password
            case SecretQuestion():
                return PASSWORD if question.identity == b"alice" else None
            case PasswordCheck():
                right = question.identity == b"alice" and question.answer == PASSWORD.encode()
                return Granted() if right else Refused("wrong")
            case ResumptionQuestion():
                return b"as before"
        raise AssertionError(question)

    return answer


def asker(password: str = PASSWORD, now: Any = NOW) -> Asker:
    return Asker(answers(password, now))
