"""Keys out of the tunnel: EAP-TLS, TTLS and PEAP (RFC 5216 section 2.3, RFC 5281 section 8, RFC 9190, RFC 9427)."""

from __future__ import annotations

from dataclasses import dataclass, field

from ikeway.eap.packet import EapType
from ikeway.eap.tunnel.channel import Channel

MSK_OCTETS = 64
_LABELS = {
    EapType.TLS: b"client EAP encryption",
    EapType.PEAP: b"client EAP encryption",
    EapType.TTLS: b"ttls keying material",
}


@dataclass(frozen=True, slots=True)
class TunnelKeys:
    """What both ends take from TLS: the MSK, and the EMSK, which nothing in IKE uses but which must not be the MSK."""

    msk: bytes = field(repr=False)
    emsk: bytes = field(repr=False)

    @property
    def material(self) -> bytes:
        """Key_Material: 128 octets."""
        return self.msk + self.emsk


def derive(channel: Channel, method: EapType) -> TunnelKeys:
    """Derive the keys of a method; the type octet is the context with TLS 1.3 (RFC 9190 section 2.3, RFC 9427 2.1).

    With TLS 1.2 the exporter without a context is the PRF over the label and both randoms that RFC 5216 writes out.
    """
    if channel.is_tls13:
        material = channel.export(b"EXPORTER_EAP_TLS_Key_Material", 2 * MSK_OCTETS, bytes((method,)))
    else:
        material = channel.export(_LABELS[method], 2 * MSK_OCTETS)
    return TunnelKeys(material[:MSK_OCTETS], material[MSK_OCTETS:])
