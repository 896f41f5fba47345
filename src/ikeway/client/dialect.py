"""The dialect of a profile's gateway: `dialect` in [gateway], and the table with its settings."""

from __future__ import annotations

from dataclasses import replace

from ikeway.auth.certificate import CertificateCredential
from ikeway.client.profile_model import ProfileFile
from ikeway.config.dialects import (
    ANYCONNECT_LOGIN,
    anyconnect_peer,
    client_dialect,
    client_options,
    complain_of_unused,
)
from ikeway.config.reading import Location, Problems
from ikeway.eap.method import PeerMethodFactory
from ikeway.errors import ConfigError
from ikeway.ike.settings import Connection


def with_login_of_dialect(file: ProfileFile) -> ProfileFile:
    """The log-in of a profile that names none is that of its dialect."""
    if file.gateway.dialect != "anyconnect" or file.login.method:
        return file
    return file.model_copy(update={"login": file.login.model_copy(update={"method": (ANYCONNECT_LOGIN,)})})


class ProfileDialect:
    """Makes what the dialect needs, and notes what does not go together."""

    def __init__(self, name: str, file: ProfileFile, problems: Problems) -> None:
        self._file = file
        self._problems = problems
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

    def apply(self, connection: Connection) -> Connection:
        """The connection in the dialect."""
        if self._options is None:
            return connection
        from ikeway.dialects import for_client

        identity = self._file.login.identity  # the user's name is not who the client says it is
        return for_client(client_dialect(self._options), replace(connection, local_identity=identity))
