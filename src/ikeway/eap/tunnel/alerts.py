"""TLS alerts in words (RFC 8446 section 6, RFC 5246 section 7.2): what the other end, or OpenSSL here, complains of."""

from __future__ import annotations

from ikeway.eap.errors import TlsFailed
from ikeway.errors import Side

# As OpenSSL names an alert: what it means of us, and what to do about it. {own}: our certificate.
_ALERTS: dict[str, tuple[str, str]] = {
    "unknown ca": (
        "does not trust the CA of {own}",
        "have it trust the CA that issued {own}, or send the intermediate certificates too",
    ),
    "bad certificate": ("finds {own} wrong", "see the other side's log for what is wrong with {own}"),
    "unsupported certificate": ("cannot use {own}", "use another kind of certificate: {own} has the wrong key or use"),
    "certificate revoked": ("says that {own} is revoked", "have a new certificate issued"),
    "certificate expired": ("says that {own} has expired", "renew {own}, and see whether the clock there is right"),
    "certificate unknown": ("refuses {own}", "see the other side's log for what is wrong with {own}"),
    "certificate required": ("demands a certificate and got none", "configure {own} and its key"),
    "access denied": ("accepts {own} but denies access", "have the owner of {own} permitted there"),
    "unknown psk identity": ("knows nothing of the session we resumed", "try again: the log-in is then a full one"),
    "handshake failure": (
        "finds no parameters that both sides take",
        "allow ciphers, curves and certificates that both sides have, and see whether a certificate is missing",
    ),
    "insufficient security": ("finds our parameters too weak", "allow stronger ciphers here or weaker ones there"),
    "protocol version": ("does not speak our versions of TLS", "allow TLS 1.2 or 1.3 on both sides"),
    "decrypt error": ("could not check a signature or a Finished", "see whether certificate and key belong together"),
    "internal error": ("has a fault of its own", "see the other side's log"),
    "user canceled": ("was stopped by its user", "try again"),
    "no certificate": ("demands a certificate and got none", "configure {own} and its key"),
}

# What OpenSSL says here, where that is not plain.
_OURS: dict[str, tuple[str, str]] = {
    "peer did not return a certificate": (
        "the client sent no certificate",
        "configure a certificate on the client, or a method that wants none",
    ),
    "no shared cipher": ("no cipher in common with the other end", "allow modern ciphers (ECDHE with AES-GCM) there"),
    "unsupported protocol": ("the other end speaks only old versions of TLS", "allow TLS 1.2 or 1.3 there"),
    "wrong version number": ("what came is no TLS", "see whether both sides mean the same EAP method"),
    "packet length too long": ("what came is no TLS", "see whether both sides mean the same EAP method"),
    "no suitable signature algorithm": (
        "the other end cannot check signatures of our certificate's kind",
        "use a certificate of another kind: RSA or ECDSA P-256",
    ),
    "certificate verify failed": ("the certificate of the other end was refused", "see the log"),
    "ca md too weak": ("a certificate in our chain has a digest that OpenSSL refuses", "have it issued anew"),
}


def explain(reasons: list[str], *, own: str) -> TlsFailed:
    """The error for what OpenSSL's queue holds, the oldest first. `own`: what our certificate is called."""
    for reason in reasons:
        words = reason.lower()
        _, alert, what = words.partition(" alert ")
        if alert:
            return _told(what.replace("_", " "), own)
    for reason in reasons:
        known = _OURS.get(reason.lower())
        if known is not None:
            return TlsFailed(known[0], got=reason, side=Side.PEER, remedy=known[1])
    if not reasons:  # an alert without a name: close_notify as an error, as strongSwan sends it
        return TlsFailed(
            "the other end broke TLS off and gave no reason", expected="the log-in to go on", remedy="see its log"
        )
    said = ", ".join(reasons)
    return TlsFailed("TLS broke off here", expected="a message that fits", got=said, side=Side.BOTH)


def _told(alert: str, own: str) -> TlsFailed:
    known = _ALERTS.get(alert)
    if known is None:
        return TlsFailed(
            "the other end broke TLS off", got=f"alert {alert}", side=Side.BOTH, remedy="see the other side's log"
        )
    meaning, remedy = (text.format(own=own) for text in known)
    return TlsFailed(f"the other end {meaning}", got=f"TLS alert {alert}", side=Side.BOTH, remedy=remedy)
