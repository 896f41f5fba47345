"""IKE SAs of a responder that nobody has authenticated yet: how many there may be, and when a cookie is due.

Theory of operation (RFC 7296 section 2.6, RFC 8019). Source addresses may be forged, so a few half-open SAs of one address
are enough to ask it for a cookie: whoever forges it gets no further, and its owner still has the other half of the
places. With a cookie the limit of the address counts, and the limit of all. An SA keeps its place until it is
authenticated or forgotten; a log-in that failed keeps it too while the SA answers duplicates, so that failing fast is no
way around the limits. IPv6 hosts have as many addresses as they like within their /64, which counts as one.
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
from collections import Counter
from typing import TYPE_CHECKING

from ikeway.address import Address
from ikeway.ike.settings import ResponderSettings

if TYPE_CHECKING:
    from ikeway.ike.sa import IkeSa

_IPV6_SITE_OCTETS = 8
_OTHERS = 4

Key = tuple[bytes, Address]
"""Initiator's SPI, and where from."""


class Admission(enum.Enum):
    """What a request for a new IKE SA meets."""

    FREE = "free"
    COOKIE = "cookie"  # admitted when it brings one
    FULL = "full"


class HalfOpen:
    """See the module."""

    def __init__(self) -> None:
        # An initiator may begin anew with another request; each stands by its digest.
        self._sas: dict[Key, dict[bytes, IkeSa]] = {}
        self._count = 0
        self._sources: Counter[bytes | str] = Counter()

    def __len__(self) -> int:
        return self._count

    def find(self, initiator_spi: bytes, remote: Address, request: bytes) -> IkeSa | None:
        """The SA that this very request has made."""
        found = self._sas.get((initiator_spi, remote)) if self._sas else None
        return found.get(_digest(request)) if found is not None else None

    def others(self, initiator_spi: bytes, remote: Address, nonce: bytes) -> list[IkeSa]:
        """SAs that other requests of this initiator with this nonce have made: few, however many there are."""
        found = self._sas.get((initiator_spi, remote), {}) if self._sas else {}
        return list({id(sa): sa for sa in found.values() if sa.nonce_initiator == nonce}.values())[:_OTHERS]

    def admission(self, settings: ResponderSettings, remote: Address) -> Admission:
        """Whether there is a place for one more."""
        of_source = self._sources[_source(remote)] if self._sources else 0
        if self._count >= settings.half_open_limit or of_source >= settings.half_open_per_address:
            return Admission.FULL
        if self._count >= settings.cookie_threshold or of_source >= max(settings.half_open_per_address // 2, 1):
            return Admission.COOKIE
        return Admission.FREE

    def add(self, sa: IkeSa, request: bytes) -> None:
        """Give it a place; or, when it has one, know it by another request too."""
        if sa.half_open_key is None:
            sa.half_open_key = (sa.channel.initiator_spi, sa.remote)
            self._count += 1
            self._sources[_source(sa.remote)] += 1
        self._sas.setdefault(sa.half_open_key, {})[_digest(request)] = sa

    def settle(self, sa: IkeSa, *, forgotten: bool) -> None:
        """Take the place back from an SA that needs it no longer."""
        key = sa.half_open_key
        if key is None or not (sa.established or forgotten):
            return
        sa.half_open_key = None
        self._sas[key] = {digest: other for digest, other in self._sas[key].items() if other is not sa}
        if not self._sas[key]:
            del self._sas[key]
        self._count -= 1
        source = _source(key[1])
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]


def _digest(request: bytes) -> bytes:
    return hashlib.sha256(request).digest()


def _source(remote: Address) -> bytes | str:
    return ipaddress.ip_address(remote.host).packed[:_IPV6_SITE_OCTETS] if remote.is_ipv6 else remote.host
