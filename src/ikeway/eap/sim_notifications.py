"""Notifications and client errors of EAP-SIM and EAP-AKA: their codes, and the same in words (RFC 4186 sections 10.18 and
10.19, RFC 4187 sections 6.1, 10.19 and 10.20)."""

from __future__ import annotations

from ikeway.eap.errors import AccountRestricted, EapFailed
from ikeway.eap.sim_keys import SimFamily
from ikeway.errors import Side

SUCCESS_BIT, PHASE_BIT = 0x8000, 0x4000
GENERAL_FAILURE_AFTER = 0
USER_DENIED = 1026
NOT_SUBSCRIBED = 1031
GENERAL_FAILURE = 16384
SUCCESS = 32768
_NOTIFICATIONS = {
    GENERAL_FAILURE_AFTER: "a failure after the authentication",
    USER_DENIED: "this subscriber is denied the service for the time being",
    NOT_SUBSCRIBED: "this subscriber has no subscription to the service",
    GENERAL_FAILURE: "a failure of the authentication",
}

UNABLE_TO_PROCESS = 0
UNSUPPORTED_VERSION = 1
TOO_FEW_CHALLENGES = 2
RANDS_NOT_FRESH = 3
_CLIENT_ERRORS = {
    UNABLE_TO_PROCESS: "it could not process the packet: wrong keys are a common cause",
    UNSUPPORTED_VERSION: "it has no version of EAP-SIM that was offered",
    TOO_FEW_CHALLENGES: "it wants more challenges at once",
    RANDS_NOT_FRESH: "it has seen the challenges before",
}


def refused_by_server(family: SimFamily, code: int) -> EapFailed:
    """What a notification without the success bit means for the user."""
    words = _NOTIFICATIONS.get(code, "a failure that the standard has no word for")
    if code in (USER_DENIED, NOT_SUBSCRIBED):
        return AccountRestricted(
            f"the server refuses: {words}",
            got=f"notification {code} of {family.name}",
            remedy="have the operator of the server permit this subscriber",
        )
    return EapFailed(
        f"the server refuses: {words}",
        got=f"notification {code} of {family.name}",
        side=Side.BOTH,
        remedy="see that both sides have the same Ki and OPc for this subscriber, and what the server's log says",
    )


def refused_by_peer(family: SimFamily, code: int) -> EapFailed:
    """What a client error means for the operator."""
    words = _CLIENT_ERRORS.get(code, "for a reason that the standard has no word for")
    return EapFailed(
        f"the peer broke off {family.name}: {words}",
        expected="an answer",
        got=f"client error {code}",
        side=Side.BOTH,
        remedy="see that both sides have the same Ki and OPc for this subscriber",
    )
