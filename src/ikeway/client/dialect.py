"""The dialect of a profile's gateway: `dialect` in [gateway], and the table with its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ikeway.auth.certificate import CertificateCredential
from ikeway.client.profile_model import ProfileFile
from ikeway.config.dialects import (
    ANYCONNECT_LOGIN,
    FORTIGATE_LOGIN,
    anyconnect_client,
    anyconnect_peer,
    client_options,
    complain_of_unused,
    fortigate_client,
    fortigate_options,
    fortigate_session,
    microsoft_client,
)
from ikeway.config.protocol import warnings_of
from ikeway.config.reading import Location, Problems
from ikeway.eap.method import PeerMethodFactory
from ikeway.eap.session import EapPeer
from ikeway.errors import ConfigError
from ikeway.ike.settings import Connection
from ikeway.wire.payloads import Proposal

if TYPE_CHECKING:
    from ikeway.config.dialects import NewPeer
    from ikeway.dialects import Dialect


def with_login_of_dialect(file: ProfileFile) -> ProfileFile:
    """The log-in of a profile that names none is that of its dialect."""
    if file.gateway.dialect != "anyconnect" or file.login.method:
        return file
    return file.model_copy(update={"login": file.login.model_copy(update={"method": (ANYCONNECT_LOGIN,)})})


def takes_told_routes(file: ProfileFile) -> bool:
    """True when the networks that the gateway names are all that goes through the tunnel: RFC 7296 section 3.15.2 leaves
    it to the client, the gateways of some dialects grant everything and count on it."""
    if "routes" in file.network.model_fields_set:
        return "told" in file.network.routes
    return file.gateway.dialect in ("anyconnect", "fortigate")


class ProfileDialect:
    """Makes what the dialect needs, and notes what does not go together."""

    def __init__(self, name: str, file: ProfileFile, problems: Problems) -> None:
        self._file = file
        self._problems = problems
        self._name = name
        self._options = None
        complain_of_unused(problems, ("gateway",), file.gateway, file.gateway.dialect)
        if file.gateway.dialect == "anyconnect":
            try:
                self._options = client_options(file.gateway.anyconnect, name)
            except ConfigError as error:
                problems.add_error(("gateway", "anyconnect", "host_scan"), error)

    def peer(
        self, at: Location, username: str, credential: CertificateCredential | None, *, has_certificate: bool
    ) -> PeerMethodFactory | None:
        """The user's side of the dialect's own EAP method; None after a problem was noted."""
        if self._file.gateway.dialect != "anyconnect":
            self._problems.add(
                (*at, "method"),
                f"{ANYCONNECT_LOGIN} belongs to a dialect that the profile does not speak",
                expected='dialect = "anyconnect" in [gateway]',
                remedy="add it",
            )
        elif not username and not has_certificate:
            self._problems.add(
                at,
                "there is nothing to log in with",
                expected="`username`, or a certificate, in [login]",
                remedy='add for example username = "alice"',
            )
        elif self._options is not None:
            return anyconnect_peer(self._options, username, credential)
        return None

    def has_second_factor(self, methods: Sequence[str]) -> bool:
        """True when the dialect may ask for a code after one of these methods, in its own way."""
        gateway = self._file.gateway
        return (
            gateway.dialect == "fortigate" and FORTIGATE_LOGIN in methods and gateway.fortigate.second_factor != "off"
        )

    def new_session(self, methods: Sequence[str]) -> NewPeer:
        """How the user's side of an EAP log-in by these methods is made."""
        if self._file.gateway.dialect == "fortigate" and FORTIGATE_LOGIN in methods:
            return fortigate_session(self._file.gateway.fortigate)
        return EapPeer

    def apply(self, connection: Connection) -> Connection:
        """The connection in the dialect."""
        dialect = self._dialect()
        if dialect is None:
            return connection
        from ikeway.dialects import for_client

        if dialect.identity is not None:  # the user's name is not who the client says it is
            connection = replace(connection, local_identity=self._file.login.identity)
        return for_client(dialect, self._with_proposals(dialect, connection))

    def warnings(self) -> list[str]:
        """Why what the dialect offers is weak, where the profile names nothing itself."""
        dialect = self._dialect()
        return [] if dialect is None else warnings_of((*self._ike(dialect), *self._esp(dialect)))

    def _dialect(self) -> Dialect | None:
        gateway = self._file.gateway
        match gateway.dialect:
            case "anyconnect":
                return anyconnect_client(self._options) if self._options is not None else None
            case "fortigate":
                user = self._file.login.username or ""
                return fortigate_client(fortigate_options(gateway.fortigate, self._name, user))
            case "windows" | "azure":
                return microsoft_client(gateway.dialect)
        return None

    def _ike(self, dialect: Dialect) -> tuple[Proposal, ...]:
        return () if "proposals" in self._file.ike.model_fields_set else dialect.ike_proposals

    def _esp(self, dialect: Dialect) -> tuple[Proposal, ...]:
        return () if "proposals" in self._file.esp.model_fields_set else dialect.esp_proposals

    def _with_proposals(self, dialect: Dialect, connection: Connection) -> Connection:
        """With what the dialect offers; a child SA that names its own keeps them."""
        ike, esp = self._ike(dialect), self._esp(dialect)
        own = {name for name, child in self._file.children.items() if "proposals" in child.model_fields_set}
        children = tuple(
            replace(child, proposals=esp) if esp and child.name not in own else child for child in connection.children
        )
        return replace(connection, ike_proposals=ike or connection.ike_proposals, children=children)
