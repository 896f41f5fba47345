"""A recording played once more, as either side of it, against a live peer.

The engine speaks, for keys and proofs belong to one session; a hook puts into each message what was in it then. Made anew
are: SA, KE, nonces, AUTH and what it covers (identities, certificates), traffic selectors, EAP of methods that are known,
NAT detection, cookies. From the recording come: vendor IDs, notifies, configuration, certificate requests, unknown payloads,
all in the order of then. What is held is answered as then (`FromRecording`).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import TypeVar

from ikeway.auth.identity import Identity
from ikeway.errors import ConfigError
from ikeway.wire.message import Message
from ikeway.wire.payloads import (
    CertificateRequest,
    Configuration,
    IdInitiator,
    IdResponder,
    Notify,
    Payload,
    UnknownPayload,
    VendorId,
)
from ikeway.wire.registry import ConfigurationAttributeType, NotifyType
from ikeway.workbench.bench.hooks import Passing
from ikeway.workbench.recording import Recording

P = TypeVar("P", bound=Payload)
_OF_NOW = frozenset(
    {
        NotifyType.NAT_DETECTION_SOURCE_IP,
        NotifyType.NAT_DETECTION_DESTINATION_IP,
        NotifyType.COOKIE,
        NotifyType.COOKIE2,
        NotifyType.REKEY_SA,
        NotifyType.INVALID_KE_PAYLOAD,
    }
)


class Replay:
    """A hook (`on_message`) that says again what one side of a recording said. Raises `ConfigError` when that side is not
    in it."""

    def __init__(self, recording: Recording, *, initiator: bool) -> None:
        said = recording.said_by(initiator=initiator)
        if not said:
            raise ConfigError(
                f"nobody in this recording speaks as the {'client' if initiator else 'gateway'}",
                remedy="name a recording of a session with one",
            )
        # The last of several answers to IKE_SA_INIT is the one that the session went on with.
        self._said: dict[tuple[int, bool, int], Message] = {_key(each): each for each in said}
        self._initiator = initiator

    @property
    def identity(self) -> Identity | None:
        """Who the side said it is."""
        payload: IdInitiator | IdResponder | None
        if self._initiator:
            payload = self._first(IdInitiator, response=False)
        else:
            payload = self._first(IdResponder, response=True)
        return Identity.from_payload(payload) if payload is not None else None

    @property
    def address(self) -> IPv4Address | None:
        """The address that the gateway gave the client: traffic selectors are made for it."""
        configuration = self._first(Configuration, response=True)
        attributes = configuration.attributes if configuration is not None else ()
        given = (each.value for each in attributes if each.type == ConfigurationAttributeType.INTERNAL_IP4_ADDRESS)
        return next((IPv4Address(value) for value in given if len(value) == 4), None)

    def _first(self, kind: type[P], *, response: bool) -> P | None:
        found = (each.find(kind) for each in self._said.values() if each.is_response is response)
        return next((each for each in found if each is not None), None)

    def __call__(self, m: Passing) -> None:
        """Make the message what it was then."""
        then = self._said.get(_key(m.message)) if m.sent and m.message.is_initiator is self._initiator else None
        # An error of now is an error, whatever was said then.
        failed = any(isinstance(each, Notify) and each.type.is_error for each in m.payloads)
        if then is None or failed:
            return
        m.payloads[:] = merged(m.payloads, then.payloads)


def merged(now: Sequence[Payload], then: Sequence[Payload]) -> list[Payload]:
    """The payloads of then, in their order; those that belong to one session are those of now. What only the session of
    now has comes last."""
    left = [each for each in now if not _is_replayed(each)]
    result: list[Payload] = []
    for payload in then:
        if _is_replayed(payload):
            result.append(payload)
            continue
        found = next((each for each in left if _same_place(each, payload)), None)
        if found is not None:
            left.remove(found)
            result.append(found)
        elif isinstance(payload, IdResponder):  # whom the client looks for: AUTH does not cover it
            result.append(payload)
    return result + left


def _is_replayed(payload: Payload) -> bool:
    if isinstance(payload, Notify):
        return payload.type not in _OF_NOW and not payload.type.is_error
    return isinstance(payload, VendorId | Configuration | CertificateRequest | UnknownPayload)


def _same_place(one: Payload, other: Payload) -> bool:
    if isinstance(one, Notify) and isinstance(other, Notify):
        return one.type == other.type
    return type(one) is type(other)


def _key(message: Message) -> tuple[int, bool, int]:
    return int(message.exchange_type), message.is_response, message.message_id
