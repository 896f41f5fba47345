"""What a method is to the session that carries it.

A method is an asynchronous generator: it yields what it sends and gets what the other side answered, so that it reads
like the diagram in its RFC; in between it may `await ask(question)`. Only the data behind the type octet goes in and
out; identifiers, types, NAKs and bounds are the session's. An `IkewayError` ends the session in failure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from typing import ClassVar

from ikeway.eap.packet import MethodType
from ikeway.errors import IkewayError
from ikeway.questions import Ask

Conversation = AsyncGenerator[bytes, bytes]


class EapPeerMethod(ABC):
    """The side that is authenticated. Made anew for each log-in."""

    type: ClassVar[MethodType]
    name: ClassVar[str]
    # True when the method also proves the server to us and gives a key, as RFC 5998 asks of methods used alone.
    mutual: ClassVar[bool] = False
    msk: bytes | None = None
    # Of the EAP packet in hand, and of the answer to it; set by the session.
    identifier: int = 0
    # True when an EAP-Success may follow now; a Success that comes earlier is refused.
    may_succeed: bool = False

    @abstractmethod
    def run(self, request: bytes, ask: Ask) -> Conversation:
        """Answer the first request and all that follow: yields responses, gets requests.

        To fail, either raise, or set `may_succeed` False and yield the last response: the server's EAP-Failure is
        then explained by `failure_reason`.
        """
        raise NotImplementedError

    def failure_reason(self) -> IkewayError | None:
        """What the method knows of why EAP-Failure came; None when it knows nothing."""
        return None

    def on_success(self) -> None:  # noqa: B027 - few have something to do
        """EAP-Success has come, and may: what is good for a later log-in can be kept."""


class EapAuthenticatorMethod(ABC):
    """The side that authenticates. Made anew for each log-in, once the identity is known."""

    type: ClassVar[MethodType]
    name: ClassVar[str]
    # As of the peer: it proves us too and gives a key, so that it may be used alone (RFC 5998).
    mutual: ClassVar[bool] = False
    msk: bytes | None = None
    # Of the EAP response in hand; set by the session. The request that follows has the next one, modulo 256.
    identifier: int = 0
    # Who was authenticated, when the method says it better than EAP-Identity did.
    identity: bytes | None = None
    # What speaks against the peer while its answer is awaited: why the log-in failed, should it leave without one.
    doubt: IkewayError | None = None

    @abstractmethod
    def run(self, identity: bytes, ask: Ask) -> Conversation:
        """Yield requests, get responses; return when the peer is authenticated, raise EapFailed when it is not."""
        raise NotImplementedError


PeerMethodFactory = Callable[[], EapPeerMethod]
AuthenticatorMethodFactory = Callable[[], EapAuthenticatorMethod]
