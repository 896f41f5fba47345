"""EAP (RFC 3748): its packets, one file a method, and the session that carries them inside IKE_AUTH."""

from ikeway.eap.session import EapAuthenticator, EapPeer

__all__ = ["EapAuthenticator", "EapPeer"]
