"""How a peer proves who it is: a shared key, a certificate, EAP; and how we prove it (RFC 7296 section 2.15)."""
