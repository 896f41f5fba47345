"""The octets that AUTH covers, and AUTH made with a key both sides know (RFC 7296 sections 2.15 and 2.16)."""

from __future__ import annotations

from collections.abc import Callable

Prf = Callable[[bytes, bytes], bytes]

KEY_PAD = b"Key Pad for IKEv2"


def signed_octets(
    message: bytes, peer_nonce: bytes, prf: Prf, sk_p: bytes, id_body: bytes, intermediate: bytes = b""
) -> bytes:
    """Octets signed by one side: its first message, the other's nonce, its MACed identity (RFC 7296 section 2.15).

    `message` is the whole IKE_SA_INIT message that the signer sent (the last one, when there were several), `sk_p` and
    `id_body` (the ID payload without its generic header) are the signer's. `intermediate` is IntAuth of RFC 9242.
    """
    return message + peer_nonce + prf(sk_p, id_body) + intermediate


def psk_mac(prf: Prf, secret: bytes, signed: bytes) -> bytes:
    """AUTH by a shared secret: prf(prf(secret, "Key Pad for IKEv2"), signed octets)."""
    return prf(prf(secret, KEY_PAD), signed)


def eap_mac(prf: Prf, msk_or_sk_p: bytes, signed: bytes) -> bytes:
    """AUTH after EAP (RFC 7296 section 2.16): with the method's MSK, or with the sender's SK_p when it has none."""
    return psk_mac(prf, msk_or_sk_p, signed)
