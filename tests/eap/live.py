"""What log-ins with programs of others need: a CA that is valid today, in files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ikeway.auth.certificate import TrustStore
from ikeway.auth.identity import IdentityPattern
from ikeway.auth.path import Role
from ikeway.auth.tls_trust import TlsTrust, tls_identity
from ikeway.eap.questions import Granted, PasswordCheck, PasswordQuestion, Refused, SecretQuestion
from ikeway.eap.tunnel.channel import Endpoint, TlsVersion
from ikeway.questions import CurrentTime
from tests.auth.pki import Node, root
from tests.eap.conversations import Asker
from tests.eap.tunnel.parties import TLS_CLIENT, TLS_SERVER, credential

SERVER, CLIENT = "radius.example.org", "alice@example.org"
USER, PASSWORD = "alice", "correct horse"


@dataclass(frozen=True)
class Authority:
    """A CA with a server and a client, valid from yesterday for a month."""

    ca: Node
    server: Node
    client: Node

    def write(self, folder: Path) -> None:
        """ca.pem, server.pem, server.key, client.pem, client.key."""
        (folder / "ca.pem").write_bytes(pem(self.ca))
        for name, node in (("server", self.server), ("client", self.client)):
            (folder / f"{name}.pem").write_bytes(pem(node))
            key = folder / f"{name}.key"
            key.touch(0o600)
            key.write_bytes(node.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))


def pem(node: Node) -> bytes:
    return node.certificate.public_bytes(Encoding.PEM)


def make_authority(name: str = "Live EAP Root") -> Authority:
    now = datetime.now(UTC)
    times: Any = {"start": now - timedelta(days=1), "end": now + timedelta(days=30)}
    ca = root(name, uses=("key_cert_sign", "crl_sign"), **times)
    server = ca.issue("server", alternatives=(f"dns:{SERVER}",), extended=(TLS_SERVER,), **times)
    client = ca.issue("alice", alternatives=(f"email:{CLIENT}",), extended=(TLS_CLIENT,), **times)
    return Authority(ca, server, client)


authority = cache(make_authority)


def trust(role: Role, *names: str, anchor: Node | None = None) -> TlsTrust:
    store = TrustStore(((anchor or authority().ca).certificate,))
    return TlsTrust(store, tuple(map(IdentityPattern.parse, names)), role)


def client_end(
    version: TlsVersion | None = None,
    *,
    certificate: bool = False,
    node: Node | None = None,
    judge: TlsTrust | None = None,
) -> Endpoint:
    versions: Any = {} if version is None else {"minimum": version, "maximum": version}
    node = authority().client if certificate else node
    own = tls_identity(credential(node)) if node is not None else None
    return Endpoint(is_server=False, trust=judge or trust(Role.RESPONDER, SERVER), own=own, **versions)


def server_end(*, clients: bool = False, node: Node | None = None, **options: Any) -> Endpoint:
    own = tls_identity(credential(node or authority().server))
    return Endpoint(is_server=True, trust=trust(Role.INITIATOR) if clients else None, own=own, **options)


def asker(password: str = PASSWORD) -> Asker:
    def answer(question: Any) -> Any:
        match question:
            case CurrentTime():
                return datetime.now(UTC)
            case PasswordQuestion():
                return password
            case SecretQuestion():
                return PASSWORD if question.identity == USER.encode() else None
            case PasswordCheck():
                right = question.identity == USER.encode() and question.answer == PASSWORD.encode()
                return Granted() if right else Refused("wrong")
        raise AssertionError(question)

    return Asker(answer)
