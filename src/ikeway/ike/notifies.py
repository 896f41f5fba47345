"""Error notifies in words: what each means, and who has to change what (RFC 7296 section 3.10.1)."""

from __future__ import annotations

from ikeway.errors import AuthenticationFailed, NegotiationFailed, PeerError, ProtocolViolation, Side
from ikeway.wire.message import Message
from ikeway.wire.payloads import Notify
from ikeway.wire.registry import NotifyType

_MEANING: dict[int, tuple[type[PeerError], str, str]] = {
    NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD: (
        ProtocolViolation,
        "a payload of ours that it must understand is unknown to it",
        "",
    ),
    NotifyType.INVALID_SYNTAX: (ProtocolViolation, "it could not read our message", "look at the peer's log"),
    NotifyType.INVALID_MAJOR_VERSION: (NegotiationFailed, "it does not speak IKEv2", "switch IKEv2 on at the peer"),
    NotifyType.NO_PROPOSAL_CHOSEN: (
        NegotiationFailed,
        "none of our proposals is acceptable to it (or it has no connection for our address)",
        "name a proposal that the peer accepts, and see that the peer has a connection for this address",
    ),
    NotifyType.INVALID_KE_PAYLOAD: (
        NegotiationFailed,
        "it wants another key exchange method",
        "give both sides one in common",
    ),
    NotifyType.AUTHENTICATION_FAILED: (
        AuthenticationFailed,
        "it did not accept our identity or our proof of it (it never says which)",
        "check our identity, the secret, password or certificate, and the identity that we expect of the peer",
    ),
    NotifyType.SINGLE_PAIR_REQUIRED: (
        NegotiationFailed,
        "it makes child SAs for single pairs of addresses only",
        "name one local and one remote address as traffic selectors",
    ),
    NotifyType.NO_ADDITIONAL_SAS: (NegotiationFailed, "it takes no more child SAs", "use fewer child SAs"),
    NotifyType.INTERNAL_ADDRESS_FAILURE: (
        NegotiationFailed,
        "it has no address to give (its pool is full or has none of the kind asked for)",
        "enlarge the address pool of the gateway, or ask for the kind of address that it has",
    ),
    NotifyType.FAILED_CP_REQUIRED: (
        NegotiationFailed,
        "it insists on giving out an address and we asked for none",
        "request a virtual address",
    ),
    NotifyType.TS_UNACCEPTABLE: (
        NegotiationFailed,
        "it has no traffic selectors in common with ours",
        "make the subnets (traffic selectors) of both sides overlap",
    ),
    NotifyType.INVALID_SELECTORS: (ProtocolViolation, "it got packets that do not match the selectors", ""),
    NotifyType.TEMPORARY_FAILURE: (NegotiationFailed, "it is busy with another change of the same SA", ""),
    NotifyType.CHILD_SA_NOT_FOUND: (NegotiationFailed, "it does not have the child SA", ""),
}


def failure_of(message: Message) -> Notify | None:
    """The first error notify of a message."""
    for notify in message.find_all(Notify):
        if notify.type.is_error:
            return notify
    return None


def error_from(notify: Notify, context: str) -> PeerError:
    """The error that a received notify stands for."""
    name = NotifyType(notify.type).name
    kind, meaning, remedy = _MEANING.get(int(notify.type), (PeerError, "a reason of its own", "look at the peer's log"))
    return kind(f"{context} with {name}: {meaning}", notify=int(notify.type), side=Side.BOTH, remedy=remedy)


def told(error: PeerError) -> PeerError:
    """Mark an error that the peer told us itself: it need not be told back."""
    error.told_by_peer = True
    return error
