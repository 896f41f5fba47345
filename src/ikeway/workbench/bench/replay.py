"""A recording played once more, as the same side, against a live peer.

The engine speaks, for keys and proofs belong to one session; a hook puts into each message what was in it then. Made anew
are: SA, KE, nonces, AUTH and what it covers (identities, certificates), traffic selectors, EAP of methods that are known,
NAT detection, cookies. From the recording come: vendor IDs, notifies, configuration, certificate requests, unknown payloads,
all in the order of then. What is held is answered as then (`FromRecording`).
"""

from __future__ import annotations

from collections.abc import Sequence

from ikeway.auth.identity import Identity
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
from ikeway.wire.registry import NotifyType
from ikeway.workbench.bench.hooks import Passing
from ikeway.workbench.recording import Recording

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
    """A hook (`on_message`) that says again what the recording's side said."""

    def __init__(self, recording: Recording) -> None:
        self._said: dict[tuple[int, bool, int], Message] = {}
        for each in recording.messages:
            if each.sent:  # of several sessions in one recording, the first
                self._said.setdefault(_key(each.message), each.message)

    @property
    def identity(self) -> Identity | None:
        """Who the side said it is."""
        for message in self._said.values():
            for payload in message.payloads:
                if isinstance(payload, IdResponder if message.is_response else IdInitiator):
                    return Identity.from_payload(payload)
        return None

    def __call__(self, m: Passing) -> None:
        """Make the message what it was then."""
        then = self._said.get(_key(m.message)) if m.sent else None
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
