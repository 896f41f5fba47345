"""What an authenticator is to the exchange that carries EAP (RFC 7296 section 2.16), whoever judges the peer:
methods of our own (`EapAuthenticator`) or a server elsewhere (`EapRelay`)."""

from __future__ import annotations

from typing import Protocol

from ikeway.errors import IkewayError


class Authenticator(Protocol):
    """The side that authenticates, for one log-in. Nothing that the peer or an answer does makes it raise."""

    succeeded: bool
    failed: bool
    error: IkewayError | None  # why it failed, for the log and never for the peer

    @property
    def reason(self) -> str:
        """Why it failed; empty as long as it has not."""
        ...

    @property
    def identity(self) -> bytes | None:
        """Who was authenticated; before success, who the peer says it is."""
        ...

    @property
    def msk(self) -> bytes | None:
        """The key that the method gave, once it succeeded; None when it gives none."""
        ...

    @property
    def method(self) -> str:
        """The name of the method in use, empty before there is one."""
        ...

    def require_mutual(self) -> bool:
        """Let only methods succeed that prove us as well (RFC 5998). False when there are none; then nothing changes.
        To be called before `start`."""
        ...

    async def start(self) -> bytes:
        """The first request."""
        ...

    async def receive(self, packet: bytes) -> bytes:
        """Take a response; returns the next request, or Success or Failure."""
        ...

    def abandon(self, error: IkewayError) -> IkewayError:
        """The peer left in the middle, or `error` happened; returns why the log-in failed."""
        ...
