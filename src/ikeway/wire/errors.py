"""What a decoder may raise besides a plain `WireError`: the two that RFC 7296 answers with a notify of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ikeway.errors import WireError
from ikeway.wire.registry import PayloadType

if TYPE_CHECKING:
    from ikeway.wire.message import Header


class UnsupportedVersion(WireError):
    """A message of another major version (RFC 7296 section 2.5). `version` is the major version.

    `header` is what stands at the places of the IKEv2 header, so that a later version can be answered with
    INVALID_MAJOR_VERSION.
    """

    def __init__(self, version: int, header: Header) -> None:
        super().__init__("a message of another IKE version", offset=17, expected="IKEv2", got=f"IKEv{version}")
        self.version = version
        self.header = header
        self.remedy = "use IKEv2" if version < 2 else "offer IKEv2 too"


class UnsupportedCriticalPayload(WireError):
    """A payload that we do not know and that the peer says must not be skipped (RFC 7296 section 2.5)."""

    def __init__(self, payload_type: PayloadType, *, offset: int = 0) -> None:
        super().__init__(
            "an unknown payload is marked critical", offset=offset, got=f"payload type {int(payload_type)}"
        )
        self.payload_type = payload_type
