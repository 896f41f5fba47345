"""What a peer says in IKE_SA_INIT of what it can do, and wants to see."""

from __future__ import annotations

from dataclasses import dataclass

from ikeway.wire.message import Message
from ikeway.wire.payloads import CertificateRequest, VendorId
from ikeway.wire.registry import HashAlgorithm, NotifyType


@dataclass(frozen=True, slots=True)
class Abilities:
    """The notifies that announce something, the vendor IDs in their order, and whether there was a CERTREQ."""

    hashes: frozenset[HashAlgorithm] | None = None  # RFC 7427 section 4; None: it does not know of these
    fragments: bool = False  # RFC 7383
    childless: bool = False  # RFC 6023
    multiple_auth: bool = False  # RFC 4739
    wants_certificate: bool = False
    vendor_ids: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, message: Message) -> Abilities:
        """Those of who sent this message."""
        return cls(
            hashes=_hashes(message),
            fragments=message.notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED) is not None,
            childless=message.notify(NotifyType.CHILDLESS_IKEV2_SUPPORTED) is not None,
            multiple_auth=message.notify(NotifyType.MULTIPLE_AUTH_SUPPORTED) is not None,
            wants_certificate=message.find(CertificateRequest) is not None,
            vendor_ids=tuple(payload.value for payload in message.find_all(VendorId)),
        )


def _hashes(message: Message) -> frozenset[HashAlgorithm] | None:
    notify = message.notify(NotifyType.SIGNATURE_HASH_ALGORITHMS)
    if notify is None:
        return None
    numbers = {int.from_bytes(notify.value[at : at + 2], "big") for at in range(0, len(notify.value) - 1, 2)}
    # Only those that have a name: a stranger may send thousands, and they are kept.
    return frozenset(known for known in HashAlgorithm if known in numbers)
